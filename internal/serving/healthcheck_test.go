package serving_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"simple-oauth2/internal/serving"
)

func TestHealthcheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tls    bool
		addr   string // PORT stands for the server's
		status int
		err    string // how it ends
	}{
		{"healthy", false, "127.0.0.1:PORT", 200, ""},
		{"by TLS", true, "127.0.0.1:PORT", 200, ""},
		{"no host", false, ":PORT", 200, ""},
		{"every address", false, "0.0.0.0:PORT", 200, ""},
		{"unavailable", false, "127.0.0.1:PORT", 503, "not healthy: 503 Service Unavailable"},
		{"unavailable by TLS", true, "127.0.0.1:PORT", 503, "not healthy: 503 Service Unavailable"},
		{"a redirect is not followed", false, "127.0.0.1:PORT", 307, "not healthy: 307 Temporary Redirect"},
		{"nobody listens", false, "127.0.0.1:1", 0, "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != "GET" || r.URL.Path != "/healthz" {
					t.Errorf("asked %s %s", r.Method, r.URL)
				}
				w.Header().Set("Location", "/healthz")
				w.WriteHeader(tt.status)
			}))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			if tt.tls {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
			err := serving.Healthcheck(t.Context(), strings.ReplaceAll(tt.addr, "PORT", port))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.err)) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
