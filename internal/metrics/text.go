package metrics

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"runtime"
	runtimemetrics "runtime/metrics"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/version"
)

// text is the text format of Prometheus, version 0.0.4.
type text struct{ bytes.Buffer }

// family begins a group of samples whose names begin with name.
func (t *text) family(name, kind, help string) {
	fmt.Fprintf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a sample; labels alternate between names and values.
func (t *text) sample(name string, value float64, labels ...string) {
	t.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		t.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(t, "%s=%q", labels[i], labels[i+1])
	}
	if len(labels) > 0 {
		t.WriteByte('}')
	}
	t.WriteByte(' ')
	t.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	t.WriteByte('\n')
}

func (t *text) gauge(name, help string, value float64) {
	t.family(name, "gauge", help)
	t.sample(name, value)
}

func (t *text) counter(name, help string, value float64) {
	t.family(name, "counter", help)
	t.sample(name, value)
}

func (t *text) histogram(name, help string, h *admission.Histogram) {
	t.family(name, "histogram", help)
	var count int64
	for i := range h.Buckets {
		count += h.Buckets[i].Load()
		bound := "+Inf"
		if i < len(h.Bounds) {
			bound = strconv.FormatFloat(h.Bounds[i], 'g', -1, 64)
		}
		t.sample(name+"_bucket", float64(count), "le", bound)
	}
	t.sample(name+"_sum", time.Duration(h.Sum.Load()).Seconds())
	t.sample(name+"_count", float64(count))
}

// result adds a sample for a result, even if it is 0: a rate needs a value before
// the first.
func (t *text) result(name, result string, count *atomic.Int64) {
	t.sample(name, float64(count.Load()), "result", result)
}

// answers adds a sample for each result, the sum of the counts of its statuses.
func (t *text) answers(name string, counts map[int]int64, results map[string][]int) {
	for _, result := range slices.Sorted(maps.Keys(results)) {
		var n int64
		for _, status := range results[result] {
			n += counts[status]
		}
		t.sample(name, float64(n), "result", result)
	}
}

// writeTo writes all metrics.
func (m *Metrics) writeTo(w io.Writer) {
	var t text
	byRoute, logins, counts := m.requests.byRoute(), m.sources.Admission, m.sources.Counts

	name := "simple_oauth2_logins_total"
	t.family(name, "counter", "Logins and client credentials by result: the password was right (ok) or wrong; "+
		"refused for guessing (guessing) or because too many were waiting (busy); the client hung up (gone). "+
		"Logins with the right password whose token could not be stored are also counted as unavailable.")
	t.result(name, "ok", &logins.Right)
	t.result(name, "wrong", &logins.Wrong)
	t.result(name, "guessing", &logins.Guessing)
	t.result(name, "busy", &logins.Busy)
	t.result(name, "gone", &logins.Gone)
	t.result(name, "unavailable", &counts.NotIssued)
	t.histogram("simple_oauth2_login_wait_seconds",
		"How long logins and client credentials waited for their password check.", &logins.Waits)
	t.histogram("simple_oauth2_login_check_seconds", "How long it took to check a password.", &logins.Checks)
	running, waiting := logins.Load()
	t.gauge("simple_oauth2_checks_running", "Password checks that are running now.", float64(running))
	t.gauge("simple_oauth2_checks_waiting", "Password checks that are waiting for their turn now.", float64(waiting))

	name = "simple_oauth2_revocations_total"
	t.family(name, "counter", "Revocations of live tokens by result: ok, or they could not be stored (unavailable).")
	t.result(name, "ok", &counts.Revoked)
	t.result(name, "unavailable", &counts.NotRevoked)
	name = "simple_oauth2_introspections_total"
	t.family(name, "counter", "Introspections by result: the token is active or inactive; the client may not ask (refused), or has sent too many wrong secrets (guessing); the request is malformed; too many password checks were waiting, or the store cannot be reached (unavailable).")
	t.result(name, "active", &counts.Active)
	t.result(name, "inactive", &counts.Inactive)
	t.answers(name, byRoute["/introspect"], map[string][]int{"refused": {401, 403}, "guessing": {429}, "malformed": {400, 405, 413, 415, 422}, "unavailable": {503}})
	name = "simple_oauth2_auth_total"
	t.family(name, "counter", "Requests of gateways to /auth by result: the client's request may pass (passed); it has no live token (unauthenticated); its user is disabled or a scope is missing (forbidden); the store cannot be reached (unavailable).")
	t.answers(name, byRoute["/auth"], map[string][]int{"passed": {200}, "unauthenticated": {401}, "forbidden": {403}, "unavailable": {503}})

	name = "simple_oauth2_requests_total"
	t.family(name, "counter", "Requests by route and status; the route other stands for those that match no route.")
	for _, route := range slices.Sorted(maps.Keys(byRoute)) {
		for _, status := range slices.Sorted(maps.Keys(byRoute[route])) {
			t.sample(name, float64(byRoute[route][status]), "route", route, "status", strconv.Itoa(status))
		}
	}

	up, lacks := m.sources.Store.Status()
	t.gauge("simple_oauth2_token_store_up", "1 if the token store is up and works, else 0; /healthz says what is wrong.", number(up && lacks == ""))
	t.gauge("simple_oauth2_tokens_live", "Live tokens; an expired one may count for some seconds more.",
		float64(m.sources.Store.Live()))
	name = "simple_oauth2_last_load_timestamp_seconds"
	t.family(name, "gauge", "When the users and the certificate were last loaded without an error.")
	t.sample(name, seconds(m.sources.Loaded("users")), "what", "users")
	if end := m.sources.Certificate(); !end.IsZero() {
		t.sample(name, seconds(m.sources.Loaded("certificate")), "what", "certificate")
		t.gauge("simple_oauth2_certificate_end_timestamp_seconds", "When the certificate expires, or another one of its chain if that is earlier.", seconds(end))
	}
	name = "simple_oauth2_build_info"
	t.family(name, "gauge", "Always 1, with the version of the program, its revision and the version of Go as labels.")
	t.sample(name, 1, "version", version.Number, "revision", version.Revision(), "goversion", runtime.Version())

	t.runtime()
	w.Write(t.Bytes())
}

// runtime adds Go's own metrics of the process, under the names that Prometheus'
// Go library uses.
func (t *text) runtime() {
	read := []runtimemetrics.Sample{
		{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/cpu/classes/gc/total:cpu-seconds"},
	}
	runtimemetrics.Read(read)
	t.gauge("go_goroutines", "Goroutines.", float64(read[0].Value.Uint64()))
	t.gauge("go_memstats_heap_alloc_bytes", "Bytes of the objects on the heap.", float64(read[1].Value.Uint64()))
	t.gauge("go_memstats_sys_bytes", "Bytes that the process obtained from the system.", float64(read[2].Value.Uint64()))
	t.counter("go_gc_cycles_total", "Runs of the garbage collector.", float64(read[3].Value.Uint64()))
	t.counter("go_gc_cpu_seconds_total", "Processor time of the garbage collector, in seconds.", read[4].Value.Float64())
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
