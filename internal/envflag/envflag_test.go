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
		{"empty is unset", "", "APP_TOKEN_TTL=", time.Minute, false, ""},
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
			env := envflag.Env{Prefix: "APP_", Getenv: func(name string) string {
				for _, pair := range strings.Fields(tt.env) {
					if value, ok := strings.CutPrefix(pair, name+"="); ok {
						return value
					}
				}
				return ""
			}}
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

func TestWarn(t *testing.T) {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	for _, name := range []string{"addr", "users", "token-ttl", "trusted-proxies", "tls-cert", "tls-key", "etcd-cert", "tokens-file"} {
		flags.String(name, "", "")
	}
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
		{"APP_ETCD_PASWORD", "APP_ETCD_PASSWORD"},
		{"app_addr", "APP_ADDR"},
		{"APP_PORT", "none"},
		{"APP_SERVICE_HOST", "none"},
		{"APP_", "none"},
		{"APP_ADDR", ""},
		{"APP_ETCD_PASSWORD", ""},
		{"APPLE", ""},
		{"ADDR", ""},
	} {
		t.Run(tt.env, func(t *testing.T) {
			env := envflag.Env{Prefix: "APP_", Getenv: func(string) string { return "" }}
			env.Get("APP_ETCD_PASSWORD")
			if err := env.Parse(flags, nil); err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			env.Warn(slog.New(slog.NewTextHandler(&log, nil)), []string{"APP_USERS=secret", tt.env + "=secret"})
			want := map[string]string{"": "", "none": "name=" + tt.env + "\n"}
			pattern, ok := want[tt.meant]
			if !ok {
				pattern = "name=" + tt.env + " meant=" + tt.meant + "\n"
			}
			if got := log.String(); !strings.HasSuffix(got, pattern) || pattern == "" && got != "" || strings.Contains(got, "secret") {
				t.Errorf("logged %q, want %q", got, pattern)
			}
		})
	}
}
