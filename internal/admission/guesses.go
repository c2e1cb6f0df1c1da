package admission

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	longestRefusal = time.Minute
	forgetAfter    = 15 * time.Minute // without a wrong password
)

// guesses counts the wrong passwords in a row, by username and address. It has
// two maps and counts into recent; when that is full it becomes older, and what
// was older is forgotten.
type guesses struct {
	max  int
	now  func() time.Time
	seed maphash.Seed

	mu            sync.Mutex
	recent, older map[uint64]wrong
}

// wrong is a count of wrong passwords in a row, and the time of the last.
type wrong struct {
	count int
	last  time.Time
}

func newGuesses(max int, now func() time.Time) *guesses {
	return &guesses{max: max, now: now, seed: maphash.MakeSeed(), recent: make(map[uint64]wrong)}
}

// pair is the key of a username and an address: a hash, since a username may be
// long, and a seeded one, so that nobody can find two pairs that share a count.
func (g *guesses) pair(client netip.Addr, username string) uint64 {
	type pair struct {
		client   netip.Addr
		username string
	}
	return maphash.Comparable(g.seed, pair{client, username})
}

// find is the count that still holds. It wants mu locked.
func (g *guesses) find(key uint64) wrong {
	found, ok := g.recent[key]
	if !ok {
		found = g.older[key]
	}
	if g.now().Sub(found.last) >= forgetAfter {
		return wrong{}
	}
	return found
}

// refuse is a *Refused while the pair has to wait.
func (g *guesses) refuse(client netip.Addr, username string) error {
	if g == nil {
		return nil
	}
	key := g.pair(client, username)
	g.mu.Lock()
	found := g.find(key)
	g.mu.Unlock()
	if found.count < g.max {
		return nil
	}
	wait := longestRefusal
	if doublings := found.count - g.max; doublings < 6 {
		wait = time.Second << doublings
	}
	left := wait - g.now().Sub(found.last)
	if left <= 0 {
		return nil
	}
	return &Refused{Guessing, (left + time.Second - 1).Truncate(time.Second)}
}

// count takes a password that was right or wrong into account.
func (g *guesses) count(client netip.Addr, username string, right bool) {
	if g == nil {
		return
	}
	key := g.pair(client, username)
	g.mu.Lock()
	defer g.mu.Unlock()
	if right {
		delete(g.recent, key)
		delete(g.older, key)
		return
	}
	if len(g.recent) >= maxPairs {
		g.recent, g.older = make(map[uint64]wrong), g.recent
	}
	g.recent[key] = wrong{g.find(key).count + 1, g.now()}
}
