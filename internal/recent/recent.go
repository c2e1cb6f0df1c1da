// Package recent counts what happened lately under many keys, in bounded memory.
//
// A count lasts for a time after it last went up. The newest ones, a fixed number
// of them, are surely kept; up to twice as many are. So nobody can push a count
// out by making others, unless they make that many.
package recent

import "time"

// Counts keeps at least Size counts, each for the time that it Lasts. It has two
// maps and writes to the newer one. When that is full it becomes the older one,
// and the counts that were only in the older one are dropped. The zero value of
// the other fields is ready to use. Its methods must not run at the same time.
type Counts struct {
	Size         int
	Lasts        time.Duration
	newer, older map[uint64]Count
}

// Count is a number, and when it last went up.
type Count struct {
	N    int
	Last time.Time
}

// Find returns the count of a key, or the zero Count if there is none any more.
func (c *Counts) Find(key uint64, now time.Time) Count {
	found, ok := c.newer[key]
	if !ok {
		found = c.older[key]
	}
	if now.Sub(found.Last) >= c.Lasts {
		return Count{}
	}
	return found
}

// Put replaces the count of a key.
func (c *Counts) Put(key uint64, count Count) {
	if len(c.newer) >= c.Size {
		c.newer, c.older = nil, c.newer
	}
	if c.newer == nil {
		c.newer = make(map[uint64]Count)
	}
	c.newer[key] = count
}

// Add counts one more, up to most, and returns the number.
func (c *Counts) Add(key uint64, now time.Time, most int) int {
	n := min(c.Find(key, now).N+1, most)
	c.Put(key, Count{n, now})
	return n
}

// Lower replaces the number of a count that is not zero by a lower one; the count
// lasts no longer for it.
func (c *Counts) Lower(key uint64, now time.Time, to func(n int) int) {
	if found := c.Find(key, now); found.N > 0 {
		c.Put(key, Count{to(found.N), found.Last})
	}
}

// Delete drops the count of a key.
func (c *Counts) Delete(key uint64) {
	delete(c.newer, key)
	delete(c.older, key)
}

// Len returns how many counts are kept, those that have ended included.
func (c *Counts) Len() int { return len(c.newer) + len(c.older) }
