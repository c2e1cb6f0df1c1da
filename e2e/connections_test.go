package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFewDescriptors opens 2,000 idle connections to a service that may have 256
// file descriptors, and wants it to keep serving an earlier client, to reload its
// users, to rewrite its tokens file, and to be healthy.
func TestFewDescriptors(t *testing.T) {
	const connections = 2000
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); limit.Cur < connections+100 {
		t.Skipf("this process may open %d files", limit.Cur)
	}
	dir, addr := t.TempDir(), freeAddrs(t, 1)[0]
	users := filepath.Join(dir, "users.json")
	hash := hashOf(t, "secret")
	write := func(more string) {
		text := `{"johndoe": {"hashed_password": "` + hash + `"}` + more + `}`
		if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	tokens := filepath.Join(dir, "tokens")
	p := &process{t: t, name: "sh", url: "http://" + addr, log: filepath.Join(dir, "log"), args: []string{"-c", `ulimit -n 256; exec "$0" "$@"`,
		program, "-addr", addr, "-users", users, "-tokens-file", tokens}}
	p.start()
	t.Cleanup(p.kill)
	c := &cluster{t: t}
	c.eventually("healthy", func() bool { return c.healthy(p) })
	token, status, _ := c.login(p)
	if status != 200 {
		t.Fatalf("login: %d", status)
	}
	// A client that was there before, over one connection.
	dialed := 0
	known := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, Dial: func(network, addr string) (net.Conn, error) {
		dialed++
		return net.Dial(network, addr)
	}}}
	me := func() {
		t.Helper()
		request, _ := http.NewRequest("GET", p.url+"/users/me", nil)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := known.Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("/users/me: %s", response.Status)
		}
	}
	me()
	for i := range connections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%100 == 0 {
			me()
		}
	}
	me()
	if dialed != 1 {
		t.Errorf("the earlier client had to connect %d times", dialed)
	}
	if out, err := exec.Command(program, "healthcheck", "-addr", addr).CombinedOutput(); err != nil {
		t.Errorf("healthcheck: %v %s", err, out)
	}
	log := func(want string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(p.log)
			return strings.Contains(string(text), want)
		}
	}
	write(`, "other": {"hashed_password": "` + hash + `"}`)
	p.signal(syscall.SIGHUP)
	c.eventually("loaded again", log("users=2 "))
	for range 600 { // until most lines of the tokens file are history
		token, _, _ := c.login(p)
		if status, _, body, _ := ask(p, "/revoke", "", url.Values{"token": {token}}); status != 200 {
			t.Fatalf("/revoke: %d %s", status, body)
		}
	}
	c.eventually("written anew", func() bool {
		text, err := os.ReadFile(tokens)
		return err == nil && strings.Count(string(text), "\n") < 1000
	})
	if text, _ := os.ReadFile(p.log); strings.Contains(string(text), "too many open files") {
		t.Errorf("it had no descriptor left:\n%s", text)
	}
}

// TestHalfRequests opens 300 connections that send half a request. Others are served
// meanwhile.
func TestHalfRequests(t *testing.T) {
	addr := start(t)
	for i := range 300 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		half := "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
			"Content-Length: 99\r\n\r\nusername="
		io.WriteString(conn, half[:len(half)-i%2*20]) // every other within its header
	}
	for range 10 {
		response, err := http.Get("http://" + addr + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
	}
}

