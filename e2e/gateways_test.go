package e2e

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// backend is what a gateway guards. It records the requests that reach it.
type backend struct {
	*httptest.Server
	mu      sync.Mutex
	reached []reached
}

type reached struct {
	method, host, uri, body string
	header                  http.Header
}

func newBackend(t *testing.T) *backend {
	b := new(backend)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reached = append(b.reached, reached{r.Method, r.Host, r.RequestURI, string(body), r.Header})
	}))
	t.Cleanup(b.Close)
	return b
}

// take returns what has reached the backend since it was last asked.
func (b *backend) take() (all []reached) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, b.reached = b.reached, nil
	return all
}

// identity returns what the headers say about the client. Empty headers are left
// out.
func (r reached) identity() map[string]string {
	said := make(map[string]string)
	for name, values := range r.header {
		if value := strings.Join(values, ", "); strings.HasPrefix(name, "Remote-") && value != "" {
			said[strings.ToLower(name)] = value
		}
	}
	return said
}

var (
	jane = map[string]string{"remote-user": "jane", "remote-name": "Jane Roe", "remote-email": "jane@example.com", "remote-scope": "items:read"}
	zoe  = map[string]string{"remote-user": "zoe", "remote-name": "Zo%C3%AB", "remote-scope": "items:write items:read items:list"}
)

// gateway is a program that asks the service before it passes a request on.
type gateway struct {
	name string   // the folder, and more after a space
	says []string // what it tells the backend; by default all
	run  func(s *stage)

	closed bool     // there is no open path
	args   []string // of the service

	inactive, broken int // the status for a disabled user, and the lowest one without the service
}

// gateways have a guarded path, /items/1, and an open one, /.
var gateways = []gateway{
	{name: "../examples/nginx", inactive: 403, broken: 500,
		run: func(s *stage) { s.runNginx("", "guarded.conf") }},
	{name: "testdata/nginx-introspection", says: introspected, inactive: 401, broken: 500,
		run: func(s *stage) {
			s.runNginx("load_module /usr/lib/nginx/modules/ngx_http_js_module.so;\n", "guarded.conf")
		}},
	{name: "../examples/caddy", inactive: 403, broken: 500,
		run: func(s *stage) { s.runCaddy("Caddyfile") }},
	{name: "../examples/haproxy", inactive: 403, broken: 500,
		run: func(s *stage) { s.run("haproxy", "-db", "-C", s.dir, "-f", "haproxy.cfg") }},
	{name: "../examples/apache mod_oauth2", says: introspected, inactive: 401, broken: 401,
		run: func(s *stage) { s.runApache("oauth2", "oauth2.conf") }},
	{name: "../examples/apache mod_auth_openidc", says: introspected, inactive: 401, broken: 401,
		run: func(s *stage) {
			// It asks only by https.
			service, _ := url.Parse(s.service.url)
			proxy := httputil.NewSingleHostReverseProxy(service)
			proxy.ErrorLog = log.New(io.Discard, "", 0)
			tls := httptest.NewTLSServer(proxy)
			s.t.Cleanup(tls.Close)
			s.write("openidc.conf", "OIDCOAuthSSLValidateServer Off\n"+
				strings.ReplaceAll(s.read("openidc.conf"), "https://auth.example.com", tls.URL))
			s.runApache("auth_openidc", "openidc.conf")
		}},
}

// site guards an API, and has no open path to it.
var site = gateway{name: "../examples/site", closed: true, inactive: 403, broken: 500,
	run: func(s *stage) { s.runNginx("", "site.conf") }}

// folder has the example.
func (g gateway) folder() string {
	folder, _, _ := strings.Cut(g.name, " ")
	return folder
}

// guarded returns a path that needs a token.
func (g gateway) guarded() string {
	if g.name == site.name {
		return "/api/items/1"
	}
	return "/items/1"
}

// before starts the service, and the gateway with its example before a backend.
func (g gateway) before(t *testing.T, backend string) *stage {
	s := newStage(t, g.folder(), backend, g.args...)
	g.run(s)
	return s
}

