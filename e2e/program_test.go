package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
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

// begin starts the program on a free port, and waits until it listens.
func begin(t *testing.T, args ...string) *process {
	t.Helper()
	addr := freeAddrs(t, 1)[0]
	p := &process{t: t, name: program, url: "http://" + addr, log: filepath.Join(t.TempDir(), "log")}
	p.args = append(args, "-addr", addr)
	p.start()
	t.Cleanup(p.kill)
	p.says("msg=listening")
	return p
}

// logged returns the log so far.
func (p *process) logged() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// says waits until the log matches.
func (p *process) says(pattern string) {
	p.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !regexp.MustCompile(pattern).MatchString(p.logged()) {
		if time.Now().After(deadline) {
			p.t.Fatalf("no %q in the log:\n%s", pattern, p.logged())
		}
		time.Sleep(time.Millisecond)
	}
}

// healthz waits until /healthz is answered with 200 and a body.
func (p *process) healthz(want string) {
	p.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		status, _, body, _ := ask(p, "/healthz", "", nil)
		if status == 200 && body == want {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d %s, want %s", status, body, want)
		}
		time.Sleep(time.Millisecond)
	}
}

// stop sends SIGTERM. The program must end with 0, and the log with that.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.ends()
}

func (p *process) ends() {
	p.t.Helper()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("on SIGTERM: %v", err)
	}
	if !strings.HasSuffix(p.logged(), "msg=stopped\n") {
		p.t.Errorf("the log does not end with the stop:\n%s", p.logged())
	}
}

// write replaces a file, so that it is never half there.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestStart reads what the program says of a start with the tutorial's users, and
// asks for its health before and after a stop.
func TestStart(t *testing.T) {
	p := begin(t)
	first := `^time=\S+ level=INFO msg=starting version=\S+ go=go1\S+ url=` + p.url + ` docs=` + p.url + "/docs\n"
	for _, want := range []string{
		first,
		"level=WARN msg=\"serving the tutorial's demo users",
		`msg="users loaded" users=2 source=demonstration`,
	} {
		if !regexp.MustCompile(want).MatchString(p.logged()) {
			t.Errorf("no %q in the log:\n%s", want, p.logged())
		}
	}
	addr := strings.TrimPrefix(p.url, "http://")
	if out, err := exec.Command(program, "healthcheck", "-addr", addr).CombinedOutput(); err != nil {
		t.Errorf("healthcheck: %v %s", err, out)
	}
	p.stop()
	if err := exec.Command(program, "healthcheck", "-addr", addr).Run(); err == nil {
		t.Error("healthcheck: a stopped service is healthy")
	}
}

