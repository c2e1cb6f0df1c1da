package cors_test

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"simple-oauth2/internal/cors"
)

const app, local = "https://app.example.com", "http://localhost:3000"

func TestHandler(t *testing.T) {
	const exposed = "WWW-Authenticate, Retry-After"
	for _, tt := range []struct {
		name            string
		origins, origin string
		method          string // PREFLIGHT is OPTIONS with Access-Control-Request-Method; a path may follow
		status          int    // 401 comes from the next handler
		allowed         string // Access-Control-Allow-Origin
		credentials     string
		exposed         string
		methods         string
		vary            string
	}{
		{"none configured", "", app, "GET", 401, "", "", "", "", ""},
		{"none configured, preflight", "", app, "PREFLIGHT", 401, "", "", "", "", ""},
		{"allowed", app, app, "GET", 401, app, "true", exposed, "", "Origin"},
		{"allowed, preflight", app, app, "PREFLIGHT", 204, app, "true", "", "GET, HEAD, POST", "Origin"},
		{"allowed, OPTIONS that is no preflight", app, app, "OPTIONS", 401, app, "true", exposed, "", "Origin"},
		{"first of the list", app + ", " + local, app, "GET", 401, app, "true", exposed, "", "Origin"},
		{"second of the list", app + ", " + local, local, "GET", 401, local, "true", exposed, "", "Origin"},
		{"other origin", app, "https://evil.example", "GET", 401, "", "", "", "", "Origin"},
		{"other origin, preflight", app, "https://evil.example", "PREFLIGHT", 401, "", "", "", "", "Origin"},
		{"other scheme", app, "http://app.example.com", "GET", 401, "", "", "", "", "Origin"},
		{"other port", app, app + ":8443", "GET", 401, "", "", "", "", "Origin"},
		{"longer", app, app + ".evil.example", "GET", 401, "", "", "", "", "Origin"},
		{"null", app, "null", "GET", 401, "", "", "", "", "Origin"},
		{"no origin", app, "", "GET", 401, "", "", "", "", "Origin"},
		{"any", "*", app, "GET", 401, "*", "", exposed, "", "Origin"},
		{"any, preflight", "*", app, "PREFLIGHT", 204, "*", "", "", "GET, HEAD, POST", "Origin"},
		{"preflight passed on by a gateway", app, app, "PREFLIGHT /auth", 401, app, "true", exposed, "", "Origin"},
		{"preflight passed on by a gateway, below", "*", app, "PREFLIGHT /auth/items", 401, "*", "", exposed, "", "Origin"},
		{"preflight next to the gateway's path", app, app, "PREFLIGHT /authentic", 204, app, "true", "", "GET, HEAD, POST", "Origin"},
		{"any, null", "*", "null", "GET", 401, "*", "", exposed, "", "Origin"},
		{"any, no origin", "*", "", "GET", 401, "", "", "", "", "Origin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var origins cors.Origins
			if tt.origins != "" {
				if err := origins.Set(tt.origins); err != nil {
					t.Fatal(err)
				}
			}
			method, path, _ := strings.Cut(tt.method, " ")
			r := httptest.NewRequest(method, cmp.Or(path, "/"), nil)
			if method == "PREFLIGHT" {
				r.Method = "OPTIONS"
				r.Header.Set("Access-Control-Request-Method", "POST")
			}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			w := httptest.NewRecorder()
			origins.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }), "/auth", slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			maxAge := ""
			if tt.methods != "" {
				maxAge = "600"
			}
			for name, value := range map[string]string{
				"Access-Control-Allow-Origin": tt.allowed, "Access-Control-Allow-Credentials": tt.credentials, "Access-Control-Expose-Headers": tt.exposed,
				"Access-Control-Allow-Methods": tt.methods, "Access-Control-Max-Age": maxAge, "Vary": tt.vary,
			} {
				if got := w.Header().Get(name); got != value {
					t.Errorf("%s %q, want %q", name, got, value)
				}
			}
		})
	}
}