// known returns jane's identity and zoe's as the gateway tells it.
func (g gateway) known() (_, _ map[string]string) {
	jane, zoe := maps.Clone(jane), maps.Clone(zoe)
	for _, known := range []map[string]string{jane, zoe} {
		maps.DeleteFunc(known, func(name, _ string) bool { return g.says != nil && !slices.Contains(g.says, name) })
	}
	return jane, zoe
}

// TestGateways runs each gateway with its example. It lets the right clients
// through, and says who they are.
func TestGateways(t *testing.T) {
	for _, g := range gateways {
		t.Run(filepath.Base(g.name), func(t *testing.T) {
			t.Parallel()
			b := newBackend(t)
			s := g.before(t, strings.TrimPrefix(b.URL, "http://"))
			s.checkAddress()
			s.checkIdentity(b, g)
			s.checkPaths(b)
			s.checkBody(b, "")
			s.checkUpgrade(b)
			s.checkTokens("/items/1", g.inactive, g.broken)
			for _, r := range b.take() {
				if r.identity()["remote-user"] == "" {
					t.Errorf("without a token %s reached the backend", r.uri)
				}
			}
		})
	}
}

// TestGatewayQuestions reads what each gateway asks the service. It is only what
// the service needs: otherwise a large cookie would be too much for it, and a body
// would be sent twice.
func TestGatewayQuestions(t *testing.T) {
	needed := []string{
		"Authorization",
		"Content-Type", "Content-Length", // of a form for /introspect
		"Accept", "Accept-Encoding", "Connection", "User-Agent", // of the gateway itself
		"X-Forwarded-For",
	}
	for _, g := range slices.Concat(gateways, []gateway{site}, loginGateways) {
		t.Run(filepath.Base(g.name), func(t *testing.T) {
			t.Parallel()
			needed := needed
			if g.args != nil {
				needed = append(slices.Clip(needed), "Cookie", "X-Forwarded-Proto") // of the login page
			}
			if strings.HasPrefix(filepath.Base(g.name), "caddy") {
				needed = append(slices.Clip(needed), "Origin", "Range", "X_any") // it cannot remove all
			}
			if filepath.Base(g.name) == "caddy browser" {
				needed = append(needed, "X-Forwarded-Host", "X-Forwarded-Method", "If-None-Match", "X-Any", "X-Request-Id")
			}
			b := newBackend(t)
			s := newStage(t, g.folder(), strings.TrimPrefix(b.URL, "http://"), g.args...)
			service, _ := url.Parse(s.service.url)
			var mu sync.Mutex
			var asked []reached
			proxy := httputil.NewSingleHostReverseProxy(service)
			ear := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				asked = append(asked, reached{r.Method, r.Host, r.RequestURI, string(body), r.Header.Clone()})
				mu.Unlock()
				r.Body = io.NopCloser(bytes.NewReader(body))
				proxy.ServeHTTP(w, r)
			}))
			t.Cleanup(ear.Close)
			s.copyExample(g.folder(), strings.TrimPrefix(ear.URL, "http://"), strings.TrimPrefix(b.URL, "http://"))
			s.service.url = ear.URL
			g.run(s)
			status, _, body := s.send("POST", g.guarded()+"?q=1", []string{
				s.bearer("jane"), "Cookie: a=" + strings.Repeat("b", 6_000), "Referer: http://a",
				"User-Agent: a", "X-Any: a", "X_Any: a", "Remote-User: admin", "Range: bytes=0-1", "If-None-Match: a",
				"Accept: text/html", "Content-Type: text/plain", "Content-Length: 7", "Origin: http://a", "X-Request-ID: a",
			}, "a=b&c=d")
			if got := b.take(); status != 200 || len(got) != 1 || got[0].body != "a=b&c=d" {
				t.Errorf("%d %s, and %d requests reached the backend", status, body, len(got))
			}
			if len(asked) != 1 {
				t.Fatalf("the gateway asked %d times", len(asked))
			}
			for name, values := range asked[0].header {
				if !slices.Contains(needed, name) {
					t.Errorf("the service is told %s: %.40q", name, values)
				}
			}
			want := "" // the body of a question
			if strings.HasPrefix(asked[0].uri, "/introspect") {
				want = "token=" + s.tokens["jane"]
			}
			if body := asked[0].body; body != want && !strings.HasPrefix(body, want+"&") {
				t.Errorf("the service is sent %q", body)
			}
		})
	}
}

