package admission

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	maxCounts      = 1 << 16             // counts of wrong passwords; at least so many are kept
	maxKnown       = 1 << 15             // known pairs; at least so many are kept
	homes          = 64                  // known pairs of one username
	forgetAfter    = 15 * time.Minute    // without a wrong password
	knownFor       = 30 * 24 * time.Hour // after the last right password
	longestRefusal = time.Minute
	longestKnown   = 4 * time.Second // for a known pair
	typos          = 2               // wrong passwords in a row after which a pair is still known
	guesserAfter   = 10              // wrong passwords from an address
	maxRecalls     = 10              // wrong passwords in a row that are compared with a remembered one
)

// visit is a username, and the networks of the client that sends it, the widest
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
	return history{
		max: max, now: now, seed: maphash.MakeSeed(),
		wrong: recentCounts{size: maxCounts, lasts: forgetAfter},
		known: recentCounts{size: maxKnown, lasts: knownFor},
	}
}

// key stands for a username at a network, or a network with any username. It is a
// hash, since a username may be long, and seeded, so that nobody can find two
// usernames that share a count.
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

// home returns the key under which a known pair is kept, and the number that stands
// for it there. A username has 64 such keys, so an account that logs in from ever
// new addresses pushes out its own pairs and nobody else's: TestManyHomes.
func (h *history) home(v visit) (key uint64, number int) {
	type place struct {
		username string
		place    uint64
	}
	pair := h.pair(v, len(v.networks)-1)
	return maphash.Comparable(h.seed, place{v.username, pair % homes}), int(pair | 1)
}

// knows reports whether the user logged in from there lately.
func (h *history) knows(v visit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.knowsLocked(v)
}

// knowsLocked is knows for a caller that holds mu.
func (h *history) knowsLocked(v visit) bool {
	key, number := h.home(v)
	return h.known.find(key, h.now()).n == number
}

// allowed returns base for an address, and eight times as many for each wider
// network: TestNetworksOfGuessers.
func allowed(base int, v visit, level int) int { return base << (3 * (len(v.networks) - 1 - level)) }

// refuse returns a *Refused while the pair has to wait.
func (h *history) refuse(v visit) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	left, _ := h.left(v, h.max)
	return refusal(left)
}

// recall is refuse for a password that is compared with a remembered one, and counts
// it. A right one keeps its pair known but clears no count, since a client sends it
// as often as it likes.
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

// recalls returns how many wrong passwords in a row may be compared with a
// remembered one. No check slows them down, so there is always a limit.
func (h *history) recalls() int { return min(cmp.Or(h.max, maxRecalls), maxRecalls) }

// guessed reports whether the pair is known and has reached the limit, and how long
// it has to wait, as left does.
func (h *history) guessed(v visit, limit int) (left time.Duration, guessed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	left, over := h.left(v, limit)
	return left, over && h.knowsLocked(v)
}

// left returns how long a pair still has to wait, negative if that time is over, and
// whether it has reached the limit on wrong passwords in a row; 0 is no limit. For a
// known pair, those from the wider networks do not count. The caller must hold mu.
func (h *history) left(v visit, limit int) (left time.Duration, over bool) {
	if limit == 0 {
		return 0, false
	}
	widest, longest := 0, longestRefusal
	if h.knowsLocked(v) {
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

// refusal returns a *Refused if a time is left to wait, rounded up to seconds.
func refusal(left time.Duration) error {
	if left <= 0 {
		return nil
	}
	return &Refused{Guessing, (left + time.Second - 1).Truncate(time.Second)}
}

// class returns the login's class, and how many wrong passwords came from its address
// lately.
func (h *history) class(v visit) (c class, wrong int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c = stranger
	for level := range v.networks { // the address is the last
		wrong = h.wrong.find(h.network(v, level), h.now()).n
		if wrong >= allowed(guesserAfter, v, level) {
			c = guesser
		}
	}
	if h.knowsLocked(v) && h.wrong.find(h.pair(v, len(v.networks)-1), h.now()).n <= typos {
		c = known
	}
	return c, wrong
}

// know makes a pair known. The caller must hold mu, as for countWrong.
func (h *history) know(v visit) {
	key, number := h.home(v)
	h.known.put(key, recentCount{n: number, last: h.now()})
}

// count counts a right or wrong password. A right one clears its pair, and makes up
// for one wrong password of its networks, since an office has typos: TestNeighbours,
// a user with an account.
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

// countWrong counts a wrong password. A network's count ends at twice its limit, so
// that right passwords can make up for it.
func (h *history) countWrong(v visit) {
	h.countUp(v, h.pair, h.max, 1<<20)
	h.countUp(v, h.network, guesserAfter, 2*guesserAfter)
}

// countUp counts one more up to most, from the address to the widest network. What is
// over the limit does not count for the wider ones: TestNeighbours, 64 spin in her
// /24.
func (h *history) countUp(v visit, key func(visit, int) uint64, limit, most int) {
	for level := len(v.networks) - 1; level >= 0; level-- {
		if h.wrong.add(key(v, level), h.now(), allowed(most, v, level)) > allowed(limit, v, level) {
			return
		}
	}
}