// TestRequestHeaders checks that a preflight allows the header names that it asks for:
// which ones a page sends is up to its libraries.
func TestRequestHeaders(t *testing.T) {
	const vary = "Origin, Access-Control-Request-Headers"
	long := "x-" + strings.Repeat("a", 8000)
	for _, tt := range []struct {
		name    string
		origin  string
		asked   []string // Access-Control-Request-Headers, one a line
		allowed string   // Access-Control-Allow-Headers
	}{
		{name: "what a browser sends", origin: app, asked: []string{"authorization,content-type"},
			allowed: "authorization, content-type"},
		{name: "Swagger UI", origin: app, asked: []string{"authorization,x-requested-with"},
			allowed: "authorization, x-requested-with"},
		{name: "tracing", origin: app, asked: []string{"baggage,sentry-trace,traceparent,tracestate"},
			allowed: "baggage, sentry-trace, traceparent, tracestate"},
		{name: "any origin", asked: []string{"authorization,x-request-id"}, allowed: "authorization, x-request-id"},
		{name: "with spaces and tabs", origin: app, asked: []string{" X-CSRF-Token ,\tCache-Control"},
			allowed: "X-CSRF-Token, Cache-Control"},
		{name: "in two lines", origin: app, asked: []string{"authorization", "traceparent"},
			allowed: "authorization, traceparent"},
		{name: "every byte of a name", origin: app, asked: []string{"!#$%&'*+-.^_`|~09azAZ"},
			allowed: "!#$%&'*+-.^_`|~09azAZ"},
		{name: "a long one", origin: app, asked: []string{long}, allowed: long},
		{name: "none", origin: app},
		{name: "an empty list", origin: app, asked: []string{""}},
		{name: "empty elements", origin: app, asked: []string{",authorization, ,"}, allowed: "authorization"},
		{name: "what is not a name", origin: app,
			asked:   []string{"a b,c:d,traceparent,\"e\",f(g),\x00,ä,h\r\nSet-Cookie: i"},
			allowed: "traceparent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("OPTIONS", "/token", nil)
			r.Header.Set("Origin", app)
			r.Header.Set("Access-Control-Request-Method", "POST")
			r.Header["Access-Control-Request-Headers"] = tt.asked
			w := httptest.NewRecorder()
			origins := cors.Origins{cmp.Or(tt.origin, "*")}
			origins.Handler(http.NotFoundHandler(), "/auth", slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
			got := strings.Join(w.Header().Values("Access-Control-Allow-Headers"), "; ")
			if w.Code != 204 || got != tt.allowed {
				t.Errorf("status %d, allowed %q; want 204, %q", w.Code, got, tt.allowed)
			}
			if got := strings.Join(w.Header().Values("Vary"), ", "); got != vary {
				t.Errorf("Vary %q, want %q", got, vary)
			}
		})
	}
}

func TestWarning(t *testing.T) {
	// A browser sends Sec-Fetch-Mode and Sec-Fetch-Site to https and to localhost only.
	const plain = "http://auth.lan:8000"
	for _, tt := range []struct {
		name, origins, origin, mode, site string
		method, service                   string // POST, and plain
		want                              int
	}{
		{name: "a script of another origin", origin: app, mode: "cors", site: "cross-site", want: 1},
		{name: "one of the same site", origin: app, mode: "cors", site: "same-site", want: 1},
		{name: "one where another is allowed", origins: local, origin: app, mode: "cors", site: "cross-site", want: 1},
		{name: "one that is allowed", origins: app, origin: app, mode: "cors", site: "cross-site"},
		{name: "any is allowed", origins: "*", origin: app, mode: "cors", site: "cross-site"},
		{name: "the page of the service itself", origin: app, mode: "cors", site: "same-origin"},
		{name: "its own page, whose Host a proxy changed", origin: app, mode: "cors", site: "same-origin",
			service: "http://127.0.0.1:8000"},
		{name: "a link or a form", origin: app, mode: "navigate", site: "cross-site"},
		{name: "no origin", mode: "cors", site: "same-origin"},
		{name: "no browser"},
		{name: "plain http", origin: "http://app.lan", want: 1},
		{name: "plain http, a preflight", origin: "http://app.lan", method: "OPTIONS", want: 1},
		{name: "plain http, another port", origin: "http://auth.lan:3000", want: 1},
		{name: "plain http, a longer host", origin: "http://auth.lan:8000.evil.example", want: 1},
		{name: "plain http, one that is allowed", origins: "http://app.lan", origin: "http://app.lan"},
		{name: "plain http, the page of the service itself", origin: plain},
		{name: "plain http, its own page on the scheme's port", origin: "http://auth.lan", service: "http://auth.lan"},
		{name: "plain http, its own page at an address of IPv6", origin: "http://[fd00::1]:8000",
			service: "http://[fd00::1]:8000"},
		{name: "plain http, no origin", method: "GET"},
		{name: "a file", origin: "null", mode: "cors", site: "cross-site", want: 1},
		{name: "plain http, a file", origin: "null", want: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var origins cors.Origins
			if tt.origins != "" {
				if err := origins.Set(tt.origins); err != nil {
					t.Fatal(err)
				}
			}
			var log strings.Builder
			handler := origins.Handler(http.NotFoundHandler(), "/auth", slog.New(slog.NewTextHandler(&log, nil)))
			for range 2 {
				r := httptest.NewRequest(cmp.Or(tt.method, "POST"), cmp.Or(tt.service, plain)+"/token", nil)
				headers := map[string]string{"Origin": tt.origin, "Sec-Fetch-Mode": tt.mode, "Sec-Fetch-Site": tt.site}
				if tt.method == "OPTIONS" {
					headers["Access-Control-Request-Method"] = "POST"
				}
				for name, value := range headers {
					if value != "" {
						r.Header.Set(name, value)
					}
				}
				handler.ServeHTTP(httptest.NewRecorder(), r)
			}
			got := strings.Count(log.String(), "origin="+tt.origin+"\n")
			if lines := strings.Count(log.String(), "\n"); got != tt.want || lines != tt.want {
				t.Errorf("%d warnings in %d lines, want %d:\n%s", got, lines, tt.want, log.String())
			}
			// -cors-origins null is an error, so nobody is told to set it.
			if tt.origin == "null" && strings.Contains(log.String(), "add it") {
				t.Errorf("the advice does not work: %s", log.String())
			}
		})
	}
}

