// Simple-oauth2 is the service of FastAPI's tutorial "Simple OAuth2 with
// Password and Bearer": a client sends a username and a password as a form, gets
// a bearer token, and uses the token to reach what is protected.
//
//	POST /token       a form with username and password → a bearer token
//	GET  /users/me    the current active user
//	POST /revoke      ends a token (RFC 7009)
//	POST /introspect  tells another service what a token stands for (RFC 7662)
//	     /auth        tells a gateway whether a request may pass
//	     /login       lets a person in with a browser, if it is on; /logout, out
//	GET  /healthz     whether the service is ready; /livez, whether it is running
//	GET  /docs        all of it in a browser; /openapi.json describes it
//
// The program is three files, to be read in this order: users.go, the users
// and their hashed passwords; oauth2.go, the protocol; main.go, which puts them
// together.
//
//	simple-oauth2 [flags]                serves until SIGINT or SIGTERM; SIGHUP reloads its files at once
//	simple-oauth2 user COMMAND [NAME]    adds, changes, logs out, lists or checks users; user -h says how
//	simple-oauth2 hash [-cost N]         prints the bcrypt hash of the password on standard input
//	simple-oauth2 healthcheck [flags]    exits with 0 if the service of these flags is healthy
//	simple-oauth2 -version               prints the version of the program
package main

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/background"
	"simple-oauth2/internal/clientaddr"
	"simple-oauth2/internal/clientauth"
	"simple-oauth2/internal/cors"
	"simple-oauth2/internal/envflag"
	"simple-oauth2/internal/form"
	"simple-oauth2/internal/gateway"
	"simple-oauth2/internal/loginpage"
	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/metrics"
	"simple-oauth2/internal/router"
	"simple-oauth2/internal/serving"
	"simple-oauth2/internal/swaggerui"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/tokens/etcd"
	tokensfile "simple-oauth2/internal/tokens/file"
	"simple-oauth2/internal/usercmd"
	"simple-oauth2/internal/usersfile"
	"simple-oauth2/internal/version"
	"simple-oauth2/internal/watch"
)

const (
	tokenPath = "/token"
	guardPath = "/auth" // and every path below it, for gateways
)

// routes is the whole service: each path, and what its handler depends on.
func routes(a *auth, pages []swaggerui.Page) []router.Route {
	list := []router.Route{
		a.protocol("POST", tokenPath, depends(a.forms.PasswordRequest, a.login)),
		a.resource("GET", "/users/me", depends(a.currentActiveUser, readUsersMe)),
		a.protocol("POST", "/revoke", depends(a.forms.TokenRequest, a.revoke)),
		a.protocol("POST", "/introspect", depends(a.tokenInQuestion, a.introspect)),
		{Path: guardPath, Handler: gateway.Handler(a.handler(depends(a.guarded, tellGateway), false))},
		a.resource("GET", "/healthz", depends(a.health, healthz)),
		a.resource("GET", "/livez", func(w http.ResponseWriter, r *http.Request) error { return healthz(w, r, "") }),
	}
	if a.page.On {
		page := a.page.New(a.entrance())
		list = append(list,
			a.resource("GET", loginpage.Path, page.Show),
			a.resource("POST", loginpage.Path, page.Enter),
			a.resource("POST", loginpage.LogoutPath, page.Leave))
	}
	for _, page := range pages {
		list = append(list, a.resource("GET", page.Path, page.Answer))
	}
	return list
}

//go:embed docs/openapi.json docs/page.html docs/page.css docs/page.js
var docs embed.FS

// health is what is wrong, in words, once the token store is up.
func (a *auth) health(*http.Request) (lacks string, err error) {
	up, lacks := a.tokens.Status()
	if !up {
		return "", tokens.ErrUnavailable
	}
	return a.files.Lacks(lacks), nil
}

