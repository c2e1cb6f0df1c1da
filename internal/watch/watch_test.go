package watch_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/watch"
)

// watched is a folder with a watched file: its text is loaded, unless it is
// "broken".
type watched struct {
	t      *testing.T
	dir    string
	hangup chan os.Signal
	wrote  time.Time

	mu     sync.Mutex // of what the watcher writes
	loads  int
	loaded string
	log    bytes.Buffer
}

// Write writes to the log.
func (w *watched) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

// seen returns what the watcher has loaded and logged so far.
func (w *watched) seen() (loads int, loaded, log string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loads, w.loaded, w.log.String()
}

func (w *watched) path(name string) string { return filepath.Join(w.dir, name) }

// write writes a file, a second later than the previous one.
func (w *watched) write(name, text string) {
	w.t.Helper()
	w.wrote = w.wrote.Add(time.Second)
	err := os.WriteFile(w.path(name), []byte(text), 0o600)
	w.must(errors.Join(err, os.Chtimes(w.path(name), w.wrote, w.wrote)))
}

func (w *watched) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) load() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loads++
	text, err := os.ReadFile(w.path("file"))
	if err == nil && string(text) == "broken" {
		err = errors.New("file: it is broken")
	}
	if err == nil {
		w.loaded = string(text)
	}
	return err
}

func watchIt(t *testing.T, test func(w *watched)) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t, dir: t.TempDir(), hangup: make(chan os.Signal, 1), wrote: time.Unix(1700000000, 0)}
		w.write("file", "one")
		files := watch.New(slog.New(slog.NewTextHandler(w, nil)))
		w.must(files.Add("file", w.load, w.path("file"), ""))
		added := time.Now()
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		go files.Run(ctx, w.hangup)
		test(w)
		cancel()
		synctest.Wait()
		if _, loaded, _ := w.seen(); loaded != "one" && !files.Loaded("file").After(added) {
			t.Error("the time of the last load is that of the first")
		}
	})
}

// large is too much for the watcher to read every two seconds.
var large = strings.Repeat("x", 1<<20)

// tick waits until the clock of the file system has moved on: some only tick every
// few milliseconds.
func (w *watched) tick() {
	w.t.Helper()
	touch := func() time.Time {
		w.must(os.WriteFile(w.path("clock"), nil, 0o600))
		info, err := os.Stat(w.path("clock"))
		w.must(err)
		return info.ModTime()
	}
	for began := touch(); touch().Equal(began); {
	}
}

// lookTwice lets the watcher look twice.
func (w *watched) lookTwice() {
	time.Sleep(4 * time.Second)
	synctest.Wait()
}

// turnInto makes something else of the watched file.
func (w *watched) turnInto(create func(name string) error) {
	w.t.Helper()
	w.must(os.Remove(w.path("file")))
	if err := create(w.path("file")); err != nil {
		w.t.Skip(err)
	}
}

func (w *watched) folder(name string) error { return os.Mkdir(name, 0o700) }

