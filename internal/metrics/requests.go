package metrics

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// requests are the counts of the answers, by route. The map is replaced when a
// route answers for the first time, and is otherwise only read.
type requests struct {
	routes    atomic.Pointer[map[string]*statuses]
	mu        sync.Mutex // held to replace the map
	recorders sync.Pool
}

// statuses are counts by status, from 100 on.
type statuses [500]atomic.Int64

// Requests returns next, with its answers counted by status and by the route that
// [http.Request.Pattern] names once next has returned.
func (m *Metrics) Requests(next http.Handler) http.Handler {
	if !m.on() {
		return next
	}
	m.requests.recorders.New = func() any { return new(recorder) }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := m.requests.recorders.Get().(*recorder)
		recorded.ResponseWriter, recorded.status = w, http.StatusOK
		next.ServeHTTP(recorded, r)
		m.requests.of(r.Pattern)[recorded.status-100].Add(1)
		recorded.ResponseWriter = nil
		m.requests.recorders.Put(recorded)
	})
}

// of returns the counts for the route of a pattern.
func (q *requests) of(pattern string) *statuses {
	if known := q.routes.Load(); known != nil {
		if counts := (*known)[pattern]; counts != nil {
			return counts
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	routes := make(map[string]*statuses)
	if known := q.routes.Load(); known != nil {
		routes = maps.Clone(*known)
	}
	if routes[pattern] == nil {
		routes[pattern] = new(statuses)
	}
	q.routes.Store(&routes)
	return routes[pattern]
}

// byRoute returns the counts by the path of the route and the status. Requests
// that match no route are under "other".
func (q *requests) byRoute() map[string]map[int]int64 {
	found := make(map[string]map[int]int64)
	known := q.routes.Load()
	if known == nil {
		return found
	}
	for pattern, counts := range *known {
		route := strings.TrimSuffix(pattern[strings.Index(pattern, " ")+1:], "{$}")
		if route == "" {
			route = "other"
		}
		if found[route] == nil {
			found[route] = make(map[int]int64)
		}
		for i := range counts {
			if n := counts[i].Load(); n > 0 {
				found[route][i+100] += n
			}
		}
	}
	return found
}

// recorder records the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
