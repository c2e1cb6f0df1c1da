package envflag_test

import (
	"flag"
	"io"
	"log/slog"
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
		{"an empty text in a flag beside its twin", "-file=", "APP_FILE=a", 0, false,
			"-file is empty: give it a value, or leave it out"},
		{"the flag wins over an empty text", "-file=a", "APP_FILE=", time.Minute, false, ""},
		{"the last flag counts", "-file= -file=a", "", time.Minute, false, ""},
		{"empty where that is nothing", "-list=", "APP_LIST=", time.Minute, false, ""},
		{"empty where that is nothing, in the environment", "", "APP_LIST=", time.Minute, false, ""},
		{"a variable that has no flag, empty", "", "APP_SECRET=", time.Minute, false, ""},
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

// TestUnknown sets variables that are not read. One that is like another is an
// error, unless that is set too; then it is a warning, as for one that is like none.
func TestUnknown(t *testing.T) {
	for _, tt := range []struct{ env, meant string }{
		{"APP_ADR", "APP_ADDR"},
		{"APP_USER", "APP_USERS"},
		{"APP_USERS_FILE", "APP_USERS"},
		{"APP_TOKENTTL", "APP_TOKEN_TTL"},
		{"APP_TTL", "APP_TOKEN_TTL"},
		{"APP_TRUSTED_PROXY", "APP_TRUSTED_PROXIES"},
		{"APP_PROXIES", "APP_TRUSTED_PROXIES"},
		{"APP_CERT", "APP_TLS_CERT"},
		{"APP_TOKEN_FILE", "APP_TOKENS_FILE"},
		{"APP_ETCD_PASSWD", "APP_ETCD_PASSWORD"},
		{"app_addr", "APP_ADDR"},
		{"APP_PORT", "none"},
		{"APP_SERVICE_HOST", "none"},
		{"APP_", "none"},
		{"APP_ADDR", ""},
		{"APP_ETCD_PASSWORD", ""},
		{"APP_PROXY_TLS_CERT", ""},
		{"APPLE", ""},
		{"ADDR", ""},
	} {
		t.Run(tt.env, func(t *testing.T) {
			parse := func(args []string, environ ...string) (logged string, err error) {
				flags := flag.NewFlagSet("", flag.ContinueOnError)
				for _, name := range strings.Fields("addr users token-ttl trusted-proxies tls-cert tls-key etcd-cert tokens-file") {
					flags.String(name, "", "")
				}
				env := envflag.Env{Prefix: "APP_", Others: "APP_PROXY_", Environ: environ}
				env.Get("APP_ETCD_PASSWORD")
				err = env.Parse(flags, args)
				var log strings.Builder
				env.Warn(slog.New(slog.NewTextHandler(&log, nil)))
				return log.String(), err
			}
			logged, err := parse(nil, tt.env+"=secret")
			switch tt.meant {
			case "", "none":
				told := strings.HasSuffix(logged, " name="+tt.env+"\n")
				if err != nil || told != (tt.meant == "none") || !told && logged != "" {
					t.Errorf("error %v, logged %q", err, logged)
				}
				return
			}
			want := "unknown environment variable " + tt.env + ", did you mean " + tt.meant + "? If not, unset it, or set " +
				tt.meant + " too"
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			ways := [][]string{{tt.meant + "=b"}}
			if tt.meant != "APP_ETCD_PASSWORD" {
				ways = append(ways, nil) // set by its flag
			}
			for _, also := range ways {
				var args []string
				if also == nil {
					args = []string{"-" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(tt.meant, "APP_"), "_", "-")), "b"}
				}
				logged, err = parse(args, append(also, tt.env+"=secret")...)
				told := strings.HasSuffix(logged, " name="+tt.env+" meant="+tt.meant+"\n")
				if err != nil || !told || strings.Contains(logged, "secret") {
					t.Errorf("beside %s%s: error %v, logged %q", also, args, err, logged)
				}
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
