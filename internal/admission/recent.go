package admission

import "time"

// recentCounts counts what happened lately under many keys, in bounded memory. A
// count lasts for a time after it last went up. At least size of the newest are
// kept, so nobody can push out somebody's count without making that many others.
//
// It has two maps and writes to the newer one. When that is full it becomes the
// older one, and the counts that were only in the older one are dropped. The zero
// value of newer and older is ready to use. Calls must not run concurrently.
type recentCounts struct {
	size         int
	lasts        time.Duration
	newer, older map[uint64]recentCount
}

// recentCount is a number, and when it last went up.
type recentCount struct {
	n    int
	last time.Time
}

// find returns the count of a key, or the zero value if there is none or it has
// ended.
func (c *recentCounts) find(key uint64, now time.Time) recentCount {
	found, ok := c.newer[key]
	if !ok {
		found = c.older[key]
	}
	if now.Sub(found.last) >= c.lasts {
		return recentCount{}
	}
	return found
}

// put replaces the count of a key.
func (c *recentCounts) put(key uint64, count recentCount) {
	if len(c.newer) >= c.size {
		c.newer, c.older = nil, c.newer
	}
	if c.newer == nil {
		c.newer = make(map[uint64]recentCount)
	}
	c.newer[key] = count
}

// add counts one more, up to most, and returns the number.
func (c *recentCounts) add(key uint64, now time.Time, most int) int {
	n := min(c.find(key, now).n+1, most)
	c.put(key, recentCount{n, now})
	return n
}

// lower subtracts one from a count that is not zero. The count does not last
// longer for it.
func (c *recentCounts) lower(key uint64, now time.Time) {
	if found := c.find(key, now); found.n > 0 {
		c.put(key, recentCount{found.n - 1, found.last})
	}
}

// delete drops the count of a key.
func (c *recentCounts) delete(key uint64) {
	delete(c.newer, key)
	delete(c.older, key)
}

// len returns how many counts are kept, including those that have ended.
func (c *recentCounts) len() int { return len(c.newer) + len(c.older) }
