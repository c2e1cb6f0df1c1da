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

// between is a ResponseWriter that calls a function before it looks at what it was
// given, as others are answered before a slow client has read.
type between struct {
	httptest.ResponseRecorder
	others func()
	body   string
}

func (b *between) Write(body []byte) (int, error) {
	b.others()
	b.body = string(body)
	return len(body), nil
}

// TestOthers wants an answer to be the same, however many are written meanwhile.
func TestOthers(t *testing.T) {
	for range 20 { // since a pool may forget what it was given
		john := func() {
			introspection.Active(httptest.NewRecorder(), new(answer.Once), "john", []string{"a", "b"}, 1, 2)
		}
		jane := between{others: john}
		john()
		introspection.Active(&jane, new(answer.Once), "jane", []string{"c"}, 3, 4)
		if want := `{"active":true,"username":"jane","sub":"jane","scope":"c","token_type":"bearer","iat":3,"exp":4}`; jane.body != want {
			t.Fatalf("%s, want %s", jane.body, want)
		}
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

// TestLong wants an answer of more than 4096 bytes to stay as it was when others are
// written after it.
func TestLong(t *testing.T) {
	answerTo := func(k *keeper, letter string, bytes int) {
		empty := len(`{"active":true,"username":"x","sub":"x","scope":"","token_type":"bearer","iat":1,"exp":2}`)
		introspection.Active(k, new(answer.Once), "x", []string{strings.Repeat(letter, bytes-empty)}, 1, 2)
		if len(k.kept) != bytes {
			t.Fatalf("%d bytes, want %d", len(k.kept), bytes)
		}
	}
	for _, bytes := range []int{4097, 5000, 8000} {
		for range 20 { // since a pool may forget what it was given
			var first, second keeper
			answerTo(&first, "a", bytes)
			was := string(first.kept)
			answerTo(&second, "b", bytes)
			if string(first.kept) != was {
				t.Fatalf("the first answer of %d bytes changed", bytes)
			}
		}
	}
}
