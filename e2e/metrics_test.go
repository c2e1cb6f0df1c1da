package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMetrics uses a service in all ways, lets promtool check its metrics, and lets
// a real Prometheus scrape them.
func TestMetrics(t *testing.T) {
	for _, command := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Skipf("no %s here: Debian's prometheus has it", command)
		}
	}
	dir, addrs := t.TempDir(), freeAddrs(t, 2)
	metrics := addrs[0]
	users := filepath.Join(dir, "users.json")
	text := fmt.Sprintf(`{"jane": {"hashed_password": %q, "scopes": ["introspect"]}}`, hashOf(t, "hunter2"))
	if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	service := &process{t: t, url: "http://" + start(t, "-users", users, "-metrics-addr", metrics)}
	var token string
	for _, password := range []string{"hunter2", "hunter2", "hunter3"} {
		_, _, body, _ := ask(service, "/token", "", url.Values{"username": {"jane"}, "password": {password}, "scope": {"introspect"}})
		if found := regexp.MustCompile(`"access_token":"([^"]+)"`).FindStringSubmatch(body); found != nil {
			token = found[1]
		}
	}
	for range 5 {
		ask(service, "/users/me", token, nil)
	}
	ask(service, "/users/me", "nonsense", nil)
	ask(service, "/introspect", token, url.Values{"token": {token}})
	ask(service, "/introspect", token, url.Values{"token": {"nonsense"}})
	for _, secret := range []string{"hunter2", "hunter2", "hunter3"} {
		credentials := url.Values{"token": {token}, "client_id": {"jane"}, "client_secret": {secret}}
		ask(service, "/introspect", "", credentials)
	}
	ask(service, "/auth/jane", token, nil)
	ask(service, "/auth?scope=other", token, nil)
	ask(service, "/auth", "", nil)
	ask(service, "/jane", "", nil)
	ask(service, "/metrics", "", nil) // which is only on the other listener
	ask(service, "/revoke", "", url.Values{"token": {token}})

	response, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	told := string(body)
	for _, want := range []string{
		`simple_oauth2_logins_total{result="ok"} 3`,
		`simple_oauth2_logins_total{result="wrong"} 2`,
		`simple_oauth2_login_wait_seconds_count 4`,  // with the right secret remembered, a wrong one
		`simple_oauth2_login_check_seconds_count 4`, // needs no check
		`simple_oauth2_revocations_total{result="ok"} 1`,
		`simple_oauth2_introspections_total{result="active"} 3`,
		`simple_oauth2_introspections_total{result="refused"} 1`,
		`simple_oauth2_introspections_total{result="inactive"} 1`,
		`simple_oauth2_auth_total{result="passed"} 1`,
		`simple_oauth2_auth_total{result="forbidden"} 1`,
		`simple_oauth2_auth_total{result="unauthenticated"} 1`,
		`simple_oauth2_requests_total{route="/users/me",status="200"} 5`,
		`simple_oauth2_requests_total{route="/users/me",status="401"} 1`,
		`simple_oauth2_requests_total{route="/auth",status="200"} 1`,
		`simple_oauth2_requests_total{route="other",status="404"} 2`,
		`simple_oauth2_token_store_up 1`,
		`simple_oauth2_tokens_live 1`,
	} {
		if !strings.Contains(told, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, secret := range []string{"jane", "127.0.0.1", "hunter", "nonsense", token, "$2"} {
		if strings.Contains(told, secret) {
			t.Errorf("the metrics have %q", secret)
		}
	}
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(told)
	if out, err := promtool.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	if t.Failed() {
		t.Log(told)
	}

	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 200ms}
scrape_configs:
- job_name: oauth2
  static_configs: [{targets: [%q]}]
`, metrics), 0o600); err != nil {
		t.Fatal(err)
	}
	prometheus := &process{t: t, name: "prometheus", url: "http://" + addrs[1], log: filepath.Join(dir, "prometheus.log"), args: []string{
		"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", addrs[1]}}
	prometheus.start()
	t.Cleanup(prometheus.kill)
	// The two logins and the client credentials, as Prometheus reports them.
	query := "/api/v1/query?query=" + url.QueryEscape(`simple_oauth2_logins_total{result="ok"} and on (instance) up == 1`)
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	for deadline := time.Now().Add(30 * time.Second); len(answer.Data.Result) == 0; time.Sleep(20 * time.Millisecond) {
		_, _, body, _ := ask(prometheus, query, "", nil)
		json.Unmarshal([]byte(body), &answer)
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(prometheus.log)
			t.Fatalf("Prometheus says %s\n%s", body, log)
		}
	}
	if value := answer.Data.Result[0].Value[1]; value != "3" {
		t.Errorf("Prometheus has %v logins, want 3", value)
	}
}
