package admission

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	maxCounts      = 1 << 16             // counts of wrong passwords that are surely kept
	maxKnown       = 1 << 15             // known pairs that are surely kept
	forgetAfter    = 15 * time.Minute    // without a wrong password
	knownFor       = 30 * 24 * time.Hour // after the last right password
	longestRefusal = time.Minute
	longestKnown   = 4 * time.Second // for a known pair
	typos          = 2               // wrong passwords in a row that leave a known pair its class
	patience       = 10              // wrong passwords from an address before it is a guesser's
	delayFor       = time.Second / 10
	longestDelay   = 8 * time.Second
)

// A visit is who comes: a username, and the networks of the client, the widest
// first.
type visit struct {
	networks []netip.Prefix
	username string
}

// history is what is remembered of passwords that were right and wrong.
type history struct {
	max  int // wrong passwords in a row that a pair may send; 0 for any number
	now  func() time.Time
	seed maphash.Seed

	mu    sync.Mutex
	wrong memory
	known memory
}

func newHistory(max int, now func() time.Time) history {
	return history{max: max, now: now, seed: maphash.MakeSeed(),
		wrong: memory{size: maxCounts, lasts: forgetAfter}, known: memory{size: maxKnown, lasts: knownFor}}
}

// key stands for a username at a network, a username anywhere, or a network
// whatever the username: a hash, since a username may be long, and a seeded one,
// so that nobody can find two that share a count.
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
func (h *history) anywhere(v visit) uint64           { return h.key(netip.Prefix{}, v.username, false) }

// knows says whether the user logged in from there before.
func (h *history) knows(v visit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isKnown(v)
}

// isKnown says whether the user logged in from there before. Like all below it,
// it wants mu locked.
func (h *history) isKnown(v visit) bool {
	return h.known.find(h.pair(v, len(v.networks)-1), h.now()).count > 0
}

// allowed is base for an address, and four times as many for each wider network.
func allowed(base int, v visit, level int) int { return base << (2 * (len(v.networks) - 1 - level)) }

// refuse is a *Refused while the pair has to wait. Wrong passwords that others
// sent from its wider networks do not count for a known pair.
func (h *history) refuse(v visit) error {
	if h.max == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	widest, longest := 0, longestRefusal
	if h.isKnown(v) {
		widest, longest = len(v.networks)-1, longestKnown
	}
	var left time.Duration
	for level := widest; level < len(v.networks); level++ {
		found := h.wrong.find(h.pair(v, level), h.now())
		excess := found.count - allowed(h.max, v, level)
		if excess < 0 {
			continue
		}
		wait := min(time.Second<<min(excess, 6), longest)
		left = max(left, wait-h.now().Sub(found.last))
	}
	if left <= 0 {
		return nil
	}
	return &Refused{Guessing, (left + time.Second - 1).Truncate(time.Second)}
}

// delay is how long a stranger waits whose username is guessed from everywhere.
func (h *history) delay(v visit) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.max == 0 || h.isKnown(v) {
		return 0
	}
	wrong := h.wrong.find(h.anywhere(v), h.now()).count
	return min(max(0, time.Duration(wrong-patience)*delayFor), longestDelay)
}

// class is how the login is treated, and how many wrong passwords came from each
// of its networks.
func (h *history) class(v visit) (c class, wrong []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c = stranger
	for level := range v.networks {
		n := h.wrong.find(h.network(v, level), h.now()).count
		if n >= allowed(patience, v, level) {
			c = guesser
		}
		wrong = append(wrong, n)
	}
	if h.isKnown(v) && h.wrong.find(h.pair(v, len(v.networks)-1), h.now()).count <= typos {
		c = known
	}
	return c, wrong
}

// count takes a password that was right or wrong into account. A right one
// forgives the networks a wrong one, since an office has typos; so a network's
// count goes no further than twice its limit. A network that is over its limit
// does not spend that of the wider ones as well.
func (h *history) count(v visit, right bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, narrowest := h.now(), len(v.networks)-1
	if right {
		h.known.put(h.pair(v, narrowest), record{1, now})
		h.wrong.delete(h.pair(v, narrowest))
		for level := range v.networks {
			if found := h.wrong.find(h.network(v, level), now); found.count > 0 {
				h.wrong.put(h.network(v, level), record{found.count - 1, found.last})
			}
		}
		return
	}
	if !h.isKnown(v) {
		h.wrong.add(h.anywhere(v), now, 1<<20)
	}
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

// record is a count, and when it last went up.
type record struct {
	count int
	last  time.Time
}

// memory keeps records for a time, and size of them surely. It has two maps and
// puts into recent; when that is full it becomes older, and what was older is
// forgotten.
type memory struct {
	size          int
	lasts         time.Duration
	recent, older map[uint64]record
}

// find is the record that still holds, or the zero record.
func (m *memory) find(key uint64, now time.Time) record {
	found, ok := m.recent[key]
	if !ok {
		found = m.older[key]
	}
	if now.Sub(found.last) >= m.lasts {
		return record{}
	}
	return found
}

func (m *memory) put(key uint64, r record) {
	if len(m.recent) >= m.size {
		m.recent, m.older = nil, m.recent
	}
	if m.recent == nil {
		m.recent = make(map[uint64]record)
	}
	m.recent[key] = r
}

// add counts one more, up to most, and returns how many that makes.
func (m *memory) add(key uint64, now time.Time, most int) int {
	count := min(m.find(key, now).count+1, most)
	m.put(key, record{count, now})
	return count
}

func (m *memory) delete(key uint64) {
	delete(m.recent, key)
	delete(m.older, key)
}
