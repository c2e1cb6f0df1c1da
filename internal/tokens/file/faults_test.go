package file

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/tokens"
)

// faults is a file whose operations fail as a test decides.
type faults struct {
	file
	write, sync, truncate func() error // nil: as the file does
}

func (f *faults) WriteAt(p []byte, at int64) (int, error) {
	if f.write != nil {
		if err := f.write(); err != nil {
			n, _ := f.file.WriteAt(p[:len(p)-1], at) // all but the end of the last line
			return n, err
		}
	}
	return f.file.WriteAt(p, at)
}

func (f *faults) Sync() error {
	if f.sync != nil {
		if err := f.sync(); err != nil {
			return err
		}
	}
	return f.file.Sync()
}

func (f *faults) Truncate(size int64) error {
	if f.truncate != nil {
		if err := f.truncate(); err != nil {
			return err
		}
	}
	return f.file.Truncate(size)
}

// TestFaults wants a failing file to lose nothing that was answered, and to keep
// nothing that was refused.
func TestFaults(t *testing.T) {
	always := func(err error) func() error { return func() error { return err } }
	var once sync.Once
	for _, tt := range []struct {
		name   string
		faulty faults
		folder error // of the folder's sync
		stale  bool
	}{
		{"disk full", faults{write: always(syscall.ENOSPC)}, nil, false},
		{"disk full, and the piece cannot be cut off", faults{write: always(syscall.ENOSPC), truncate: always(syscall.EIO)},
			nil, true},
		{"the disk fails", faults{sync: always(syscall.EIO)}, nil, true},
		{"the disk fails once", faults{sync: func() (err error) {
			once.Do(func() { err = syscall.EIO })
			return err
		}}, nil, true},
		{"the disk fails, and nothing can be cut off", faults{sync: always(syscall.EIO), truncate: always(syscall.EIO)},
			nil, true},
		{"read-only", faults{write: always(syscall.EROFS), sync: always(syscall.EROFS), truncate: always(syscall.EROFS)},
			syscall.EROFS, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, log := open(t, filepath.Join(folder(t), "tokens"))
			stays, goes := put(t, s), put(t, s)
			del(t, s, goes)

			well, folder := s.file, s.syncFolder
			tt.faulty.file = well
			s.file = &tt.faulty
			s.syncFolder = func(name string) error {
				if tt.folder != nil {
					return tt.folder
				}
				return folder(name)
			}
			opener := s.open
			s.open = func(string, int) (file, error) { return nil, errors.New("not now") }
			refused := newKey()
			for range 3 {
				if err := s.Put(t.Context(), refused, newRecord(time.Hour)); !errors.Is(err, tokens.ErrUnavailable) {
					t.Errorf("put: %v", err)
				}
				if err := s.Delete(t.Context(), stays); !errors.Is(err, tokens.ErrUnavailable) {
					t.Errorf("delete: %v", err)
				}
				s.tend(true)
				wants(t, s, refused, false)
				wants(t, s, stays, true)
				lacks(t, s, cannotWrite)
			}
			if s.stale != tt.stale {
				t.Errorf("stale %v", s.stale)
			}
			if !tt.stale { // otherwise it must be rewritten, whatever is in it
				s.file = well
			}
			s.open = opener
			tt.folder = nil
			s.tend(true)
			lacks(t, s, "")
			comes := put(t, s)
			if text := log.String(); strings.Count(text, "cannot be written, known tokens keep working") != 1 ||
				strings.Count(text, "can be written again") != 1 {
				t.Errorf("not logged once each:\n%s", text)
			}
			s = reopen(t, s)
			wants(t, s, stays, true)
			wants(t, s, goes, false)
			wants(t, s, refused, false)
			wants(t, s, comes, true)
		})
	}
}

