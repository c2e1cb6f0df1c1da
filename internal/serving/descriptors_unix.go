//go:build unix

package serving

import (
	"math"
	"syscall"
)

// descriptors returns how many files and connections this process may open.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt64
	}
	return uint64(limit.Cur)
}
