package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// keeper is the program with a tokens file, and what its clients were told.
type keeper struct {
	*process
	file string

	mu   sync.Mutex
	told map[string]int // the status of each token, as far as the answers show it
}

// newKeeper starts the program with a tokens file, through a command if there is
// one.
func newKeeper(t *testing.T, file string, behind ...string) *keeper {
	t.Helper()
	dir := t.TempDir()
	users, _ := json.Marshal(map[string]any{"johndoe": map[string]string{"hashed_password": hashOf(t, "secret")}})
	if err := os.WriteFile(filepath.Join(dir, "users.json"), users, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddrs(t, 1)[0]
	command := append(behind, program, "-addr", addr, "-users", filepath.Join(dir, "users.json"), "-tokens-file", file)
	k := &keeper{file: file, told: make(map[string]int),
		process: &process{t: t, name: command[0], args: command[1:], url: "http://" + addr, log: filepath.Join(dir, "log")}}
	k.start()
	t.Cleanup(func() {
		k.kill()
		if t.Failed() {
			log, _ := os.ReadFile(k.log)
			t.Logf("%s", regexp.MustCompile(`(?m)^.* msg=(login|"token revoked") .*\n`).ReplaceAll(log, nil))
		}
	})
	k.healthz(ok)
	return k
}

// healthz waits for an answer.
func (k *keeper) healthz(want string) {
	k.t.Helper()
	var body string
	for deadline := time.Now().Add(20 * time.Second); body != want; time.Sleep(time.Millisecond) {
		_, _, body, _ = ask(k.process, "/healthz", "", nil)
		if time.Now().After(deadline) {
			k.t.Fatalf("/healthz says %s, want %s", body, want)
		}
	}
}

const (
	ok              = `{"status":"ok"}`
	cannotBeWritten = `{"status":"ok","detail":"the tokens file cannot be written"}`
	wasChanged      = `{"status":"ok","detail":"something else changed, moved or removed the tokens file: ` +
		`put it back, or restart the service; if another program uses the file, stop that one first"}`
)

// many is a client for many requests.
var many = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// post sends a form and returns the answer; status 0 means none.
func (k *keeper) post(path string, form url.Values) (status int, body []byte) {
	response, err := many.PostForm(k.url+path, form)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		return 0, nil
	}
	if response.StatusCode == 503 && response.Header.Get("Retry-After") == "" {
		k.t.Error("503 without Retry-After")
	}
	return response.StatusCode, body
}

func (k *keeper) tell(token string, status int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told[token] = status
}

func (k *keeper) login() (token string, status int) {
	status, body := k.post("/token", url.Values{"username": {"johndoe"}, "password": {"secret"}})
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	json.Unmarshal(body, &answer)
	if status == 200 {
		k.tell(answer.AccessToken, 200)
	}
	return answer.AccessToken, status
}

func (k *keeper) revoke(token string) (status int) {
	status, _ = k.post("/revoke", url.Values{"token": {token}})
	switch status {
	case 200:
		k.tell(token, 401)
	case 0: // it may have been carried out
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.told, token)
	}
	return status
}

// stop ends the program with SIGTERM.
func (k *keeper) stop() {
	k.signal(syscall.SIGTERM)
	if err := k.cmd.Wait(); err != nil {
		k.t.Errorf("on SIGTERM: %v", err)
	}
}

// check wants the tokens to match what the clients were told.
func (k *keeper) check(when string, told map[string]int) {
	k.t.Helper()
	var wrong atomic.Int64
	all := make(chan string)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for token := range all {
				request, _ := http.NewRequest("GET", k.url+"/users/me", nil)
				request.Header.Set("Authorization", "Bearer "+token)
				response, err := many.Do(request)
				if err != nil {
					k.t.Error(err)
					continue
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != told[token] {
					wrong.Add(1)
				}
			}
		})
	}
	for token := range told {
		all <- token
	}
	close(all)
	clients.Wait()
	if wrong.Load() > 0 {
		k.t.Errorf("%s: %d of %d tokens are not what the answers said", when, wrong.Load(), len(told))
	}
}

// load logs in and revokes half of the tokens, by some clients that pause
// after each login, until the program does not answer. The returned function waits
// for that.
func (k *keeper) load(clients int, pause time.Duration) (wait func()) {
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				token, status := k.login()
				if status == 0 {
					return
				}
				if rand.IntN(2) == 0 && k.revoke(token) == 0 {
					return
				}
				time.Sleep(pause)
			}
		})
	}
	return all.Wait
}

// restart ends the program and starts it again.
func (k *keeper) restart(end, wait func()) {
	end()
	wait()
	k.start()
	k.healthz(ok)
}

