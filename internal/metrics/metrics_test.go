package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/router"
	"simple-oauth2/internal/tokens"
)

// scrape returns the values of m, by sample.
func scrape(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	var out strings.Builder
	m.writeTo(&out)
	samples := make(map[string]string)
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndex(line, " ")
		if _, twice := samples[line[:i]]; twice {
			t.Errorf("%s is there twice", line[:i])
		}
		samples[line[:i]] = strings.TrimSpace(line[i:])
	}
	return samples
}

func wants(t *testing.T, m *Metrics, want map[string]string) {
	t.Helper()
	samples := scrape(t, m)
	for name, value := range want {
		if samples[name] != value {
			t.Errorf("%s %s, want %s", name, samples[name], value)
		}
	}
}

func newMetrics() *Metrics {
	m := New(Config{Addr: "127.0.0.1:0"})
	m.Tokens(&tokens.Memory{Now: time.Now})
	m.Watch(func(what string) time.Time { return time.Unix(int64(len(what)), 5e8) }, func() time.Time { return time.Time{} }, func() (int, int) { return 2, 3 })
	return m
}

// store is a store that keeps nothing while it is broken.
type store struct {
	tokens.Memory
	broken bool
}

func (s *store) Put(ctx context.Context, key tokens.Key, record *tokens.Record) error {
	if s.broken {
		return tokens.ErrUnavailable
	}
	return s.Memory.Put(ctx, key, record)
}

func (s *store) Delete(ctx context.Context, key tokens.Key) error {
	if s.broken {
		return tokens.ErrUnavailable
	}
	return s.Memory.Delete(ctx, key)
}

func (s *store) Status() (bool, string) {
	if s.broken {
		return true, "what is wrong"
	}
	return true, ""
}

func TestLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		s := &store{Memory: tokens.Memory{Now: time.Now}}
		counted := m.Tokens(s)
		for _, tt := range []struct {
			right, broken, hungUp bool
			err                   error
		}{
			{right: true},
			{right: true, broken: true},
			{},
			{err: &admission.Refused{Reason: admission.Guessing}},
			{err: &admission.Refused{Reason: admission.Guessing}},
			{err: &admission.Refused{Reason: admission.Busy}},
			{err: &admission.Refused{Reason: admission.Busy}, hungUp: true},
			{err: context.Canceled, hungUp: true},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			if tt.hungUp {
				cancel()
			}
			try := m.Logins(func(_ context.Context, _ netip.Addr, _ string, check func() bool) (bool, error) {
				if tt.err != nil {
					return false, tt.err
				}
				time.Sleep(300 * time.Millisecond)
				return check(), nil
			})
			right, err := try(ctx, netip.Addr{}, "jane", func() bool { time.Sleep(60 * time.Millisecond); return tt.right })
			if right != tt.right || err != tt.err {
				t.Errorf("%v, %v; want %v, %v", right, err, tt.right, tt.err)
			}
			s.broken = tt.broken
			if right {
				err = counted.Put(ctx, tokens.KeyOf("x"), &tokens.Record{Expires: time.Now().Unix() + 60})
				if (err != nil) != tt.broken {
					t.Error(err)
				}
			}
			cancel()
		}
		wants(t, m, map[string]string{
			`simple_oauth2_logins_total{result="ok"}`:              "1",
			`simple_oauth2_logins_total{result="unavailable"}`:     "1",
			`simple_oauth2_logins_total{result="wrong"}`:           "1",
			`simple_oauth2_logins_total{result="guessing"}`:        "2",
			`simple_oauth2_logins_total{result="busy"}`:            "1",
			`simple_oauth2_logins_total{result="gone"}`:            "2",
			`simple_oauth2_login_wait_seconds_bucket{le="0.25"}`:   "0",
			`simple_oauth2_login_wait_seconds_bucket{le="0.5"}`:    "3",
			`simple_oauth2_login_wait_seconds_bucket{le="+Inf"}`:   "3",
			`simple_oauth2_login_wait_seconds_sum`:                 "0.9",
			`simple_oauth2_login_wait_seconds_count`:               "3",
			`simple_oauth2_login_check_seconds_bucket{le="0.05"}`:  "0",
			`simple_oauth2_login_check_seconds_bucket{le="0.1"}`:   "3",
			`simple_oauth2_login_check_seconds_sum`:                "0.18",
			`simple_oauth2_login_check_seconds_bucket{le="0.025"}`: "0",
			`simple_oauth2_tokens_live`:                            "1",
			`simple_oauth2_checks_running`:                         "2",
			`simple_oauth2_checks_waiting`:                         "3",
		})
	})
}

