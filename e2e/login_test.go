package e2e

import (
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var withPage = []string{"-login-page", "-trusted-proxies", "127.0.0.1"}

// loginGateways send browsers to the login page. login.test.js clicks through them.
var loginGateways = []gateway{
	{name: "../examples/nginx browser", closed: true, args: withPage, inactive: 403, broken: 500,
		run: func(s *stage) { s.runNginx("", "browser.conf") }},
	{name: "../examples/caddy browser", closed: true, args: withPage, inactive: 403, broken: 500,
		run: func(s *stage) { s.runCaddy("browser.Caddyfile") }},
	{name: "../examples/haproxy browser", closed: true, args: withPage, inactive: 403, broken: 500,
		run: func(s *stage) { s.run("haproxy", "-db", "-C", s.dir, "-f", "browser.cfg") }},
}

// enter logs in through the gateway, and returns the cookie as a browser sends it.
func (s *stage) enter(username string) (cookie string) {
	s.t.Helper()
	form := url.Values{"username": {username}, "password": {"secret"}}.Encode()
	status, header, body := s.send("POST", "/login?to=/items/1", []string{
		"Content-Type: application/x-www-form-urlencoded", "Content-Length: " + strconv.Itoa(len(form)),
		"Origin: http://" + s.addr,
	}, form)
	for _, line := range header["Set-Cookie"] {
		if set, err := http.ParseSetCookie(line); err == nil && set.Value != "" && status == 303 {
			return set.Name + "=" + set.Value
		}
	}
	s.t.Fatalf("login of %s: %d %v %s", username, status, header, body)
	return ""
}

// TestLoginGateways runs each gateway that sends browsers to the login page. For
// clients with a token it is like the others.
func TestLoginGateways(t *testing.T) {
	for _, g := range loginGateways {
		t.Run(filepath.Base(g.name), func(t *testing.T) {
			t.Parallel()
			b := newBackend(t)
			s := g.before(t, strings.TrimPrefix(b.URL, "http://"))
			s.checkAddress()
			s.checkPaths(b)
			s.checkBody(b, "")
			s.checkUpgrade(b)
			s.checkRedirects(b)
			s.checkCookies(b)
			s.checkTokens("/items/1", g.inactive, g.broken)
			for _, r := range b.take() {
				if r.identity()["remote-user"] == "" {
					t.Errorf("without a token %s reached the backend", r.uri)
				}
			}
		})
	}
}

// checkRedirects wants only browsers to be sent to the page.
func (s *stage) checkRedirects(b *backend) {
	s.t.Helper()
	const html = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, tt := range []struct {
		name, method, path string
		headers            []string
		status             int
	}{
		{name: "a browser", path: "/report?from=1&to=2&name=%C3%BC", headers: []string{html}, status: 303},
		{name: "at the root", path: "/", headers: []string{html}, status: 303},
		{name: "a form", method: "POST", path: "/save", headers: []string{html, "Content-Length: 0"}, status: 303},
		{name: "with an ended session", path: "/a", headers: []string{html, "Cookie: simple_oauth2=old"}, status: 303},
		{name: "with two sessions", path: "/a", status: 303,
			headers: []string{html, "Cookie: simple_oauth2=a; simple_oauth2=b"}},
		{name: "a fetch call", path: "/a", headers: []string{"Accept: */*"}, status: 401},
		{name: "a call for JSON", path: "/a", headers: []string{"Accept: application/json"}, status: 401},
		{name: "an image", path: "/a.png", headers: []string{"Accept: image/avif,image/webp,*/*;q=0.8"}, status: 401},
		{name: "curl without Accept", path: "/a", status: 401},
		{name: "a wrong token", path: "/a", headers: []string{html, "Authorization: Bearer x"}, status: 401},
		{name: "a disabled user", path: "/a", headers: []string{html, s.bearer("alice")}, status: 403},
		{name: "a user without the scope", path: "/a", headers: []string{html, s.bearer("bob")}, status: 403},
	} {
		if tt.method == "" {
			tt.method = "GET"
		}
		status, header, body := s.send(tt.method, tt.path, tt.headers, "")
		want := ""
		if tt.status == 303 {
			want = "/login?to=" + tt.path
		}
		if status != tt.status || header.Get("Location") != want {
			s.t.Errorf("%s: %d, to %q; %s", tt.name, status, header.Get("Location"), body)
		}
		if got := b.take(); got != nil {
			s.t.Errorf("%s: it reaches the tool", tt.name)
		}
	}
}

// checkCookies wants the session to tell the tool who it is, and its cookie not to
// reach the tool.
func (s *stage) checkCookies(b *backend) {
	s.t.Helper()
	cookie := s.enter("jane")
	for _, tt := range []struct {
		name    string
		headers []string
		others  string // what the tool gets, without white space
	}{
		{name: "alone", headers: []string{"Cookie: " + cookie}},
		{name: "first", headers: []string{"Cookie: " + cookie + "; a=b"}, others: "a=b"},
		{name: "last", headers: []string{"Cookie: a=b; " + cookie}, others: "a=b"},
		{name: "between", headers: []string{"Cookie: a=b; " + cookie + "; c=d"}, others: "a=b;c=d"},
		{name: "without spaces", headers: []string{"Cookie: a=b;" + cookie + ";c=d"}, others: "a=b;c=d"},
		{name: "in two headers", headers: []string{"Cookie: a=b", "Cookie: " + cookie}, others: "a=b"},
		{name: "with names like it", headers: []string{"Cookie: xsimple_oauth2=b; " + cookie + "; simple_oauth2x=d"},
			others: "xsimple_oauth2=b;simple_oauth2x=d"},
		{name: "beside 7 KB", headers: []string{"Cookie: a=" + strings.Repeat("b", 7_000) + "; " + cookie},
			others: "a=" + strings.Repeat("b", 7_000)},
		{name: "beside a bearer token", headers: []string{"Cookie: " + cookie, s.bearer("jane")}},
		{name: "a bearer token and others' cookies", headers: []string{s.bearer("jane"),
			"Cookie: simple_oauth2=a; __Host-simple_oauth2=b; __Secure-simple_oauth2=c"}},
		{name: "a bearer token and two of one name", headers: []string{s.bearer("jane"),
			"Cookie: simple_oauth2=a; simple_oauth2=b"}},
		{name: "forged",
			headers: []string{"Cookie: " + cookie, "Remote-User: admin", "Remote_User: admin", "REMOTE-NAME: a"}},
		{name: "dropped by Connection",
			headers: []string{"Cookie: " + cookie, "Connection: close, Remote-User, Remote-Name"}},
	} {
		status, _, body := s.send("GET", "/items/1?q=1", tt.headers, "")
		got := b.take()
		if status != 200 || len(got) != 1 || got[0].uri != "/items/1?q=1" || got[0].host != s.addr {
			s.t.Errorf("%s: %d %s, and %d requests reached the tool", tt.name, status, body, len(got))
			continue
		}
		if said := got[0].identity(); !maps.Equal(said, jane) {
			s.t.Errorf("%s: the tool sees %v", tt.name, said)
		}
		separates := func(r rune) bool { return r == ';' || r == ' ' }
		others := strings.FieldsFunc(strings.Join(got[0].header["Cookie"], ";"), separates)
		if got := strings.Join(others, ";"); got != tt.others {
			s.t.Errorf("%s: the tool gets the cookies %.200q", tt.name, got)
		}
	}

	// The scheme decides whether the plain cookie counts, and only the gateway says it.
	for _, headers := range [][]string{
		{"Cookie: __Host-" + cookie, "X-Forwarded-Proto: https"},
		{"Cookie: " + cookie, "X-Forwarded-Proto: https"},
	} {
		status, _, _ := s.send("GET", "/items/1", headers, "")
		if b.take(); status != 200 {
			s.t.Errorf("with %q: %d", headers, status)
		}
	}

	status, header, _ := s.send("GET", "/items/1", []string{"Cookie: " + cookie, "Connection: Upgrade",
		"Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, "")
	if got := b.take(); len(got) != 1 || got[0].header.Get("Upgrade") != "websocket" {
		s.t.Errorf("a WebSocket: %d %v, and the tool gets %v", status, header, got)
	}

	// Other paths of the service are out of reach.
	for _, path := range []string{
		"/users/me", "/token", "/introspect", "/revoke", "/auth", "/login/../users/me", "/login/users/me",
		"/login%2f..%2fusers/me", "/logout/../token", "//login", "/docs", "/healthz",
	} {
		status, _, body := s.send("GET", path, []string{"Authorization: Bearer x"}, "")
		if b.take(); status != 401 && status != 404 && status != 403 || strings.Contains(body, "{\"status") {
			s.t.Errorf("%s: %d %s", path, status, body)
		}
	}

	leave := []string{"Cookie: " + cookie, "Content-Length: 0"}
	status, _, _ = s.send("POST", "/logout", append(slices.Clip(leave), "Origin: http://evil.example"), "")
	if status != 403 {
		s.t.Errorf("a logout of another site: %d", status)
	}
	status, header, _ = s.send("POST", "/logout", append(slices.Clip(leave), "Origin: http://"+s.addr), "")
	if status != 303 || !strings.Contains(strings.Join(header["Set-Cookie"], "\n"), "\nsimple_oauth2=;") {
		s.t.Errorf("a logout: %d %v", status, header)
	}
	if status, _, _ := s.send("GET", "/items/1", []string{"Cookie: " + cookie}, ""); status != 401 || b.take() != nil {
		s.t.Errorf("after the logout: %d", status)
	}
}
