package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPasswordsByCurl hashes passwords with characters that mean something in a form
// or in a shell, and logs in with each of them as the README says.
func TestPasswordsByCurl(t *testing.T) {
	passwords := []string{"a+b", "a;b", "100%", "a&b", "a=b", "%41", "a b", "@file", "'\"$HOME`", "zoë", `\`}
	users := make(map[string]any)
	for i, password := range passwords {
		users[fmt.Sprint("user", i)] = map[string]string{"hashed_password": hashOf(t, password)}
	}
	text, _ := json.Marshal(users)
	file := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := start(t, "-users", file)
	for i, password := range passwords {
		out, err := exec.Command("curl", "-s", addr+"/token", "-d", fmt.Sprint("username=user", i),
			"--data-urlencode", "password="+password).Output()
		if err != nil || !strings.Contains(string(out), `"access_token"`) {
			t.Errorf("%s: %v %s", password, err, out)
		}
	}
}

// TestPasswordChangedOnReplicas changes a user's hash under two replicas that
// share an etcd, and restarts one of them.
func TestPasswordChangedOnReplicas(t *testing.T) {
	c := startCluster(t)
	hash := func(password string) string { return hashOf(t, password) }
	file := filepath.Join(t.TempDir(), "users.json")
	write := func(hashes map[string]string) {
		users := make(map[string]any)
		for name, hash := range hashes {
			users[name] = map[string]string{"hashed_password": hash}
		}
		text, _ := json.Marshal(users)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	jane, john, anew := hash("one"), hash("two"), hash("one")
	write(map[string]string{"jane": jane, "john": john})
	for i, r := range c.replicas {
		r.kill()
		r.args = append(r.args, "-users", file)
		r.start()
		c.eventually("healthy", func() bool { return c.healthy(c.replicas[i]) })
	}
	a, b := c.replicas[0], c.replicas[1]
	login := func(username, password string) string {
		_, _, body, _ := ask(a, "/token", "", url.Values{"username": {username}, "password": {password}})
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		json.Unmarshal([]byte(body), &answer)
		return answer.AccessToken
	}
	janes, johns := login("jane", "one"), login("john", "two")

	for _, tt := range []struct {
		name        string
		users       map[string]string
		janes, john int
	}{
		{"the same hashes", map[string]string{"jane": jane, "john": john}, 200, 200},
		{"the same password hashed anew", map[string]string{"jane": anew, "john": john}, 401, 200},
		{"the former hash again", map[string]string{"jane": jane, "john": john}, 200, 200},
		{"removed", map[string]string{"john": john}, 401, 200},
		{"added again with another password", map[string]string{"jane": hash("three"), "john": john}, 401, 200},
	} {
		write(tt.users)
		a.signal(syscall.SIGHUP)
		b.kill()
		b.start()
		c.eventually("healthy", func() bool { return c.healthy(b) })
		c.eventually(tt.name, func() bool { return me(a, janes) == tt.janes })
		for _, r := range c.replicas {
			if status := me(r, janes); status != tt.janes {
				t.Errorf("%s: jane's token is %d on %s, want %d", tt.name, status, r.url, tt.janes)
			}
			if status := me(r, johns); status != tt.john {
				t.Errorf("%s: john's token is %d on %s, want %d", tt.name, status, r.url, tt.john)
			}
		}
	}
}