func TestStore(t *testing.T) {
	m := newMetrics()
	s := &store{Memory: tokens.Memory{Now: time.Now}}
	counted := m.Tokens(s)
	for _, broken := range []bool{false, true} {
		s.broken = broken
		if err := counted.Delete(t.Context(), tokens.KeyOf("x")); broken != errors.Is(err, tokens.ErrUnavailable) {
			t.Error(err)
		}
		up := map[bool]string{false: "1", true: "0"}[broken]
		wants(t, m, map[string]string{"simple_oauth2_token_store_up": up})
	}
	wants(t, m, map[string]string{
		`simple_oauth2_revocations_total{result="ok"}`:          "1",
		`simple_oauth2_revocations_total{result="unavailable"}`: "1",
	})
}

// TestRequests sends requests that could create new labels.
func TestRequests(t *testing.T) {
	answer := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked, err := strconv.Atoi(r.URL.RawQuery); err == nil {
				w.WriteHeader(asked)
			} else {
				w.WriteHeader(status)
			}
		})
	}
	m := newMetrics()
	routes := []router.Route{
		{Method: "GET", Path: "/users/me", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "me") }), NotAllowed: answer(405)},
		{Method: "POST", Path: "/introspect", Handler: answer(401), NotAllowed: answer(405)},
		{Method: "GET", Path: "/", Handler: answer(307), NotAllowed: answer(405)},
		{Path: "/auth", Handler: answer(403)},
	}
	routed := router.New(answer(404), routes)
	handler := m.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		routed.ServeHTTP(w, r.WithContext(r.Context())) // which is another *http.Request
	}), routes)
	for _, request := range []string{
		"GET /users/me", "HEAD /users/me", "DELETE /users/me", "GET /users/me/", "GET /jane", "GET /192.0.2.1", "FOO /users/me", "GET /", "PUT /",
		"POST /introspect", "GET /introspect", "POST /introspect?429", "GET /auth", "POST /auth/jane", "GET /auth?503", "POST /introspect?503", "GET /introspect?503",
	} {
		method, path, _ := strings.Cut(request, " ")
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	m.Introspected(true)
	m.Introspected(false)
	m.Introspected(false)
	want := map[string]string{
		`simple_oauth2_requests_total{route="/users/me",status="200"}`:   "2",
		`simple_oauth2_requests_total{route="/users/me",status="405"}`:   "2",
		`simple_oauth2_requests_total{route="/introspect",status="401"}`: "1",
		`simple_oauth2_requests_total{route="/introspect",status="429"}`: "1",
		`simple_oauth2_requests_total{route="/introspect",status="405"}`: "1",
		`simple_oauth2_requests_total{route="/",status="307"}`:           "1",
		`simple_oauth2_requests_total{route="/",status="405"}`:           "1",
		`simple_oauth2_requests_total{route="/auth",status="403"}`:       "2",
		`simple_oauth2_requests_total{route="/auth",status="503"}`:       "1",
		`simple_oauth2_requests_total{route="other",status="307"}`:       "1",
		`simple_oauth2_requests_total{route="other",status="404"}`:       "2",
		`simple_oauth2_introspections_total{result="active"}`:            "1",
		`simple_oauth2_introspections_total{result="inactive"}`:          "2",
		`simple_oauth2_introspections_total{result="refused"}`:           "1",
		`simple_oauth2_introspections_total{result="guessing"}`:          "1",
		`simple_oauth2_introspections_total{result="malformed"}`:         "1",
		`simple_oauth2_requests_total{route="/introspect",status="503"}`: "2",
		`simple_oauth2_introspections_total{result="unavailable"}`:       "2",
		`simple_oauth2_auth_total{result="passed"}`:                      "0",
		`simple_oauth2_auth_total{result="forbidden"}`:                   "2",
		`simple_oauth2_auth_total{result="unavailable"}`:                 "1",
	}
	wants(t, m, want)
	for name := range scrape(t, m) {
		if _, wanted := want[name]; strings.HasPrefix(name, "simple_oauth2_requests_total") && !wanted {
			t.Errorf("%s", name)
		}
	}
}

