//go:build !windows && (!unix || solaris || illumos || aix)

package safefile

import (
	"errors"
	"io/fs"
	"os"
)

// Lock fails: there is no way here to keep two processes off one file.
func Lock(name string) (*os.File, error) {
	return nil, &os.PathError{Op: "lock", Path: name, Err: errors.ErrUnsupported}
}

// SyncFolder does nothing: nothing is locked here, so nothing is written.
func SyncFolder(string) error { return nil }

// SameOwner does nothing, for the same reason.
func SameOwner(*os.File, fs.FileInfo) error { return nil }
