package metrics

import (
	"net/http"
	"sync"
	"sync/atomic"

	"simple-oauth2/internal/router"
)

// requests are the counts of the answers: of each of the routes, and then of the
// requests that match none.
type requests struct {
	routes    []router.Route
	counts    []statuses
	recorders sync.Pool
}

// statuses are counts by status, from 100 on.
type statuses [500]atomic.Int64

// Requests returns next, with its answers counted by status and by which of the
// routes the request's path belongs to.
func (m *Metrics) Requests(next http.Handler, routes []router.Route) http.Handler {
	if !m.on() {
		return next
	}
	q := &m.requests
	q.routes, q.counts = routes, make([]statuses, len(routes)+1)
	q.recorders.New = func() any { return new(recorder) }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := router.Index(routes, r.URL.Path)
		if route < 0 {
			route = len(routes)
		}
		recorded := q.recorders.Get().(*recorder)
		recorded.ResponseWriter, recorded.status = w, http.StatusOK
		next.ServeHTTP(recorded, r)
		q.counts[route][recorded.status-100].Add(1)
		recorded.ResponseWriter = nil
		q.recorders.Put(recorded)
	})
}

// byRoute returns the counts by the path of the route and the status. Requests
// that match no route are under "other".
func (q *requests) byRoute() map[string]map[int]int64 {
	found := make(map[string]map[int]int64)
	for i := range q.counts {
		path := "other"
		if i < len(q.routes) {
			path = q.routes[i].Path
		}
		if found[path] == nil { // a path may have several routes, and the first one counts
			found[path] = make(map[int]int64)
		}
		for j := range q.counts[i] {
			if n := q.counts[i][j].Load(); n > 0 {
				found[path][j+100] = n
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