func TestLoaded(t *testing.T) {
	m := newMetrics()
	wants(t, m, map[string]string{
		`simple_oauth2_last_load_timestamp_seconds{what="users"}`:       "5.5",
		`simple_oauth2_last_load_timestamp_seconds{what="certificate"}`: "",
		`simple_oauth2_certificate_end_timestamp_seconds`:               "",
	})
	m.certificate = func() time.Time { return time.Unix(7, 0) }
	wants(t, m, map[string]string{
		`simple_oauth2_last_load_timestamp_seconds{what="certificate"}`: "11.5",
		`simple_oauth2_certificate_end_timestamp_seconds`:               "7",
	})
}

func TestOff(t *testing.T) {
	m := New(Config{})
	s := &tokens.Memory{}
	if m.Tokens(s) != tokens.Store(s) {
		t.Error("the store is wrapped")
	}
	if err := m.Listen(slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	m.Serve(t.Context()) // returns at once
}

func TestListenError(t *testing.T) {
	m := New(Config{Addr: "nowhere"})
	if err := m.Listen(slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "-metrics-addr: ") {
		t.Errorf("error %v", err)
	}
}

func TestServe(t *testing.T) {
	m := newMetrics()
	if err := m.Listen(slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() { m.Serve(ctx); close(served) }()
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/users/me": 404} {
		response, err := http.Get(m.server.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if kind := response.Header.Get("Content-Type"); response.StatusCode != want || want == 200 && kind != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("%s: %s, %s", path, response.Status, kind)
		}
	}
	cancel()
	<-served
}

// TestUnknown wants no other package to import this one.
func TestUnknown(t *testing.T) {
	files, err := filepath.Glob("../*/*.go")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(file, "../metrics/") && strings.Contains(string(text), `"simple-oauth2/internal/metrics"`) {
			t.Errorf("%s imports it", file)
		}
	}
}

// usersMe returns a request like those for /users/me, and its handler.
func usersMe(m *Metrics) (http.Handler, http.ResponseWriter, *http.Request) {
	r := httptest.NewRequest("GET", "/users/me", nil)
	return m.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
	}), []router.Route{{Method: "GET", Path: "/token"}, {Method: "GET", Path: "/users/me"}}), silent{}, r
}

type silent struct{}

func (silent) Header() http.Header         { return nil }
func (silent) Write(p []byte) (int, error) { return len(p), nil }
func (silent) WriteHeader(int)             {}

func TestCountingAllocatesNothing(t *testing.T) {
	handler, w, r := usersMe(newMetrics())
	if n := testing.AllocsPerRun(1000, func() { handler.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRequests measures what counting a request costs.
func BenchmarkRequests(b *testing.B) {
	for name, m := range map[string]*Metrics{"off": New(Config{}), "on": newMetrics()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				handler, w, r := usersMe(m)
				for pb.Next() {
					handler.ServeHTTP(w, r)
				}
			})
		})
	}
}

// BenchmarkScrape measures a scrape.
func BenchmarkScrape(b *testing.B) {
	m := newMetrics()
	for b.Loop() {
		m.writeTo(io.Discard)
	}
}