// TestFullDisk has no room for another line. There may be room for a shorter file.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name    string
		deleted bool // a token, which leaves lines that a shorter file does not have
		tidy    bool
		lacks   string
		tries   int // to write a shorter file
	}{
		{name: "history", deleted: true, tidy: true, tries: 1},
		{name: "history, a moment later", deleted: true, lacks: cannotWrite},
		{name: "no history", tidy: true, lacks: cannotWrite},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := open(t, filepath.Join(folder(t), "tokens"))
			stays := put(t, s)
			if tt.deleted {
				del(t, s, put(t, s))
			}
			s.file = &faults{file: s.file, write: func() error { return syscall.ENOSPC }}
			opener, tries := s.open, 0
			s.open = func(name string, flag int) (file, error) {
				tries++
				return opener(name, flag)
			}
			if err := s.Put(t.Context(), newKey(), newRecord(time.Hour)); !errors.Is(err, tokens.ErrUnavailable) {
				t.Errorf("put: %v", err)
			}
			s.tend(tt.tidy)
			lacks(t, s, tt.lacks)
			if tries != tt.tries {
				t.Errorf("%d tries of a shorter file, want %d", tries, tt.tries)
			}
			wants(t, s, stays, true)
			if tt.lacks == "" {
				put(t, s)
			}
		})
	}
}

// age adds so many lines of history that the file is worth a rewrite. It does
// nothing if no line can be added.
func age(t *testing.T, s *Store) {
	t.Helper()
	history := make([]entry, 2*slack)
	for i := range history {
		history[i] = entry{newKey(), nil}
	}
	if err := s.append(history); err != nil && !s.stale {
		t.Fatal(err)
	}
}

// TestRewriteFails checks that a failed rewrite changes nothing.
func TestRewriteFails(t *testing.T) {
	fail := func() error { return syscall.ENOSPC }
	for _, tt := range []struct {
		name  string
		broke func(*Store)
		lacks string
	}{
		{"no second file", func(s *Store) {
			s.open = func(string, int) (file, error) { return nil, syscall.EMFILE }
		}, "the tokens file could not be compacted, so it grows"},
		{"no room", func(s *Store) {
			open := s.open
			s.open = func(name string, flag int) (file, error) {
				f, err := open(name, flag)
				return &faults{file: f, write: fail}, err
			}
		}, "the tokens file could not be compacted, so it grows"},
		{"no sync", func(s *Store) {
			open := s.open
			s.open = func(name string, flag int) (file, error) {
				f, err := open(name, flag)
				return &faults{file: f, sync: fail}, err
			}
		}, "the tokens file could not be compacted, so it grows"},
		{"no sync of the folder", func(s *Store) {
			s.syncFolder = func(string) error { return syscall.EIO }
		}, cannotWrite},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, log := open(t, filepath.Join(folder(t), "tokens"))
			before := put(t, s)
			opener, folder := s.open, s.syncFolder
			tt.broke(s)
			for range 3 {
				age(t, s)
				s.tend(true)
				lacks(t, s, tt.lacks)
				key := newKey()
				err := s.Put(t.Context(), key, newRecord(time.Hour))
				if (err != nil) != (tt.lacks == cannotWrite) {
					t.Errorf("put: %v", err)
				}
				wants(t, s, key, err == nil)
			}
			told := "could not be compacted"
			if tt.lacks == cannotWrite {
				told = "cannot be written"
			}
			if n := strings.Count(log.String(), told); n != 1 {
				t.Errorf("logged %d times:\n%s", n, log)
			}
			s.open, s.syncFolder = opener, folder
			s.tend(true)
			lacks(t, s, "")
			after := put(t, s)
			if _, err := os.Stat(s.path + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the second file: %v", err)
			}
			s = reopen(t, s)
			wants(t, s, before, true)
			wants(t, s, after, true)
		})
	}
}

// TestRewriteFailsInPieces fails one of the writes of a file that needs several.
func TestRewriteFailsInPieces(t *testing.T) {
	s, _ := open(t, filepath.Join(folder(t), "tokens"))
	batch := make([]entry, 25_000) // of some 127 bytes each
	for i := range batch {
		batch[i] = entry{newKey(), newRecord(time.Hour)}
	}
	if err := s.append(batch); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	opener := s.open
	for fails := 1; ; fails++ {
		writes := 0
		s.open = func(name string, flag int) (file, error) {
			f, err := opener(name, flag)
			return &faults{file: f, write: func() error {
				if writes++; writes == fails {
					return syscall.ENOSPC
				}
				return nil
			}}, err
		}
		err := rewrite(s)
		if writes < fails { // none of them failed
			if err != nil || fails < 4 {
				t.Errorf("%d writes, %v", writes, err)
			}
			break
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write %d: %v", fails, err)
		}
		if now, err := os.ReadFile(s.path); err != nil || !bytes.Equal(now, before) {
			t.Errorf("write %d: the file is another one, of %d bytes (%v)", fails, len(now), err)
		}
		if _, err := os.Stat(s.path + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("write %d: the second file: %v", fails, err)
		}
	}
	s.open = opener
	s = reopen(t, s)
	if s.Live() != len(batch) {
		t.Errorf("%d tokens, want %d", s.Live(), len(batch))
	}
}

