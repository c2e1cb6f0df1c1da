package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"
)

var client = http.Client{Timeout: 5 * time.Second}

type username struct{} // the context key for the user of a guarded request

// guard passes a request on to next if the service says that its token is live,
// its user is active, and the token has the scope. It asks for each request.
func guard(service, scope string, next http.Handler) http.Handler {
	ask := service + "/auth?" + url.Values{"scope": {scope}}.Encode()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, _ := http.NewRequestWithContext(r.Context(), "GET", ask, nil)
		question.Header["Authorization"] = r.Header["Authorization"]
		answer, err := client.Do(question)
		if err != nil {
			http.Error(w, "The login service cannot be reached", http.StatusServiceUnavailable)
			return
		}
		defer answer.Body.Close()
		switch answer.StatusCode {
		case http.StatusOK:
			name, err := url.PathUnescape(answer.Header.Get("Remote-User"))
			if name == "" || err != nil {
				http.Error(w, "The login service is out of order", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), username{}, name)))
		case http.StatusUnauthorized, http.StatusForbidden:
			w.Header()["WWW-Authenticate"] = answer.Header["Www-Authenticate"]
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(answer.StatusCode)
			io.Copy(w, answer.Body)
		default:
			http.Error(w, "The login service is out of order", http.StatusServiceUnavailable)
		}
	})
}
