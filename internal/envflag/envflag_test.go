package envflag_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"simple-oauth2/internal/envflag"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, args, env string // env is NAME=value, separated by spaces
		want            time.Duration
		on              bool
		err             string
	}{
		{"neither", "", "", time.Minute, false, ""},
		{"the flag", "-token-ttl 2m", "", 2 * time.Minute, false, ""},
		{"the environment", "", "APP_TOKEN_TTL=3m APP_ON=true", 3 * time.Minute, true, ""},
		{"the flag wins", "-token-ttl 2m", "APP_TOKEN_TTL=3m", 2 * time.Minute, false, ""},
		{"the flag wins over nonsense", "-token-ttl 2m", "APP_TOKEN_TTL=soon", 2 * time.Minute, false, ""},
		{"empty in the environment", "", "APP_TOKEN_TTL=", 0, false, `invalid value "" for APP_TOKEN_TTL: parse error`},
		{"an empty flag", "-token-ttl=", "", 0, false, `invalid value "" for flag -token-ttl: parse error`},
		{"an empty text in the environment", "", "APP_FILE=", 0, false, "APP_FILE is empty: give it a value, or unset it"},
		{"an empty text in a flag", "-file=", "", 0, false, "-file is empty: give it a value, or leave it out"},
		{"an empty text in a flag whose variable is set", "-file=", "APP_FILE=a", 0, false,
			"-file is empty: give it a value, or leave it out"},
		{"the flag wins over an empty text", "-file=a", "APP_FILE=", time.Minute, false, ""},
		{"the last flag counts", "-file= -file=a", "", time.Minute, false, ""},
		{"empty where that is nothing", "-list=", "APP_LIST=", time.Minute, false, ""},
		{"empty where that is nothing, in the environment", "", "APP_LIST=", time.Minute, false, ""},
		{"a variable that has no flag, empty", "", "APP_SECRET=", 0, false,
			"APP_SECRET is empty: give it a value, or unset it"},
		{"another prefix", "", "OTHER_TOKEN_TTL=3m TOKEN_TTL=3m", time.Minute, false, ""},
		{"nonsense in the environment", "", "APP_TOKEN_TTL=soon", 0, false, `invalid value "soon" for APP_TOKEN_TTL: parse error`},
		{"nonsense in a flag", "-token-ttl soon", "", 0, false, `invalid value "soon" for flag -token-ttl: parse error`},
		{"an unknown flag", "-nope", "", 0, false, "unknown flag -nope (-h lists the flags)"},
		{"a misspelled flag", "-token-tl 2m", "", 0, false, "unknown flag -token-tl, did you mean -token-ttl? (-h lists the flags)"},
		{"a misspelled flag behind two hyphens, with its value", "--TokenTTL=2m", "", 0, false, "unknown flag -TokenTTL, did you mean -token-ttl? (-h lists the flags)"},
		{"a variable that has no flag", "-secret a", "", 0, false, "unknown flag -secret: set APP_SECRET in the environment instead"},
		{"an argument", "-token-ttl 2m serve", "", 0, false, `unknown argument "serve" (-h lists the flags)`},
		{"an argument alone", "serve", "", 0, false, `unknown argument "serve" (-h lists the flags)`},
		{"an argument before a flag", "serve -on", "", 0, false, `unknown argument "serve" (-h lists the flags)`},
		{"the value of a flag that is on or off", "-on no", "", 0, false, `unknown argument "no" (-on is written -on=true or -on=false)`},
		{"the same with two hyphens", "--on false", "", 0, false, `unknown argument "false" (-on is written -on=true or -on=false)`},
		{"help", "-h", "", 0, false, "flag: help requested"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			flags.SetOutput(io.Discard)
			ttl, on := flags.Duration("token-ttl", time.Minute, ""), flags.Bool("on", false, "")
			flags.String("file", "", "")
			flags.Func("list", "", func(string) error { return nil })
			env := envflag.Env{Prefix: "APP_", Environ: strings.Fields(tt.env)}
			env.Get("APP_SECRET")
			err := env.Parse(flags, strings.Fields(tt.args))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %s", err, tt.err)
				}
			} else if err != nil || *ttl != tt.want || *on != tt.on {
				t.Errorf("%v, %v, %v; want %v, %v", *ttl, *on, err, tt.want, tt.on)
			}
		})
	}
}

