package tokensfile

import (
	"context"
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
	s.mu.Lock()
	lost := s.lost != nil
	s.mu.Unlock()
	if !s.begin(patience) {
		return
	}
	if !s.stale {
		if err := s.keepInPlace(); err != nil {
			s.setLost(err)
		}
	}
	if lost && !s.stale {
		err := s.probe()
		s.setLost(err)
		lost = err != nil
	}
	stale, history := s.stale, s.end.lines-1
	s.finish()
	if tidy {
		s.memory.Sweep()
		live := s.Live()
		history -= live
		// A full disk may have room for a shorter file.
		if stale || history > live+slack || lost && history > 0 {
			s.rewrite()
		} else if !lost {
			s.setGrows(nil)
		}
	} else if stale {
		s.rewrite()
	}
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

// rewrite writes the file again, with only the live tokens. Lines can be added
// meanwhile, unless the file is stale.
func (s *Store) rewrite() {
	if !s.begin(patience) {
		return
	}
	err := s.keepLock()
	s.noting = true
	s.finish()
	var next file
	var end position
	if err == nil {
		next, end, err = s.copyLive()
	}
	s.writing <- struct{}{}
	defer s.finish()
	err = s.replace(next, end, err)
	s.noting, s.noted = false, nil
	if err == nil || s.stale {
		s.setLost(err)
	}
	s.setGrows(err)
}

// keepInPlace rewrites the file, while others wait, if its name or its lock's
// leads elsewhere, or if something else has changed it. On an error the file is
// stale.
func (s *Store) keepInPlace() error {
	err := s.inPlace(s.end)
	if err == nil {
		return nil
	}
	s.stale = true
	if s.noting {
		return err // a rewrite to a file of the same name is under way
	}
	s.log.Warn("rewriting the tokens file", "reason", err)
	var next file
	var end position
	if err = s.keepLock(); err == nil {
		next, end, err = s.copyLive()
	}
	return s.replace(next, end, err)
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

// copyLive writes the live tokens to a second file.
func (s *Store) copyLive() (next file, end position, err error) {
	name := s.path + ".new"
	os.Remove(name) // left by a crash
	if next, err = s.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
		return nil, end, err
	}
	text := []byte(header)
	follow := end.after(text)
	for key, record := range s.memory.All() {
		text, follow = follow.appendLine(text, entry{key, record}, false)
		// In pieces, as a line that is added to the file meanwhile may have to
		// wait until the disk has written everything.
		if len(text) > 1<<20 {
			if err := writeAndSync(next, text, end.offset); err != nil {
				return next, end, err
			}
			text, end = text[:0], follow
		}
	}
	return next, follow, writeAndSync(next, text, end.offset)
}

func writeAndSync(f file, text []byte, offset int64) error {
	_, err := f.WriteAt(text, offset)
	if err == nil {
		err = f.Sync()
	}
	return err
}

// replace adds the lines that were added meanwhile to the second file, and
// replaces the first one with it. The second file is removed if that fails, or if
// err says that it could not be written.
func (s *Store) replace(next file, end position, err error) error {
	if err == nil {
		err = s.put(next, end)
	}
	if err != nil && next != nil && next != s.file {
		next.Close()
		os.Remove(s.path + ".new")
	}
	return err
}

func (s *Store) put(next file, end position) error {
	var text []byte
	behind := end
	for _, e := range s.noted {
		text, behind = behind.appendLine(text, e, false)
	}
	if err := writeAndSync(next, text, end.offset); err != nil {
		return err
	}
	if err := s.rename(next); err != nil {
		return err
	}
	s.end = behind
	err := s.syncFolder(filepath.Dir(s.path))
	s.stale = err != nil // after a crash, the first file may be back
	return err
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

// keepLock creates and locks the lock file again if it is gone, perhaps with its
// folder.
func (s *Store) keepLock() error {
	if _, err := sameFile(s.path+".lock", s.lock); err == nil {
		return nil
	}
	lock, err := openLock(s.path + ".lock")
	if err != nil {
		return err
	}
	s.lock.Close()
	s.lock = lock
	return nil
}
