package openapitest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"simple-oauth2/internal/openapitest"
)

const sound = `{
"paths": {
	"/items": {
		"get": {
			"security": [{"Bearer": ["read"]}],
			"responses": {
				"200": {
					"headers": {"Retry-After": {"$ref": "#/components/headers/Retry"}},
					"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}
				},
				"204": {}
			}
		}
	}
},
"components": {
	"headers": {"Retry": {"required": true}},
	"schemas": {
		"Item": {
			"required": ["name"],
			"properties": {
				"name": {"type": "string"},
				"kind": {"const": "item", "type": "string"},
				"size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
				"tags": {"type": "array", "items": {"type": "string"}}
			}
		}
	},
	"securitySchemes": {"Bearer": {"flows": {"password": {"scopes": {"read": "read items"}}}}}
}}`

func TestFaults(t *testing.T) {
	routes := []string{"GET /items"}
	for _, tt := range []struct {
		name     string
		old, new string
		routes   []string
		faults   []string
	}{
		{"sound", "", "", routes, nil},
		{"a route that is not described", "", "", append(routes, "GET /more"),
			[]string{`api.json:2: add "/more": {"get": {…}} to "paths", for the route GET /more of main.go`}},
		{"a method that is not described", "", "", append(routes, "POST /items"),
			[]string{`api.json:2: add "/items": {"post": {…}} to "paths", for the route POST /items of main.go`}},
		{"no route", "", "", nil, []string{`api.json:3: GET /items is described, but main.go has no such route`}},
		{"a dangling $ref", "#/components/schemas/Item", "#/components/schemas/Itm", routes,
			[]string{`api.json:9: $ref to #/components/schemas/Itm, which does not exist: add "Itm" to "components", or fix the name`}},
		{"an undeclared scope", `["read"]`, `["read", "write"]`, routes,
			[]string{`api.json:29: GET /items needs the scope "write": add "write": "what it allows" to the "scopes" of Bearer, in "securitySchemes"`}},
		{"a const without a type", `{"const": "item", "type": "string"}`, `{"const": "item"}`, routes,
			[]string{`api.json:23: a const without a type, for which some generators make no code: add "type" beside "const": "item"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := openapitest.Parse("api.json", []byte(strings.Replace(sound, tt.old, tt.new, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if faults := d.Faults(tt.routes); !slices.Equal(faults, tt.faults) {
				t.Errorf("%q, want %q", faults, tt.faults)
			}
		})
	}
}

// told is a testing.TB that records its errors.
type told struct {
	testing.TB
	errors []string
}

func (t *told) Errorf(format string, args ...any) {
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}

func TestHandler(t *testing.T) {
	d, err := openapitest.Parse("api.json", []byte(sound))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		method  string
		status  int
		headers map[string]string
		body    string
		err     string // what follows the request
	}{
		{"as described", "GET", 200, nil, `{"name":"a","kind":"item","size":1,"tags":["b"]}`, ""},
		{"null", "GET", 200, nil, `{"name":"a","size":null}`, ""},
		{"HEAD as GET", "HEAD", 200, nil, `{"name":"a"}`, ""},
		{"without a body", "GET", 204, nil, "", ""},
		{"another method", "POST", 500, nil, "x", ""},
		{"another status", "GET", 404, nil, `{}`, `this status is not described: add it to "responses"`},
		{"a header too many", "GET", 200, map[string]string{"X-More": "1"}, `{"name":"a"}`, "header X-More is not described"},
		{"a header too few", "GET", 200, map[string]string{"Retry-After": ""}, `{"name":"a"}`, "no header Retry-After"},
		{"another type of body", "GET", 200, map[string]string{"Content-Type": "text/plain"}, `{"name":"a"}`, `Content-Type "text/plain" is not described`},
		{"no JSON", "GET", 200, nil, `{`, "unexpected end of JSON input"},
		{"a member too few", "GET", 200, nil, `{}`, `no member "name" in {}`},
		{"a member too many", "GET", 200, nil, `{"name":"a","b":1}`, `member "b" is not described in {"name":"a","b":1}`},
		{"another constant", "GET", 200, nil, `{"name":"a","kind":"b"}`, `kind: b is not item in {"name":"a","kind":"b"}`},
		{"neither of two", "GET", 200, nil, `{"name":"a","size":1.5}`, "size: 1.5 is not of type integer\n1.5 is not of type null in " + `{"name":"a","size":1.5}`},
		{"an item of another type", "GET", 200, nil, `{"name":"a","tags":[1]}`, `tags: 1 is not of type string in {"name":"a","tags":[1]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			told := &told{TB: t}
			handler := d.Handler(told, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.status == 200 {
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("Retry-After", "1")
				}
				for name, value := range tt.headers {
					if w.Header().Del(name); value != "" {
						w.Header().Set(name, value)
					}
				}
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			}))
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(tt.method, "/items", nil))
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("the answer became %d %s", w.Code, w.Body)
			}
			var want []string
			if tt.err != "" {
				want = []string{fmt.Sprintf("api.json:3: %s /items, %d: %s", tt.method, tt.status, tt.err)}
			}
			if !slices.Equal(told.errors, want) {
				t.Errorf("%q, want %q", told.errors, want)
			}
		})
	}
}