// TestSharedConnections puts the service behind proxies that share their
// connections to it between clients. One client sends bodies that nobody reads,
// half ones and late ones; the others must each get the answers to their own
// requests.
func TestSharedConnections(t *testing.T) {
	for _, proxy := range []struct {
		name string
		run  func(s *stage)
	}{
		{name: "nginx", run: func(s *stage) { s.runNginx("", "proxy.conf") }},
		{name: "caddy", run: func(s *stage) { s.runCaddy("Caddyfile") }},
		{name: "haproxy", run: func(s *stage) { s.run("haproxy", "-db", "-C", s.dir, "-f", "haproxy.cfg") }},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, "testdata/proxies", "")
			proxy.run(s)
			ctx, cancel := context.WithTimeout(t.Context(), 14*time.Second)
			defer cancel()
			var clients sync.WaitGroup
			for _, name := range []string{"jane", "zoe", "bob"} {
				clients.Go(func() { s.useEverything(ctx, name) })
			}
			for _, body := range []string{
				"Content-Length: 3\r\n\r\na=b",
				"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n",
				"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
				"Content-Length: 300000\r\n\r\n" + strings.Repeat("a", 300_000),
				"Content-Length: 300000\r\n\r\n" + strings.Repeat("a", 30_000),
				"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
			} {
				clients.Go(func() {
					for ctx.Err() == nil {
						s.attack(ctx, 50*time.Millisecond, body)
					}
				})
			}
			// The rest of a body comes after the service has given up waiting for it.
			smuggled := "GET /users/me HTTP/1.1\r\nHost: a\r\n" + s.bearer("zoe") + "\r\n\r\n"
			for range 8 {
				clients.Go(func() {
					s.attack(ctx, 11*time.Second, fmt.Sprintf("Content-Length: %d\r\n\r\na=b&", 4+len(smuggled)), smuggled)
				})
			}
			clients.Wait()
		})
	}
}

// TestCache puts the service behind nginx with a cache. What jane is told must not
// be told to somebody without a token.
func TestCache(t *testing.T) {
	s := newStage(t, "testdata/proxies", "")
	s.runNginx("", "cache.conf")
	for _, path := range []string{"/users/me", "/auth", "/auth/items"} {
		if status, _, body := s.send("GET", path, []string{s.bearer("jane")}, ""); status != 200 {
			t.Fatalf("%s, jane: %d %s", path, status, body)
		}
		if status, header, body := s.send("GET", path, nil, ""); status != 401 || header.Get("Remote-User") != "" {
			t.Errorf("%s, nobody: %d %v %s", path, status, header, body)
		}
	}
}

// attack sends a request to /auth with a body in parts, and a pause after each.
func (s *stage) attack(ctx context.Context, pause time.Duration, parts ...string) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	go io.Copy(io.Discard, conn)
	io.WriteString(conn, "POST /auth HTTP/1.1\r\nHost: a\r\n")
	for _, part := range parts {
		io.WriteString(conn, part)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// useEverything logs in, asks who it is and logs out over a connection of its own
// until ctx ends. Each answer must be the one to its own request.
func (s *stage) useEverything(ctx context.Context, name string) {
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	send := func(method, path, token string, form url.Values) string {
		request, _ := http.NewRequest(method, "http://"+s.addr+path, strings.NewReader(form.Encode()))
		if form != nil {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := client.Do(request)
		if err != nil {
			s.t.Errorf("%s, %s: %v", name, path, err)
			return ""
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			s.t.Errorf("%s, %s: %d %s, %v", name, path, response.StatusCode, text, err)
		}
		return string(text)
	}
	for ctx.Err() == nil && !s.t.Failed() {
		var login struct {
			Token string `json:"access_token"`
		}
		json.Unmarshal([]byte(send("POST", "/token", "", url.Values{"username": {name}, "password": {"secret"}})), &login)
		if me := send("GET", "/users/me", login.Token, nil); !strings.Contains(me, `"username":"`+name+`"`) {
			s.t.Errorf("%s, /users/me: %s", name, me)
		}
		is := send("POST", "/introspect", login.Token, url.Values{"token": {login.Token}})
		if !strings.Contains(is, `"sub":"`+name+`"`) {
			s.t.Errorf("%s, /introspect: %s", name, is)
		}
		if ended := send("POST", "/revoke", "", url.Values{"token": {login.Token}}); ended != "{}" {
			s.t.Errorf("%s, /revoke: %s", name, ended)
		}
	}
}
