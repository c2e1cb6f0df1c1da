package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stage is the service, and a program of examples/ that asks it. Its users are
// jane; zoe, who has more scopes; bob, who may not hold items:read; and alice, who
// is disabled.
type stage struct {
	t       *testing.T
	service *process
	dir     string // a copy of the example, and users.json
	addr    string // of the example
	tokens  map[string]string

	hash, serviceHash string // of the users' password, and of that of items-service
}

// newStage starts the service with args and logs everybody in. It copies the
// example's folder, so that the copy asks this service, passes requests on to
// backend and listens at addr.
func newStage(t *testing.T, folder, backend string, args ...string) *stage {
	t.Helper()
	addrs := freeAddrs(t, 2)
	s := &stage{t: t, dir: t.TempDir(), addr: addrs[1], tokens: make(map[string]string)}
	for password, hash := range map[string]*string{"secret": &s.hash, "battery staple": &s.serviceHash} {
		*hash = hashOf(t, password)
	}
	s.copyExample(folder, addrs[0], backend)
	s.writeUsers(false)
	s.service = &process{t: t, name: program, url: "http://" + addrs[0], log: filepath.Join(s.dir, "service.log"),
		args: append(args, "-addr", addrs[0], "-users", filepath.Join(s.dir, "users.json"))}
	s.start(s.service)
	for _, name := range []string{"jane", "zoe", "bob", "alice"} {
		s.tokens[name] = s.login(name)
	}
	return s
}

// examplePort matches the ports at which examples listen.
var examplePort = regexp.MustCompile(`\b80[89]\d\b`)

// copyExample copies the files of folder. The copies ask service, pass requests on
// to backend, listen at addr and serve the files beside them.
func (s *stage) copyExample(folder, service, backend string) {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("nothing in %s: %v", folder, err)
	}
	here := strings.NewReplacer("127.0.0.1:8000", service, "127.0.0.1:9000", backend, "/srv/site", s.dir)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(filepath.Base(file), here.Replace(examplePort.ReplaceAllString(string(text), port)))
	}
}

// writeUsers writes users.json, in which jane is disabled or not.
func (s *stage) writeUsers(janeDisabled bool) {
	s.t.Helper()
	hash, scopes := s.hash, []string{"items:read"}
	text, _ := json.Marshal(map[string]any{
		"jane":          map[string]any{"hashed_password": hash, "full_name": "Jane Roe", "email": "jane@example.com", "scopes": scopes, "disabled": janeDisabled},
		"zoe":           map[string]any{"hashed_password": hash, "full_name": "Zoë", "scopes": []string{"items:write", "items:read", "items:list"}},
		"bob":           map[string]any{"hashed_password": hash, "scopes": []string{"my-items:read", "items:read-not"}},
		"alice":         map[string]any{"hashed_password": hash, "scopes": scopes, "disabled": true},
		"items-service": map[string]any{"hashed_password": s.serviceHash, "scopes": []string{"introspect"}},
	})
	if err := os.WriteFile(filepath.Join(s.dir, "users.json"), text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// start starts a program that listens at an address, and waits until it does.
func (s *stage) start(p *process) {
	s.t.Helper()
	p.start()
	s.t.Cleanup(func() {
		p.kill()
		if s.t.Failed() {
			log, _ := os.ReadFile(p.log)
			s.t.Logf("%s:\n%s", p.name, log)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen", p.name)
		}
	}
}

// run starts the example itself, by a command.
func (s *stage) run(name string, args ...string) {
	s.t.Helper()
	s.start(&process{t: s.t, name: name, args: args, url: "http://" + s.addr, log: filepath.Join(s.dir, "example.log")})
}

// checkAddress tries to reach the example at another address of the machine.
func (s *stage) checkAddress() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.2", port)); err == nil {
		conn.Close()
		s.t.Error("the example listens not only at 127.0.0.1")
	}
}

// TestPorts reads at which port each example listens. All of them can run beside
// each other.
func TestPorts(t *testing.T) {
	files := []string{
		"site/site.conf", "nginx/guarded.conf", "caddy/Caddyfile", "haproxy/haproxy.cfg",
		"nginx/browser.conf", "caddy/browser.Caddyfile", "haproxy/browser.cfg",
		"apache/oauth2.conf", "apache/openidc.conf", "go-middleware/main.go", "fastapi/main.py",
	}
	owners := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("../examples", file))
		if err != nil {
			t.Fatal(err)
		}
		port := examplePort.FindString(string(text))
		if owner := owners[port]; port == "" || owner != "" {
			t.Errorf("%s listens at port %q, as %s does", file, port, owner)
		}
		owners[port] = file
	}
}

func (s *stage) login(username string) (token string) {
	s.t.Helper()
	form := url.Values{"username": {username}, "password": {"secret"}, "scope": {"items:write items:read items:list my-items:read items:read-not"}}
	status, _, body, _ := ask(s.service, "/token", "", form)
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal([]byte(body), &answer); status != 200 {
		s.t.Fatalf("login of %s: %d %s", username, status, body)
	}
	return answer.AccessToken
}