func (w *watched) socket(name string) error {
	w.t.Chdir(w.dir) // the address of a socket must be short
	listener, err := net.Listen("unix", filepath.Base(name))
	if err == nil {
		w.t.Cleanup(func() { listener.Close() })
	}
	return err
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *watched)
		loads  int
		loaded string
		told   string // what is in the log once
	}{
		{"nothing", func(w *watched) {}, 0, "one", ""},
		{"written", func(w *watched) { w.write("file", "another") }, 1, "another", ""},
		{"written with the same size", func(w *watched) { w.write("file", "two") }, 1, "two", ""},
		{"written with the same time", func(w *watched) {
			w.wrote = w.wrote.Add(-time.Second)
			w.write("file", "another")
		}, 1, "another", ""},
		{"written with an earlier time", func(w *watched) {
			w.wrote = w.wrote.Add(-time.Hour)
			w.write("file", "two")
		}, 1, "two", ""},
		{"replaced by one of the same time and size", func(w *watched) {
			w.wrote = w.wrote.Add(-time.Second)
			w.write("other", "two")
			w.must(os.Rename(w.path("other"), w.path("file")))
		}, 1, "two", ""},
		{"written with the same time and size", func(w *watched) {
			w.wrote = w.wrote.Add(-time.Second)
			w.write("file", "two")
		}, 1, "two", ""},
		{"removed, and made with the same time and size", func(w *watched) {
			w.must(os.Remove(w.path("file")))
			w.wrote = w.wrote.Add(-time.Second)
			w.write("file", "two")
		}, 1, "two", ""},
		{"a large one, written with the same time and size", func(w *watched) {
			if runtime.GOOS == "windows" {
				w.t.Skip("there is no time of change here")
			}
			w.write("file", "one"+large)
			w.lookTwice()
			w.tick()
			w.wrote = w.wrote.Add(-time.Second)
			w.write("file", "two"+large)
		}, 2, "two" + large, ""},
		{"a large one, left alone", func(w *watched) { w.write("file", large) }, 1, large, ""},
		{"broken", func(w *watched) { w.write("file", "broken") }, 1, "one", "it is broken"},
		{"broken and whole again", func(w *watched) {
			w.write("file", "broken")
			w.lookTwice()
			w.write("file", "two")
		}, 2, "two", "it is broken"},
		{"broken twice in the same way", func(w *watched) {
			w.write("file", "broken")
			w.lookTwice()
			w.write("file", "broken")
		}, 2, "one", "it is broken"},
		{"gone", func(w *watched) { w.must(os.Remove(w.path("file"))) }, 2, "one", "file could not be loaded again, keeping the previous version"},
		{"gone and back as it was", func(w *watched) {
			w.must(os.Rename(w.path("file"), w.path("other")))
			w.lookTwice()
			w.must(os.Rename(w.path("other"), w.path("file")))
		}, 3, "one", "file could not be loaded again, keeping the previous version"},
		{"replaced by a folder", func(w *watched) { w.turnInto(w.folder) }, 0, "one", "/file is not a regular file"},
		{"replaced by a folder and back", func(w *watched) {
			w.turnInto(w.folder)
			w.lookTwice()
			w.must(os.Remove(w.path("file")))
			w.write("file", "two")
		}, 1, "two", "/file is not a regular file"},
		{"replaced by a link to the null device", func(w *watched) {
			w.turnInto(func(name string) error { return os.Symlink(os.DevNull, name) })
		}, 0, "one", "/file is not a regular file"},
		{"replaced by a socket", func(w *watched) { w.turnInto(w.socket) }, 0, "one", "/file is not a regular file"},
		{"replaced by a socket, and SIGHUP", func(w *watched) {
			w.turnInto(w.socket)
			w.hangup <- os.Interrupt
		}, 0, "one", "/file is not a regular file"},
		{"gone, and then a folder", func(w *watched) {
			w.must(os.Remove(w.path("file")))
			w.lookTwice()
			w.must(w.folder(w.path("file")))
		}, 2, "one", "/file is not a regular file"},
		{"too large", func(w *watched) { w.must(os.Truncate(w.path("file"), 256<<20+1)) }, 0, "one",
			"/file has more than 256 MiB"},
		{"SIGHUP", func(w *watched) { w.hangup <- os.Interrupt }, 1, "one", ""},
		{"SIGHUP after a change", func(w *watched) {
			w.write("file", "two")
			w.hangup <- os.Interrupt
		}, 1, "two", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watchIt(t, func(w *watched) {
				before, _, _ := w.seen()
				tt.change(w)
				w.lookTwice()
				loads, loaded, log := w.seen()
				if loads-before != tt.loads || loaded != tt.loaded {
					t.Errorf("%d loads, %.9q; want %d, %.9q", loads-before, loaded, tt.loads, tt.loaded)
				}
				if tt.told == "" && log != "" || tt.told != "" && strings.Count(log, tt.told) != 1 {
					t.Errorf("the log is %q, want %q once", log, tt.told)
				}
			})
		})
	}
}

