package router_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"simple-oauth2/internal/router"
)

func says(status int, text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(text))
	})
}

func TestNew(t *testing.T) {
	notAllowed := says(405, "not allowed")
	routes := []router.Route{
		{Method: "GET", Path: "/", Handler: says(200, "root"), NotAllowed: notAllowed},
		{Method: "GET", Path: "/users/me", Handler: says(200, "me"), NotAllowed: notAllowed},
		{Method: "POST", Path: "/token", Handler: says(200, "token"), NotAllowed: notAllowed},
		{Path: "/auth", Handler: says(200, "auth")},
		{Method: "GET", Path: "/login", Handler: says(200, "page"), NotAllowed: notAllowed},
		{Method: "POST", Path: "/login", Handler: says(200, "login"), NotAllowed: notAllowed},
	}
	handler := router.New(says(404, "not found"), routes)
	for _, tt := range []struct {
		name, method, target string
		status               int
		body                 string
		location, allow      string
	}{
		{"a route", "GET", "/users/me", 200, "me", "", ""},
		{"HEAD as GET", "HEAD", "/users/me", 200, "me", "", ""}, // the server leaves the body out
		{"with a query", "GET", "/users/me?a=b", 200, "me", "", ""},
		{"escaped", "GET", "/users%2Fm%65", 200, "me", "", ""},
		{"the root", "GET", "/", 200, "root", "", ""},
		{"another method", "PUT", "/users/me", 405, "not allowed", "", "GET, HEAD"},
		{"another method of the root", "POST", "/", 405, "not allowed", "", "GET, HEAD"},
		{"GET of a POST", "GET", "/token", 405, "not allowed", "", "POST"},
		{"HEAD of a POST", "HEAD", "/token", 405, "not allowed", "", "POST"},
		{"a path with two methods", "GET", "/login", 200, "page", "", ""},
		{"the other one", "POST", "/login", 200, "login", "", ""},
		{"a third one", "PUT", "/login", 405, "not allowed", "", "GET, HEAD, POST"},
		{"no route", "GET", "/nowhere", 404, "not found", "", ""},
		{"below a route", "GET", "/users/me/more", 404, "not found", "", ""},
		{"above a route", "GET", "/users", 404, "not found", "", ""},
		{"a slash behind", "GET", "/users/me/", 307, "", "../../users/me", ""},
		{"a slash behind, query kept", "GET", "/users/me/?a=b", 307, "", "../../users/me?a=b", ""},
		{"slashes behind", "POST", "/token///", 307, "", "../../../token", ""},
		{"a slash behind, escaped", "POST", "/token%2F", 307, "", "token", ""},
		{"a slash behind, and one escaped before it", "POST", "/token%2F/", 307, "", "../token", ""},
		{"a slash behind, and an escaped one between", "GET", "/users%2Fme/", 307, "", "../users/me", ""},
		{"other host by two slashes", "GET", "//evil.example/", 404, "not found", "", ""},
		{"other host by a backslash", "GET", `/\evil.example/`, 404, "not found", "", ""},
		{"other host before a path", "GET", "//evil.example/token/", 404, "not found", "", ""},
		{"other host, escaped", "GET", "/%2Fevil.example/", 404, "not found", "", ""},
		{"two slashes are not tidied", "POST", "//token", 404, "not found", "", ""},
		{"any method", "PROPFIND", "/auth", 200, "auth", "", ""},
		{"any method, GET", "GET", "/auth?a=b", 200, "auth", "", ""},
		{"below", "PUT", "/auth/token", 200, "auth", "", ""},
		{"below, a slash behind", "GET", "/auth/", 200, "auth", "", ""},
		{"below, slashes", "GET", "/auth//a/", 200, "auth", "", ""},
		{"below, dots", "POST", "/auth/../token", 200, "auth", "", ""},
		{"below, dots escaped", "POST", "/auth/%2e%2e%2ftoken", 200, "auth", "", ""},
		{"below, the slash escaped", "GET", "/auth%2Fa", 200, "auth", "", ""},
		{"beside", "GET", "/authentic", 404, "not found", "", ""},
		{"two slashes before", "GET", "//auth", 404, "not found", "", ""},
		{"in capitals", "GET", "/AUTH", 404, "not found", "", ""},
		{"dots are not tidied", "POST", "/users/../token", 404, "not found", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), httptest.NewRequest(tt.method, tt.target, nil)
			handler.ServeHTTP(w, r)
			if w.Code != tt.status || w.Body.String() != tt.body || w.Header().Get("Location") != tt.location || w.Header().Get("Allow") != tt.allow {
				t.Errorf("%d %q, Location %q, Allow %q", w.Code, w.Body, w.Header().Get("Location"), w.Header().Get("Allow"))
			}
			answered := tt.status == 200 || tt.status == 405
			if i := router.Index(routes, r.URL.Path); (i >= 0) != answered || tt.body == "auth" && i != 3 {
				t.Errorf("index %d", i)
			}
			if tt.location == "" {
				return
			}
			// Where it leads a client behind a proxy that strips a prefix.
			base, _ := url.Parse("https://example.com/prefix" + tt.target)
			led, err := base.Parse(tt.location)
			if want := "https://example.com/prefix/" + strings.TrimLeft(tt.location, "./"); err != nil || led.String() != want {
				t.Errorf("behind a proxy it leads to %s, want %s (%v)", led, want, err)
			}
		})
	}
}

