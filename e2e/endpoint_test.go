package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAddAnEndpoint adds GET /users/me/items of FastAPI's tutorial to a copy of
// the service, step by step, as CONTRIBUTING.md says. After each step but the last, the
// service's own tests must name the file and the line to write next.
func TestAddAnEndpoint(t *testing.T) {
	copied := t.TempDir()
	copyTracked(t, copied, ":!e2e", ":!bench")
	edit := func(name, before, after string) {
		t.Helper()
		path := filepath.Join(copied, name)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), before) {
			t.Fatalf("%s has no %q", name, before)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), before, after, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const (
		route    = "\t\ta.resource(\"GET\", \"/users/me\", depends(a.currentActiveUser, readUsersMe)),\n"
		handler  = "// readUsersMe answers GET /users/me.\n"
		paths    = `"paths": {` + "\n"
		schemas  = `"schemas": {` + "\n"
		scopes   = `"scopes": {`
		rows     = "var usersMeRows = []row{\n"
		endpoint = `"/users/me/items": {"get": {
			"operationId": "read_own_items", "summary": "Read Own Items", "security": [{"OAuth2PasswordBearer": ["items:list"]}],
			"responses": {
				"200": {
					"description": "The items", "headers": {"Cache-Control": {"$ref": "#/components/headers/NoStore"}},
					"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Items"}}}
				}
			}
		}},
		`
	)
	for _, step := range []struct {
		name string
		edit func()
		says string // what go test says, or "" if it passes
	}{
		{"the route and its handler", func() {
			edit("main.go", route, route+"\t\ta.resource(\"GET\", \"/users/me/items\", depends(a.currentActiveUser, readOwnItems)),\n")
			edit("oauth2.go", handler, `// readOwnItems answers GET /users/me/items.
func readOwnItems(w http.ResponseWriter, _ *http.Request, user currentUser) error {
	answer.JSON(w, http.StatusOK, []map[string]string{{"item_id": "Foo", "owner": user.Username}})
	return nil
}

`+handler)
		}, `docs/openapi\.json:\d+: add "/users/me/items": \{"get": \{…\}\} to "paths", for the route GET /users/me/items of main\.go`},
		{"its description", func() { edit("docs/openapi.json", paths, paths+endpoint) },
			`docs/openapi\.json:\d+: \$ref to #/components/schemas/Items, which does not exist: add "Items" to "components"`},
		{"what the description refers to", func() {
			edit("docs/openapi.json", schemas, schemas+`"Items": {"type": "array", "items": {"type": "object", "properties": {"item_id": {"type": "string"}, "owner": {"type": "string"}}}},`+"\n")
		}, `docs/openapi\.json:\d+: GET /users/me/items needs the scope "items:list": add "items:list": "what it allows" to the "scopes" of OAuth2PasswordBearer`},
		{"its scope", func() { edit("docs/openapi.json", scopes, scopes+`"items:list": "list items", `) },
			`handlers_test\.go: add rows to TestEndpoints for GET /users/me/items, one of them with status 200`},
		{"its rows", func() {
			edit("handlers_test.go", rows, rows+`	{name: "items", request: "GET /users/me/items",
		auth: "Bearer {johndoe}", want: "[{\"item_id\":\"Foo\",\"owner\":\"johndoe\"}]"},
`)
		}, ""},
	} {
		step.edit()
		test := exec.Command("go", "test", "-run", "TestDescription|TestEndpoints", ".")
		test.Dir = copied
		out, err := test.CombinedOutput()
		if step.says == "" {
			if err != nil {
				t.Errorf("%s: %s", step.name, out)
			}
		} else if !regexp.MustCompile(step.says).Match(out) {
			t.Errorf("%s: go test says %s\nwant %s", step.name, out, step.says)
		}
	}
}
