package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestSite runs nginx with examples/site. browser.test.js clicks through its page.
func TestSite(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	s := newStage(t, "../examples/site", strings.TrimPrefix(b.URL, "http://"), "-trusted-proxies", "127.0.0.1")
	s.runNginx("", "site.conf")
	s.checkAddress()

	for path, kind := range map[string]string{"/": "text/html", "/site.css": "text/css", "/site.js": "javascript"} {
		status, header, body := s.send("GET", path, nil, "")
		if status != 200 || !strings.Contains(header.Get("Content-Type"), kind) || body == "" {
			t.Errorf("%s: %d %s", path, status, header)
		}
		if policy := header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; ") {
			t.Errorf("%s: the policy is %q", path, policy)
		}
	}

	form := func(path string, fields url.Values) (status int, body string) {
		t.Helper()
		text := fields.Encode()
		status, _, body = s.send("POST", path, []string{"Content-Type: application/x-www-form-urlencoded", fmt.Sprint("Content-Length: ", len(text))}, text)
		return status, body
	}
	status, body := form("/login/token", url.Values{"username": {"jane"}, "password": {"secret"}, "scope": {"items:read"}})
	var login struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal([]byte(body), &login); status != 200 || login.AccessToken == "" {
		t.Fatalf("/login/token: %d %s", status, body)
	}
	bearer := "Authorization: Bearer " + login.AccessToken
	if status, _, body := s.send("GET", "/login/users/me", []string{bearer}, ""); status != 200 || !strings.Contains(body, `"username":"jane"`) {
		t.Errorf("/login/users/me: %d %s", status, body)
	}

	for _, headers := range [][]string{nil, {"Remote-User: admin", "Connection: close"}} {
		status, _, body := s.send("GET", "/api/items/1?q=1", append(slices.Clone(headers), bearer), "")
		got := b.take()
		if status != 200 || len(got) != 1 || got[0].uri != "/items/1?q=1" || got[0].host != s.addr {
			t.Errorf("/api/items/1 with %q: %d %s, and %v reached the backend", headers, status, body, got)
		} else if said := got[0].identity(); !maps.Equal(said, jane) {
			t.Errorf("/api/items/1 with %q: the backend sees %v", headers, said)
		}
		for _, path := range []string{
			"/", "/api", "/api/", "/api/items/1", "//api/items/1", "/./api/items/1", "/%61pi/items/1", "/api%2fitems/1", "/api/../items/1", "/api/..",
			"/api/%2e%2e/items/1", "/login/../api/items/1", "/login/..%2fapi/items/1", "/items/1", "/auth", "/auth/items/1", "/site.js/../api/items/1",
			"/API/items/1", "http://other.example/api/items/1",
		} {
			status, _, _ := s.send("GET", path, headers, "")
			if got := b.take(); got != nil {
				t.Errorf("%s with %q and no token: %d, and %v reached the backend", path, headers, status, got)
			}
		}
	}

	// Cookies of other pages of the same host are no matter for the service.
	cookies := []string{bearer, "Cookie: a=" + strings.Repeat("b", 7_000), "Cookie: c=" + strings.Repeat("d", 7_000),
		"Cookie: e=" + strings.Repeat("f", 7_000)}
	for _, path := range []string{"/login/users/me", "/api/items/1"} {
		if status, _, body := s.send("GET", path, cookies, ""); status != 200 {
			t.Errorf("%s with large cookies: %d %s", path, status, body)
		}
	}
	b.take()

	// Only services may introspect, and they ask the service itself.
	question := url.Values{
		"token":         {login.AccessToken},
		"client_id":     {"items-service"},
		"client_secret": {"battery staple"},
	}
	for _, path := range []string{
		"/login/introspect", "/login//introspect", "/login/./introspect", "/login/%69ntrospect", "/login/x/../introspect",
		"/login/introspect/", "/login/introspect/x", "/login/introspect?a=b", "//login/introspect",
	} {
		if status, body := form(path, question); status != 403 && status != 404 || strings.Contains(body, "active") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}

	if status, _, _ := s.send("GET", "/auth", []string{bearer}, ""); status != 404 {
		t.Errorf("/auth, which is nginx's own: %d", status)
	}
	s.checkBody(b, "/api")

	// The service knows its clients' addresses: this one has two.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	elsewhere := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	response, err := elsewhere.PostForm("http://"+s.addr+"/login/token", url.Values{"username": {"jane"}, "password": {"wrong"}})
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if log, _ := os.ReadFile(s.service.log); response.StatusCode != 400 || !strings.Contains(string(log), `msg="login failed" client=127.0.0.2 `) {
		t.Errorf("a login from 127.0.0.2: %s\n%s", response.Status, log)
	}

	if status, body := form("/login/revoke", url.Values{"token": {login.AccessToken}}); status != 200 {
		t.Errorf("/login/revoke: %d %s", status, body)
	}
	if status, _, _ := s.send("GET", "/api/items/1", []string{bearer}, ""); status != 401 || b.take() != nil {
		t.Errorf("/api/items/1 with a token that was revoked: %d", status)
	}
	s.checkTokens("/api/items/1", 403, 500)
}