// TestBody sends requests whose body may not have arrived. Each is answered at once;
// where nobody reads the body, the answer ends the connection.
func TestBody(t *testing.T) {
	server := httptest.NewServer(router.New(says(404, ""), []router.Route{
		{Path: "/auth", Handler: says(401, "")},
		{Method: "POST", Path: "/token", Handler: says(200, ""), NotAllowed: says(405, "")},
	}))
	defer server.Close()
	const some, chunked = "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"
	for _, tt := range []struct {
		name, line   string
		header, body string
		status       int
		ends         bool
	}{
		{name: "none", line: "GET /auth HTTP/1.1", status: 401},
		{name: "an empty one", line: "POST /auth HTTP/1.1", header: "Content-Length: 0\r\n", status: 401},
		{name: "part of it", line: "POST /auth HTTP/1.1", header: some, body: "half", status: 401, ends: true},
		{name: "none of a large one", line: "PUT /auth/a HTTP/1.1", header: "Content-Length: 1000000000\r\n",
			status: 401, ends: true},
		{name: "none of a chunked one", line: "PUT /auth HTTP/1.1", header: chunked, status: 401, ends: true},
		{name: "held back until 100", line: "POST /auth HTTP/1.1", header: some + "Expect: 100-continue\r\n",
			status: 401, ends: true},
		{name: "all of it", line: "POST /auth HTTP/1.1", header: some, body: "0123456789", status: 401, ends: true},
		{name: "HTTP/1.0", line: "POST /auth HTTP/1.0", header: some, status: 401, ends: true},
		{name: "no such path", line: "POST /nowhere HTTP/1.1", header: some, status: 404, ends: true},
		{name: "another method", line: "GET /token HTTP/1.1", header: some, status: 405, ends: true},
		{name: "a redirect", line: "POST /token/ HTTP/1.1", header: some, status: 307, ends: true},
		{name: "where it is read", line: "POST /token HTTP/1.1", header: some, body: "0123456789", status: 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(5 * time.Second)) // whoever waits for the body waits forever
			if _, err := io.WriteString(conn, tt.line+"\r\nHost: a\r\n"+tt.header+"\r\n"+tt.body); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != tt.status || answer.Close != tt.ends {
				t.Errorf("%d, ends the connection: %v; want %d, %v", answer.StatusCode, answer.Close, tt.status, tt.ends)
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) { // where "Connection: close" would end all requests of a connection
		request := httptest.NewRequest("POST", "/", strings.NewReader("body"))
		request.ProtoMajor = 2
		w := httptest.NewRecorder()
		router.New(says(404, ""), nil).ServeHTTP(w, request)
		if got := w.Header()["Connection"]; got != nil {
			t.Errorf("Connection: %q", got)
		}
	})
}
