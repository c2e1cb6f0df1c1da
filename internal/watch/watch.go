// Package watch loads files again when they have changed.
//
// Every two seconds it asks the system for the state of each file: when it was
// written, its size, and which file the name stands for. The last one changes
// where a file is replaced and not written: an editor renames, and the files of
// a Kubernetes Secret are links that are swapped. Asking works on every file
// system, and needs no library. What is not a regular file, a pipe say, is not
// watched.
//
// A failed load is logged once, and not every two seconds. It is tried
// again when a file has changed, and on each look if a file could not be read:
// its permissions may change without a trace in its state.
package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

const interval = 2 * time.Second

// Watcher watches files. Make one with New.
type Watcher struct {
	log  *slog.Logger
	mu   sync.Mutex
	sets []*set
}

// set is files that are loaded together.
type set struct {
	what  string
	load  func(context.Context) error
	files []string
	state []fs.FileInfo // of each file before it was loaded last; nil if there was none
	err   error         // of the last load
	good  time.Time     // of the last load without an error
}

// New returns a Watcher that watches nothing yet.
func New(log *slog.Logger) *Watcher { return &Watcher{log: log} }

// Add loads what is in the files, and returns load's error. If there is none,
// load is called again whenever one of the files has changed. It keeps what it
// had loaded before if it returns an error, and returns soon after its context
// ends. A file whose name is empty is none.
func (w *Watcher) Add(ctx context.Context, what string, load func(context.Context) error, files ...string) error {
	s := &set{what: what, load: load}
	for _, file := range files {
		if file != "" {
			s.files = append(s.files, file)
		}
	}
	s.state = s.look()
	if err := load(ctx); err != nil {
		return err
	}
	s.good = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sets = append(w.sets, s)
	return nil
}

// Loaded is when something was loaded last without an error.
func (w *Watcher) Loaded(what string) (last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sets {
		if s.what == what {
			last = s.good
		}
	}
	return last
}

// Run loads what has changed, and everything when now says so, until ctx ends.
func (w *Watcher) Run(ctx context.Context, now <-chan os.Signal) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.load(ctx, false)
		case <-now:
			w.load(ctx, true)
		}
	}
}

// load loads the sets that have changed, or all of them. Only Run calls it.
func (w *Watcher) load(ctx context.Context, all bool) {
	for _, s := range w.sets {
		state := s.look() // before the load: what changes meanwhile is seen the next time
		unreadable := errors.As(s.err, new(*fs.PathError))
		if !all && !unreadable && !s.changed(state) {
			continue
		}
		err := s.load(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && (all || s.err == nil || s.err.Error() != err.Error()) {
			w.log.Error(s.what+" could not be loaded again, keeping the previous version", "error", err)
		}
		w.mu.Lock()
		s.state, s.err = state, err
		if err == nil {
			s.good = time.Now()
		}
		w.mu.Unlock()
	}
}

// look is the state of the files.
func (s *set) look() []fs.FileInfo {
	state := make([]fs.FileInfo, len(s.files))
	for i, file := range s.files {
		if info, err := os.Stat(file); err == nil {
			state[i] = info
		}
	}
	return state
}

func (s *set) changed(state []fs.FileInfo) bool {
	for i, now := range state {
		before := s.state[i]
		if now == nil || before == nil {
			if now != before {
				return true
			}
			continue
		}
		if now.Mode().IsRegular() && !(os.SameFile(now, before) && now.Size() == before.Size() && now.ModTime().Equal(before.ModTime())) {
			return true
		}
	}
	return false
}