// blockFor returns the block of the guide to backends that names a test.
func blockFor(t *testing.T, test string) string {
	t.Helper()
	guide, err := os.ReadFile("../guide/backends.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocksOf(string(guide)) {
		if slices.ContainsFunc(b.directives, func(d string) bool { return strings.HasPrefix(d, "skip "+test+" ") }) {
			return b.text
		}
	}
	t.Fatalf("the guide has no block for %s", test)
	return ""
}

// change replaces the only place that has a text in the example's file.
func (s *stage) change(file, old, new string) {
	s.t.Helper()
	text := s.read(file)
	if n := strings.Count(text, old); n != 1 {
		s.t.Fatalf("%s has %q %d times", file, old, n)
	}
	s.write(file, strings.Replace(text, old, new, 1))
}

// TestPreflight runs nginx as the guide says for a page of another origin.
func TestPreflight(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	s := newStage(t, "../examples/nginx", strings.TrimPrefix(b.URL, "http://"))
	s.change("guarded.conf", "location / {\n", "location / {\n"+blockFor(t, "TestPreflight"))
	s.runNginx("", "guarded.conf")
	origin := "Origin: https://app.example.com"
	for _, tt := range []struct {
		name, method string
		headers      []string
		status       int
		reaches      int // how many requests reach the backend
	}{
		{name: "a preflight", method: "OPTIONS", status: 204,
			headers: []string{"Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"}},
		{name: "a preflight with a forged header", method: "OPTIONS", status: 204,
			headers: []string{"Access-Control-Request-Method: PUT", "Remote-User: admin"}},
		{name: "with a token", method: "GET", headers: []string{s.bearer("jane")}, status: 200, reaches: 1},
		{name: "with a token, by PUT", method: "PUT", status: 200, reaches: 1,
			headers: []string{s.bearer("jane"), "Content-Length: 0"}},
		{name: "without a token", method: "GET", status: 401},
		{name: "a method that nobody knows", method: "OPTIONSX", status: 401},
		{name: "without the scope", method: "GET", headers: []string{s.bearer("bob")}, status: 403},
	} {
		status, header, _ := s.send(tt.method, "/items/1", append(tt.headers, origin), "")
		if got := b.take(); status != tt.status || len(got) != tt.reaches {
			t.Errorf("%s: %d, and %d requests reached the backend", tt.name, status, len(got))
		}
		if header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
			!strings.Contains(header.Get("Access-Control-Allow-Methods"), "PUT") ||
			!strings.Contains(header.Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("%s: the page may not read the answer: %v", tt.name, header)
		}
	}
}

