package file

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"simple-oauth2/internal/background"
)

// slack is how many lines of history are not worth a rewrite.
const slack = 1000

// Run frees the memory of expired tokens, keeps the file short, and retries a file
// that could not be written, until ctx ends. Then it closes the file.
func (s *Store) Run(ctx context.Context) {
	seconds := 0
	background.Every(ctx, time.Second, func() {
		s.tend(seconds%10 == 0)
		seconds++
	})
	s.close()
}

// close closes the file, after which Put and Delete fail.
func (s *Store) close() {
	if !s.begin(patience) {
		return
	}
	defer s.finish()
	s.stale = true
	if s.file != nil {
		s.file.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// tend does what must be done every second and, if tidy, what must be done every
// ten.
func (s *Store) tend(tidy bool) {
	if tidy {
		s.memory.Sweep()
	}
	if !s.begin(patience) {
		return
	}
	defer s.finish()
	s.setLost(s.mend(tidy))
}

// mend returns why no line can be added, after it has tried to make that possible.
func (s *Store) mend(tidy bool) error {
	s.mu.Lock()
	lost := s.lost != nil
	s.mu.Unlock()
	live := s.Live()
	history := s.end.lines - 1 - live
	if err := s.unchanged(tidy); err != nil {
		return err // whoever changed the file decides what becomes of it
	}
	if s.stale {
		return s.rewrite()
	}
	if lost {
		err := s.probe()
		if err != nil && tidy && history > 0 { // a full disk may have room for a shorter file
			err = s.rewrite()
		}
		return err
	}
	if tidy {
		var err error
		if history > live+slack {
			err = s.rewrite()
		}
		if s.stale {
			return err
		}
		s.setGrows(err)
	}
	return nil
}

// probe finds out whether the disk has room for more lines. It writes a block that
// the next start would cut off: in the last block of the file there may be room
// for a line even if the disk is full.
func (s *Store) probe() error {
	was := s.end
	if err := s.extend(make([]byte, 4096)); err != nil {
		return err
	}
	s.end = was
	return s.cutBack()
}

// setGrows notes why the file cannot be rewritten, or with nil that it can be or
// need not be.
func (s *Store) setGrows(err error) {
	s.mu.Lock()
	was := s.grows
	s.grows = err
	s.mu.Unlock()
	if err != nil && was == nil { // once, not at each try
		s.log.Warn("the tokens file could not be compacted", "error", err)
	}
}

// rewrite writes the live tokens to a second file, which takes the name of the
// first. If that fails, the first file stays as it is. No line can be added
// meanwhile: for about a second, with a million tokens.
func (s *Store) rewrite() error {
	next, end, err := s.copyLive()
	if err == nil {
		err = s.rename(next)
	}
	if err != nil {
		if next != nil {
			next.Close()
			os.Remove(s.path + ".new")
		}
		return err
	}
	s.end = end
	s.look()
	err = s.syncFolder(filepath.Dir(s.path))
	s.stale = err != nil // after a crash, the first file may be back
	return err
}

// copyLive writes the live tokens to a second file.
func (s *Store) copyLive() (next file, end position, err error) {
	name := s.path + ".new"
	os.Remove(name) // left by a crash
	if next, err = s.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
		return nil, end, err
	}
	pieces := bufio.NewWriterSize(io.NewOffsetWriter(next, 0), 1<<20)
	line := []byte(header)
	end = end.after(line)
	pieces.Write(line)
	for key, record := range s.memory.All() {
		line, end = end.appendLine(line[:0], entry{key, record}, false)
		if _, err := pieces.Write(line); err != nil {
			return next, end, err
		}
	}
	if err = pieces.Flush(); err == nil {
		err = next.Sync()
	}
	return next, end, err
}

// rename gives the second file the name of the first.
func (s *Store) rename(next file) error {
	if runtime.GOOS != "windows" {
		err := os.Rename(s.path+".new", s.path)
		if err == nil {
			s.file.Close()
			s.file = next
		}
		return err
	}
	// Windows does not rename an open file.
	next.Close()
	s.file.Close()
	err := os.Rename(s.path+".new", s.path)
	reopened, openErr := s.open(s.path, os.O_RDWR)
	if openErr != nil {
		s.stale = true
		return openErr
	}
	s.file = reopened
	return err
}