// send sends a request to the example exactly as given, and returns the answer.
// Each header is a line.
func (s *stage) send(method, path string, headers []string, body string) (status int, header http.Header, answer string) {
	s.t.Helper()
	status, header, answer, err := s.try(20*time.Second, method, path, headers, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return status, header, answer
}

// try is send, with an error if there is no answer in time.
func (s *stage) try(patience time.Duration, method, path string, headers []string, body string) (status int, header http.Header, answer string, err error) {
	conn, err := net.DialTimeout("tcp", s.addr, patience)
	if err != nil {
		return 0, nil, "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	head := append([]string{method + " " + path + " HTTP/1.1", "Host: " + s.addr}, headers...)
	fmt.Fprintf(conn, "%s\r\n\r\n%s", strings.Join(head, "\r\n"), body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(text), err
}

func (s *stage) bearer(username string) string { return "Authorization: Bearer " + s.tokens[username] }

// checkTokens wants GET path to let in clients with a live token that has the
// scope items:read, and nobody else: a disabled user gets the status inactive. At
// the end it kills the service, and then wants at least the status broken. It
// returns the answer to jane.
func (s *stage) checkTokens(path string, inactive, broken int) (answer string) {
	t := s.t
	t.Helper()
	expect := func(what string, want int, headers ...string) {
		t.Helper()
		status, header, body := s.send("GET", path, headers, "")
		if status != want {
			t.Errorf("%s: %d %s, want %d", what, status, body, want)
		}
		if challenge := header.Get("WWW-Authenticate"); status == 401 && !strings.HasPrefix(challenge, "Bearer") {
			t.Errorf("%s: the challenge is %q", what, challenge)
		}
	}
	status, _, answer := s.send("GET", path, []string{s.bearer("jane")}, "")
	if status != 200 {
		t.Fatalf("jane: %d %s", status, answer)
	}
	expect("no token", 401)
	expect("no such token", 401, "Authorization: Bearer nonsense")
	expect("another scheme", 401, "Authorization: Basic "+s.tokens["jane"])
	expect("zoe", 200, s.bearer("zoe"))
	expect("no scope", 403, s.bearer("bob"))
	expect("disabled from the start", inactive, s.bearer("alice"))

	gone := s.login("jane")
	expect("before the revocation", 200, "Authorization: Bearer "+gone)
	if status, _, body, _ := ask(s.service, "/revoke", "", url.Values{"token": {gone}}); status != 200 {
		t.Fatalf("/revoke: %d %s", status, body)
	}
	expect("revoked", 401, "Authorization: Bearer "+gone)

	s.writeUsers(true)
	s.service.signal(syscall.SIGHUP)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if status, _, _, _ := ask(s.service, "/users/me", s.tokens["jane"], nil); status == 400 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("jane is not disabled")
		}
	}
	expect("disabled while logged in", inactive, s.bearer("jane"))

	s.service.signal(syscall.SIGSTOP)
	syscall.Wait4(s.service.cmd.Process.Pid, nil, syscall.WUNTRACED, nil) // until it has stopped
	if status, _, _, err := s.try(200*time.Millisecond, "GET", path, []string{s.bearer("zoe")}, ""); err == nil && status < broken {
		t.Errorf("while the service hangs: %d", status)
	}
	s.service.kill()
	if status, _, _ := s.send("GET", path, nil, ""); status != 401 && status < broken {
		t.Errorf("no token, while the service is down: %d", status)
	}
	if status, _, _ := s.send("GET", path, []string{s.bearer("zoe")}, ""); status < broken {
		t.Errorf("while the service is down: %d", status)
	}
	listener, err := net.Listen("tcp", strings.TrimPrefix(s.service.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }))
	if status, _, _ := s.send("GET", path, []string{s.bearer("zoe")}, ""); status < broken {
		t.Errorf("while the service answers 500: %d", status)
	}
	return answer
}

// TestBackends runs each backend that asks the service itself.
func TestBackends(t *testing.T) {
	for _, backend := range []struct {
		name string
		run  func(s *stage)
		item string // what jane gets
		me   string // what zoe gets, where there is /users/me
	}{
		{"go-middleware", func(s *stage) {
			build := exec.Command("go", "build", "-o", "items", ".")
			build.Dir = s.dir
			if out, err := build.CombinedOutput(); err != nil {
				s.t.Fatalf("go build: %v\n%s", err, out)
			}
			s.run(filepath.Join(s.dir, "items"))
		}, "item 1 of jane\n", ""},
		{"fastapi", func(s *stage) {
			_, port, _ := net.SplitHostPort(s.addr)
			s.run("/usr/bin/python3", "-m", "uvicorn", "--app-dir", s.dir, "--port", port, "main:app")
		}, `{"item_id":"1","owner":"jane"}`, `{"username":"zoe","email":null,"full_name":"Zoë"}`},
	} {
		t.Run(backend.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, filepath.Join("../examples", backend.name), "")
			backend.run(s)
			s.checkAddress()
			// The backend believes only the service, and tells it only the token.
			forged := []string{s.bearer("jane"), "Remote-User: admin", "remote_user: admin", "Remote.User: admin",
				"Cookie: a=" + strings.Repeat("b", 20_000)}
			if status, _, body := s.send("GET", "/items/1", forged, ""); status != 200 || body != backend.item {
				t.Errorf("with forged headers: %d %s", status, body)
			}
			if backend.me != "" {
				if status, _, body := s.send("GET", "/users/me", []string{s.bearer("zoe")}, ""); status != 200 || body != backend.me {
					t.Errorf("/users/me: %d %s", status, body)
				}
				if status, _, body := s.send("GET", "/users/me", []string{s.bearer("bob")}, ""); status != 200 {
					t.Errorf("/users/me, which needs no scope: %d %s", status, body)
				}
			}
			if item := s.checkTokens("/items/1", 403, 500); item != backend.item {
				t.Errorf("jane gets %q", item)
			}
		})
	}
}
