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
	"strings"
	"syscall"
	"testing"

	"golang.org/x/oauth2"
)

// program is the path of the built binary.
var program string

func TestMain(m *testing.M) {
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
	log := bufio.NewScanner(stderr)
	t.Cleanup(func() {
		service.Process.Signal(syscall.SIGTERM)
		for log.Scan() {
			t.Log(log.Text())
		}
		if err := service.Wait(); err != nil {
			t.Errorf("on SIGTERM: %v", err)
		}
	})
	for log.Scan() {
		t.Log(log.Text())
		if found := listening.FindStringSubmatch(log.Text()); found != nil {
			return found[1]
		}
	}
	t.Fatal("the program does not listen")
	return ""
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