func healthz(w http.ResponseWriter, _ *http.Request, lacks string) error {
	answer.JSON(w, http.StatusOK, struct {
		Status string `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{"ok", lacks})
	return nil
}

// newHandler answers the routes, and any other path with errNotFound.
func newHandler(a *auth, pages []swaggerui.Page) http.Handler {
	routed := router.New(a.handler(refuse(errNotFound), false), routes(a, pages))
	return a.admission.Notice(routed, tokenPath, loginpage.Path)
}

// config is what the flags and the environment say.
type config struct {
	listen      serving.Config
	users       string
	tokenTTL    time.Duration
	maxFailures int
	proxies     clientaddr.Proxies
	corsOrigins cors.Origins
	docs        swaggerui.Config
	login       loginpage.Config
	tokensFile  tokensfile.Config
	etcd        etcd.Config
	logs        logs.Config
	metrics     metrics.Config
	env         envflag.Env
}

// parseConfig reads the flags and, for those not given, their variables in the
// environment: OAUTH2_TOKEN_TTL for -token-ttl. If -h is given, it writes the
// usage to help and returns flag.ErrHelp.
func parseConfig(args, environ []string, help io.Writer) (config, error) {
	cfg := config{env: envflag.Env{Prefix: "OAUTH2_", Others: "OAUTH2_PROXY_", Environ: environ}} // oauth2-proxy's
	flags := flag.NewFlagSet("simple-oauth2", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints an error, in one line
	cfg.listen.Flags(flags)
	flags.StringVar(&cfg.users, "users", "", "JSON `file` of the users (default the tutorial's two)")
	tokens.TTLFlag(flags, &cfg.tokenTTL)
	admission.Flag(flags, &cfg.maxFailures)
	flags.Var(&cfg.proxies, "trusted-proxies", "`addresses` and CIDR ranges of proxies, separated by commas, whose X-Forwarded-For is trusted")
	flags.Var(&cfg.corsOrigins, "cors-origins", "`origins`, separated by commas, whose pages may use the service; * for any, but without credentials")
	cfg.docs.Flags(flags)
	cfg.login.Flags(flags)
	cfg.tokensFile.Flags(flags)
	cfg.etcd.Flags(flags, cfg.env.Get)
	cfg.logs.Flags(flags)
	cfg.metrics.Flags(flags)

	err := cfg.env.Parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(help, "usage: simple-oauth2 [flags] | user COMMAND | hash [-cost N] | healthcheck [flags] | -version\n",
			"Each flag can also be set in the environment: OAUTH2_TOKEN_TTL for -token-ttl. The flag wins.\n")
		flags.SetOutput(help)
		flags.PrintDefaults()
	}
	err = cmp.Or(err, cfg.listen.Check(), cfg.etcd.Check(), cfg.login.Check())
	if err == nil && cfg.tokensFile.On() && cfg.etcd.On() {
		err = errors.New("-tokens-file and -etcd cannot be used together")
	}
	return cfg, err
}

// run is the program: it serves with the settings in args and the environment
// until ctx ends. It returns nil once the in-flight requests are answered.
func run(ctx context.Context, args, environ []string, stderr io.Writer) error {
	onlyAsk := len(args) > 0 && args[0] == "healthcheck"
	if onlyAsk {
		args = args[1:]
	}
	cfg, err := parseConfig(args, environ, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if onlyAsk {
		return serving.Healthcheck(ctx, cfg.listen.Addr)
	}
	return serve(ctx, cfg, cfg.logs.New(stderr))
}

// serve listens, loads what it needs, and serves until ctx ends.
func serve(ctx context.Context, cfg config, log *slog.Logger) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // which would end the program otherwise
	defer signal.Stop(hangup)
	server, err := serving.Listen(cfg.listen, log)
	if err != nil {
		return err
	}
	defer server.Close()
	counts := metrics.New(cfg.metrics)
	if err := counts.Listen(log); err != nil {
		return err
	}
	defer counts.Close()
	log.Info("starting", version.Attr(), "url", server.URL(), cfg.docs.Attr(server.URL()))
	cfg.env.Warn(log)
	cfg.proxies.Warn(log)

	files, people := watch.New(log), &users{file: cfg.users, log: log}
	if err := files.Add("certificate", server.Pair.Load, cfg.listen.Cert, cfg.listen.Key); err != nil {
		return err
	}
	if err := files.Add("users", people.load, cfg.users); err != nil {
		return cfg.env.Blame("users", err)
	}
	pages, err := cfg.docs.Pages(docs, cfg.users == "", people.scopes)
	if err != nil {
		return err
	}
	store, err := openStore(ctx, cfg, log)
	if err != nil {
		return err
	}

	passwords := admission.New(cfg.maxFailures, time.Now)
	a := &auth{
		users:     people,
		tokens:    store,
		tokenTTL:  cfg.tokenTTL,
		now:       time.Now,
		admission: passwords,
		addresses: &clientaddr.Clients{Proxies: cfg.proxies, Log: log},
		forms:     form.NewReader(),
		files:     files,
		clients:   clientauth.New(log, passwords, people.find, people.authenticate, (*storedUser).client),
		page:      cfg.login,
		log:       log,
	}
	handler := cfg.corsOrigins.Handler(newHandler(a, pages), guardPath, log)
	handler = counts.Requests(handler, routes(a, pages))
	log.Info("listening", "addr", server.Addr(), "tls", cfg.listen.TLS(), "token_ttl", cfg.tokenTTL)

	tasks := background.New(ctx)
	defer tasks.Stop()
	tasks.Go(store.Run)
	tasks.Go(func(ctx context.Context) { files.Run(ctx, hangup) })
	tasks.Go(func(ctx context.Context) {
		counts.Serve(ctx, metrics.Sources{
			Counts: &a.counts, Admission: passwords, Store: store, Loaded: files.Loaded, Certificate: server.Pair.End,
		})
	})
	tasks.Every(time.Hour, server.Pair.WarnOfEnd)
	tasks.Every(10*time.Second, func() { passwords.LogRefused(log) })
	served := make(chan error, 1)
	go func() { served <- server.Serve(handler) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		log.Info("stopping")
		server.Stop()
		passwords.LogRefused(log)
		log.Info("stopped")
		return nil
	}
}

// openStore opens where the tokens are kept. Its Run closes it.
func openStore(ctx context.Context, cfg config, log *slog.Logger) (tokens.Store, error) {
	switch {
	case cfg.tokensFile.On():
		return tokensfile.Open(cfg.tokensFile, log)
	case cfg.etcd.On():
		return etcd.New(ctx, cfg.etcd, log)
	}
	return &tokens.Memory{Now: time.Now}, nil
}

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "hash":
		err = usersfile.Hash(os.Args[2:], os.Stdin, os.Stdout, os.Stderr)
	case len(os.Args) > 1 && os.Args[1] == "user":
		err = usercmd.Run(os.Args[2:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	case version.Asked(os.Args[1:]):
		fmt.Println(version.Line())
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second signal ends the program at once
		err = run(ctx, os.Args[1:], os.Environ(), os.Stderr)
	}
	if err != nil {
		logs.Exit(err)
	}
}
