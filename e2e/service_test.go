// Package e2e uses the built program as its users do: with OAuth2 client
// libraries, and as the README says.
package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/oauth2"
)

// program is the path of the built binary.
var program string

func TestMain(m *testing.M) {
	onlyOurs()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "simple-oauth2")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// onlyOurs removes from the environment what the service would take for settings,
// and lets no proxy come between the tests and this machine.
func onlyOurs() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OAUTH2_") {
			os.Unsetenv(name)
		}
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		os.Setenv(name, "localhost,127.0.0.1,::1,"+os.Getenv(name))
	}
}

var listening = regexp.MustCompile(`msg=listening addr=(\S+)`)

// start runs the program on a free port until the test ends, and then wants it to
// exit with 0 on SIGTERM.
func start(t *testing.T, args ...string) (addr string) {
	t.Helper()
	return startIn(t, "", args...)
}

// startIn is start in a folder.
func startIn(t *testing.T, dir string, args ...string) (addr string) {
	t.Helper()
	service := exec.Command(program, append(args, "-addr", "127.0.0.1:0")...)
	service.Dir = dir
	stderr, err := service.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	log, lines := bufio.NewScanner(stderr), []string(nil)
	next := func() bool {
		if !log.Scan() {
			return false
		}
		lines = append(lines, log.Text())
		return true
	}
	t.Cleanup(func() {
		service.Process.Signal(syscall.SIGTERM)
		for next() {
		}
		if err := service.Wait(); err != nil {
			t.Errorf("on SIGTERM: %v", err)
		}
		checkLog(t, lines, nil)
		if t.Failed() {
			t.Log(strings.Join(lines, "\n"))
		}
	})
	for next() {
		if found := listening.FindStringSubmatch(log.Text()); found != nil {
			return found[1]
		}
	}
	t.Fatal("the program does not listen")
	return ""
}

// hashOf returns what the program's hash command makes of a password, at the lowest
// cost.
func hashOf(t *testing.T, password string) string {
	t.Helper()
	hash := exec.Command(program, "hash", "-cost", "4")
	hash.Stdin = strings.NewReader(password)
	out, err := hash.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// trouble is a line of a service's log that is worth a look: one of level ERROR, or
// the beginning of a stack trace, also within a line.
var trouble = regexp.MustCompile(
	`level=ERROR|"level":"ERROR"|^panic: |^fatal error: |goroutine \d+ \[|WARNING: DATA RACE`)

// checkLog fails the test for each line of a service's log that tells of trouble,
// unless it contains one of the texts that the test expects.
func checkLog(t *testing.T, lines, expected []string) {
	t.Helper()
	for _, line := range lines {
		isExpected := func(text string) bool { return strings.Contains(line, text) }
		if trouble.MatchString(line) && !slices.ContainsFunc(expected, isExpected) {
			t.Errorf("in the service's log: %s", line)
		}
	}
}

// TestCheckLog holds which lines fail a test.
func TestCheckLog(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		fails      bool
	}{
		{name: "a login", line: `level=INFO msg=login username=ERROR`},
		{name: "a warning", line: `level=WARN msg="login failed"`},
		{name: "an error", line: `level=ERROR msg="unexpected error"`, fails: true},
		{name: "an error in JSON", line: `{"level":"ERROR","msg":"unexpected error"}`, fails: true},
		{name: "an expected error", line: `level=ERROR msg="the disk is full"`},
		{name: "a handler's panic", line: `level=WARN msg="panic serving x\ngoroutine 1 [running]:"`, fails: true},
		{name: "a panic", line: "panic: nil", fails: true},
		{name: "a race", line: "WARNING: DATA RACE", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inner := new(testing.T)
			checkLog(inner, []string{tt.line}, []string{"the disk is full"})
			if inner.Failed() != tt.fails {
				t.Errorf("the test fails: %v, want %v", inner.Failed(), tt.fails)
			}
		})
	}
}

// TestClientLibrary logs in with golang.org/x/oauth2.
func TestClientLibrary(t *testing.T) {
	addr := start(t)
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		config := oauth2.Config{
			ClientID:     "app",
			ClientSecret: "any",
			Endpoint:     oauth2.Endpoint{TokenURL: "http://" + addr + "/token", AuthStyle: style},
		}
		ctx := context.Background()
		token, err := config.PasswordCredentialsToken(ctx, "johndoe", "secret")
		if err != nil {
			t.Fatal(err)
		}
		if token.Expiry.IsZero() || token.Type() != "Bearer" {
			t.Errorf("token %s, expires %v", token.Type(), token.Expiry)
		}
		response, err := config.Client(ctx, token).Get("http://" + addr + "/users/me")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("/users/me: %s", response.Status)
		}
		_, err = config.PasswordCredentialsToken(ctx, "johndoe", "wrong")
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" || refused.ErrorDescription != "Incorrect username or password" {
			t.Errorf("wrong password: %v", err)
		}
	}
}

// TestGeneratedClient logs in with the client that oapi-codegen generates from
// the service's own /openapi.json.
func TestGeneratedClient(t *testing.T) {
	url := "http://" + start(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("oapi-codegen")); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		command := exec.Command(name, args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("go", "tool", "oapi-codegen", "-generate", "types,client", "-package", "main", "-o", "client.gen.go", url+"/openapi.json")
	run("go", "build", "-o", "login", ".")
	for _, tt := range []struct{ username, password, want string }{
		{"johndoe", "secret", "johndoe johndoe@example.com John Doe false"},
		{"johndoe", "wrong", "invalid_grant"},
		{"alice", "secret2", "Inactive user"},
	} {
		if got := run("./login", url, tt.username, tt.password); got != tt.want {
			t.Errorf("%s, %s: %q, want %q", tt.username, tt.password, got, tt.want)
		}
	}
}
