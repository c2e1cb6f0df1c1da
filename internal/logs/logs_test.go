package logs_test

import (
	"strings"
	"testing"

	"simple-oauth2/internal/logs"
)

func TestCut(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"as long as may be", strings.Repeat("a", 64), strings.Repeat("a", 64)},
		{"a byte too long", strings.Repeat("a", 65), strings.Repeat("a", 64) + "…"},
		{"cut inside a letter", strings.Repeat("a", 63) + "üü", strings.Repeat("a", 63) + "…"},
	} {
		if got := logs.Cut(tt.text); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