// TestBlame checks that an error of a file names what the file's name came from.
func TestBlame(t *testing.T) {
	_, missing := os.Open("users.json ")
	for _, tt := range []struct {
		name, args, env string
		err             error
		want            string
	}{
		{name: "the flag", args: "-file=a", err: missing, want: `-file: open "users.json ": no such file or directory`},
		{name: "the environment", env: "APP_FILE=a", err: missing,
			want: `APP_FILE: open "users.json ": no such file or directory`},
		{name: "both", args: "-file=a", env: "APP_FILE=a", err: missing,
			want: `-file: open "users.json ": no such file or directory`},
		{name: "neither", err: errors.New("broken"), want: `-file: broken`},
		{name: "what is in the file", env: "APP_FILE=a", err: errors.New("a: broken"), want: `APP_FILE: a: broken`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			flags.String("file", "default", "")
			env := envflag.Env{Prefix: "APP_", Environ: strings.Fields(tt.env)}
			if err := env.Parse(flags, strings.Fields(tt.args)); err != nil {
				t.Fatal(err)
			}
			err := env.Blame("file", tt.err)
			if err.Error() != tt.want || errors.Is(err, os.ErrNotExist) != (tt.err == missing) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// TestUnknown sets variables that are not read. Those that somebody probably meant
// for the program are errors.
func TestUnknown(t *testing.T) {
	const none = "none" // it is like no other
	for _, tt := range []struct{ env, meant string }{
		{env: "APP_ADR", meant: "APP_ADDR"},
		{env: "APP_USER", meant: "APP_USERS"},
		{env: "APP_USRES", meant: none},
		{env: "APP_USERS_FILE", meant: "APP_USERS"},
		{env: "APP_TOKENTTL", meant: "APP_TOKEN_TTL"},
		{env: "APP_TTL", meant: "APP_TOKEN_TTL"},
		{env: "APP_TRUSTED_PROXY", meant: "APP_TRUSTED_PROXIES"},
		{env: "APP_PROXIES", meant: "APP_TRUSTED_PROXIES"},
		{env: "APP_CERT", meant: "APP_TLS_CERT"},
		{env: "APP_TOKEN_FILE", meant: "APP_TOKENS_FILE"},
		{env: "APP_ETCD_PASSWD", meant: "APP_ETCD_PASSWORD"},
		{env: "APP_STORE", meant: none},
		{env: "APP_", meant: none},
		{env: "app_addr", meant: "APP_ADDR"},
		{env: "App_Users", meant: "APP_USERS"},
		{env: "APP-USERS", meant: "APP_USERS"},
		{env: "APP.USERS", meant: "APP_USERS"},
		{env: "APPUSERS", meant: "APP_USERS"},
		{env: "A_PP_USERS", meant: "APP_USERS"},
		{env: "APP_USERS ", meant: "APP_USERS"},
		{env: "\ufeffAPP_USERS", meant: "APP_USERS"},
		{env: "AP_USERS", meant: "APP_USERS"},
		{env: "4PP_USERS", meant: "APP_USERS"},
		{env: "APP_ADDR"},
		{env: "APP_ETCD_PASSWORD"},
		{env: "APP_PROXY_TLS_CERT"},
		{env: "ADDR"},
		{env: "USERS"},
		{env: "MY_USERS"},
	} {
		t.Run(tt.env, func(t *testing.T) {
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			for _, name := range strings.Fields("addr users token-ttl trusted-proxies tls-cert tls-key etcd-cert tokens-file") {
				flags.String(name, "", "")
			}
			env := envflag.Env{Prefix: "APP_", Others: "APP_PROXY_", Environ: []string{tt.env + "=secret"}}
			env.Get("APP_ETCD_PASSWORD")
			err := env.Parse(flags, nil)
			want := fmt.Sprintf("unknown environment variable %q, did you mean %s? If not, unset it", tt.env, tt.meant)
			switch tt.meant {
			case "":
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			case none:
				want = fmt.Sprintf("unknown environment variable %q: unset it (-h lists the flags, and each has a variable)",
					tt.env)
			}
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// TestServiceLinks sets what Kubernetes sets for Services called app and app-users.
func TestServiceLinks(t *testing.T) {
	var environ []string
	for _, service := range []string{"APP", "APP_USERS"} {
		for _, name := range []string{"SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP",
			"PORT_80_TCP_PROTO", "PORT_80_TCP_PORT", "PORT_80_TCP_ADDR", "PORT_53_UDP_ADDR"} {
			environ = append(environ, service+"_"+name+"=10.0.0.1")
		}
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.String("addr", "", "")
	flags.String("users", "", "")
	env := envflag.Env{Prefix: "APP_", Environ: environ}
	if err := env.Parse(flags, nil); err != nil {
		t.Error(err)
	}
	var log strings.Builder
	if env.Warn(slog.New(slog.NewTextHandler(&log, nil))); strings.Count(log.String(), "\n") != len(environ) {
		t.Errorf("logged %s", &log)
	}
}
