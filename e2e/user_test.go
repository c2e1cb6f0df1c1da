package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// user runs the command simple-oauth2 user on a file.
func user(t *testing.T, file, stdin string, args ...string) (stdout string) {
	t.Helper()
	command := exec.Command(program, append([]string{"user"}, args...)...)
	command.Env = append(os.Environ(), "OAUTH2_USERS="+file)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("user %q: %v\n%s", args, err, exit.Stderr)
	}
	return string(out)
}

// TestUserLoggedOut logs a user out of services that keep tokens in a file and in etcd,
// and restarts them. A login of the same second works, and stays so.
func TestUserLoggedOut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, file string) []*process
	}{
		{name: "a tokens file", start: func(t *testing.T, file string) []*process {
			k := newKeeper(t, filepath.Join(t.TempDir(), "tokens"))
			k.kill()
			k.args = append(k.args, "-users", file)
			k.start()
			return []*process{k.process}
		}},
		{name: "two replicas with etcd", start: func(t *testing.T, file string) []*process {
			return startCluster(t, "-users", file).replicas
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "users.json")
			user(t, file, "one", "add", "jane", "-cost", "4", "-token-ttl", "2h")
			user(t, file, "two", "add", "john", "-cost", "4", "-scope", "introspect")
			backup, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			services := tt.start(t, file)
			eventually := (&cluster{t: t}).eventually
			for _, s := range services {
				eventually("up", func() bool { status, _, _, _ := ask(s, "/healthz", "", nil); return status == 200 })
			}
			login := func(password string) (token string) {
				t.Helper()
				token, lives := logIn(services[0], "jane", password)
				if token == "" || lives != 7200 {
					t.Fatalf("no login, or a token for %d seconds", lives)
				}
				return token
			}
			wants := func(when, token string, want bool) {
				t.Helper()
				status, active := 401, `{"active":false}`
				if want {
					status, active = 200, `"active":true`
				}
				for _, s := range services {
					eventually(when, func() bool { return me(s, token) == status })
					if said := introspect(t, s, token); !strings.Contains(said, active) {
						t.Errorf("%s: %s, want %s", when, said, active)
					}
				}
			}
			restart := func() {
				for _, s := range services {
					s.kill()
					s.start()
					eventually("up", func() bool { status, _, _, _ := ask(s, "/healthz", "", nil); return status == 200 })
				}
			}
			before := login("one")
			wants("before", before, true)
			user(t, file, "", "logout", "jane")
			meanwhile := login("one") // perhaps before the service has read the file
			wants("logged out", before, false)
			wants("a login of the same second", meanwhile, true)
			after := login("one")
			restart()
			wants("logged out, after a restart", before, false)
			wants("a login of the same second, after a restart", meanwhile, true)
			wants("a later login, after a restart", after, true)

			text, _ := os.ReadFile(file)
			user(t, file, "three", "passwd", "jane", "-cost", "4")
			wants("a new password", after, false)
			changed, _ := os.ReadFile(file)
			hash := func(text []byte) string { return strings.Split(string(text), `"hashed_password": "`)[1][:60] }
			former := strings.Replace(string(changed), hash(changed), hash(text), 1)
			if err := os.WriteFile(file, []byte(former), 0o600); err != nil {
				t.Fatal(err)
			}
			last := ""
			eventually("a login with the former password", func() bool {
				last, _ = logIn(services[0], "jane", "one")
				return last != ""
			})
			wants("the former hash again", after, false)
			wants("a login with it", last, true)

			yesterday := file + ".yesterday" // a backup is cleaned before it is used
			if err := os.WriteFile(yesterday, backup, 0o600); err != nil {
				t.Fatal(err)
			}
			user(t, yesterday, "", "logout", "-all")
			if err := os.Rename(yesterday, file); err != nil {
				t.Fatal(err)
			}
			for _, token := range []string{before, meanwhile, after, last} {
				wants("a restored backup", token, false)
			}
		})
	}
}

// logIn returns a token, or "", and how many seconds it lives.
func logIn(s *process, username, password string) (token string, lives int) {
	_, _, body, _ := ask(s, "/token", "", url.Values{"username": {username}, "password": {password}})
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	json.Unmarshal([]byte(body), &answer)
	return answer.AccessToken, answer.ExpiresIn
}

// introspect returns what john is told of a token.
func introspect(t *testing.T, s *process, token string) string {
	t.Helper()
	r, err := http.NewRequest("POST", s.url+"/introspect", strings.NewReader("token="+token))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("john", "two")
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return string(body)
}

