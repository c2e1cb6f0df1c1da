//go:build unix && !solaris && !illumos && !aix

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Lock opens a file, or creates it with mode 0600, and locks it until it is closed or
// the process dies. The error is ErrLocked, or wraps it, if another process has it.
func Lock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}

// SyncFolder writes the names in a folder to the disk.
func SyncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// SameOwner gives a file the owner and the group of another one.
func SameOwner(f *os.File, other fs.FileInfo) error {
	stat := other.Sys().(*syscall.Stat_t)
	return f.Chown(int(stat.Uid), int(stat.Gid))
}
