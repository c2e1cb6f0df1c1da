package envflag_test

import (
	"flag"
	"io"
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
		{"empty is not there", "", "APP_TOKEN_TTL=", time.Minute, false, ""},
		{"another prefix", "", "OTHER_TOKEN_TTL=3m TOKEN_TTL=3m", time.Minute, false, ""},
		{"nonsense in the environment", "", "APP_TOKEN_TTL=soon", 0, false, `invalid value "soon" for APP_TOKEN_TTL: parse error`},
		{"nonsense in a flag", "-token-ttl soon", "", 0, false, `invalid value "soon" for flag -token-ttl: parse error`},
		{"an unknown flag", "-nope", "", 0, false, "flag provided but not defined: -nope"},
		{"an argument", "-on serve", "", 0, false, `unknown argument "serve"`},
		{"help", "-h", "", 0, false, "flag: help requested"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			flags.SetOutput(io.Discard)
			ttl, on := flags.Duration("token-ttl", time.Minute, ""), flags.Bool("on", false, "")
			err := envflag.Parse(flags, "APP_", strings.Fields(tt.args), func(name string) string {
				for _, pair := range strings.Fields(tt.env) {
					if value, ok := strings.CutPrefix(pair, name+"="); ok {
						return value
					}
				}
				return ""
			})
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
