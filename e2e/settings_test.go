package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ended runs the program until it ends by itself. It returns the error that the
// program tells last, or the help, and what it logged before.
func ended(t *testing.T, args string, env ...string) (says, logged string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, program, strings.Fields(args)...)
	command.Env = append([]string{"HOME=" + t.TempDir()}, env...)
	out, err := command.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("it does not end:\n%s", out)
	}
	if err == nil {
		return string(out), ""
	}
	text := strings.TrimSuffix(string(out), "\n")
	last := strings.LastIndex(text, "\n") + 1
	if plain, is := strings.CutPrefix(text[last:], "simple-oauth2: "); is {
		return plain, text[:last]
	}
	_, quoted, _ := strings.Cut(text[last:], ` level=ERROR msg=exiting error=`)
	if says, err = strconv.Unquote(quoted); err != nil {
		t.Errorf("it does not end with an error:\n%s", out)
	}
	return says, text[:last]
}

// beforeAnError matches the log of a start that failed: what was loaded, if anything.
var beforeAnError = regexp.MustCompile(`^(\S+ level=INFO msg=(starting|"users loaded") .*\n|\S+ level=WARN .*\n)*$`)

// TestSettings gives a wrong flag or variable to the program, which ends with an
// error that names it.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	pair, garbage := write("pair.pem", certificate(t, 1)), write("garbage.pem", []byte("garbage"))
	unhashed := write("users.json", []byte(`{"johndoe": {}}`))
	taken := start(t)
	const (
		ttl      = "must be a duration such as 30m or 8h, in whole seconds, from 1s to 87600h (ten years)"
		hostPort = " (write it as host:port, or :port for all addresses)"
		noRange  = " is neither an address nor a range such as 10.0.0.0/8"
	)
	for _, tt := range []struct{ name, args, env, says string }{
		{name: "unknown flag", args: "-nope", says: "unknown flag -nope (-h lists the flags)"},
		{name: "unknown command", args: "serve", says: `unknown argument "serve" (-h lists the flags)`},
		{name: "address without a port", args: "-addr localhost",
			says: "-addr: listen tcp: address localhost: missing port in address" + hostPort},
		{name: "address with a bad port", args: "-addr 127.0.0.1:99999",
			says: "-addr: listen tcp: address 99999: invalid port" + hostPort},
		{name: "address from the environment", env: "OAUTH2_ADDR=localhost",
			says: "-addr: listen tcp: address localhost: missing port in address" + hostPort},
		{name: "the flag wins", args: "-addr flag", env: "OAUTH2_ADDR=env",
			says: "-addr: listen tcp: address flag: missing port in address" + hostPort},
		{name: "ttl no duration", args: "-token-ttl soon",
			says: `invalid value "soon" for flag -token-ttl: ` + ttl},
		{name: "ttl too long", args: "-token-ttl 2500000h",
			says: `invalid value "2500000h" for flag -token-ttl: ` + ttl},
		{name: "ttl from the environment", env: "OAUTH2_TOKEN_TTL=soon",
			says: `invalid value "soon" for OAUTH2_TOKEN_TTL: ` + ttl},
		{name: "max-failures negative", args: "-max-failures -1",
			says: `invalid value "-1" for flag -max-failures: it must be a whole number from 0 to 1000000`},
		{name: "shutdown-delay negative", env: "OAUTH2_SHUTDOWN_DELAY=-1s",
			says: `invalid value "-1s" for OAUTH2_SHUTDOWN_DELAY: it must be a duration such as 10s, 0 or more`},
		{name: "trusted proxy malformed", args: "-trusted-proxies 10.0.0.0/8,proxy",
			says: `invalid value "10.0.0.0/8,proxy" for flag -trusted-proxies: "proxy"` + noRange},
		{name: "trusted range malformed", env: "OAUTH2_TRUSTED_PROXIES=10.0.0.0/33",
			says: `invalid value "10.0.0.0/33" for OAUTH2_TRUSTED_PROXIES: "10.0.0.0/33"` + noRange},
		{name: "origin with a path", args: "-cors-origins https://a.example/",
			says: `invalid value "https://a.example/" for flag -cors-origins: "https://a.example/" ` +
				`is not an origin as browsers send it, did you mean https://a.example?`},
		{name: "origin without a scheme", env: "OAUTH2_CORS_ORIGINS=a.example",
			says: `invalid value "a.example" for OAUTH2_CORS_ORIGINS: "a.example" ` +
				`is not an origin such as https://app.example.com`},
		{name: "docs assets missing", args: "-addr 127.0.0.1:0 -docs-assets " + dir,
			says: "-docs-assets: open " + dir + "/swagger-ui-bundle.js: no such file or directory"},
		{name: "etcd's certificate alone", args: "-etcd https://127.0.0.1:1 -etcd-cert a",
			says: "-etcd-cert and -etcd-key go together: give both or neither"},
		{name: "etcd's user and no etcd", env: "OAUTH2_ETCD_USER=a",
			says: "-etcd-ca, -etcd-cert or OAUTH2_ETCD_USER is set, but -etcd is not"},
		{name: "etcd's prefix and no etcd", args: "-etcd-prefix /a/",
			says: "-etcd-prefix is set, but -etcd is not"},
		{name: "etcd's password file and no user", args: "-etcd http://127.0.0.1:1",
			env:  "OAUTH2_ETCD_PASSWORD_FILE=a",
			says: "OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"},
		{name: "etcd's password and no user", args: "-etcd http://127.0.0.1:1", env: "OAUTH2_ETCD_PASSWORD=a",
			says: "OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"},
		{name: "etcd's user and no password", args: "-etcd http://127.0.0.1:1",
			env:  "OAUTH2_ETCD_USER=a",
			says: "OAUTH2_ETCD_USER is set, but neither OAUTH2_ETCD_PASSWORD nor OAUTH2_ETCD_PASSWORD_FILE is"},
		{name: "a password for an etcd that is not given", env: "OAUTH2_ETCD_PASSWORD=a",
			says: "OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"},
		{name: "etcd no URL", args: "-addr 127.0.0.1:0", env: "OAUTH2_ETCD=localhost:2379",
			says: "-etcd: endpoint 1 is not of the form http://host:2379"},
		{name: "etcd's password on the command line", args: "-etcd-password a",
			says: "unknown flag -etcd-password: set OAUTH2_ETCD_PASSWORD in the environment instead"},
		{name: "tokens in a file and in etcd", args: "-etcd http://127.0.0.1:1", env: "OAUTH2_TOKENS_FILE=tokens",
			says: "-tokens-file and -etcd cannot be used together"},
		{name: "tokens file in no folder", args: "-addr 127.0.0.1:0 -tokens-file /nonexistent/tokens",
			says: "-tokens-file /nonexistent/tokens: open /nonexistent/tokens: no such file or directory"},
		{name: "tokens file a users file", args: "-addr 127.0.0.1:0 -tokens-file " + garbage,
			says: "-tokens-file " + garbage + ": not a tokens file, or one of another version"},
		{name: "docs neither on nor off", args: "-docs=maybe",
			says: `invalid boolean value "maybe" for -docs: it must be true or false`},
		{name: "docs no", args: "-docs no",
			says: `unknown argument "no" (-docs is written -docs=true or -docs=false)`},
		{name: "docs from the environment", env: "OAUTH2_DOCS=no",
			says: `invalid value "no" for OAUTH2_DOCS: it must be true or false`},
		{name: "login page neither on nor off", args: "-login-page=maybe",
			says: `invalid boolean value "maybe" for -login-page: it must be true or false`},
		{name: "login domain a URL", env: "OAUTH2_LOGIN_DOMAIN=https://a.example",
			says: `invalid value "https://a.example" for OAUTH2_LOGIN_DOMAIN: ` +
				`it must be a domain such as example.com, in lower case`},
		{name: "login domain and no page", args: "-login-domain a.example",
			says: "-login-domain is set, but -login-page is not"},
		{name: "log format", args: "-log-format xml",
			says: `invalid value "xml" for flag -log-format: it must be text or json`},
		{name: "no users file", args: "-addr 127.0.0.1:0 -users /nonexistent",
			says: `-users: open "/nonexistent": no such file or directory`},
		{name: "users file from the environment", args: "-addr 127.0.0.1:0", env: "OAUTH2_USERS=/nonexistent",
			says: `OAUTH2_USERS: open "/nonexistent": no such file or directory`},
		{name: "users file a folder", args: "-addr 127.0.0.1:0 -users " + dir,
			says: `-users: read "` + dir + `": is a directory`},
		{name: "certificate alone", args: "-tls-cert a",
			says: "-tls-cert and -tls-key go together: give both or neither"},
		{name: "key alone", env: "OAUTH2_TLS_KEY=a",
			says: "-tls-cert and -tls-key go together: give both or neither"},
		{name: "certificate missing", args: "-addr 127.0.0.1:0 -tls-cert /nonexistent -tls-key " + pair,
			says: "-tls-cert /nonexistent and -tls-key " + pair + ": open /nonexistent: no such file"},
		{name: "certificate garbage", args: "-addr 127.0.0.1:0 -tls-cert " + garbage + " -tls-key " + pair,
			says: "-tls-cert " + garbage + " and -tls-key " + pair + ": tls: failed to find any PEM data"},
		{name: "key of the certificate garbage", args: "-addr 127.0.0.1:0 -tls-cert " + pair + " -tls-key " + garbage,
			says: "-tls-cert " + pair + " and -tls-key " + garbage + ": tls: failed to find any PEM data"},
		{name: "healthcheck, nobody there", args: "healthcheck -addr 127.0.0.1:1", says: "not healthy: "},
		{name: "healthcheck, bad flag", args: "healthcheck -nope", says: "unknown flag -nope (-h lists the flags)"},
		{name: "a misspelled variable", env: "OAUTH2_USER=/etc/users.json",
			says: `unknown environment variable "OAUTH2_USER", did you mean OAUTH2_USERS? If not, unset it`},
		{name: "a variable of another spelling", env: "OATH2_USERS=/etc/users.json",
			says: `unknown environment variable "OATH2_USERS", did you mean OAUTH2_USERS? If not, unset it`},
		{name: "a variable like no other", env: "OAUTH2_USRES=/etc/users.json",
			says: `unknown environment variable "OAUTH2_USRES": unset it (-h lists the flags, and each has a variable)`},
		{name: "a misspelled variable, healthcheck", args: "healthcheck", env: "OAUTH2_ADRR=:8000",
			says: `unknown environment variable "OAUTH2_ADRR", did you mean OAUTH2_ADDR?`},
		{name: "oauth2-proxy's variable", args: "-addr nowhere", env: "OAUTH2_PROXY_TLS_CERT_FILE=a",
			says: "-addr: listen tcp: address nowhere"},
		{name: "an address that is taken", args: "-addr " + taken,
			says: "-addr: listen tcp " + taken + ": bind: address already in use"},
		{name: "a user without a hash", args: "-addr 127.0.0.1:0 -users " + unhashed,
			says: "-users: " + unhashed + `: user "johndoe": no hashed_password`},
		{name: "help", args: "-h", says: "usage: simple-oauth2 [flags] | user COMMAND | hash [-cost N] |"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			says, logged := ended(t, tt.args, strings.Fields(tt.env)...)
			if !strings.HasPrefix(says, tt.says) || !beforeAnError.MatchString(logged) {
				t.Errorf("it says %s\nwant %s\nlogged before: %s", says, tt.says, logged)
			}
			if strings.Contains(says, "\n") && tt.name != "help" {
				t.Errorf("more than a line: %s", says)
			}
		})
	}
}

