package usercmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"simple-oauth2/internal/safefile"
)

// patience is how long a command waits for another one to write.
const patience = 10 * time.Second

// change locks the file, reads it, and writes what edit returns, unless that is what is
// there already.
func (c *command) change(edit func(*users) ([]byte, error)) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	now, text, info, err := c.edited(edit)
	if err != nil || bytes.Equal(text, now.text) {
		return err
	}
	return c.replace(info, now.text, text)
}

// edited returns what the file has, what it would have after an edit, and its owner and
// mode, or nil if there is no file yet.
func (c *command) edited(edit func(*users) ([]byte, error)) (now *users, text []byte, info fs.FileInfo, err error) {
	if info, err = os.Lstat(c.file); errors.Is(err, fs.ErrNotExist) && c.verb == "add" {
		now, info, err = &users{text: []byte("{}\n")}, nil, nil
	} else {
		now, err = c.read()
	}
	if err == nil {
		text, err = edit(now)
	}
	if err == nil {
		_, err = parse(text)
		err = c.named(err)
	}
	return now, text, info, err
}

// lock keeps other commands from writing until unlock is called. The lock's file is
// removed then: one that root left would keep everybody else out. A link is refused
// first, since the folder of a Secret is read-only.
func (c *command) lock() (unlock func(), err error) {
	if info, err := os.Lstat(c.file); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a link: change the file that it leads to, or in Kubernetes the Secret", c.file)
	} else if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", c.file)
	}
	name := c.file + ".lock"
	for began := time.Now(); ; {
		f, err := safefile.Lock(name)
		if err == nil && isStill(f, name) {
			return func() { os.Remove(name); f.Close() }, nil
		}
		switch {
		case err == nil:
			f.Close() // whoever had the lock has removed its file
		case errors.Is(err, safefile.ErrLocked) && time.Since(began) < patience:
			time.Sleep(20 * time.Millisecond)
		case errors.Is(err, safefile.ErrLocked):
			return nil, fmt.Errorf("%s: another command has been changing it for %v", c.file, patience)
		case errors.Is(err, fs.ErrPermission):
			return nil, c.mayNot("write in the folder of " + c.file)
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%s: there is no such folder", c.file)
		default:
			return nil, fmt.Errorf("%s cannot be changed: %w", c.file, err)
		}
	}
}

// isStill says whether a name leads to an open file.
func isStill(f *os.File, name string) bool {
	open, err := f.Stat()
	there, thereErr := os.Stat(name)
	return err == nil && thereErr == nil && os.SameFile(open, there)
}

// replace writes the text to a second file, which takes the name of the first and has
// its owner and mode. Info is nil if there is no first one. An editor does not know the
// lock, so the first one must still have what was there before.
func (c *command) replace(info fs.FileInfo, before, text []byte) error {
	name := c.file + ".new"
	os.Remove(name) // left by a crash
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return c.mayNot("write in the folder of " + c.file)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be changed: %w", c.file, err)
	}
	err = fill(f, info, text)
	now, readErr := os.ReadFile(c.file)
	if err == nil && (info != nil && !bytes.Equal(now, before) || info == nil && !errors.Is(readErr, fs.ErrNotExist)) {
		os.Remove(name)
		return fmt.Errorf("%s was changed by something else in the meantime: nothing is written, try again", c.file)
	}
	if err == nil {
		err = os.Rename(name, c.file)
	}
	if err == nil {
		if err := safefile.SyncFolder(filepath.Dir(c.file)); err != nil {
			return fmt.Errorf("%s is changed, but a power cut may undo that: %w", c.file, err)
		}
		return nil
	}
	os.Remove(name)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s is mounted on its own: mount its folder instead, so that the file can be replaced", c.file)
	case errors.Is(err, fs.ErrPermission):
		return c.mayNot("keep the owner of " + c.file)
	}
	return fmt.Errorf("%s cannot be changed: %w", c.file, err)
}

// fill gives a new file its owner, then its mode, then the text, and closes it.
func fill(f *os.File, info fs.FileInfo, text []byte) error {
	defer f.Close()
	if info != nil {
		if err := safefile.SameOwner(f, info); err != nil {
			return err
		}
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// mayNot is the error for what this user may not do. In a container, nobody may help
// with sudo.
func (c *command) mayNot(what string) error {
	return fmt.Errorf("user %d may not %s: give the folder and the file to that user (chown %[1]d), "+
		"or run the command as their owner (docker run --user)", os.Getuid(), what)
}
