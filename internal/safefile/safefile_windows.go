package safefile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Lock opens a file that nobody else can open until it is closed or the
// process dies.
func Lock(name string) (*os.File, error) {
	const sharingViolation = syscall.Errno(32)
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, err
	}
	const alone = 0
	handle, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, alone, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		if errors.Is(err, sharingViolation) {
			err = ErrLocked
		}
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return os.NewFile(uintptr(handle), name), nil
}

// SyncFolder does nothing: Windows has no way to sync a folder.
func SyncFolder(string) error { return nil }

// SameOwner does nothing: on Windows, a new file gets its rights from its folder.
func SameOwner(*os.File, fs.FileInfo) error { return nil }
