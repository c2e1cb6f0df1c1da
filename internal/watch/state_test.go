package watch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
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

// TestSlowLook lets a look hang. Once it is over, the files are loaded, though they
// look as before.
func TestSlowLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(slog.New(slog.DiscardHandler))
		looks, answer, loads := 0, make(chan struct{}), 0
		w.stateOf = func(string) (s state) {
			if looks++; looks == 2 {
				<-answer
			}
			return s
		}
		if err := w.Add("users", func() error { loads++; return nil }, "users.json"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx, nil)
		const lacks = "users could not be loaded again, keeping the previous version"
		for _, tt := range []struct {
			after        time.Duration
			want         string
			looks, loads int
		}{
			{after: 6 * time.Second, looks: 2, loads: 1},
			{after: 2 * time.Second, want: lacks, looks: 2, loads: 1},
			{after: time.Hour, want: lacks, looks: 2, loads: 1},
		} {
			time.Sleep(tt.after)
			synctest.Wait()
			if got := w.Lacks(""); got != tt.want || looks != tt.looks || loads != tt.loads {
				t.Errorf("%q, %d looks, %d loads; want %+v", got, looks, loads, tt)
			}
		}
		close(answer)
		synctest.Wait()
		if got := w.Lacks(""); got != "" || loads != 2 {
			t.Errorf("in the end: %q, %d loads", got, loads)
		}
	})
}
