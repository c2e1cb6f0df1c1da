package watch

import (
	"hash/maphash"
	"io/fs"
	"os"
)

// small is the size of a file that is worth reading at each look.
const small = 1 << 20

var seed = maphash.MakeSeed()

// state is what can be said about a file without loading it.
type state struct {
	info    fs.FileInfo // nil if there is none
	content uint64      // a hash, if the file is small
}

func stateOf(name string) (s state) {
	info, err := os.Stat(name)
	if err != nil {
		return s
	}
	s.info = info
	if info.Mode().IsRegular() && info.Size() <= small {
		if text, err := os.ReadFile(name); err == nil {
			s.content = maphash.Bytes(seed, text)
		}
	}
	return s
}

// changed says whether a file that was in the state before, and is now in another,
// is worth loading.
func (now state) changed(before state) bool {
	if now.info == nil || before.info == nil {
		return now.info != before.info
	}
	if kind := now.info.Mode().Type(); kind != 0 { // not regular
		return kind != before.info.Mode().Type()
	}
	return now.content != before.content || !Same(now.info, before.info)
}

// Same says whether two infos are of one file that nobody wrote in between, as far
// as the system tells: its size, its time of last writing, which a program may set
// to any value, and its time of last change, which a program may not set. Windows
// has no time of last change.
func Same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() &&
		a.ModTime().Equal(b.ModTime()) && changeTime(a).Equal(changeTime(b))
}
