package e2e

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
	write := func(more string) {
		text := `{"johndoe": {"hashed_password": "$2y$10$Ia83onAwzmB9zdKdCWDso.WReDLckaABJCs2pG8DwQ9h6IDZtaltK"}` + more + `}`
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
	write(`, "other": {"hashed_password": "$2y$10$Ia83onAwzmB9zdKdCWDso.WReDLckaABJCs2pG8DwQ9h6IDZtaltK"}`)
	p.signal(syscall.SIGHUP)
	c.eventually("loaded again", log("users=2 "))
	if err := os.Remove(tokens); err != nil { // which makes the service rewrite it
		t.Fatal(err)
	}
	c.eventually("written anew", func() bool {
		status, _, _, _ := ask(p, "/token", "", url.Values{"username": {"johndoe"}, "password": {"secret"}})
		_, err := os.Stat(tokens)
		return status == 200 && err == nil
	})
	if text, _ := os.ReadFile(p.log); strings.Contains(string(text), "too many open files") {
		t.Errorf("it had no descriptor left:\n%s", text)
	}
}
