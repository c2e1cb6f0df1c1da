// Package router serves the paths that exist with an [http.ServeMux], and answers
// all others as FastAPI does.
package router

import (
	"net/http"
	"slices"
	"strings"
)

// A Route is a path, a method, and the handler for both. A GET route also answers
// HEAD. The NotAllowed of a path's first route answers the methods that none of its
// routes has; Allow is set when it is called (RFC 9110 15.5.6).
//
// A Route without a method takes every request for its path and for all paths
// below it, however they are spelled.
type Route struct {
	Method, Path string
	Handler      http.Handler
	NotAllowed   http.Handler
}

// Index returns the first of the routes that takes requests for a path, or -1 if none
// does.
func Index(routes []Route, path string) int {
	return slices.IndexFunc(routes, func(route Route) bool {
		return path == route.Path || route.Method == "" && IsBelow(path, route.Path)
	})
}

// New returns a handler for the routes. A trailing slash is redirected to the path
// without it, with 307, which keeps the method and the body; notFound answers
// the rest. A path is compared as it was sent: none is cleaned up into another, and
// a redirect leads only to the path of a route, on the same host. It is
// relative, and so right behind a proxy that strips a prefix from the path.
//
// Only the handler of a POST route reads the body of a request. On HTTP/1 any other
// answer to a request with a body ends its connection. net/http would otherwise wait
// for the body, which may never come; and if the server stops meanwhile, the answer
// would not say that the connection ends.
func New(notFound http.Handler, routes []Route) http.Handler {
	mux, allow := http.NewServeMux(), make(map[string]string) // by path
	for _, route := range routes {
		if route.Method == "" {
			continue
		}
		methods := route.Method
		if methods == http.MethodGet {
			methods = "GET, HEAD"
		}
		pattern := route.Path
		if pattern == "/" {
			pattern = "/{$}" // to the mux, "/" is every path
		}
		mux.Handle(route.Method+" "+pattern, route.Handler)
		if before := allow[pattern]; before != "" {
			allow[pattern] = before + ", " + methods
			continue
		}
		allow[pattern] = methods
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow[pattern])
			route.NotAllowed.ServeHTTP(w, r)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := func(route Route) bool { return route.Method == http.MethodPost && route.Path == r.URL.Path }
		if r.ContentLength != 0 && r.ProtoMajor == 1 && !(r.Method == http.MethodPost && slices.ContainsFunc(routes, reads)) {
			w.Header().Set("Connection", "close")
		}
		if i := Index(routes, r.URL.Path); i >= 0 {
			if route := routes[i]; route.Method == "" {
				route.Handler.ServeHTTP(w, r)
				return
			}
			r.URL.RawPath = "" // so that the mux, like FastAPI, sees the decoded path
			mux.ServeHTTP(w, r)
			return
		}
		path := strings.TrimRight(r.URL.Path, "/")
		if i := Index(routes, path); i < 0 {
			notFound.ServeHTTP(w, r)
			return
		}
		if r.URL.RawQuery != "" {
			path += "?" + r.URL.RawQuery
		}
		// Make the redirect relative: this server knows neither
		// its scheme and host (http:// would send the password in the clear) nor
		// the path under which a proxy serves it.
		up := strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1)
		w.Header().Set("Location", up+path[1:])
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// IsBelow says whether a path is root or below it: for /auth, /auth or /auth/x.
func IsBelow(path, root string) bool { return strings.HasPrefix(path+"/", root+"/") }
