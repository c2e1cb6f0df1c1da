// Package safefile is what it takes to change a file so that neither a crash nor another
// process leaves half of it, and that systems do differently.
package safefile

import "errors"

// ErrLocked is the error of Lock when another process has the lock.
var ErrLocked = errors.New("another process is using this file")
