package watch

import (
	"os"
	"path/filepath"
	"testing"
)

// TestContent changes only the content of a file, as on a system that has no time
// of last change, or between two ticks of a clock that is coarse.
func TestContent(t *testing.T) {
	dir := t.TempDir()
	read := func(name, text string) state {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return stateOf(filepath.Join(dir, name))
	}
	before := read("file", "one")
	for _, tt := range []struct {
		name, text string
		changed    bool
	}{
		{"the same", "one", false},
		{"other text", "two", true},
		{"no text", "", true},
	} {
		now := state{info: before.info, content: read("other", tt.text).content}
		if got := now.changed(before); got != tt.changed {
			t.Errorf("%s: changed %v", tt.name, got)
		}
	}
}