// TestSIGHUPTellsAgain checks that the log has a line for each SIGHUP.
func TestSIGHUPTellsAgain(t *testing.T) {
	watchIt(t, func(w *watched) {
		w.write("file", "broken")
		w.lookTwice()
		w.hangup <- os.Interrupt
		synctest.Wait()
		_, _, log := w.seen()
		if n := strings.Count(log, "it is broken"); n != 2 {
			t.Errorf("told %d times, want 2", n)
		}
	})
}

// TestLoaded checks the time of the last good load of each set.
func TestLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken error // what users fail with
		files := watch.New(slog.New(slog.DiscardHandler))
		begin := time.Now()
		for what, load := range map[string]func() error{
			"users":       func() error { return broken },
			"certificate": func() error { return nil },
		} {
			if err := files.Add(what, load); err != nil {
				t.Fatal(err)
			}
		}
		hangup := make(chan os.Signal)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go files.Run(ctx, hangup)
		for _, tt := range []struct {
			name               string
			broken             error
			users, certificate time.Duration // since the begin
		}{
			{name: "both", users: time.Minute, certificate: time.Minute},
			{name: "one failed", broken: errors.New("no hash"), users: time.Minute, certificate: 2 * time.Minute},
			{name: "both again", users: 3 * time.Minute, certificate: 3 * time.Minute},
		} {
			time.Sleep(time.Minute)
			broken = tt.broken
			hangup <- os.Interrupt
			synctest.Wait()
			for what, want := range map[string]time.Duration{"users": tt.users, "certificate": tt.certificate} {
				if got := files.Loaded(what).Sub(begin); got != want {
					t.Errorf("%s: %s were loaded after %v, want %v", tt.name, what, got, want)
				}
			}
		}
		if got := files.Loaded("pages"); !got.IsZero() {
			t.Errorf("what there is not was loaded at %v", got)
		}
	})
}

// TestLacks breaks one file and then another, and mends them.
func TestLacks(t *testing.T) {
	const users = "users could not be loaded again, keeping the previous version"
	const certificate = "certificate could not be loaded again, keeping the previous version"
	synctest.Test(t, func(t *testing.T) {
		broken := make(map[string]error)
		files := watch.New(slog.New(slog.DiscardHandler))
		for _, what := range []string{"users", "certificate"} {
			load := func() error { return broken[what] }
			if err := files.Add(what, load); err != nil {
				t.Fatal(err)
			}
		}
		hangup := make(chan os.Signal)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go files.Run(ctx, hangup)
		for _, tt := range []struct {
			name               string
			users, certificate error
			also, want         string
		}{
			{name: "nothing"},
			{name: "something else", also: "no room", want: "no room"},
			{name: "users", users: errors.New("jane: no hash"), want: users},
			{name: "users for another reason", users: errors.New("not JSON"), want: users},
			{name: "users and something else", users: errors.New("not JSON"), also: "no room", want: "no room; " + users},
			{name: "all", users: errors.New("not JSON"), certificate: errors.New("no PEM"), also: "no room",
				want: "no room; " + users + "; " + certificate},
			{name: "certificate", certificate: errors.New("no PEM"), want: certificate},
			{name: "nothing any more"},
		} {
			broken["users"], broken["certificate"] = tt.users, tt.certificate
			hangup <- os.Interrupt
			synctest.Wait()
			if got := files.Lacks(tt.also); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
		}
	})
}

// TestSwappedSecret swaps files as Kubernetes does: the name is a link that goes
// through a link to a folder, and the latter is replaced.
func TestSwappedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t, dir: t.TempDir()}
		for _, version := range []string{"v1", "v2"} {
			w.must(os.Mkdir(w.path(version), 0o700))
			w.write(version+"/file", version)
		}
		if err := os.Symlink("v1", w.path("..data")); err != nil {
			t.Skip(err)
		}
		w.must(os.Symlink("..data/file", w.path("file")))
		files := watch.New(slog.New(slog.DiscardHandler))
		w.must(files.Add("file", w.load, w.path("file")))
		ctx, cancel := context.WithCancel(t.Context())
		go files.Run(ctx, nil)
		w.must(os.Symlink("v2", w.path("..new")))
		w.must(os.Rename(w.path("..new"), w.path("..data")))
		w.lookTwice()
		cancel()
		if loads, loaded, _ := w.seen(); loaded != "v2" || loads != 2 {
			t.Errorf("%q after %d loads, want v2 after 2", loaded, loads)
		}
	})
}

