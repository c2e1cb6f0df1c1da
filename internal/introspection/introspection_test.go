package introspection_test

import (
	"net/http/httptest"
	"testing"

	"simple-oauth2/internal/introspection"
)

func TestActive(t *testing.T) {
	for _, tt := range []struct {
		name     string
		username string
		scopes   []string
		want     string
	}{
		{
			name:     "scopes",
			username: "jane",
			scopes:   []string{"items:read", "items:write"},
			want: `{"active":true,"username":"jane","sub":"jane","scope":"items:read items:write",` +
				`"token_type":"bearer","iat":1700000000,"exp":1700001800}`,
		},
		{
			name:     "no scope",
			username: "jane",
			want:     `{"active":true,"username":"jane","sub":"jane","token_type":"bearer","iat":1700000000,"exp":1700001800}`,
		},
		{
			name:     "characters that JSON escapes",
			username: "a\"b\\c<é",
			scopes:   []string{"<&>"},
			want: `{"active":true,"username":"a\"b\\c<é","sub":"a\"b\\c<é","scope":"<&>",` +
				`"token_type":"bearer","iat":1700000000,"exp":1700001800}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			introspection.Active(w, tt.username, tt.scopes, 1700000000, 1700001800)
			got := w.Body.String()
			if w.Code != 200 || got != tt.want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %s, want %s", w.Code, got, tt.want)
			}
		})
	}
}

func TestInactive(t *testing.T) {
	w := httptest.NewRecorder()
	introspection.Inactive(w)
	got := w.Body.String()
	if w.Code != 200 || got != `{"active":false}` || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %s", w.Code, got)
	}
}
