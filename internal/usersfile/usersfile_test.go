package usersfile_test

import (
	"slices"
	"testing"

	"simple-oauth2/internal/usersfile"
)

func TestScopes(t *testing.T) {
	got := usersfile.Scopes(map[string]usersfile.Record{
		"jane": {Scopes: []string{"items:write", "items:read", "items:read"}},
		"gate": {Scopes: []string{"introspect", "items:read"}},
		"none": {},
	})
	if want := []string{"introspect", "items:read", "items:write"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
