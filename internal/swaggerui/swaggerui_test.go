package swaggerui_test

import (
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"simple-oauth2/internal/swaggerui"
)

// TestScopes checks that openapi.json declares the current scopes.
func TestScopes(t *testing.T) {
	var scopes []string
	pages, err := (&swaggerui.Config{On: true}).Pages(os.DirFS("../.."), true, func() []string { return scopes })
	if err != nil {
		t.Fatal(err)
	}
	document := pages[slices.IndexFunc(pages, func(p swaggerui.Page) bool { return p.Path == "/openapi.json" })]
	own, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	etags := make(map[string]bool)
	for _, tt := range []struct {
		name     string
		scopes   []string
		declared []string
	}{
		{"none beside its own", nil, []string{"introspect"}},
		{"its own once", []string{"introspect"}, []string{"introspect"}},
		{"more", []string{"items:read", "introspect", "items:write"}, []string{"introspect", "items:read", "items:write"}},
		{"what JSON escapes", []string{"a<b&c'"}, []string{"a<b&c'", "introspect"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scopes = tt.scopes
			w := httptest.NewRecorder()
			document.ServeHTTP(w, httptest.NewRequest("GET", "/openapi.json", nil))
			var description struct {
				Components struct {
					SecuritySchemes struct {
						OAuth2PasswordBearer struct {
							Flows struct {
								Password struct{ Scopes map[string]string }
							}
						}
					}
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &description); err != nil {
				t.Fatal(err)
			}
			declared := slices.Sorted(maps.Keys(description.Components.SecuritySchemes.OAuth2PasswordBearer.Flows.Password.Scopes))
			if !slices.Equal(declared, tt.declared) {
				t.Errorf("%q, want %q", declared, tt.declared)
			}
			if unchanged := w.Body.String() == string(own); unchanged != (len(tt.declared) == 1) {
				t.Errorf("the file as it is: %t", unchanged)
			}
			etags[w.Header().Get("ETag")] = true
		})
	}
	if len(etags) != 3 {
		t.Errorf("%d ETags of three descriptions", len(etags))
	}
}

// TestHeaders checks that a browser asks each time whether a file has changed, trusts
// its type, and loads only the right files.
func TestHeaders(t *testing.T) {
	pages, err := (&swaggerui.Config{On: true}).Pages(os.DirFS("../.."), true, func() []string { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest("GET", page.Path, nil))
		want := map[string]string{"Location": "", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": ""}
		switch page.Path {
		case "/":
			want = map[string]string{"Location": "docs"}
		case "/docs":
			const cdn = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@" + swaggerui.Version
			want["Content-Security-Policy"] = "default-src 'none'; script-src 'self' " + cdn + "/swagger-ui-bundle.js; style-src 'self' " + cdn + "/swagger-ui.css; " +
				"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		}
		for name, value := range want {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: %s %q, want %q", page.Path, name, got, value)
			}
		}
	}
}

// TestOwnUsers checks that the pages name the tutorial's users only where they can log in.
func TestOwnUsers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		tutorial bool
		docs     string   // in /docs
		document string   // in /openapi.json
		not      []string // anywhere
	}{
		{
			name: "the tutorial's", tutorial: true,
			docs: "/token -d username=johndoe -d password=secret\n",
			document: "log in as `johndoe` with the password `secret`, or as `alice` (who is disabled)" +
				" with `secret2`.\"",
			not: []string{"your username", "{{"},
		},
		{
			name: "its own",
			docs: "/token --data-urlencode 'username=<i>your username</i>'" +
				" --data-urlencode 'password=<i>your password</i>'\n",
			document: "Click **Authorize** and log in.\"",
			not:      []string{"`johndoe`", "=johndoe", "alice", "`secret`", "=secret", "secret2", "{{"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noScopes := func() []string { return nil }
			pages, err := (&swaggerui.Config{On: true}).Pages(os.DirFS("../.."), tt.tutorial, noScopes)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"/docs": tt.docs, "/openapi.json": tt.document}
			for _, page := range pages {
				w := httptest.NewRecorder()
				page.ServeHTTP(w, httptest.NewRequest("GET", page.Path, nil))
				if part := want[page.Path]; !strings.Contains(w.Body.String(), part) {
					t.Errorf("%s: no %q", page.Path, part)
				}
				for _, part := range tt.not {
					if strings.Contains(w.Body.String(), part) {
						t.Errorf("%s: %q", page.Path, part)
					}
				}
			}
		})
	}
}

func TestPagesOfAnotherDescription(t *testing.T) {
	text, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{`"introspect": "ask what a token stands for"`, " as `johndoe` with the password `secret`"}
	for _, part := range parts {
		other := strings.Replace(string(text), part, "", 1)
		own := fstest.MapFS{"docs/page.html": {}, "docs/page.css": {}, "docs/page.js": {}}
		own["docs/openapi.json"] = &fstest.MapFile{Data: []byte(other)}
		_, err := (&swaggerui.Config{On: true}).Pages(own, true, nil)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v for an openapi.json without %s", err, part)
		}
	}
}

// TestAssets gives a folder whose files do not match the hashes of the page.
func TestAssets(t *testing.T) {
	own := os.DirFS("../..")
	for _, tt := range []struct {
		name  string
		files []string
		err   string // how it ends
	}{
		{"none", nil, "no such file or directory"},
		{"of another version", []string{"swagger-ui-bundle.js", "swagger-ui.css"}, "is not the file of swagger-ui-dist " + swaggerui.Version},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("other"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := (&swaggerui.Config{On: true, Assets: dir}).Pages(own, true, func() []string { return nil })
			if err == nil || !strings.HasPrefix(err.Error(), "-docs-assets: ") || !strings.HasSuffix(err.Error(), tt.err) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
