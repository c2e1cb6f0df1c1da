package answer_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"simple-oauth2/internal/answer"
)

func TestNoStore(t *testing.T) {
	for pragma, want := range map[bool]string{true: "no-cache", false: ""} {
		header := make(http.Header)
		answer.NoStore(header, pragma)
		if header.Get("Cache-Control") != "no-store" || header.Get("Pragma") != want {
			t.Errorf("with pragma %v: %v", pragma, header)
		}
	}
}

func TestJSON(t *testing.T) {
	for _, tt := range []struct {
		name string
		v    any
		want string
	}{
		{"compact, without a newline", map[string]any{"a": 1, "b": []int{}}, `{"a":1,"b":[]}`},
		{"HTML as it is", "<&>", `"<&>"`},
		{"not ASCII", "ü", `"ü"`},
		{"nil", nil, `null`},
	} {
		w := httptest.NewRecorder()
		answer.JSON(w, 418, tt.v)
		if w.Body.String() != tt.want || w.Code != 418 || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %q %v", tt.name, w.Code, w.Body, w.Header())
		}
	}
}
