package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// usersMe is the Go program of guide/clients.md.
func usersMe(ctx context.Context, service, username, password string) (*http.Response, error) {
	config := oauth2.Config{
		Endpoint: oauth2.Endpoint{TokenURL: service + "/token", AuthStyle: oauth2.AuthStyleInParams},
		Scopes:   []string{"items:read"},
	}
	token, err := config.PasswordCredentialsToken(ctx, username, password)
	if err != nil {
		return nil, err
	}
	return config.Client(ctx, token).Get(service + "/users/me")
}

// TestGoProgram runs it, and wants what the guide says of errors and AuthStyle.
func TestGoProgram(t *testing.T) {
	t.Parallel()
	service := &process{t: t, name: program, log: filepath.Join(t.TempDir(), "log")}
	addr := freeAddrs(t, 1)[0]
	service.url, service.args = "http://"+addr, []string{"-addr", addr, "-max-failures", "3"}
	(&stage{t: t}).start(service)
	response, err := usersMe(t.Context(), service.url, "johndoe", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 || !strings.Contains(string(body), `"username":"johndoe"`) {
		t.Errorf("/users/me: %s %s", response.Status, body)
	}
	failures := func() int {
		log, _ := os.ReadFile(service.log)
		return strings.Count(string(log), `msg="login failed"`)
	}
	var refused *oauth2.RetrieveError
	if _, err := usersMe(t.Context(), service.url, "jane", "wrong"); !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" || failures() != 1 {
		t.Errorf("a wrong password: %v, counted %d times", err, failures())
	}
	config := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: service.url + "/token"}}
	if _, err := config.PasswordCredentialsToken(t.Context(), "jane", "wrong"); err == nil || failures() != 1+2 {
		t.Errorf("a wrong password without AuthStyle: %v, counted %d times", err, failures()-1)
	}
	if _, err := usersMe(t.Context(), service.url, "jane", "wrong"); !errors.As(err, &refused) || refused.ErrorCode != "temporarily_unavailable" || refused.Response.Header.Get("Retry-After") == "" {
		t.Errorf("a fourth one: %v", err)
	}
}

// TestErrorsOfClients meets each error that the guide's tables have, and wants
// each to be in them.
func TestErrorsOfClients(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../guide/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(text), "\n## Errors that a client meets\n")
	tables, _, _ = strings.Cut(tables, "\n## ")
	tested := make(map[string]bool) // by row
	for line := range strings.Lines(tables) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| -") && !strings.HasPrefix(line, "| status") {
			tested[strings.TrimPrefix(cells[0], "| ")+" "+strings.Trim(cells[1], "`")] = false
		}
	}

	s := newStage(t, "../examples/script", "", "-max-failures", "1")
	nowhere := freeAddrs(t, 2)
	cutOff := &process{t: t, name: program, url: "http://" + nowhere[0], log: filepath.Join(s.dir, "cut-off.log"),
		args:     []string{"-addr", nowhere[0], "-etcd", "http://" + nowhere[1]},
		expected: etcdLost}
	s.start(cutOff)
	login := func(username, password string, more ...string) url.Values {
		form := url.Values{"username": {username}, "password": {password}}
		for i := 0; i < len(more); i += 2 {
			form.Add(more[i], more[i+1])
		}
		return form
	}
	for _, tt := range []struct {
		what    string
		service *process
		path    string
		token   string
		form    url.Values
		row     string
		wait    bool // for Retry-After
	}{
		{"a wrong password", s.service, "/token", "", login("nobody", "wrong"), "400 invalid_grant", false},
		{"too many wrong passwords", s.service, "/token", "", login("nobody", "wrong"), "429 temporarily_unavailable", true},
		{"a large form", s.service, "/token", "", login("nobody", strings.Repeat("x", 64<<10)), "413 invalid_request", false},
		{"a field that is missing", s.service, "/token", "", url.Values{"username": {"jane"}}, "422 invalid_request", false},
		{"a field twice", s.service, "/token", "", login("jane", "secret", "username", "zoe"), "422 invalid_request", false},
		{"another grant", s.service, "/token", "", login("jane", "secret", "grant_type", "implicit"), "422 unsupported_grant_type", false},
		{"a token that cannot be stored", cutOff, "/token", "", login("johndoe", "secret"), "503 temporarily_unavailable", true},
		{"a disabled user", s.service, "/users/me", s.tokens["alice"], nil, "400 /users/me", false},
		{"no token", s.service, "/users/me", "", nil, "401 both", false},
		{"no token for an API", s.service, "/auth?scope=items:read", "", nil, "401 both", false},
		{"a disabled user at an API", s.service, "/auth?scope=items:read", s.tokens["alice"], nil, "403 an API", false},
		{"no scope", s.service, "/auth?scope=items:read", s.tokens["bob"], nil, "403 an API", false},
		{"a token that cannot be looked up", cutOff, "/users/me", s.tokens["jane"], nil, "503 both", true},
		{"the same for an API", cutOff, "/auth?scope=items:read", s.tokens["jane"], nil, "503 both", true},
	} {
		status, header, body, _ := ask(tt.service, tt.path, tt.token, tt.form)
		number, word, _ := strings.Cut(tt.row, " ")
		if fmt.Sprint(status) != number || (header.Get("Retry-After") != "") != tt.wait || tt.form != nil && !strings.Contains(body, `"error":"`+word+`"`) {
			t.Errorf("%s: %d %s, want %s", tt.what, status, body, tt.row)
		}
		if _, told := tested[tt.row]; !told {
			t.Errorf("no table has %q", tt.row)
		}
		tested[tt.row] = true
	}
	for row, done := range tested {
		if !done {
			t.Errorf("nothing tests %q", row)
		}
	}
}