const changed = "something else changed, moved or removed the tokens file: put it back, or restart the service; " +
	"if another program uses the file, stop that one first"

// TestChanged lets something else change the files of a running store. Nothing is
// acknowledged from then on, nothing is written, and known tokens keep working.
func TestChanged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not allow that")
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// inPlace changes a byte of the last line, and puts the time back.
	inPlace := func(s *Store) {
		info, err := os.Stat(s.path)
		do(err)
		f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
		do(err)
		_, err = f.WriteAt([]byte("x"), info.Size()-2)
		do(errors.Join(err, f.Close(), os.Chtimes(s.path, info.ModTime(), info.ModTime())))
	}
	move := func(from, to string) func(*Store) {
		return func(s *Store) {
			folder := filepath.Dir(s.path)
			do(os.Rename(filepath.Join(folder, from), filepath.Join(folder, to)))
		}
	}
	// turn lets a link next to the folder lead elsewhere; the one named "" removes it.
	turn := func(link, to string) func(*Store) {
		return func(s *Store) {
			link := filepath.Join(filepath.Dir(s.path), "..", link)
			do(os.Remove(link))
			if to != "" {
				do(os.Symlink(to, link))
			}
		}
	}
	// other writes a folder next to the one of the store, with a copy of the file.
	other := func(s *Store) string {
		folder := filepath.Join(filepath.Dir(s.path), "../other")
		do(os.CopyFS(folder, os.DirFS(filepath.Dir(s.path))))
		return folder
	}
	for _, tt := range []struct {
		name   string
		given  string // the name that the store gets, if not that of the file
		change func(s *Store)
		undo   func(s *Store) // if it can be undone, the store goes on
	}{
		{name: "link to the folder turned to a copy", given: "cur/tokens", change: func(s *Store) {
			other(s)
			turn("cur", "other")(s)
		}, undo: turn("cur", "folder")},
		{name: "link to the folder turned to an empty one", given: "cur/tokens", change: func(s *Store) {
			do(os.RemoveAll(other(s) + "/tokens"))
			turn("cur", "other")(s)
		}, undo: turn("cur", "folder")},
		{name: "link to the folder removed", given: "cur/tokens", change: turn("cur", ""), undo: func(s *Store) {
			do(os.Symlink("folder", filepath.Dir(s.path)+"/../cur"))
		}},
		{name: "link to the folder turned to a file", given: "cur/tokens", change: turn("cur", "folder/tokens"),
			undo: turn("cur", "folder")},
		{name: "folder moved, and the link turned to it", given: "cur/tokens", change: func(s *Store) {
			move("../folder", "../old")(s)
			turn("cur", "old")(s)
		}, undo: func(s *Store) {
			move("../old", "../folder")(s)
			turn("cur", "folder")(s)
		}},
		{name: "link turned to a copy", given: "link", change: func(s *Store) {
			other(s)
			turn("link", "other/tokens")(s)
		}, undo: turn("link", "cur/tokens")},
		{name: "link turned to nothing", given: "link", change: turn("link", "nowhere"),
			undo: turn("link", "cur/tokens")},
		{name: "link removed", given: "link", change: turn("link", "")},
		{name: "link replaced by a copy", given: "link", change: func(s *Store) {
			turn("link", "")(s)
			do(os.Rename(other(s)+"/tokens", filepath.Dir(s.path)+"/../link"))
		}},
		{name: "link behind the link turned", given: "link", change: func(s *Store) {
			other(s)
			turn("cur", "other")(s)
		}, undo: turn("cur", "folder")},
		{name: "link turned to the file's name in another folder", given: "link", change: func(s *Store) {
			do(os.Remove(other(s) + "/tokens"))
			do(os.Link(s.path, filepath.Dir(s.path)+"/../other/tokens"))
			turn("link", "other/tokens")(s)
		}, undo: turn("link", "cur/tokens")},
		{name: "file removed", change: func(s *Store) { do(os.Remove(s.path)) }},
		{name: "file moved", change: move("tokens", "old"), undo: move("old", "tokens")},
		{name: "file emptied", change: func(s *Store) { do(os.Truncate(s.path, 0)) }},
		{name: "file made shorter", change: func(s *Store) { do(os.Truncate(s.path, s.end.offset-1)) }},
		{name: "file made longer", change: func(s *Store) { do(os.Truncate(s.path, 1e6)) },
			undo: func(s *Store) { do(os.Truncate(s.path, s.end.offset)) }},
		{name: "file changed in place", change: inPlace},
		{name: "file replaced", change: func(s *Store) {
			text, err := os.ReadFile(s.path)
			do(err)
			do(os.WriteFile(s.path+".copy", text, 0o600))
			move("tokens", "old")(s)
			move("tokens.copy", "tokens")(s)
		}, undo: move("old", "tokens")},
		{name: "folder moved", change: move("../folder", "../old"), undo: move("../old", "../folder")},
		{name: "folder removed", change: func(s *Store) { do(os.RemoveAll(filepath.Dir(s.path))) }},
		{name: "another folder mounted", change: func(s *Store) {
			move("../folder", "../old")(s)
			do(os.Mkdir(filepath.Dir(s.path), 0o700))
			other, err := Open(Config{s.path}, slog.New(slog.DiscardHandler))
			do(err)
			t.Cleanup(other.close)
		}, undo: func(s *Store) {
			do(os.RemoveAll(filepath.Dir(s.path)))
			move("../old", "../folder")(s)
		}},
		{name: "lock removed", change: func(s *Store) { do(os.Remove(s.path + ".lock")) }},
		{name: "lock moved", change: move("tokens.lock", "old"), undo: move("old", "tokens.lock")},
		{name: "another process has the lock", change: func(s *Store) {
			do(os.Remove(s.path + ".lock"))
			other, err := Open(Config{s.path}, slog.New(slog.DiscardHandler))
			do(err)
			t.Cleanup(other.close)
		}},
	} {
		for _, first := range []struct {
			name    string
			notices func(s *Store)
		}{
			{"a login notices", func(s *Store) {}},
			{"nobody comes", func(s *Store) { s.tend(false) }},
			{"when it is worth a rewrite", func(s *Store) { s.tend(true) }},
		} {
			t.Run(tt.name+", "+first.name, func(t *testing.T) {
				folder := filepath.Join(folder(t), "folder")
				do(os.Mkdir(folder, 0o700))
				do(os.Symlink("folder", folder+"/../cur"))
				do(os.Symlink("cur/tokens", folder+"/../link"))
				do(os.WriteFile(folder+"/tokens", nil, 0o600))
				s, log := open(t, filepath.Join(folder, "..", cmp.Or(tt.given, "folder/tokens")))
				key, refused := put(t, s), newKey()
				age(t, s)
				tt.change(s)
				before, _ := os.ReadFile(s.path)
				first.notices(s)
				for range 3 {
					if err := s.Put(t.Context(), refused, newRecord(time.Hour)); !errors.Is(err, tokens.ErrUnavailable) {
						t.Errorf("put: %v", err)
					}
					if err := s.Delete(t.Context(), key); !errors.Is(err, tokens.ErrUnavailable) {
						t.Errorf("delete: %v", err)
					}
					s.tend(true)
					lacks(t, s, changed)
					wants(t, s, key, true)
					wants(t, s, refused, false)
				}
				if now, _ := os.ReadFile(s.path); !bytes.Equal(now, before) {
					t.Errorf("the file was written: %d bytes, %d before", len(now), len(before))
				}
				if text := log.String(); strings.Count(text, "the tokens file cannot be written, known tokens keep working") != 1 ||
					!strings.Contains(text, changed) {
					t.Errorf("not logged once:\n%s", text)
				}
				if tt.undo == nil {
					return
				}
				tt.undo(s)
				s.tend(true)
				lacks(t, s, "")
				after := put(t, s)
				s = reopen(t, s)
				wants(t, s, key, true)
				wants(t, s, after, true)
				wants(t, s, refused, false)
			})
		}
	}
}