// TestTokenInAnotherHeader runs nginx as the guide says for a backend that needs
// Authorization itself.
func TestTokenInAnotherHeader(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	s := newStage(t, "../examples/nginx", strings.TrimPrefix(b.URL, "http://"))
	lines := strings.Split(blockFor(t, "TestTokenInAnotherHeader"), "\n")
	s.change("guarded.conf", "proxy_set_header Authorization $http_authorization;", lines[0])
	s.change("guarded.conf", "location / {\n", "location / {\n"+lines[1]+"\n")
	s.runNginx("", "guarded.conf")
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
	}{
		{name: "both", headers: []string{"X-Token: " + s.tokens["jane"], "Authorization: Basic YTpi"}, status: 200},
		{name: "the token alone", headers: []string{"X-Token: " + s.tokens["jane"]}, status: 200},
		{name: "an empty token", headers: []string{"X-Token: ", "Authorization: Basic YTpi"}, status: 401},
		{name: "no token", headers: []string{"Authorization: Basic YTpi"}, status: 401},
		{name: "the token in Authorization", headers: []string{s.bearer("jane")}, status: 401},
		{name: "without the scope", headers: []string{"X-Token: " + s.tokens["bob"]}, status: 403},
	} {
		status, _, _ := s.send("GET", "/items/1", tt.headers, "")
		got := b.take()
		if status != tt.status || (len(got) == 1) != (status == 200) {
			t.Fatalf("%s: %d, and %d requests reached the backend", tt.name, status, len(got))
		}
		if status != 200 {
			continue
		}
		if header := got[0].header; header.Get("X-Token") != "" || !maps.Equal(got[0].identity(), jane) ||
			len(tt.headers) == 2 && header.Get("Authorization") != "Basic YTpi" {
			t.Errorf("%s: the backend sees %v", tt.name, header)
		}
	}
}

// introspected is what a gateway knows from /introspect.
var introspected = []string{"remote-user", "remote-scope"}

// runNginx starts nginx with the example in file, and with more at the start of
// its configuration.
func (s *stage) runNginx(more, file string) {
	var temporary strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary.WriteString(name + "_temp_path " + s.dir + ";\n")
	}
	s.write("nginx.conf", more+"events {}\nhttp {\ninclude /etc/nginx/mime.types;\naccess_log off;\n"+temporary.String()+"include "+file+";\n}\n")
	s.run("nginx", "-p", s.dir, "-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; master_process off; pid nginx.pid;")
}

// runCaddy starts Caddy with the example in file.
func (s *stage) runCaddy(name string) {
	file := filepath.Join(s.dir, name)
	s.write(name, "{\nadmin off\n}\n"+s.read(name))
	s.run("env", "XDG_CONFIG_HOME="+s.dir, "XDG_DATA_HOME="+s.dir, "caddy", "run", "--adapter", "caddyfile", "--config",
		file)
}

// runApache starts Apache with a module and its example.
func (s *stage) runApache(module, file string) {
	var load strings.Builder
	for _, name := range []string{
		"mpm_event", "authn_core", "authz_core", "authz_user", "headers", "macro", "proxy", "proxy_http", module,
	} {
		fmt.Fprintf(&load, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", name, name)
	}
	s.write("apache2.conf", "ServerName localhost\nUser www-data\nGroup www-data\nDefaultRuntimeDir "+s.dir+"\nPidFile apache2.pid\nErrorLog example.log\n"+
		load.String()+"Include "+file+"\n")
	s.run("apache2", "-X", "-d", s.dir, "-f", "apache2.conf")
}

func (s *stage) read(name string) string {
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *stage) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// checkIdentity asks as jane and as zoe. Their identity reaches the backend, also
// if the client has two tokens or names its headers in Connection.
func (s *stage) checkIdentity(b *backend, g gateway) {
	s.t.Helper()
	jane, zoe := g.known()
	for _, tt := range []struct {
		path, authorization string
		want                map[string]string
	}{
		{"/items/1", s.bearer("jane"), jane},
		{"/items/1", s.bearer("zoe"), zoe},
		{"/", "X: y", map[string]string{}},
		{"/", s.bearer("jane"), map[string]string{}},
	} {
		status, _, body := s.send("GET", tt.path, []string{tt.authorization}, "")
		got := b.take()
		if status != 200 || len(got) != 1 || got[0].host != s.addr {
			s.t.Errorf("%s for %s: %d %s, and %v reached the backend", tt.path, s.addr, status, body, got)
		} else if said := got[0].identity(); !maps.Equal(said, tt.want) {
			s.t.Errorf("%s: the backend sees %v, want %v", tt.path, said, tt.want)
		}
	}
	for _, headers := range [][]string{{s.bearer("jane"), s.bearer("zoe")}, {"Authorization: Bearer nonsense", s.bearer("jane")}} {
		if status, _, _ := s.send("GET", "/items/1", headers, ""); status != 401 && status != 400 || b.take() != nil {
			s.t.Errorf("two tokens: %d", status)
		}
	}
	// A header that Connection names is dropped on the way.
	for _, names := range []string{"Remote-User", "close, remote-user,REMOTE-SCOPE"} {
		s.send("GET", "/items/1", []string{"Connection: " + names, s.bearer("jane")}, "")
		if got := b.take(); len(got) != 1 || !maps.Equal(got[0].identity(), jane) {
			s.t.Errorf("with Connection: %s the backend sees %v", names, got)
		}
	}
}

// checkPaths wants no spelling of a guarded path to get a request without a token
// through to the backend.
func (s *stage) checkPaths(b *backend) {
	s.t.Helper()
	for _, path := range []string{
		"/items/1", "//items/1", "/./items/1", "/items/..", "/items/../", "/items/../items/1", "/items/%2e%2e", "/items/%2e%2e/", "/%69tems/1",
		"/%2fitems/1", "/..%2fitems/1", "/items%2f..", "//", "/.", "/..", "/../items/1", "/;/items/1", "/?/items/1", "/#/items/1", `/\items/1`,
		"/auth", "/auth/", "/%61uth", "*", "http://other.example/items/1", "http://other.example//items/1",
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			status, _, _ := s.send(method, path, nil, "")
			for _, r := range b.take() {
				if uri, _, _ := strings.Cut(r.uri, "?"); uri != "/" {
					s.t.Errorf("%s %s without a token: %d, and %s reached the backend", method, path, status, r.uri)
				}
			}
		}
	}
}

