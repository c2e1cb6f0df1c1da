// Package openapitest checks a service against its OpenAPI description, in
// tests: the description is consistent, it has every route and no other, and
// every answer matches it. An error names the file and the line to write.
package openapitest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Description is the part of an OpenAPI description that the tests need.
type Description struct {
	file string
	text string
	tree any

	Paths      map[string]map[string]operation
	Components struct {
		Headers         map[string]struct{ Required bool }
		Schemas         map[string]schema
		SecuritySchemes map[string]struct {
			Flows map[string]struct{ Scopes map[string]string }
		}
	}
}

type operation struct {
	Security  []map[string][]string
	Responses map[string]struct {
		Headers map[string]ref
		Content map[string]struct{ Schema schema }
	}
}

type ref struct {
	Ref string `json:"$ref"`
}

// name is the last part of a reference: User in #/components/schemas/User.
func (r ref) name() string { return r.Ref[strings.LastIndexByte(r.Ref, '/')+1:] }

type schema struct {
	ref
	Type         string
	Const        any
	Required     []string
	Properties   map[string]schema
	Items        *schema
	AnyOf, OneOf []schema
}

// Parse reads a description. The file's name is for the errors.
func Parse(file string, text []byte) (*Description, error) {
	d := &Description{file: file, text: string(text)}
	if err := errors.Join(json.Unmarshal(text, d), json.Unmarshal(text, &d.tree)); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// at returns the file and the line where a text first appears.
func (d *Description) at(text string) string {
	before, _, found := strings.Cut(d.text, text)
	if !found {
		return d.file
	}
	return fmt.Sprintf("%s:%d", d.file, strings.Count(before, "\n")+1)
}

// Faults returns what is wrong with the description itself, and where it differs
// from the routes. A route is a method and a path: "GET /users/me".
func (d *Description) Faults(routes []string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	described := make(map[string]bool)
	for path, operations := range d.Paths {
		for method, operation := range operations {
			name := strings.ToUpper(method) + " " + path
			described[name] = true
			if !slices.Contains(routes, name) {
				fault("%s: %s is described, but main.go has no such route", d.at(quote(path)+": {"), name)
			}
			for _, requirement := range operation.Security {
				for scheme, scopes := range requirement {
					declared := make(map[string]string)
					for _, flow := range d.Components.SecuritySchemes[scheme].Flows {
						maps.Copy(declared, flow.Scopes)
					}
					for _, scope := range scopes {
						if _, ok := declared[scope]; !ok {
							fault(`%s: %s needs the scope %q: add %[3]q: "what it allows" to the "scopes" of %s, in "securitySchemes"`, d.at(`"securitySchemes"`), name, scope, scheme)
						}
					}
				}
			}
		}
	}
	for _, route := range routes {
		if method, path, _ := strings.Cut(route, " "); !described[route] {
			fault("%s: add %s: {%s: {…}} to \"paths\", for the route %s of main.go", d.at(`"paths"`), quote(path), quote(strings.ToLower(method)), route)
		}
	}
	d.walk(d.tree, func(node map[string]any) {
		if target, ok := node["$ref"].(string); ok && !d.has(target) {
			name := target[strings.LastIndexByte(target, '/')+1:]
			fault("%s: $ref to %s, which does not exist: add %s to \"components\", or fix the name", d.at(quote(target)), target, quote(name))
		}
		if value, ok := node["const"]; ok && node["type"] == nil {
			text, _ := json.Marshal(value)
			fault(`%s: a const without a type, for which some generators make no code: add "type" beside "const": %s`, d.at(`{"const": `+string(text)), text)
		}
	})
	slices.Sort(faults)
	return faults
}

func quote(s string) string { return `"` + s + `"` }

// walk calls visit for each object in the tree.
func (d *Description) walk(tree any, visit func(map[string]any)) {
	switch node := tree.(type) {
	case map[string]any:
		visit(node)
		for _, member := range node {
			d.walk(member, visit)
		}
	case []any:
		for _, item := range node {
			d.walk(item, visit)
		}
	}
}

// has says whether the target of a reference, #/components/schemas/User, exists.
func (d *Description) has(target string) bool {
	node, parts := d.tree, strings.Split(target, "/")
	if parts[0] != "#" {
		return false
	}
	for _, part := range parts[1:] {
		members, _ := node.(map[string]any)
		if node = members[part]; node == nil {
			return false
		}
	}
	return true
}

// Handler returns next, and fails the test if the status, headers or body of an
// answer do not match the description.
func (d *Description) Handler(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := strings.ToLower(r.Method)
		if r.Method == http.MethodHead {
			method = "get"
		}
		operation, ok := d.Paths[r.URL.Path][method]
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())

		fault := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s: %s %s, %d: %s", d.at(quote(r.URL.Path)+": {"), r.Method, r.URL.Path, answer.Code, fmt.Sprintf(format, args...))
		}
		want, ok := operation.Responses[fmt.Sprint(answer.Code)]
		if !ok {
			fault(`this status is not described: add it to "responses"`)
			return
		}
		for name := range answer.Header() {
			_, ok := want.Headers[http.CanonicalHeaderKey(name)]
			if name == "Www-Authenticate" {
				_, ok = want.Headers["WWW-Authenticate"]
			}
			if name != "Content-Type" && name != "Connection" && !ok { // the former is in Content, the latter is HTTP's own
				fault("header %s is not described", name)
			}
		}
		for name, header := range want.Headers {
			if d.Components.Headers[header.name()].Required && answer.Header().Get(name) == "" {
				fault("no header %s", name)
			}
		}
		if len(want.Content) == 0 && answer.Body.Len() == 0 {
			return
		}
		var body any
		content, ok := want.Content[answer.Header().Get("Content-Type")]
		if !ok {
			fault("Content-Type %q is not described", answer.Header().Get("Content-Type"))
		} else if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
			fault("%v", err)
		} else if err := d.fits(content.Schema, body); err != nil {
			fault("%v in %s", err, answer.Body)
		}
	})
}

// fits returns an error if a JSON value does not match the schema, or has a member
// that the schema does not name.
func (d *Description) fits(s schema, value any) error {
	if s.Ref != "" {
		s = d.Components.Schemas[s.name()]
	}
	if either := append(s.AnyOf, s.OneOf...); either != nil {
		var errs []error
		for _, s := range either {
			errs = append(errs, d.fits(s, value))
		}
		if slices.Contains(errs, nil) {
			return nil
		}
		return errors.Join(errs...)
	}
	if s.Const != nil && value != s.Const {
		return fmt.Errorf("%v is not %v", value, s.Const)
	}
	is := map[string]bool{"": true}
	switch v := value.(type) {
	case nil:
		is["null"] = true
	case string:
		is["string"] = true
	case bool:
		is["boolean"] = true
	case float64:
		is["number"], is["integer"] = true, v == float64(int64(v))
	case []any:
		is["array"] = true
		for _, item := range v {
			if s.Items == nil {
				return errors.New("no items are described")
			}
			if err := d.fits(*s.Items, item); err != nil {
				return err
			}
		}
	case map[string]any:
		is["object"] = true
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("no member %q", name)
			}
		}
		for name, member := range v {
			property, ok := s.Properties[name]
			if s.Properties != nil && !ok {
				return fmt.Errorf("member %q is not described", name)
			}
			if err := d.fits(property, member); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if !is[s.Type] {
		return fmt.Errorf("%v is not of type %s", value, s.Type)
	}
	return nil
}
