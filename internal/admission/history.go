package admission

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	maxCounts      = 1 << 16             // counts of wrong passwords that are surely kept
	maxKnown       = 1 << 15             // known pairs that are surely kept
	homes          = 64                  // known pairs of one username
	forgetAfter    = 15 * time.Minute    // without a wrong password
	knownFor       = 30 * 24 * time.Hour // after the last right password
	longestRefusal = time.Minute
	longestKnown   = 4 * time.Second // for a known pair
	typos          = 2               // wrong passwords in a row that leave a known pair its class
	patience       = 10              // wrong passwords from an address before it is a guesser's
)

// A visit is a username and the networks of the client who sends it, the widest
// first.
type visit struct {
	networks []netip.Prefix
	username string
}

// history is what is remembered of right and wrong passwords.
type history struct {
	max  int // wrong passwords in a row that a pair may send; 0 for any number
	now  func() time.Time
	seed maphash.Seed

	mu    sync.Mutex
	wrong recentCounts
	known recentCounts
}

func newHistory(max int, now func() time.Time) history {
	return history{max: max, now: now, seed: maphash.MakeSeed(),
		wrong: recentCounts{size: maxCounts, lasts: forgetAfter}, known: recentCounts{size: maxKnown, lasts: knownFor}}
}

// key stands for a username at a network, or a network with any username. It is a
// hash, since a username may be long, and a seeded one, so that nobody can find two
// that share a count.
func (h *history) key(network netip.Prefix, username string, anyUsername bool) uint64 {
	type key struct {
		network     netip.Prefix
		username    string
		anyUsername bool
	}
	return maphash.Comparable(h.seed, key{network, username, anyUsername})
}

func (h *history) pair(v visit, level int) uint64    { return h.key(v.networks[level], v.username, false) }
func (h *history) network(v visit, level int) uint64 { return h.key(v.networks[level], "", true) }

// home returns where a known pair is remembered, and as what number. Each
// username has a fixed number of places, so that an account that logs in from
// ever new addresses pushes out no other's.
func (h *history) home(v visit) (key uint64, number int) {
	type place struct {
		username string
		place    uint64
	}
	pair := h.pair(v, len(v.networks)-1)
	return maphash.Comparable(h.seed, place{v.username, pair % homes}), int(pair | 1)
}

// knows says whether the user logged in from there before.
func (h *history) knows(v visit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isKnown(v)
}

// isKnown is knows for a caller that holds mu.
func (h *history) isKnown(v visit) bool {
	key, number := h.home(v)
	return h.known.find(key, h.now()).n == number
}

// allowed is base for an address, and eight times as many for each wider network.
func allowed(base int, v visit, level int) int { return base << (3 * (len(v.networks) - 1 - level)) }

// refuse returns a *Refused while the pair has to wait.
func (h *history) refuse(v visit) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	left, _ := h.left(v, h.max)
	return refusal(left)
}

// recall is refuse for a password that is compared with one that is remembered,
// and takes it into account. A right one keeps its pair known, but makes up for no
// wrong one: a client sends it as often as it likes.
func (h *history) recall(v visit, right bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	left, _ := h.left(v, h.recalls())
	switch {
	case left > 0:
	case right:
		h.know(v)
	default:
		h.countWrong(v)
	}
	return refusal(left)
}

// recalls is how many wrong passwords in a row may be compared with one that is
// remembered: no check slows them, so there must be a limit.
func (h *history) recalls() int { return min(cmp.Or(h.max, patience), patience) }

// guessed says whether a known pair sent as many wrong passwords as it may, and
// how long it has to wait, as left does.
func (h *history) guessed(v visit, limit int) (left time.Duration, guessed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	left, over := h.left(v, limit)
	return left, over && h.isKnown(v)
}

// left returns how long a pair has to wait, less than 0 if it had to and need not any
// more, and whether it sent as many wrong passwords in a row as it may; a limit of
// 0 is any number. Those that others sent from its
// wider networks do not count for a known pair. The caller must hold mu.
func (h *history) left(v visit, limit int) (left time.Duration, over bool) {
	if limit == 0 {
		return 0, false
	}
	widest, longest := 0, longestRefusal
	if h.isKnown(v) {
		widest, longest = len(v.networks)-1, longestKnown
	}
	for level := widest; level < len(v.networks); level++ {
		found := h.wrong.find(h.pair(v, level), h.now())
		excess := found.n - allowed(limit, v, level)
		if excess < 0 {
			continue
		}
		ends := min(time.Second<<min(excess, 6), longest) - h.now().Sub(found.last)
		if !over || ends > left {
			left, over = ends, true
		}
	}
	return left, over
}

// refusal returns a *Refused if something is left to wait, in whole seconds.
func refusal(left time.Duration) error {
	if left <= 0 {
		return nil
	}
	return &Refused{Guessing, (left + time.Second - 1).Truncate(time.Second)}
}

// class returns the login's class.
func (h *history) class(v visit) (c class, wrong int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c = stranger
	for level := range v.networks {
		wrong = h.wrong.find(h.network(v, level), h.now()).n
		if wrong >= allowed(patience, v, level) {
			c = guesser
		}
	}
	if h.isKnown(v) && h.wrong.find(h.pair(v, len(v.networks)-1), h.now()).n <= typos {
		c = known
	}
	return c, wrong
}

// know makes a pair known. The caller must hold mu, as for countWrong.
func (h *history) know(v visit) {
	key, number := h.home(v)
	h.known.put(key, recentCount{n: number, last: h.now()})
}

// count takes a right or wrong password into account. A right one makes up for a
// wrong one of its networks, since an office has typos; so a network's count goes
// no further than twice its limit.
func (h *history) count(v visit, right bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !right {
		h.countWrong(v)
		return
	}
	now := h.now()
	h.know(v)
	h.wrong.delete(h.pair(v, len(v.networks)-1))
	for level := range v.networks {
		h.wrong.lower(h.network(v, level), now)
	}
}

// countWrong takes a wrong password into account. A network that is over its limit
// does not use up that of the wider ones as well.
func (h *history) countWrong(v visit) {
	now, narrowest := h.now(), len(v.networks)-1
	for _, counts := range []struct {
		key       func(visit, int) uint64
		base, cap int
	}{{h.pair, h.max, 1 << 20}, {h.network, patience, 2 * patience}} {
		for level := narrowest; level >= 0; level-- {
			if h.wrong.add(counts.key(v, level), now, allowed(counts.cap, v, level)) > allowed(counts.base, v, level) {
				break
			}
		}
	}
}