// TestTouched does to the file what backups and owners do without changing it.
func TestTouched(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes and links")
	}
	for _, tt := range []struct {
		name  string
		touch func(path string) error
	}{
		{"its time is set", func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) }},
		{"its mode is set", func(path string) error { return os.Chmod(path, 0o640) }},
		{"it gets a second name", func(path string) error { return os.Link(path, path+".backup") }},
		{"it is written with what it has", func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, text, 0o600))
		}},
		{"its folder is moved, and a link left there", func(path string) error {
			moved := filepath.Dir(path) + ".moved"
			t.Cleanup(func() { os.RemoveAll(moved) })
			return errors.Join(os.Rename(filepath.Dir(path), moved), os.Symlink(moved, filepath.Dir(path)))
		}},
		{"a link leads to it on another way", func(path string) error {
			link := filepath.Join(filepath.Dir(path), "cur")
			return errors.Join(os.Remove(link), os.Symlink(filepath.Dir(path), link))
		}},
	} {
		dir := folder(t)
		if err := errors.Join(os.Symlink(".", dir+"/cur"), os.WriteFile(dir+"/tokens", nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		s, log := open(t, dir+"/cur/tokens")
		key := put(t, s)
		if err := tt.touch(s.path); err != nil {
			t.Fatal(err)
		}
		after := put(t, s)
		s.tend(true)
		lacks(t, s, "")
		if strings.Contains(log.String(), "cannot be written") {
			t.Errorf("%s: the log says:\n%s", tt.name, log)
		}
		s = reopen(t, s)
		wants(t, s, key, true)
		wants(t, s, after, true)
	}
}

// TestChangedDuringAWrite changes the file while the store itself writes, so that the
// file's times tell nothing.
func TestChangedDuringAWrite(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   func(s *Store) int64
	}{
		{"an earlier line", func(s *Store) int64 { return int64(len(header)) + 4 }},
		{"behind the last line", func(s *Store) int64 { return s.end.offset + 1000 }},
	} {
		s, _ := open(t, filepath.Join(folder(t), "tokens"))
		well := s.file
		put(t, s)
		s.file = &faults{file: well, write: func() error {
			_, err := well.WriteAt([]byte("*"), tt.at(s)) // no line has one there
			return err
		}}
		put(t, s)
		s.file = well
		s.tend(true)
		lacks(t, s, changed)
	}
}

