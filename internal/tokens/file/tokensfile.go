// Package file keeps tokens in a file, so that a restart of the service
// loses none.
//
// Look-ups read only the memory. The file is a log: a line for each token that
// was put or deleted, with the token's SHA-256, the record and a checksum of the
// file up to there. Its rules:
//
//   - Put and Delete return nil once their line is on the disk, and only then
//     does the memory have it. Those waiting at the same time share one write
//     and one fsync.
//   - A refused Put or Delete never takes effect, not even after a restart: a
//     line that could not be written to the disk is cut off before it returns.
//   - After a failed fsync nobody knows what is on the disk. Then no line is
//     added until the file has been rewritten from the memory.
//   - To rewrite the file, a second one is written, FILE.new, which then takes its
//     name. This also happens when most lines are history. Put and Delete wait
//     for it.
//   - No line is added, and nothing is rewritten, while the name of the file leads
//     to another one, or to none, or after something else has changed it. The
//     store looks before it adds a line and every second, through the links of the
//     name as they are then, and compares all of the file with its checksum every
//     ten seconds.
//   - A file that cannot be written does not stop look-ups, and is retried every
//     second.
//   - A last line without its end was torn by a crash, and so was a last write
//     with zeros in it. Its Put or Delete never returned, and the next start cuts
//     it off. With any other damage the start fails, and the file is not changed.
//   - FILE.lock keeps other processes out. The system unlocks it when the process
//     dies.
package file

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"simple-oauth2/internal/safefile"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/watch"
)

// patience is how long Put and Delete wait for their write to begin. Once it has
// begun, they wait for its end: nothing else shows what became of it.
const patience = 4 * time.Second

// file is the part of an [os.File] that the store needs.
type file interface {
	io.Reader
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
}

// Store is a [tokens.Store] in a file. Make one with Open.
type Store struct {
	name   string // as it was given
	path   string // with links resolved, so that the file can be replaced
	memory tokens.Memory
	log    *slog.Logger

	// Replaced by tests.
	open       func(name string, flag int) (file, error)
	syncFolder func(name string) error

	writing chan struct{} // a lock on the file, and on the fields below
	file    file
	lock    *os.File
	end     position    // after the last line
	seen    fs.FileInfo // of the file, as the store left it
	stale   bool        // the file must be rewritten before a line is added

	mu      sync.Mutex
	waiting *batch
	lost    error // why no line can be added
	grows   error // why the file cannot be rewritten
}

// A batch is entries that share a write.
type batch struct {
	entries []entry
	done    chan struct{} // closed once err is true
	err     error
}

var errChanged = errors.New("something else changed, moved or removed the tokens file: " +
	"put it back, or restart the service; if another program uses the file, stop that one first")

// Open reads the file, or creates it. Its errors name the flag and the file.
func Open(c Config, log *slog.Logger) (*Store, error) {
	s := &Store{
		name:       c.File,
		memory:     tokens.Memory{Now: time.Now},
		log:        log,
		writing:    make(chan struct{}, 1),
		open:       func(name string, flag int) (file, error) { return os.OpenFile(name, flag, 0o600) },
		syncFolder: safefile.SyncFolder,
	}
	if err := s.load(); err != nil {
		s.close()
		return nil, fmt.Errorf("-tokens-file %s: %w", s.name, err)
	}
	return s, nil
}

// load opens, locks and reads the file.
func (s *Store) load() error {
	began := time.Now()
	created, err := os.OpenFile(s.name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := created.Stat()
	created.Close()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if s.path, err = filepath.EvalSymlinks(s.name); err != nil {
		return err
	}
	if s.path, err = filepath.Abs(s.path); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" { // created by somebody else
		s.log.Warn("the tokens file is accessible to other users", "file", s.path, "mode", fmt.Sprintf("%#o", mode))
	}
	if s.lock, err = safefile.Lock(s.path + ".lock"); err != nil {
		return err
	}
	if s.file, err = s.open(s.path, os.O_RDWR); err != nil {
		return err
	}
	var torn int
	if s.end, torn, err = read(s.file, s.remember); err != nil {
		return err
	}
	if torn > 0 {
		s.log.Warn("removed an incomplete last line that a crash left in the tokens file", "file", s.path, "line", s.end.lines+1, "bytes", torn)
		if err := s.cutBack(); err != nil {
			return err
		}
	}
	if s.end.lines == 0 {
		if err := s.extend([]byte(header)); err != nil {
			return err
		}
	}
	s.look()
	s.memory.Sweep()
	s.log.Info("tokens read", "file", s.path, "live", s.Live(), "lines", s.end.lines, "took", time.Since(began).Round(time.Millisecond))
	return s.syncFolder(filepath.Dir(s.path))
}

// remember applies an entry to the memory.
func (s *Store) remember(e entry) {
	if e.record != nil {
		s.memory.Put(context.Background(), e.key, e.record)
	} else {
		s.memory.Delete(context.Background(), e.key)
	}
}

// Live returns how many tokens are live.
func (s *Store) Live() int { return s.memory.Live() }

// Put keeps a record. It returns nil once the record is on the disk.
func (s *Store) Put(_ context.Context, key tokens.Key, record *tokens.Record) error {
	if len(record.Username.String())+len(record.Scope.String()) > maxText {
		return fmt.Errorf("a record with more than %d bytes of names", maxText)
	}
	return s.add(entry{key, record})
}

