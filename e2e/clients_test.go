package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
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

// TestRefusedForms sends forms as people send them by mistake. Each is refused with
// a sentence of its own, which does not show the password.
func TestRefusedForms(t *testing.T) {
	t.Parallel()
	origin := "http://" + start(t)
	const lacks = "body.username: Field required; body.password: Field required; "
	for _, tt := range []struct {
		name    string
		command string // in bash; $URL is the endpoint
		want    string // the error_description
	}{
		{
			name:    "a percent sign",
			command: `curl -s $URL -d username=johndoe -d 'password=hunter2%'`,
			want:    "body: A percent sign must be sent as %25, unless two hexadecimal digits follow it",
		},
		{
			name:    "a semicolon",
			command: `curl -s $URL -d username=johndoe -d 'password=hunter2;secret'`,
			want:    "body: A semicolon must be sent as %3B",
		},
		{
			name:    "JSON",
			command: `curl -s $URL --json '{"username": "johndoe", "password": "hunter2"}'`,
			want:    lacks + "body: The body must be a form, with Content-Type application/x-www-form-urlencoded",
		},
		{
			name:    "JSON with the Content-Type of a form",
			command: `curl -s $URL -d '{"username": "johndoe", "password": "hunter2"}'`,
			want:    lacks + "body: The body must be a form, not JSON",
		},
		{
			name: "gzip",
			command: `printf 'username=johndoe&password=hunter2' | gzip |
curl -s $URL -H 'Content-Encoding: gzip' --data-binary @-`,
			want: "body: The body must not be compressed: Content-Encoding is not supported",
		},
		{
			name: "FormData without a boundary in the Content-Type",
			command: `/usr/bin/python3 -c "import requests, sys
print(requests.post(sys.argv[1], files={'username': (None, 'johndoe'), 'password': (None, 'hunter2')},
	headers={'Content-Type': 'multipart/form-data'}).text)" $URL`,
			want: "body: The Content-Type has no boundary: leave that header to the library that makes the body",
		},
		{
			name: "FormData with another boundary in the Content-Type",
			command: `/usr/bin/python3 -c "import requests, sys
print(requests.post(sys.argv[1], files={'username': (None, 'johndoe'), 'password': (None, 'hunter2')},
	headers={'Content-Type': 'multipart/form-data; boundary=hunter2'}).text)" $URL`,
			want: "body: The boundary in the Content-Type is not in the body",
		},
		{
			name: "FormData with the Content-Type of the other form",
			command: `/usr/bin/python3 -c "import requests, sys
print(requests.post(sys.argv[1], files={'username': (None, 'johndoe'), 'password': (None, 'hunter2')},
	headers={'Content-Type': 'application/x-www-form-urlencoded'}).text)" $URL`,
			want: "body: The body is multipart/form-data, but its Content-Type is application/x-www-form-urlencoded",
		},
		{
			name: "a body that is cut short",
			command: `/usr/bin/python3 -c "import socket, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
s = socket.create_connection((url.hostname, url.port))
s.sendall(b'POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n'
	b'Content-Type: application/x-www-form-urlencoded\r\n\r\nusername=johndoe&password=hunter2')
s.shutdown(socket.SHUT_WR)
print(s.makefile().read())" $URL`,
			want: "body: The body was cut short, or did not arrive in time",
		},
		{
			name:    "a file",
			command: `curl -s $URL -F username=johndoe -F password=@/dev/null`,
			want:    "body.password: Input should be a string, not a file",
		},
		{
			name:    "a field twice",
			command: `curl -s $URL -d username=johndoe -d password=hunter2 -d password=hunter2`,
			want:    "body.password: Field must not be repeated",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			command := exec.Command("bash", "-c", tt.command)
			command.Env = append(os.Environ(), "URL="+origin+"/token")
			out, err := command.CombinedOutput()
			told := string(out)
			if err != nil || !strings.Contains(told, tt.want+`"}`) || strings.Contains(told, "hunter2") {
				t.Errorf("%s, %v; want %s", out, err, tt.want)
			}
		})
	}
}