// TestShared checks that calls that wait at the same time share an fsync.
func TestShared(t *testing.T) {
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, filepath.Join(dir, "tokens"))
		gate, syncs := make(chan struct{}), 0
		s.file = &faults{file: s.file, sync: func() error { syncs++; <-gate; return nil }}
		var clients sync.WaitGroup
		answered := atomic.Int64{}
		keys := make([]tokens.Key, 65)
		for i := range keys {
			keys[i] = newKey()
			clients.Go(func() {
				if err := s.Put(t.Context(), keys[i], newRecord(time.Hour)); err != nil {
					t.Error(err)
				}
				answered.Add(1)
			})
			synctest.Wait() // the first one's fsync takes its time
		}
		for i, want := range []int64{0, 1, 65} {
			if answered.Load() != want || i < 2 && syncs != i+1 {
				t.Errorf("%d answered after %d fsyncs", answered.Load(), syncs)
			}
			for i, key := range keys {
				wants(t, s, key, i < int(want))
			}
			if i < 2 {
				gate <- struct{}{}
				synctest.Wait()
			}
		}
		clients.Wait()
		if syncs != 2 {
			t.Errorf("%d fsyncs", syncs)
		}
	})
}

// TestSlowDisk hangs the disk for a minute.
func TestSlowDisk(t *testing.T) {
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, filepath.Join(dir, "tokens"))
		well := s.file
		s.file = &faults{file: well, sync: func() error { time.Sleep(time.Minute); return nil }}
		first, second := newKey(), newKey()
		var clients sync.WaitGroup
		began := time.Now()
		clients.Go(func() {
			if err := s.Put(t.Context(), first, newRecord(time.Hour)); err != nil || time.Since(began) != time.Minute {
				t.Errorf("the one that hangs: %v after %v", err, time.Since(began))
			}
		})
		synctest.Wait()
		for range 3 {
			clients.Go(func() {
				err := s.Put(t.Context(), second, newRecord(time.Hour))
				if took := time.Since(began); !errors.Is(err, tokens.ErrUnavailable) || took != 4*time.Second {
					t.Errorf("one that waits: %v after %v", err, took)
				}
			})
		}
		time.Sleep(4*time.Second + 1)
		synctest.Wait()
		lacks(t, s, cannotWrite)
		clients.Wait()
		lacks(t, s, "")
		s.file = well
		s = reopen(t, s)
		wants(t, s, first, true)
		wants(t, s, second, false)
	})
}