// TestUserKilled kills the command at any moment while it changes a large file. What
// is left must be the old file or the new one, and a service that reads it must never
// see anything else.
func TestUserKilled(t *testing.T) {
	const n = 3000
	dir, hash := t.TempDir(), hashOf(t, "secret")
	file, text := filepath.Join(dir, "users.json"), "{\n"
	for i := range n {
		text += fmt.Sprintf("  \"user%d\": {\"hashed_password\": %q},\n", i, hash)
	}
	if err := os.WriteFile(file, []byte(strings.TrimSuffix(text, ",\n")+"\n}\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	startIn(t, dir, "-users", file) // which fails the test if it logs an error
	began := time.Now()
	user(t, file, "", "logout", "-all")
	takes := time.Since(began)
	last, changed, killed := "", 0, 0
	for began := time.Now(); time.Since(began) < 15*time.Second && killed < 150; {
		command := exec.Command(program, "user", "logout", "-all", "-users", file)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(rand.N(takes), func() { command.Process.Kill() })
		if command.Wait() != nil {
			killed++
		}
		timer.Stop()
		text, err := os.ReadFile(file)
		var users map[string]struct {
			NotBefore string `json:"not_before"`
		}
		if err == nil {
			err = json.Unmarshal(text, &users)
		}
		if err != nil || len(users) != n {
			t.Fatalf("%d users, %v", len(users), err)
		}
		out := users["user0"].NotBefore
		for name, user := range users {
			if user.NotBefore != out {
				t.Fatalf("%s is out since %s, user0 since %s", name, user.NotBefore, out)
			}
		}
		if out < last {
			t.Errorf("out since %s, and before that since %s", out, last)
		}
		if out != last {
			last, changed = out, changed+1
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	t.Logf("killed %d times, changed %d times; it takes %v", killed, changed, takes)
	if killed < 10 || changed < 2 {
		t.Error("too few to tell")
	}
	user(t, file, "", "disable", "user0")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
}

// TestUserOnTerminal adds a user on a terminal, which never shows the password.
func TestUserOnTerminal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.json")
	shell := program + " user add jane -cost 4 -users " + file + "; echo code $?; stty -a"
	said := onTerminal(t, shell, []string{"hunter2\n", "hunter2\n"})
	for text, want := range map[string]bool{`users.json: "jane" added`: true, "code 0": true, "hunter": false} {
		if strings.Contains(said, text) != want {
			t.Errorf("it says %s: %v, want %v\n%s", text, !want, want, said)
		}
	}
	addr := start(t, "-users", file)
	if token, _ := logIn(&process{t: t, url: "http://" + addr}, "jane", "hunter2"); token == "" {
		t.Error("no login")
	}
}

// TestUserInContainer is user 65532 in folders that belong to root and to that user.
func TestUserInContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "container")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	binary, err := os.ReadFile(program)
	if err == nil {
		err = errors.Join(os.WriteFile(in("simple-oauth2"), binary, 0o755), os.Chmod(dir, 0o755),
			os.Mkdir(in("roots"), 0o755), os.Mkdir(in("mine"), 0o700), os.Chown(in("mine"), 65532, 65532),
			os.WriteFile(in("mine/of-root.json"), []byte("{}\n"), 0o644), os.Symlink("..data/x", in("roots/secret.json")))
	}
	if err != nil {
		t.Fatal(err)
	}
	const do = ": give the folder and the file to that user (chown 65532), " +
		"or run the command as their owner (docker run --user)\n"
	for _, tt := range []struct{ name, folder, args, said string }{
		{name: "root's folder", folder: "roots", args: "add jane",
			said: "simple-oauth2: user 65532 may not write in the folder of users.json" + do},
		{name: "a Secret of Kubernetes", folder: "roots", args: "disable jane -users secret.json",
			said: "simple-oauth2: secret.json is a link: change the file that it leads to, or in Kubernetes the Secret\n"},
		{name: "its own", folder: "mine", args: "add jane", said: "users.json: \"jane\" added\n"},
		{name: "root's file in its own", folder: "mine", args: "add jane -users of-root.json",
			said: "simple-oauth2: user 65532 may not keep the owner of of-root.json" + do},
	} {
		t.Run(tt.name, func(t *testing.T) {
			command := exec.Command(in("simple-oauth2"), append([]string{"user"}, strings.Fields(tt.args)...)...)
			command.Dir, command.Stdin = in(tt.folder), strings.NewReader("secret")
			command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
			if out, _ := command.CombinedOutput(); string(out) != tt.said {
				t.Errorf("%s\nwant %s", out, tt.said)
			}
		})
	}
}