func TestSet(t *testing.T) {
	for _, tt := range []struct{ name, list, want, err string }{
		{"one", "https://app.example.com", "https://app.example.com", ""},
		{"two, with a space", "https://a.example, http://localhost:3000", "https://a.example,http://localhost:3000", ""},
		{"an IPv6 address", "http://[::1]:3000", "http://[::1]:3000", ""},
		{"any", "*", "*", ""},
		{"with a path", "https://a.example/", "", `"https://a.example/" is not an origin as browsers send it, did you mean https://a.example?`},
		{"in capitals", "https://A.example", "", `"https://A.example" is not an origin as browsers send it, did you mean https://a.example?`},
		{"with its scheme's port", "http://a.example:80", "", `"http://a.example:80" is not an origin as browsers send it, did you mean http://a.example?`},
		{"with the other scheme's port", "http://a.example:443", "http://a.example:443", ""},
		{"an address not in its shortest form", "http://[::0:1]:3000", "", `"http://[::0:1]:3000" is not an origin as browsers send it, did you mean http://[::1]:3000?`},
		{"not in ASCII", "https://ä.example", "", `"https://ä.example": a browser sends the host in ASCII (xn--…)`},
		{"a semicolon", "https://a.example;https://b.example", "",
			`"https://a.example;https://b.example" has a semicolon or white space: separate origins with commas`},
		{"a semicolon and a space", "http://x.example,https://a.example; https://b.example", "",
			`"https://a.example; https://b.example" has a semicolon or white space: separate origins with commas`},
		{"a space", "https://a.example https://b.example", "",
			`"https://a.example https://b.example" has a semicolon or white space: separate origins with commas`},
		{"lines", "https://a.example\nhttps://b.example\n", "",
			`"https://a.example\nhttps://b.example" has a semicolon or white space: separate origins with commas`},
		{"a semicolon at the end", "https://a.example;", "",
			`"https://a.example;" has a semicolon or white space: separate origins with commas`},
		{"a wildcard", "https://*.example", "", `"https://*.example" is not an origin such as https://app.example.com`},
		{"no scheme", "a.example", "", `"a.example" is not an origin such as https://app.example.com`},
		{"a user", "https://a@b.example", "", `"https://a@b.example" is not an origin such as https://app.example.com`},
		{"null", "null", "", `"null" is not an origin such as https://app.example.com`},
		{"an empty one", "https://a.example,", "", `"" is not an origin such as https://app.example.com`},
		{"any and one more", "*,https://a.example", "", `* means any origin and must be the only one`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var origins cors.Origins
			err := origins.Set(tt.list)
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err || origins.String() != tt.want {
				t.Errorf("%q, %v; want %q, %s", origins.String(), err, tt.want, tt.err)
			}
		})
	}
}
