package introspection_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/introspection"
)

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		username string
		scopes   []string
		want     string
	}{
		{"scopes", "jane", []string{"items:read", "items:write"},
			`{"active":true,"username":"jane","sub":"jane","scope":"items:read items:write","token_type":"bearer","iat":1700000000,"exp":1700001800}`},
		{"no scope", "jane", nil, `{"active":true,"username":"jane","sub":"jane","scope":"","token_type":"bearer","iat":1700000000,"exp":1700001800}`},
		{"a username that JSON escapes", "a\"b\\c<é", []string{"<&>"},
			`{"active":true,"username":"a\"b\\c<é","sub":"a\"b\\c<é","scope":"<&>","token_type":"bearer","iat":1700000000,"exp":1700001800}`},
	} {
		var claims answer.Once
		for range 2 { // the second time as it was kept
			w := httptest.NewRecorder()
			introspection.Active(w, &claims, tt.username, tt.scopes, 1700000000, 1700001800)
			if got := w.Body.String(); w.Code != 200 || got != tt.want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s: %d %s, want %s", tt.name, w.Code, got, tt.want)
			}
		}
	}
	w := httptest.NewRecorder()
	introspection.Inactive(w)
	if got := w.Body.String(); w.Code != 200 || got != `{"active":false}` || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("inactive: %d %s", w.Code, got)
	}
}

// keeper keeps what was written to it, as HTTP/2 may keep a long body until it is
// sent.
type keeper struct {
	httptest.ResponseRecorder
	kept []byte
}

func (k *keeper) Write(body []byte) (int, error) {
	k.kept = body
	return len(body), nil
}

// TestLong wants a long answer to stay as it was while others are written.
func TestLong(t *testing.T) {
	scopes := func(letter string) []string { return []string{strings.Repeat(letter, 5000)} }
	for range 20 { // since a pool may forget what it was given
		var jane, john keeper
		introspection.Active(&jane, new(answer.Once), "jane", scopes("a"), 1, 2)
		was := string(jane.kept)
		introspection.Active(&john, new(answer.Once), "john", scopes("b"), 1, 2)
		if string(jane.kept) != was {
			t.Fatalf("the answer about jane became %.40s", jane.kept)
		}
	}
}