// Find returns the record of a live token, or nil. It never waits for the disk,
// and returns no error.
func (s *Store) Find(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	return s.memory.Find(ctx, key)
}

// Delete forgets a token. It returns nil once the disk says so.
func (s *Store) Delete(_ context.Context, key tokens.Key) error { return s.add(entry{key, nil}) }

// Status says that the store is up, and whether the file can be written.
func (s *Store) Status() (up bool, lacks string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(s.lost, errChanged):
		lacks = errChanged.Error()
	case s.lost != nil:
		lacks = "the tokens file cannot be written"
	case s.grows != nil:
		lacks = "the tokens file could not be compacted, so it grows"
	}
	return true, lacks
}

// add writes an entry to the file and then to the memory. The request's context
// does not end it: what became of the entry must be known.
func (s *Store) add(e entry) error {
	s.mu.Lock()
	b := s.waiting
	first := b == nil
	if first {
		b = &batch{done: make(chan struct{})}
		s.waiting = b
	}
	b.entries = append(b.entries, e)
	s.mu.Unlock()
	if first { // it also writes for all that join before it begins
		s.write(b)
	}
	<-b.done
	return b.err
}

// write writes a batch, after all earlier ones.
func (s *Store) write(b *batch) {
	defer close(b.done)
	begun := s.begin(patience)
	s.mu.Lock()
	s.waiting = nil
	s.mu.Unlock()
	err := errors.New("the previous write is taking too long")
	if begun {
		defer s.finish()
		err = s.append(b.entries)
	}
	s.setLost(err)
	if err != nil {
		b.err = tokens.ErrUnavailable
	}
}

// begin takes the lock on the file, or gives up.
func (s *Store) begin(patience time.Duration) bool {
	select {
	case s.writing <- struct{}{}:
		return true
	case <-time.After(patience):
		return false
	}
}

func (s *Store) finish() { <-s.writing }

// setLost notes why no line can be added, or with nil that one can.
func (s *Store) setLost(err error) {
	s.mu.Lock()
	was := s.lost
	s.lost = err
	s.mu.Unlock()
	switch {
	case err != nil && (was == nil || errors.Is(err, errChanged) != errors.Is(was, errChanged)): // once, not at each try
		s.log.Error("the tokens file cannot be written, known tokens keep working", "error", err, "file", s.path)
	case err == nil && was != nil:
		s.log.Info("the tokens file can be written again")
	}
}

// append adds the lines of the entries to the file, and the entries to the
// memory: all of them or none.
func (s *Store) append(entries []entry) error {
	if s.stale {
		return errStale
	}
	if err := s.unchanged(false); err != nil {
		return err
	}
	var text []byte
	end := s.end
	for i, e := range entries {
		text, end = end.appendLine(text, e, i > 0)
	}
	if err := s.extend(text); err != nil {
		return err
	}
	for _, e := range entries {
		s.remember(e)
	}
	return nil
}

var errStale = errors.New("the file must be rewritten first")

// extend adds text to the file, all of it or nothing, and syncs the file.
func (s *Store) extend(text []byte) error {
	behind := s.end.after(text)
	_, err := s.file.WriteAt(text, s.end.offset)
	if err == nil {
		err = s.file.Sync()
		s.stale = err != nil
	}
	if err != nil {
		s.cutBack()
		return err
	}
	s.end = behind
	s.look()
	return nil
}

// cutBack cuts off everything after the last line, or makes the file stale.
func (s *Store) cutBack() error {
	err := s.file.Truncate(s.end.offset)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		s.stale = true
	}
	s.look()
	return err
}

// look notes the state in which the store leaves the file.
func (s *Store) look() {
	if info, err := s.file.Stat(); err == nil {
		s.seen = info
	}
}

// unchanged returns an error if something else has changed the file, or if its name
// or its lock's leads elsewhere. The checksum decides if the file has other times, as
// after a chmod. If thorough, it decides anyway: what happened to the file while the
// store wrote a line has left no trace in its times.
func (s *Store) unchanged(thorough bool) error {
	path, err := filepath.EvalSymlinks(s.name)
	if err != nil {
		return missing(err)
	}
	if _, err := s.holds(path); err != nil { // what the next start finds
		return err
	}
	found, err := s.holds(s.path) // what a rewrite replaces
	switch {
	case err != nil:
		return err
	case found.Size() != s.end.offset && !s.stale:
		return errChanged
	case thorough || !watch.Same(found, s.seen):
		sum := crc32.New(castagnoli)
		if _, err := io.Copy(sum, io.NewSectionReader(s.file, 0, s.end.offset)); err != nil {
			return err
		}
		if sum.Sum32() != s.end.sum {
			return errChanged
		}
		s.seen = found
	}
	return nil
}

// holds returns the state of the file at a path, or an error if it is not the store's
// or the lock next to it is not the one that the store has.
func (s *Store) holds(path string) (fs.FileInfo, error) {
	found, err := os.Stat(path)
	if err != nil {
		return nil, missing(err)
	}
	lock, err := os.Stat(path + ".lock")
	if err != nil {
		return nil, missing(err)
	}
	held, err := s.lock.Stat()
	if err != nil || !os.SameFile(found, s.seen) || !os.SameFile(lock, held) {
		return nil, errChanged
	}
	return found, nil
}

// missing returns errChanged if err says that there is no such file, or err.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return errChanged
	}
	return err
}
