package watch_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"simple-oauth2/internal/watch"
)

// TestReadFile reads what there is, and gives up what has no end.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	whole, empty := filepath.Join(dir, "whole"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(whole, []byte("text"), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close() // what reads ends then
	pipe := fmt.Sprint("/dev/fd/", reader.Fd())
	ended, end := context.WithCancel(t.Context())
	end()
	for _, tt := range []struct {
		name, file string
		ctx        context.Context
		text       string
		err        error
	}{
		{"a file", whole, t.Context(), "text", nil},
		{"an empty one", empty, t.Context(), "", nil},
		{"none", filepath.Join(dir, "none"), t.Context(), "", fs.ErrNotExist},
		{"a pipe that nobody writes", pipe, ended, "", context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := os.Stat("/dev/fd"); err != nil && tt.file == pipe {
				t.Skip("pipes have no names here")
			}
			text, err := watch.ReadFile(tt.ctx, tt.file)
			if string(text) != tt.text || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v; want %q, %v", text, err, tt.text, tt.err)
			}
		})
	}
}
