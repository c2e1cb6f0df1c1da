package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/client/rs"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// toldOfToken is what a library learns about a token.
type toldOfToken struct {
	Active   bool
	Username string
}

// libraries introspect with the name and a secret of the README's service, each
// as its manual says. introspect.test.js has those of JavaScript.
var libraries = map[string]func(t *testing.T, origin, secret, token string) (toldOfToken, error){
	"zitadel/oidc": func(t *testing.T, origin, secret, token string) (toldOfToken, error) {
		server, err := rs.NewResourceServerClientCredentials(t.Context(), origin, "items-service", secret,
			rs.WithStaticEndpoints(origin+"/token", origin+"/introspect"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := rs.Introspect[*oidc.IntrospectionResponse](context.Background(), server, token)
		if err != nil {
			return toldOfToken{}, err
		}
		return toldOfToken{answer.Active, answer.Username}, nil
	},
	"authlib, client_secret_basic": authlib("client_secret_basic"),
	"authlib, client_secret_post":  authlib("client_secret_post"),
	"Rust's oauth2": func(t *testing.T, origin, secret, token string) (answer toldOfToken, err error) {
		introspect, err := rustProgram()
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(introspect, origin, secret, token).Output()
		if err != nil {
			return answer, err
		}
		return answer, json.Unmarshal(out, &answer)
	},
}

// rustProgram builds testdata/rust-introspect with Debian's cargo and crates.
// What was compiled of the crates is kept for the next time.
var rustProgram = sync.OnceValues(func() (string, error) {
	folder, err := filepath.Abs("build/rust-introspect")
	if err != nil {
		return "", err
	}
	// A copy, since cargo writes a Cargo.lock beside the source.
	source := filepath.Join(folder, "source")
	if err := os.RemoveAll(source); err != nil {
		return "", err
	}
	if err := os.CopyFS(source, os.DirFS("testdata/rust-introspect")); err != nil {
		return "", err
	}
	target := filepath.Join(folder, "target")
	build := exec.Command("timeout", "5m", "/usr/bin/cargo", "build", "--offline")
	build.Dir = source
	// The PATH leads to Debian's rustc, also where there is another of rustup.
	build.Env = append(os.Environ(), "PATH=/usr/bin:/bin", "CARGO_HOME="+source, "CARGO_TARGET_DIR="+target)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cargo build: %v\n%s", err, out)
	}
	return filepath.Join(target, "debug/rust-introspect"), nil
})

// authlib is Debian's python3-authlib, with one way to authenticate.
func authlib(way string) func(*testing.T, string, string, string) (toldOfToken, error) {
	return func(t *testing.T, origin, secret, token string) (answer toldOfToken, err error) {
		out, err := exec.Command("/usr/bin/python3", "testdata/authlib-introspect.py", origin, way, secret, token).Output()
		if err != nil {
			return answer, err
		}
		return answer, json.Unmarshal(out, &answer)
	}
}

// startWithReadmesUsers runs the program with the users file of the README.
func startWithReadmesUsers(t *testing.T) (origin string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(users, regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(readme)[1], 0o600); err != nil {
		t.Fatal(err)
	}
	return "http://" + start(t, "-users", users, "-max-failures", "0")
}

func TestIntrospectionLibraries(t *testing.T) {
	origin := startWithReadmesUsers(t)
	post := func(path string, form url.Values) []byte {
		response, err := http.PostForm(origin+path, form)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", path, response.Status, body)
		}
		return body
	}
	for name, introspect := range libraries {
		t.Run(name, func(t *testing.T) {
			var login struct {
				AccessToken string `json:"access_token"`
			}
			json.Unmarshal(post("/token", url.Values{"username": {"jane"}, "password": {"correct horse"}}), &login)
			if got, err := introspect(t, origin, "battery staple", login.AccessToken); err != nil || got != (toldOfToken{true, "jane"}) {
				t.Errorf("a live token: %+v, %v", got, err)
			}
			if got, err := introspect(t, origin, "wrong staple", login.AccessToken); err == nil {
				t.Errorf("a wrong secret: %+v", got)
			}
			post("/revoke", url.Values{"token": {login.AccessToken}})
			if got, err := introspect(t, origin, "battery staple", login.AccessToken); err != nil || got.Active {
				t.Errorf("a revoked token: %+v, %v", got, err)
			}
		})
	}
}

// TestChallenges introspects with programs that send credentials only when they are
// asked for them, and with one that sends them twice.
func TestChallenges(t *testing.T) {
	origin := startWithReadmesUsers(t)
	for _, tt := range []struct{ name, command string }{
		{
			name:    "curl --anyauth",
			command: `curl -sf --anyauth -u "$NAME:$SECRET" $URL -d token=x`,
		},
		{
			name:    "wget --user",
			command: `wget -qO- --user "$NAME" --password "$SECRET" --post-data token=x $URL`,
		},
		{
			name: "Python's HTTPBasicAuthHandler",
			command: `/usr/bin/python3 -c "
import os, urllib.request
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, os.environ['URL'], os.environ['NAME'], os.environ['SECRET'])
opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
print(opener.open(os.environ['URL'], b'token=x').read().decode())"`,
		},
		{
			name:    "Basic and the same in the form, as lua-resty-openidc sends them",
			command: `curl -sf -u "$NAME:$SECRET" $URL -d token=x -d client_id="$NAME" --data-urlencode client_secret="$SECRET"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for secret, right := range map[string]bool{"battery staple": true, "wrong staple": false} {
				command := exec.Command("timeout", "60", "bash", "-c", tt.command)
				command.Env = append(os.Environ(), "URL="+origin+"/introspect", "NAME=items-service", "SECRET="+secret)
				out, err := command.CombinedOutput()
				served := err == nil && strings.TrimSpace(string(out)) == `{"active":false}`
				if served != right || !right && err == nil {
					t.Errorf("with %q: %s, %v", secret, out, err)
				}
			}
		})
	}
}

// TestKeptConnection has a client's secret guessed at its own address, until a new
// connection has to wait for a second. The connection that the client keeps does not.
func TestKeptConnection(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.json")
	write(t, users, `{"items-service": {"hashed_password": "`+hashOf(t, "battery staple")+`", "scopes": ["introspect"]}}`)
	origin := "http://" + start(t, "-users", users)
	ask := func(client *http.Client, secret string) int {
		r, err := http.NewRequest("POST", origin+"/introspect", strings.NewReader("token=x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("items-service", secret)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		return response.StatusCode
	}
	kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	anew := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if status := ask(kept, "battery staple"); status != 200 {
		t.Errorf("%d, want 200", status)
	}
	for range 10 {
		if status := ask(anew, "guess"); status != 401 {
			t.Errorf("a guess: %d, want 401", status)
		}
	}
	guessed := time.Now()
	if status := ask(kept, "battery staple"); status != 200 || time.Since(guessed) >= time.Second {
		t.Errorf("on the kept connection: %d after %v", status, time.Since(guessed))
	}
	if status := ask(anew, "battery staple"); status != 200 || time.Since(guessed) < 900*time.Millisecond {
		t.Errorf("on a new connection: %d after %v", status, time.Since(guessed))
	}
	kept.CloseIdleConnections()
}
