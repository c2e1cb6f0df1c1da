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
			headers, maxAge := "", ""
			if tt.methods != "" {
				headers, maxAge = "Authorization, Content-Type", "600"
			}
			for name, value := range map[string]string{
				"Access-Control-Allow-Origin": tt.allowed, "Access-Control-Allow-Credentials": tt.credentials, "Access-Control-Expose-Headers": tt.exposed,
				"Access-Control-Allow-Methods": tt.methods, "Access-Control-Allow-Headers": headers, "Access-Control-Max-Age": maxAge, "Vary": tt.vary,
			} {
				if got := w.Header().Get(name); got != value {
					t.Errorf("%s %q, want %q", name, got, value)
				}
			}
		})
	}
}

func TestWarning(t *testing.T) {
	for _, tt := range []struct {
		name, origins, origin, mode, site string
		want                              int
	}{
		{"a script of another origin", "", app, "cors", "cross-site", 1},
		{"one of the same site", "", app, "cors", "same-site", 1},
		{"one that is not among those allowed", local, app, "cors", "cross-site", 1},
		{"one that is allowed", app, app, "cors", "cross-site", 0},
		{"any is allowed", "*", app, "cors", "cross-site", 0},
		{"the page of the service itself", "", app, "cors", "same-origin", 0},
		{"a link or a form", "", app, "navigate", "cross-site", 0},
		{"no browser", "", app, "", "", 0},
		{"no origin", "", "", "cors", "same-origin", 0},
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
				r := httptest.NewRequest("POST", "/", nil)
				for name, value := range map[string]string{"Origin": tt.origin, "Sec-Fetch-Mode": tt.mode, "Sec-Fetch-Site": tt.site} {
					if value != "" {
						r.Header.Set(name, value)
					}
				}
				handler.ServeHTTP(httptest.NewRecorder(), r)
			}
			if got := strings.Count(log.String(), "origin="+tt.origin+"\n"); got != tt.want {
				t.Errorf("%d warnings, want %d:\n%s", got, tt.want, log.String())
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
