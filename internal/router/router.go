// Package router serves the paths that exist with an [http.ServeMux], and answers
// all others as FastAPI does.
package router

import (
	"net/http"
	"strings"
)

// A Route is a path, its one method, and the handler for both. A GET route also
// answers HEAD. NotAllowed answers the other methods; Allow is set when it is
// called (RFC 9110 15.5.6).
//
// A Route without a method takes every request for its path and for all paths
// below it, however they are spelled.
type Route struct {
	Method, Path string
	Handler      http.Handler
	NotAllowed   http.Handler
}

// New returns a handler for the routes. A trailing slash is redirected to the path
// without it, with 307, which keeps the method and the body; notFound answers
// the rest. A path is compared as it was sent: none is cleaned up into another, and
// a redirect leads only to the path of a route, on the same host. It is
// relative, and so right behind a proxy that strips a prefix from the path. The
// Pattern of a request tells which route answered it; it is empty if none did.
func New(notFound http.Handler, routes []Route) http.Handler {
	mux, known := http.NewServeMux(), make(map[string]bool)
	var whole []Route
	for _, route := range routes {
		if route.Method == "" {
			whole = append(whole, route)
			continue
		}
		allow := route.Method
		if allow == http.MethodGet {
			allow = "GET, HEAD"
		}
		known[route.Path] = true
		pattern := route.Path
		if pattern == "/" {
			pattern = "/{$}" // to the mux, "/" is every path
		}
		mux.Handle(route.Method+" "+pattern, route.Handler)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			route.NotAllowed.ServeHTTP(w, r)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, route := range whole {
			if IsBelow(r.URL.Path, route.Path) {
				r.Pattern = route.Path
				route.Handler.ServeHTTP(w, r)
				return
			}
		}
		if known[r.URL.Path] {
			r.URL.RawPath = "" // so that the mux, like FastAPI, sees the decoded path
			mux.ServeHTTP(w, r)
			return
		}
		path := strings.TrimRight(r.URL.Path, "/")
		if !known[path] {
			notFound.ServeHTTP(w, r)
			return
		}
		if r.URL.RawQuery != "" {
			path += "?" + r.URL.RawQuery
		}
		// Up to the root of the routes, and down again. This server knows neither
		// its scheme and host (http:// would send the password in the clear) nor
		// the path under which a proxy serves it.
		up := strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1)
		w.Header().Set("Location", up+path[1:])
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// IsBelow says whether a path is root or below it: for /auth, /auth or /auth/x.
func IsBelow(path, root string) bool { return strings.HasPrefix(path+"/", root+"/") }