// TestWithoutDocs starts without the pages that describe the service.
func TestWithoutDocs(t *testing.T) {
	p := begin(t, "-docs=false")
	if strings.Contains(p.logged(), "docs=") {
		t.Errorf("the log names /docs:\n%s", p.logged())
	}
	for _, path := range []string{"/", "/docs", "/openapi.json", "/docs/page.js"} {
		if status, _, _, _ := ask(p, path, "", nil); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// TestLogInJSON reads a log in JSON, from the first line to the last.
func TestLogInJSON(t *testing.T) {
	t.Setenv("OAUTH2_PORT", "hunter2")
	p := &process{t: t, name: program, log: filepath.Join(t.TempDir(), "log")}
	p.args = []string{"-addr", "127.0.0.1:0", "-log-format", "json"}
	p.start()
	t.Cleanup(p.kill)
	p.says(`"msg":"listening"`)
	p.signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("on SIGTERM: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(p.logged()), "\n")
	for _, line := range lines {
		var fields struct{ Time, Level, Msg string }
		err := json.Unmarshal([]byte(line), &fields)
		if err != nil || fields.Time == "" || fields.Level == "" || fields.Msg == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
	const unknown = `"level":"WARN","msg":"unknown environment variable","name":"OAUTH2_PORT"}`
	if !strings.Contains(lines[1], unknown) || strings.Contains(p.logged(), "hunter2") {
		t.Errorf("the variable is not in the log, or its value is:\n%s", p.logged())
	}
}

// TestReload sends SIGHUP for a broken users file, for an empty one, and for the same
// again.
func TestReload(t *testing.T) {
	const kept = "users could not be loaded again, keeping the previous version"
	file := filepath.Join(t.TempDir(), "users.json")
	write(t, file, `{"johndoe": {"hashed_password": "`+hashOf(t, "secret")+`"}}`)
	p := begin(t, "-users", file)
	p.expected = []string{kept}
	write(t, file, `{"johndoe": {}}`)
	p.signal(syscall.SIGHUP)
	p.says(`level=ERROR msg="` + kept + `" error=".*users.json: user \\"johndoe\\": no hashed_password"`)
	p.healthz(`{"status":"ok","detail":"` + kept + `"}`)
	write(t, file, `{}`)
	p.signal(syscall.SIGHUP)
	p.says(`level=WARN msg="there are no users: nobody can log in" source=\S+users.json\n` +
		`.*msg="users loaded" users=0 source=\S+users.json`)
	p.healthz(`{"status":"ok"}`)
	p.signal(syscall.SIGHUP) // the files have not changed: only the signal loads them
	p.says(`(?s)msg="users loaded" users=0 .*msg="users loaded" users=0 `)
	p.stop()
}

// TestStopWhileStarting stops a program that waits for an etcd that never answers.
func TestStopWhileStarting(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := &process{t: t, name: program, log: filepath.Join(t.TempDir(), "log")}
	p.args = []string{"-addr", "127.0.0.1:0", "-etcd", "http://" + silent.Addr().String()}
	p.start()
	t.Cleanup(p.kill)
	p.says("msg=starting")
	p.stop()
}

// TestStopDuringRequest stops the program while a request is in flight.
func TestStopDuringRequest(t *testing.T) {
	p := begin(t)
	addr := strings.TrimPrefix(p.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server sends 100 Continue once the handler reads the body.
	fmt.Fprintf(conn, "POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
		"Content-Length: 7\r\nExpect: 100-continue\r\n\r\n")
	answers := bufio.NewReader(conn)
	if response, err := http.ReadResponse(answers, nil); err != nil || response.StatusCode != 100 {
		t.Fatalf("%v %v", response, err)
	}
	p.signal(syscall.SIGTERM)
	p.says("msg=stopping")
	for { // until it accepts no more
		other, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		other.Close()
	}
	fmt.Fprintf(conn, "token=x")
	if response, err := http.ReadResponse(answers, nil); err != nil || response.StatusCode != 200 {
		t.Errorf("the request in flight: %v %v", response, err)
	}
	p.ends()
}

// TestRefusedBeforeAStop has a login refused in the last seconds before a stop.
func TestRefusedBeforeAStop(t *testing.T) {
	p := begin(t, "-max-failures", "1")
	for _, want := range []int{400, 429} {
		guess := url.Values{"username": {"nobody"}, "password": {"guess"}}
		if status, _, _, _ := ask(p, "/token", "", guess); status != want {
			t.Errorf("%d, want %d", status, want)
		}
	}
	p.stop()
	if !strings.Contains(p.logged(), `msg="logins refused" count=1`) {
		t.Errorf("the refusal is not in the log:\n%s", p.logged())
	}
}

// TestTLS asks a service with a certificate by HTTP/2, and by healthcheck.
func TestTLS(t *testing.T) {
	file, pair := filepath.Join(t.TempDir(), "pair.pem"), certificate(t, 1)
	write(t, file, string(pair))
	addr := start(t, "-tls-cert", file, "-tls-key", file)
	for _, args := range []string{"", " -tls-cert " + file + " -tls-key " + file} {
		check := exec.Command(program, strings.Fields("healthcheck -addr "+addr+args)...)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", check, err, out)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pair) {
		t.Fatal("no certificate")
	}
	trusting := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
	}}
	response, err := trusting.Get("https://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 || response.ProtoMajor != 2 {
		t.Errorf("%s %s", response.Proto, response.Status)
	}
	trusting.CloseIdleConnections()
}
