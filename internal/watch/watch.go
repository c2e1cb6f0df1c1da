// Package watch reloads files when they have changed.
//
// Every two seconds it asks the system for the state of each file: its size, when
// it was written, when it was changed in any way, and which file the name leads to.
// The last one changes if a file is replaced rather than written: an editor renames,
// and the files of a Kubernetes Secret are links that are swapped. A copy may keep
// the size and the time of writing ("cp -p"), and the time of change may be coarse or
// missing, so a file of up to 1 MiB is read as well. Polling works on every file
// system, and needs no library.
//
// A pipe, or another file that is not regular, can be loaded once, at the start. It
// is not watched and not loaded again, since whoever opens it may have to wait. If
// one takes the place of a regular file, the load fails. A load, even the first one,
// also fails if a file has more than 256 MiB.
//
// A failed load is logged once, not every two seconds, and Lacks says so until one
// succeeds. It is retried when a file has changed, and every time if a file could
// not be read: its permissions may change without a trace in its state.
//
// A network file system may not answer. After five seconds this counts as a failed
// load. Go has no way to give up such a look or load: it goes on until there is an
// answer, and only then the next one begins. Files that are loaded apart do not wait
// for each other, and Run does not wait when it ends.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	interval  = 2 * time.Second
	patience  = 5 * time.Second // with a look and a load
	mostBytes = 256 << 20       // of a file; 200,000 users have 45 MB
)

// Watcher watches files. Make one with New.
type Watcher struct {
	log     *slog.Logger
	stateOf func(name string) state // replaced by tests
	mu      sync.Mutex              // of err and good of the sets
	sets    []*set
}

// set is a set of files that are loaded together.
type set struct {
	what  string
	load  func() error
	files []string
	now   chan struct{} // asks for a load whether or not a file has changed
	state []state       // of each file just before the last load
	err   error         // of the last load
	good  time.Time     // when the last load without an error was
}

// New returns a Watcher that watches nothing yet.
func New(log *slog.Logger) *Watcher { return &Watcher{log: log, stateOf: stateOf} }

// Add calls load, and returns its error. If there is none, load is called again
// whenever one of the files has changed. If load returns an error, it must keep
// what it had loaded before. Empty file names are ignored.
func (w *Watcher) Add(what string, load func() error, files ...string) error {
	s := &set{what: what, load: load, now: make(chan struct{}, 1)}
	for _, file := range files {
		if file != "" {
			s.files = append(s.files, file)
		}
	}
	s.state = w.look(s)
	err := s.refuse(s.state, true)
	if err == nil {
		err = load()
	}
	if err != nil {
		return err
	}
	s.good = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sets = append(w.sets, s)
	return nil
}

// Loaded returns when something was last loaded without an error.
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

// Lacks says in words what could not be loaded again, after what else is wrong, if
// anything is. It shows nothing of a file's content.
func (w *Watcher) Lacks(also string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lacks []string
	if also != "" {
		lacks = append(lacks, also)
	}
	for _, s := range w.sets {
		if s.err != nil {
			lacks = append(lacks, s.failed())
		}
	}
	return strings.Join(lacks, "; ")
}

// Run loads what has changed, and everything on a signal from now, until ctx ends.
func (w *Watcher) Run(ctx context.Context, now <-chan os.Signal) {
	for _, s := range w.sets {
		go w.watch(ctx, s)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-now:
			for _, s := range w.sets {
				select {
				case s.now <- struct{}{}:
				default: // it is to load already
				}
			}
		}
	}
}

// watch is Run for one set.
func (w *Watcher) watch(ctx context.Context, s *set) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.tend(s, false)
		case <-s.now:
			w.tend(s, true)
		}
	}
}

// tend looks at the files of a set, and loads them if one has changed, or anyway.
func (w *Watcher) tend(s *set, anyway bool) {
	noted := make(chan struct{})
	slow := time.AfterFunc(patience, func() {
		names := strings.Join(s.files, " and ")
		w.note(s, &fs.PathError{Op: "read", Path: names, Err: fmt.Errorf("this takes longer than %v", patience)}, false)
		close(noted)
	})
	state := w.look(s) // before the load, so that a change during it is seen the next time
	if !anyway && !w.unreadable(s) && !s.changed(state) {
		slow.Stop()
		return
	}
	err := s.refuse(state, false)
	if err == nil {
		err = s.load()
	}
	if !slow.Stop() {
		<-noted
	}
	s.state = state
	w.note(s, err, anyway)
}

// note keeps the error of a load, or nil, and logs an error that is new, or any if
// again.
func (w *Watcher) note(s *set, err error, again bool) {
	w.mu.Lock()
	was := s.err
	s.err = err
	if err == nil {
		s.good = time.Now()
	}
	w.mu.Unlock()
	if err != nil && (again || was == nil || was.Error() != err.Error()) {
		w.log.Error(s.failed(), "error", err)
	}
}

// unreadable says whether a file of the set could not be read.
func (w *Watcher) unreadable(s *set) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.As(s.err, new(*fs.PathError))
}

func (s *set) failed() string {
	return s.what + " could not be loaded again, keeping the previous version"
}

// look returns the state of the files of a set.
func (w *Watcher) look(s *set) []state {
	states := make([]state, len(s.files))
	for i, file := range s.files {
		states[i] = w.stateOf(file)
	}
	return states
}

// refuse returns an error if a file in one of the states must not be opened.
func (s *set) refuse(states []state, first bool) error {
	for i, state := range states {
		switch {
		case state.info == nil: // opening it tells why
		case !first && !state.info.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file", s.files[i])
		case state.info.Size() > mostBytes:
			return fmt.Errorf("%s has more than %d MiB", s.files[i], mostBytes>>20)
		}
	}
	return nil
}

func (s *set) changed(now []state) bool {
	for i := range now {
		if now[i].changed(s.state[i]) {
			return true
		}
	}
	return false
}