// TestSize adds a file that is as large as one may be, and one that is larger.
func TestSize(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, tt := range []struct {
		size  int64
		loads int
		err   string
	}{
		{size: 256 << 20, loads: 1},
		{size: 256<<20 + 1, err: name + " has more than 256 MiB"},
	} {
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, tt.size)); err != nil {
			t.Fatal(err)
		}
		loads := 0
		err := watch.New(slog.New(slog.DiscardHandler)).Add("file", func() error { loads++; return nil }, name)
		if loads != tt.loads || tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
			t.Errorf("%d bytes: %d loads, %v; want %d, %q", tt.size, loads, err, tt.loads, tt.err)
		}
	}
}

// TestPipe loads what is not a regular file from the start. That can be done once.
func TestPipe(t *testing.T) {
	name := t.TempDir() // stands for it
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		files := watch.New(slog.New(slog.DiscardHandler))
		if err := files.Add("users", func() error { loads++; return nil }, name); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		hangup := make(chan os.Signal)
		go files.Run(ctx, hangup)
		time.Sleep(10 * time.Second)
		if lacks := files.Lacks(""); lacks != "" {
			t.Errorf("without a change: %s", lacks)
		}
		hangup <- os.Interrupt
		synctest.Wait()
		if lacks := files.Lacks(""); !strings.Contains(lacks, "users could not be loaded again") || loads != 1 {
			t.Errorf("on SIGHUP: %q, %d loads", lacks, loads)
		}
	})
}

// TestSlow lets the load of one set of files hang, as on a network file system whose
// server is gone.
func TestSlow(t *testing.T) {
	const lacks = "users could not be loaded again, keeping the previous version"
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t}
		files := watch.New(slog.New(slog.NewTextHandler(w, nil)))
		answer, users, certificates := make(chan error, 1), 0, 0
		answer <- nil
		w.must(files.Add("users", func() error { users++; return <-answer }, "users.json"))
		w.must(files.Add("certificate", func() error { certificates++; return nil }))
		hangup := make(chan os.Signal)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { files.Run(ctx, hangup); close(done) }()
		wants := func(when, want string) {
			t.Helper()
			synctest.Wait()
			if got := files.Lacks(""); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		hangup <- os.Interrupt
		time.Sleep(4 * time.Second)
		wants("after 4 s", "")
		time.Sleep(2 * time.Second)
		wants("after 6 s", lacks)
		goroutines := runtime.NumGoroutine()
		for range 100 {
			hangup <- os.Interrupt
			time.Sleep(time.Hour)
		}
		wants("after days", lacks)
		if n := runtime.NumGoroutine(); n > goroutines || users != 2 {
			t.Errorf("%d goroutines, %d before; %d loads", n, goroutines, users)
		}
		if certificates != 102 {
			t.Errorf("the other set was loaded %d times, want 102", certificates)
		}
		const told = `level=ERROR msg="` + lacks + `" error="read users.json: this takes longer than 5s"`
		if _, _, log := w.seen(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, told) {
			t.Errorf("not logged once:\n%s", log)
		}
		answer <- nil
		wants("it goes on", "")
		answer <- nil // the signals meanwhile are one
		wants("it has gone on", "")
		time.Sleep(time.Hour)
		if users != 3 {
			t.Errorf("%d loads, want 3", users)
		}
		hangup <- os.Interrupt
		time.Sleep(time.Hour)
		cancel()
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Error("a load that hangs keeps Run from returning")
		}
		answer <- nil
	})
}

func TestFirstLoadFails(t *testing.T) {
	want := errors.New("no such file")
	err := watch.New(slog.New(slog.DiscardHandler)).Add("file", func() error { return want }, "file")
	if err != want {
		t.Errorf("error %v", err)
	}
}
