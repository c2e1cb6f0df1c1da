package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// runScript runs examples/script/login.py with a password in its environment.
func runScript(password string, args ...string) (out string, err error) {
	script := exec.Command("/usr/bin/python3", append([]string{"../examples/script/login.py"}, args...)...)
	script.Env = append(os.Environ(), "LOGIN_PASSWORD="+password)
	text, err := script.CombinedOutput()
	return string(text), err
}

// TestScript runs examples/script/login.py against the service, and against what
// is none.
func TestScript(t *testing.T) {
	t.Parallel()
	addr := freeAddrs(t, 1)[0]
	p := &process{t: t, name: program, url: "http://" + addr, log: filepath.Join(t.TempDir(), "log"), args: []string{"-addr", addr}}
	(&stage{t: t}).start(p)
	revoked := 0
	for _, tt := range []struct {
		username, password string
		says               string // all of it, as a pattern
		ok                 bool
	}{
		{"johndoe", "secret", `\{'username': 'johndoe', .*'disabled': False\}`, true},
		{"johndoe", "wrong", `/token: 400 \{"detail":"Incorrect username or password",.*\}`, false},
		{"alice", "secret2", `/users/me: 400 \{"detail":"Inactive user"\}`, false},
	} {
		out, err := runScript(tt.password, p.url+"/", tt.username)
		if (err == nil) != tt.ok || !regexp.MustCompile("^"+tt.says+"\n$").MatchString(out) {
			t.Errorf("%s, %s: %v\n%s", tt.username, tt.password, err, out)
		}
		if tt.password != "wrong" {
			revoked++
		}
		if log, _ := os.ReadFile(p.log); strings.Count(string(log), `msg="token revoked"`) != revoked {
			t.Errorf("%s, %s: not %d tokens are revoked\n%s", tt.username, tt.password, revoked, log)
		}
	}

	// What is typed before the prompt is thrown away.
	terminal := exec.Command("script", "-qec", "/usr/bin/python3 ../examples/script/login.py "+p.url+" johndoe", "/dev/null")
	terminal.Env = append(os.Environ(), "LOGIN_PASSWORD=")
	stdin, _ := terminal.StdinPipe()
	stdout, _ := terminal.StdoutPipe()
	if err := terminal.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(stdout)
	prompt, _ := said.ReadString(':')
	io.WriteString(stdin, "secret\n")
	shown, _ := io.ReadAll(said)
	if err := terminal.Wait(); err != nil || prompt != "Password:" || !strings.Contains(string(shown), "'username': 'johndoe'") || strings.Contains(string(shown), "secret") {
		t.Errorf("on a terminal: %v\n%s%s", err, prompt, shown)
	}

	if out, err := runScript("secret", "http://"+freeAddrs(t, 1)[0], "johndoe"); err == nil || !strings.Contains(out, "cannot be reached") || strings.Contains(out, "Traceback") {
		t.Errorf("no service: %v\n%s", err, out)
	}
	for _, args := range [][]string{nil, {"auth.example.com", "johndoe"}} {
		if out, err := runScript("secret", args...); err == nil || !strings.Contains(out, "python3 login.py URL USERNAME") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// TestScriptTriesAgain checks that the script honours Retry-After once.
func TestScriptTriesAgain(t *testing.T) {
	t.Parallel()
	for refusals, want := range map[int32]string{1: "{'access_token': 'token', 'path': '/users/me'}\n", 2: "/token: 503 busy\n"} {
		var asked atomic.Int32
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("password") != "" && asked.Add(1) <= refusals {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, "busy")
				return
			}
			fmt.Fprintf(w, `{"access_token":"token","path":%q}`, r.URL.Path)
		}))
		defer service.Close()
		out, _ := runScript("secret", service.URL, "johndoe")
		if tries := asked.Load(); tries != 2 || out != want {
			t.Errorf("after %d refusals: %d tries\n%s", refusals, tries, out)
		}
	}
}

// TestScriptSaysWhatIsWrong runs the script where there is no password to be had, and
// against servers that are not the service. It says so in one line.
func TestScriptSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const other = "/token: this is not an answer of simple-oauth2\n"
	for _, tt := range []struct {
		name, password string
		retry          string // Retry-After
		status         int
		answer         string
		want           string
	}{
		{name: "no terminal", want: "no password: set LOGIN_PASSWORD, or run this on a terminal\n"},
		{name: "HTML", password: "secret", status: 200, answer: "<html>", want: other},
		{name: "nothing", password: "secret", status: 200, want: other},
		{name: "not UTF-8", password: "secret", status: 200, answer: "\xff", want: other},
		{name: "a list", password: "secret", status: 200, answer: "[]", want: other},
		{name: "no token", password: "secret", status: 200, answer: "{}", want: other},
		{name: "a refusal that is not UTF-8", password: "secret", status: 400, answer: "\xff", want: "/token: 400 \ufffd\n"},
		{
			name: "a date to come again", password: "secret", retry: "Fri, 31 Dec 1999 23:59:59 GMT",
			status: 503, answer: "busy",
			want: "/token: 503 busy\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", tt.retry)
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.answer)
			}))
			defer service.Close()
			script := exec.Command("setsid", "/usr/bin/python3", "../examples/script/login.py", service.URL, "johndoe")
			script.Env = append(os.Environ(), "LOGIN_PASSWORD="+tt.password, "PYTHONIOENCODING=utf-8")
			text, err := script.CombinedOutput()
			if err == nil || string(text) != tt.want {
				t.Errorf("%v\n%s\nwant %s", err, text, tt.want)
			}
		})
	}
	speaksNoHTTP, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer speaksNoHTTP.Close()
	go func() {
		if conn, err := speaksNoHTTP.Accept(); err == nil {
			io.WriteString(conn, "SSH-2.0-any\r\n")
			conn.Close()
		}
	}()
	out, err := runScript("secret", "http://"+speaksNoHTTP.Addr().String(), "johndoe")
	if err == nil || !strings.Contains(out, "cannot be reached") || strings.Contains(out, "Traceback") {
		t.Errorf("no HTTP: %v\n%s", err, out)
	}
}
