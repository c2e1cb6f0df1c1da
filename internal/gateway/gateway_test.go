package gateway_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"simple-oauth2/internal/gateway"
)

func TestScopes(t *testing.T) {
	for _, tt := range []struct {
		name, query string
		scopes      []string
		err         error
	}{
		{"no query", "", nil, nil},
		{"one", "scope=items:read", []string{"items:read"}, nil},
		{"two, by a plus", "scope=a+b", []string{"a", "b"}, nil},
		{"two, by an escaped space", "scope=a%20b", []string{"a", "b"}, nil},
		{"two parameters", "scope=a&scope=b", []string{"a", "b"}, nil},
		{"spaces around", "scope=+a++b+", []string{"a", "b"}, nil},
		{"the name escaped", "%73cope=a", []string{"a"}, nil},
		{"empty", "scope=", nil, gateway.ErrScope},
		{"no value", "scope", nil, gateway.ErrScope},
		{"only a space", "scope=%20", nil, gateway.ErrScope},
		{"one of two empty", "scope=a&scope=", nil, gateway.ErrScope},
		{"a bad escape", "scope=a%zz", nil, gateway.ErrScope},
		{"a bad escape elsewhere", "scope=a&x=%zz", nil, gateway.ErrScope},
		{"a semicolon", "scope=a;scope=b", nil, gateway.ErrScope},
		{"a quote", "scope=a%22", nil, gateway.ErrScope},
		{"a backslash", `scope=a\`, nil, gateway.ErrScope},
		{"a line's end", "scope=a%0d%0ab", nil, gateway.ErrScope},
		{"a tab", "scope=a%09b", nil, gateway.ErrScope},
		{"not ASCII", "scope=%c3%a9", nil, gateway.ErrScope},
		{"a space of Unicode", "scope=a%c2%a0b", nil, gateway.ErrScope},
		{"the name misspelled", "scopes=admin", nil, gateway.ErrParameter},
		{"the name in capitals", "Scope=admin", nil, gateway.ErrParameter},
		{"the name of an array", "scope[]=admin", nil, gateway.ErrParameter},
		{"another name", "required_scope=admin", nil, gateway.ErrParameter},
		{"a space before the name", "+scope=admin", nil, gateway.ErrParameter},
		{"no name", "=admin", nil, gateway.ErrParameter},
		{"no value of another name", "admin", nil, gateway.ErrParameter},
		{"the name misspelled beside the right one", "scope=a&scopes=admin", nil, gateway.ErrParameter},
		{"an ampersand at the end", "scope=a&", []string{"a"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scopes, err := gateway.Scopes(&url.URL{Path: "/auth", RawQuery: tt.query}, "/auth")
			if !errors.Is(err, tt.err) || !slices.Equal(scopes, tt.scopes) {
				t.Errorf("%q, %v; want %q, %v", scopes, err, tt.scopes, tt.err)
			}
		})
	}
}

// TestScopesBelow asks below the guard's path, where Envoy adds the path and the
// query of the request that it guards.
func TestScopesBelow(t *testing.T) {
	for _, tt := range []struct {
		path, query string
		scopes      []string
		err         error
	}{
		{"/auth/items/1", "a=b&c", nil, nil},
		{"/auth/", "a=b", nil, nil},
		{"/auth/items", "scope=a&x=y", []string{"a"}, nil},
		{"/auth/items", "scope=", nil, gateway.ErrScope},
		{"/auth/?scope=admin", "", nil, gateway.ErrParameter},
		{"/auth/scope=admin", "", nil, gateway.ErrParameter},
		{"/auth//scope=admin", "a=b", nil, gateway.ErrParameter},
		{"/auth/items/?scope=admin", "", nil, nil},
		{"/auth/items", "x=%zz", nil, gateway.ErrScope},
	} {
		scopes, err := gateway.Scopes(&url.URL{Path: tt.path, RawQuery: tt.query}, "/auth")
		if !errors.Is(err, tt.err) || !slices.Equal(scopes, tt.scopes) {
			t.Errorf("%s?%s: %q, %v; want %q, %v", tt.path, tt.query, scopes, err, tt.scopes, tt.err)
		}
	}
}

func tell(who gateway.Identity) http.Header {
	w := httptest.NewRecorder()
	gateway.Tell(w, who)
	return w.Header()
}

func TestTell(t *testing.T) {
	for _, tt := range []struct{ name, text, value string }{
		{"empty", "", ""},
		{"a name", "Jane Roe", "Jane Roe"},
		{"an address", `"Jane, R." <jane+x@example.com>`, `"Jane, R." <jane+x@example.com>`},
		{"not ASCII", "Zoë", "Zo%C3%AB"},
		{"a line's end", "a\r\nRemote-User: root", "a%0D%0ARemote-User: root"},
		{"NUL and DEL", "a\x00\x7f", "a%00%7F"},
		{"a percent sign", "50%41", "50%2541"},
		{"a space at either end", " a b ", "%20a b%20"},
		{"only a space", " ", "%20"},
		{"spaces at either end", "  a  ", "%20 a %20"},
		{"a tab", "a\t", "a%09"},
		{"not UTF-8", "\xff", "%FF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := tell(gateway.Identity{Username: tt.text, Name: &tt.text, Email: &tt.text, Scopes: []string{tt.text}})
			for _, name := range []string{"Remote-User", "Remote-Name", "Remote-Email", "Remote-Scope"} {
				if got := header[name]; !slices.Equal(got, []string{tt.value}) {
					t.Errorf("%s %q, want %q", name, got, tt.value)
				}
			}
			if back, err := url.PathUnescape(tt.value); err != nil || back != tt.text {
				t.Errorf("decoded it is %q, %v", back, err)
			}
		})
	}
	t.Run("not known", func(t *testing.T) {
		header := tell(gateway.Identity{})
		for _, name := range []string{"Remote-User", "Remote-Name", "Remote-Email", "Remote-Scope"} {
			if got := header[name]; !slices.Equal(got, []string{""}) {
				t.Errorf("%s %q, want it empty", name, got)
			}
		}
	})
	t.Run("scopes", func(t *testing.T) {
		header := tell(gateway.Identity{Scopes: []string{"a", "b"}})
		if got := header.Get("Remote-Scope"); got != "a b" {
			t.Errorf("%q", got)
		}
	})
}

func TestStatus(t *testing.T) {
	for status, want := range map[int]int{200: 200, 400: 403, 401: 401, 403: 403, 404: 403, 422: 403, 500: 500, 503: 503} {
		w := httptest.NewRecorder()
		gateway.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != want {
			t.Errorf("%d becomes %d, want %d", status, w.Code, want)
		}
	}
}