// TestTokensFileKilled kills the program a hundred times under load.
func TestTokensFileKilled(t *testing.T) {
	k := newKeeper(t, filepath.Join(t.TempDir(), "tokens"))
	all := make(map[string]int)
	for n := range 100 {
		k.told = make(map[string]int)
		wait := k.load(8, 0)
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		k.restart(k.kill, wait)
		k.check(fmt.Sprint("after kill ", n), k.told)
		maps.Copy(all, k.told)
	}
	k.check("after all", all)
	t.Logf("%d tokens", len(all))
	if len(all) < 1000 {
		t.Error("there was too little load")
	}
}

var soak = flag.Duration("soak", 0, "how long TestTokensFileSoak restarts the program under load")

// TestTokensFileSoak restarts the program every twenty seconds, by SIGTERM and
// by kill -9:
//
//	go test -run TokensFileSoak -timeout 1h -v -soak 20m
func TestTokensFileSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("needs -soak")
	}
	k := newKeeper(t, filepath.Join(t.TempDir(), "tokens"))
	restarts := 0
	for began := time.Now(); time.Since(began) < *soak; restarts++ {
		wait := k.load(4, 20*time.Millisecond)
		time.Sleep(20 * time.Second)
		end := k.kill
		if restarts%2 == 0 {
			end = k.stop
		}
		k.restart(end, wait)
	}
	k.check("after all", k.told)
	t.Logf("%d restarts, %d tokens", restarts, len(k.told))
}

// TestTokensFileStopped stops the program, starts it again, and starts a second
// one beside it.
func TestTokensFileStopped(t *testing.T) {
	k := newKeeper(t, filepath.Join(t.TempDir(), "tokens"))
	k.login()
	token, _ := k.login()
	k.revoke(token)
	k.restart(k.stop, func() {})
	k.check("after a stop", k.told)

	out, err := exec.Command(program, "-addr", "127.0.0.1:0", "-tokens-file", k.file).CombinedOutput()
	want := ` level=ERROR msg=exiting error="-tokens-file ` + k.file + ": lock " + k.file +
		".lock: another process is using this file\"\n"
	if err == nil || !strings.HasSuffix(string(out), want) {
		t.Errorf("a second process: %v\n%s", err, out)
	}
}

// refuses wants logins and the revocation of a token to get 503, and /healthz to say
// why.
func (k *keeper) refuses(token, when string) {
	k.t.Helper()
	if _, status := k.login(); status != 503 {
		k.t.Errorf("%s, a login: %d", when, status)
	}
	if status := k.revoke(token); status != 503 {
		k.t.Errorf("%s, a revocation: %d", when, status)
	}
	k.healthz(wasChanged)
	k.check(when, k.told)
}

// goesOn wants logins to be answered again.
func (k *keeper) goesOn(when string) {
	k.t.Helper()
	k.healthz(ok)
	if _, status := k.login(); status != 200 {
		k.t.Errorf("%s, a login: %d", when, status)
	}
	k.check(when, k.told)
}

// TestTokensFileChanged changes, moves and removes the file of a running program.
// Logins get 503 until the owner has decided what counts.
func TestTokensFileChanged(t *testing.T) {
	k := newKeeper(t, filepath.Join(t.TempDir(), "tokens"))
	k.expected = []string{"the tokens file cannot be written, known tokens keep working"}
	token, _ := k.login()
	k.login()
	whole, err := os.ReadFile(k.file)
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(when string) { t.Helper(); k.refuses(token, when) }
	goesOn := func(when string) { t.Helper(); k.goesOn(when) }

	shell(t, filepath.Dir(k.file), "mv tokens old")
	refuses("moved")
	shell(t, filepath.Dir(k.file), "mv old tokens")
	goesOn("moved back")
	const change = "printf '*' | dd of=tokens conv=notrunc bs=1 seek=60 status=none"
	shell(t, filepath.Dir(k.file), "cp -p tokens copy && "+change+" && touch -r copy tokens")
	refuses("changed with the same size and time")
	shell(t, filepath.Dir(k.file), "cat copy >tokens")
	goesOn("written as it was")
	shell(t, filepath.Dir(k.file), "chmod 640 tokens && ln tokens backup && touch tokens")
	goesOn("touched")
	shell(t, filepath.Dir(k.file), change)
	refuses("changed")

	k.stop()
	out, err := exec.Command(program, "-addr", "127.0.0.1:0", "-tokens-file", k.file).CombinedOutput()
	want := "-tokens-file " + k.file + ": line 2, at byte 23, is damaged"
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("with the changed file: %v\n%s", err, out)
	}
	if err := os.WriteFile(k.file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	k.told = map[string]int{token: 200}
	goesOn("with a copy")

	shell(t, filepath.Dir(k.file), "rm tokens")
	refuses("removed")
	k.stop()
	k.start()
	k.told = map[string]int{token: 401}
	goesOn("with no file")
	log, err := os.ReadFile(k.log)
	if err != nil {
		t.Fatal(err)
	}
	told := `level=ERROR msg="` + k.expected[0] + `" error="something else`
	if n := strings.Count(string(log), told); n != 4 {
		t.Errorf("the log says it %d times, want 4", n)
	}
}