// A disk knows which part of a file is safe from a power cut, and fails now and
// then.
type disk struct {
	rand *rand.Rand
	safe *safeFile // what the name leads to after a power cut
}

func (d *disk) fails() bool { return d.rand.IntN(8) == 0 }

// safeFile drops what a failed fsync should have written to the disk, as Linux
// does: the next fsync succeeds, and writes only what came later.
type safeFile struct {
	file
	disk    *disk
	safe    []byte
	pending []func() // what is not safe yet
	cut     bool     // the last of them is a truncation
}

func (d *disk) open(name string, flag int) (file, error) {
	if d.fails() {
		return nil, syscall.EMFILE
	}
	f, err := os.OpenFile(name, flag, 0o600)
	return &safeFile{file: f, disk: d}, err
}

func (f *safeFile) WriteAt(p []byte, at int64) (int, error) {
	var failed error
	if f.disk.fails() {
		p, failed = p[:f.disk.rand.IntN(len(p)+1)], syscall.ENOSPC
	}
	p = bytes.Clone(p)
	f.cut = false
	f.pending = append(f.pending, func() {
		f.safe = append(f.safe, make([]byte, max(0, int(at)+len(p)-len(f.safe)))...)
		copy(f.safe[at:], p)
	})
	n, err := f.file.WriteAt(p, at)
	return n, errors.Join(err, failed)
}

// Truncate does not fail, nor does the fsync after it: if a disk kept what it was
// told to cut off, that could show up again.
func (f *safeFile) Truncate(size int64) error {
	f.cut = true
	f.pending = append(f.pending, func() { f.safe = f.safe[:min(int(size), len(f.safe))] })
	return f.file.Truncate(size)
}

func (f *safeFile) Sync() error {
	if !f.cut && f.disk.fails() {
		f.flush(f.disk.rand.IntN(len(f.pending) + 1))
		return syscall.EIO
	}
	f.flush(len(f.pending))
	return nil
}

// flush makes the first n pending operations safe, and drops the rest.
func (f *safeFile) flush(n int) {
	for _, do := range f.pending[:n] {
		do()
	}
	f.pending, f.cut = nil, false
}

// TestCrashes kills the process and cuts the power at random moments, with a
// disk that fails at random. After each restart, what was answered must be there,
// and what was refused must not.
func TestCrashes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d := &disk{rand: rand.New(rand.NewPCG(seed, 0))}
			dir := folder(t)
			live := make(map[tokens.Key]bool)
			var issued []tokens.Key
			var content []byte
			for life := range 20 {
				name := filepath.Join(dir, fmt.Sprint(life))
				if err := os.WriteFile(name, content, 0o600); err != nil {
					t.Fatal(err)
				}
				s, _ := open(t, name)
				for key, want := range live {
					if found(s, key) != want {
						t.Fatalf("after crash %d: found %v, want %v", life, !want, want)
					}
				}
				safe, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				d.safe = &safeFile{file: s.file, disk: d, safe: safe}
				s.file, s.open = d.safe, d.open
				s.syncFolder = func(string) error {
					if d.fails() {
						return syscall.EIO
					}
					d.safe = s.file.(*safeFile)
					return nil
				}
				for range d.rand.IntN(60) {
					switch n := d.rand.IntN(10); {
					case n < 5:
						key := newKey()
						live[key] = s.Put(t.Context(), key, newRecord(time.Hour)) == nil
						issued = append(issued, key)
					case n < 8 && len(issued) > 0:
						key := issued[d.rand.IntN(len(issued))]
						if s.Delete(t.Context(), key) == nil {
							live[key] = false
						}
					case n == 8:
						s.tend(d.rand.IntN(2) == 0)
					case n == 9:
						rewrite(s)
					}
				}
				if d.rand.IntN(2) == 0 { // kill -9
					if content, err = os.ReadFile(name); err != nil {
						t.Fatal(err)
					}
				} else { // the power fails
					f := d.safe
					if d.rand.IntN(2) == 0 {
						f = s.file.(*safeFile) // its name was not synced, but may be on the disk
					}
					f.flush(d.rand.IntN(len(f.pending) + 1))
					content = f.safe
				}
				s.close()
			}
		})
	}
}