// TestEmptySettings gives each setting as an empty text, as a flag and in the
// environment, where compose puts one for a variable that is not set. It is
// refused if going without the setting is less safe or less durable.
func TestEmptySettings(t *testing.T) {
	const refused, accepted = "refused", "accepted"
	decided := map[string]string{
		"addr":                      refused, // every interface, on any port
		"users":                     refused, // the tutorial's users
		"tls-cert":                  refused,
		"tls-key":                   refused,
		"tokens-file":               refused,
		"etcd":                      refused,
		"etcd-prefix":               refused, // another service's tokens
		"etcd-ca":                   refused, // any public authority
		"etcd-cert":                 refused,
		"etcd-key":                  refused,
		"token-ttl":                 refused, // it may be longer than was meant
		"max-failures":              refused, // it may be more than was meant
		"docs":                      refused, // they may have been meant to be off
		"docs-assets":               refused, // from the CDN
		"shutdown-delay":            refused, // requests are lost
		"trusted-proxies":           accepted,
		"cors-origins":              accepted,
		"metrics-addr":              accepted,
		"log-format":                accepted,
		"login-page":                accepted,
		"login-domain":              accepted,
		"OAUTH2_ETCD_USER":          refused, // no login to etcd
		"OAUTH2_ETCD_PASSWORD":      refused,
		"OAUTH2_ETCD_PASSWORD_FILE": refused,
	}
	help, _ := ended(t, "-h")
	var settings []string
	named := regexp.MustCompile(`(?m)^  -([a-z-]+)|(OAUTH2_ETCD_[A-Z_]+)`)
	for _, found := range named.FindAllStringSubmatch(help, -1) {
		settings = append(settings, found[1]+found[2])
	}
	for name := range decided {
		if !slices.Contains(settings, name) {
			t.Errorf("there is no setting %s", name)
		}
	}
	for _, name := range settings {
		variable := name
		if !strings.HasPrefix(name, "OAUTH2_") {
			variable = "OAUTH2_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		}
		for _, way := range []struct{ name, args, env string }{
			{"-" + name, "-" + name + "=", ""},
			{variable, "", variable + "="},
		} {
			if way.name == "-"+variable {
				continue // it has no flag
			}
			// Whatever passes ends at an address that is no address.
			says, _ := ended(t, way.args, "OAUTH2_ADDR=nowhere", way.env)
			said := accepted
			if !strings.HasPrefix(says, "-addr: listen tcp: address nowhere") {
				said = refused
			}
			if said != decided[name] {
				t.Errorf("%s is %s when it is empty, want %q (%s)", way.name, said, decided[name], says)
			}
			empty := strings.HasPrefix(says, way.name+" is empty: ") ||
				strings.HasPrefix(says, `invalid value "" for `) && strings.Contains(says, way.name+": ") ||
				strings.HasPrefix(says, `invalid boolean value "" for `+way.name)
			if said == refused && !empty {
				t.Errorf("the error does not say that %s is empty: %s", way.name, says)
			}
		}
	}
}