// TestTokensFileLinks changes the links that lead to the file of a running program.
// Until they are as before, nothing is answered that the next start would not know.
func TestTokensFileLinks(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "mkdir v1 v2 && ln -s v1 cur && ln -s cur/tokens link")
	k := newKeeper(t, filepath.Join(dir, "link"))
	k.expected = []string{"the tokens file cannot be written, known tokens keep working"}
	token, _ := k.login()
	for _, tt := range []struct{ name, change, undo string }{
		{"the folder swapped", "cp -p v1/* v2 && ln -s v2 new && mv -T new cur", "ln -sfn v1 cur"},
		{"an empty folder", "mkdir empty && ln -sfn empty cur", "ln -sfn v1 cur"},
		{"no folder", "rm cur", "ln -s v1 cur"},
		{"a file in the place of the folder", "ln -sfn v1/tokens cur", "ln -sfn v1 cur"},
		{"the link turned", "ln -sfn v2/tokens link", "ln -sfn cur/tokens link"},
		{"the link removed", "rm link", "ln -s cur/tokens link"},
		{"the link replaced by a copy", "rm link && cp -p v1/tokens link", "ln -sfn cur/tokens link"},
		{"the folder moved", "mv v1 old && ln -sfn old cur", "mv old v1 && ln -sfn v1 cur"},
	} {
		shell(t, dir, tt.change)
		k.refuses(token, tt.name)
		shell(t, dir, tt.undo)
		k.goesOn("undone: " + tt.name)
	}
	shell(t, dir, "mv v1 moved && ln -s moved v1")
	k.goesOn("a link where the folder was")
	k.revoke(token)
	k.restart(k.stop, func() {})
	k.check("after a stop", k.told)
}

// TestTokensFileTwoNames starts a second program on the file by a name in another
// folder, where it does not see the lock of the first.
func TestTokensFileTwoNames(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "mkdir a b")
	first := newKeeper(t, filepath.Join(dir, "a/tokens"))
	first.expected = []string{"the tokens file cannot be written, known tokens keep working"}
	token, _ := first.login()
	shell(t, dir, "ln a/tokens b/tokens")
	second := newKeeper(t, filepath.Join(dir, "b/tokens"))
	second.login()
	first.refuses(token, "another program uses the file")
	second.stop()
	first.restart(first.stop, func() {})
	first.check("when it is alone again", first.told)
}

// TestTokensFileNoRoom lets the disk of the file run full, and makes room again.
func TestTokensFileNoRoom(t *testing.T) {
	for _, tt := range []struct {
		name   string
		folder func(t *testing.T) string
		behind []string
		back   func(k *keeper) error
	}{
		{"a limit of the file's size", (*testing.T).TempDir, []string{"prlimit", "--fsize=20000:"}, func(k *keeper) error {
			return exec.Command("prlimit", "--fsize=unlimited:", "--pid", fmt.Sprint(k.cmd.Process.Pid)).Run()
		}},
		{"a full disk", func(t *testing.T) string {
			folder := t.TempDir()
			if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "none", folder).Run(); err != nil {
				t.Skip("mounting is not permitted")
			}
			t.Cleanup(func() { exec.Command("umount", folder).Run() })
			return folder
		}, nil, func(k *keeper) error {
			return exec.Command("mount", "-o", "remount,size=1m", filepath.Dir(k.file)).Run()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKeeper(t, filepath.Join(tt.folder(t), "tokens"), tt.behind...)
			k.expected = []string{"the tokens file cannot be written"}
			kept := 0
			for _, status := k.login(); status == 200; _, status = k.login() {
				if kept++; kept > 10_000 {
					t.Fatal("there is room enough")
				}
			}
			k.healthz(cannotBeWritten)
			refused := 0
			for token := range maps.Clone(k.told) {
				// The line of a revocation is shorter than that of a login.
				switch status := k.revoke(token); status {
				case 503:
					refused++
				case 200:
					kept++
				default:
					t.Errorf("a revocation: %d", status)
				}
			}
			if refused == 0 {
				t.Error("no revocation was refused")
			}
			k.check("without room", k.told)
			if err := tt.back(k); err != nil {
				t.Fatal(err)
			}
			k.healthz(ok)
			if _, status := k.login(); status != 200 {
				t.Errorf("with room again: %d", status)
			}
			k.kill()
			k.start()
			k.healthz(ok)
			k.check("after a kill", k.told)
			log, err := os.ReadFile(k.log)
			if err != nil {
				t.Fatal(err)
			}
			// A rewrite in between leaves out what is history, so there may be fewer.
			read := regexp.MustCompile(`lines=(\d+) `).FindAllStringSubmatch(string(log), -1)
			if len(read) == 0 {
				t.Fatalf("the log does not say how many lines were read:\n%s", log)
			}
			if lines, _ := strconv.Atoi(read[len(read)-1][1]); lines > 1+kept+1 {
				t.Errorf("what was refused is in the file: %d lines, want %d at most", lines, 1+kept+1)
			}
			t.Logf("room for %d lines", kept)
		})
	}
}