// checkBody wants bodies to reach the backend unchanged. The gateway has the
// backend's paths under prefix.
func (s *stage) checkBody(b *backend, prefix string) {
	s.t.Helper()
	large := strings.Repeat("0123456789abcdef", 20_000)
	for _, tt := range []struct {
		name    string
		headers []string
		body    string // as it is sent
		want    string
	}{
		{"a form", []string{"Content-Type: application/x-www-form-urlencoded", "Content-Length: 7"}, "a=b&c=d", "a=b&c=d"},
		{"large", []string{"Content-Length: 320000"}, large, large},
		{"in chunks", []string{"Transfer-Encoding: chunked"}, "4\r\na=b&\r\n3\r\nc=d\r\n0\r\n\r\n", "a=b&c=d"},
	} {
		for _, method := range []string{"POST", "PUT"} {
			status, _, _ := s.send(method, prefix+"/items/1?q=1", append(slices.Clone(tt.headers), s.bearer("jane")), tt.body)
			got := b.take()
			if status != 200 || len(got) != 1 || got[0].method != method || got[0].uri != "/items/1?q=1" || got[0].body != tt.want {
				s.t.Errorf("%s %s: %d, and %d requests reached the backend", method, tt.name, status, len(got))
			}
		}
	}
}

// checkUpgrade wants nobody to change to HTTP/2 with the backend, behind which
// the gateway would not see the requests.
func (s *stage) checkUpgrade(b *backend) {
	s.t.Helper()
	for _, upgrade := range []string{"Upgrade: h2c", "UPGRADE: H2C", "Upgrade: websocket, h2c", "Upgrade: websocket\r\nUpgrade: h2c"} {
		for _, connection := range []string{"Connection: Upgrade", "Connection: Upgrade, HTTP2-Settings"} {
			for _, path := range []string{"/", "/items/1"} {
				s.try(20*time.Second, "GET", path, []string{s.bearer("jane"), connection, upgrade, "HTTP2-Settings: AAMAAABkAAQAAP__"}, "")
				for _, r := range b.take() {
					if got := strings.Join(r.header["Upgrade"], ","); strings.Contains(strings.ToLower(got), "h2c") {
						s.t.Errorf("%s with %q: the backend is asked for %q", path, upgrade, got)
					}
				}
			}
		}
	}
}
