package metrics

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/router"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/version"
)

// scrape returns the values of m, by sample. Each sample must stand below the HELP
// and the TYPE of its name.
func scrape(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	var out strings.Builder
	m.writeTo(&out)
	samples := make(map[string]string)
	helps, types := make(map[string]bool), make(map[string]string)
	for line := range strings.Lines(out.String()) {
		if help := helpLine.FindStringSubmatch(line); help != nil && !helps[help[1]] {
			helps[help[1]] = true
			continue
		}
		if kind := typeLine.FindStringSubmatch(line); kind != nil && types[kind[1]] == "" {
			types[kind[1]] = kind[2]
			continue
		}
		i := strings.LastIndex(line, " ")
		if _, twice := samples[line[:i]]; twice {
			t.Errorf("%s is there twice", line[:i])
		}
		samples[line[:i]] = strings.TrimSpace(line[i:])
		name, _, _ := strings.Cut(line[:i], "{")
		kind := "gauge"
		if family := partOfHistogram.ReplaceAllString(name, ""); family != name {
			name, kind = family, "histogram"
		} else if strings.HasSuffix(name, "_total") {
			kind = "counter"
		}
		if !helps[name] || types[name] != kind {
			t.Errorf("%s has a HELP: %v, and the TYPE %q, want %s", name, helps[name], types[name], kind)
		}
	}
	return samples
}

var (
	helpLine        = regexp.MustCompile(`^# HELP (\w+) [A-Z1].*\.\n$`)
	typeLine        = regexp.MustCompile(`^# TYPE (\w+) (counter|gauge|histogram)\n$`)
	partOfHistogram = regexp.MustCompile(`_(bucket|sum|count)$`)
)

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
	m.sources = Sources{
		Counts:      new(Counts),
		Admission:   admission.New(1, time.Now),
		Store:       &store{},
		Loaded:      func(what string) time.Time { return time.Unix(int64(len(what)), 5e8) },
		Certificate: func() time.Time { return time.Time{} },
	}
	return m
}

// store is a store that has seven tokens, and may lack something.
type store struct {
	tokens.Memory
	lacks string
}

func (s *store) Live() int              { return 7 }
func (s *store) Status() (bool, string) { return true, s.lacks }

// TestBuildInfo checks the version of the program.
func TestBuildInfo(t *testing.T) {
	name := fmt.Sprintf("simple_oauth2_build_info{version=%q,revision=%q,goversion=%q}",
		version.Number, version.Revision(), runtime.Version())
	wants(t, newMetrics(), map[string]string{name: "1"})
}

// TestCounts scrapes what others count.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		a, c := m.sources.Admission, m.sources.Counts
		a.Try(t.Context(), netip.MustParseAddr("192.0.2.1"), "jane", func() bool {
			time.Sleep(60 * time.Millisecond)
			return true
		})
		for i, count := range []*atomic.Int64{
			&a.Right, &a.Wrong, &a.Guessing, &a.Busy, &a.Gone,
			&c.NotIssued, &c.Revoked, &c.NotRevoked, &c.Active, &c.Inactive,
		} {
			count.Store(int64(11 + i))
		}
		wants(t, m, map[string]string{
			`simple_oauth2_logins_total{result="ok"}`:               "11",
			`simple_oauth2_logins_total{result="wrong"}`:            "12",
			`simple_oauth2_logins_total{result="guessing"}`:         "13",
			`simple_oauth2_logins_total{result="busy"}`:             "14",
			`simple_oauth2_logins_total{result="gone"}`:             "15",
			`simple_oauth2_logins_total{result="unavailable"}`:      "16",
			`simple_oauth2_login_wait_seconds_bucket{le="0.001"}`:   "1",
			`simple_oauth2_login_wait_seconds_count`:                "1",
			`simple_oauth2_login_check_seconds_bucket{le="0.05"}`:   "0",
			`simple_oauth2_login_check_seconds_bucket{le="0.1"}`:    "1",
			`simple_oauth2_login_check_seconds_bucket{le="+Inf"}`:   "1",
			`simple_oauth2_login_check_seconds_sum`:                 "0.06",
			`simple_oauth2_login_check_seconds_count`:               "1",
			`simple_oauth2_checks_running`:                          "0",
			`simple_oauth2_checks_waiting`:                          "0",
			`simple_oauth2_revocations_total{result="ok"}`:          "17",
			`simple_oauth2_revocations_total{result="unavailable"}`: "18",
			`simple_oauth2_introspections_total{result="active"}`:   "19",
			`simple_oauth2_introspections_total{result="inactive"}`: "20",
			`simple_oauth2_tokens_live`:                             "7",
			`simple_oauth2_token_store_up`:                          "1",
		})
		m.sources.Store = &store{lacks: "what is wrong"}
		wants(t, m, map[string]string{`simple_oauth2_token_store_up`: "0"})
	})
}

// TestChecks scrapes while each core has a check and two more wait.
func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		checks := runtime.GOMAXPROCS(0) + 2
		for range checks {
			go m.sources.Admission.Try(t.Context(), netip.MustParseAddr("192.0.2.1"), "jane", func() bool {
				time.Sleep(time.Second)
				return true
			})
		}
		synctest.Wait()
		wants(t, m, map[string]string{
			`simple_oauth2_checks_running`: strconv.Itoa(checks - 2),
			`simple_oauth2_checks_waiting`: "2",
		})
		time.Sleep(time.Minute)
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
		{Method: "GET", Path: "/login", Handler: answer(200), NotAllowed: answer(405)},
		{Method: "POST", Path: "/login", Handler: answer(303), NotAllowed: answer(405)},
	}
	routed := router.New(answer(404), routes)
	handler := m.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		routed.ServeHTTP(w, r.WithContext(r.Context())) // which is another *http.Request
	}), routes)
	for _, request := range []string{
		"GET /users/me", "HEAD /users/me", "DELETE /users/me", "GET /users/me/", "GET /jane", "GET /192.0.2.1", "FOO /users/me", "GET /", "PUT /",
		"POST /introspect", "GET /introspect", "POST /introspect?429", "GET /auth", "POST /auth/jane", "GET /auth?503", "POST /introspect?503", "GET /introspect?503",
		"GET /login", "POST /login", "PUT /login",
	} {
		method, path, _ := strings.Cut(request, " ")
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	want := map[string]string{
		`simple_oauth2_requests_total{route="/login",status="200"}`:      "1",
		`simple_oauth2_requests_total{route="/login",status="303"}`:      "1",
		`simple_oauth2_requests_total{route="/login",status="405"}`:      "1",
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
	m.sources.Certificate = func() time.Time { return time.Unix(7, 0) }
	wants(t, m, map[string]string{
		`simple_oauth2_last_load_timestamp_seconds{what="certificate"}`: "11.5",
		`simple_oauth2_certificate_end_timestamp_seconds`:               "7",
	})
}

func TestOff(t *testing.T) {
	m := New(Config{})
	if err := m.Listen(slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	m.Serve(t.Context(), Sources{}) // returns at once
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
	go func() { m.Serve(ctx, m.sources); close(served) }()
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

// TestNotImported checks that no other room imports this one: each keeps its own
// counts.
func TestNotImported(t *testing.T) {
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
