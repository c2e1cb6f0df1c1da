package admission

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxWaiting  = 4096                  // logins that may wait in all
	sampleEvery = 50 * time.Millisecond // how often the rate of other requests is sampled
	someOthers  = 20                    // a second: they get a core
	manyOthers  = 1000                  // a second: guessers get less
	restFor     = 3                     // times what a guesser's wrong password took
)

// class is the queue that a login waits in, the best first.
type class int

const (
	known class = iota
	stranger
	guesser
)

// queue gives each login its turn.
type queue struct {
	cores  int
	now    func() time.Time
	others atomic.Int64 // requests that are not logins

	mu       sync.Mutex
	classes  [guesser + 1]network // the logins that wait or run
	turns    [guesser + 1]int     // that each class had while logins of it waited
	running  int
	guessing int           // places in which a guesser's check runs, or that rest after one
	took     time.Duration // by the checks that take the least, about
	seen     int64         // others at the last sample
	seenAt   time.Time
	rate     float64 // of others a second, before the last sample
}

// network is a network in which logins wait or run. The networks inside it take
// turns: the next is the one that has used the least processor time.
type network struct {
	prefix  netip.Prefix
	inside  []*network
	logins  []*login // that wait at an address, the oldest first
	waiting int      // here and inside
	running int
	used    time.Duration // processor time
	clock   time.Duration // what each network inside could have used so far
	turns   int           // of guessers here
}

type login struct {
	class    class
	networks []netip.Prefix // the widest first
	turn     chan error     // gets one value: nil when its turn has come
}

// enter returns when the login has a place, which leave gives back. wrong is how many
// wrong passwords came from its address lately. The error is a *Refused.
func (q *queue) enter(ctx context.Context, v visit, c class, wrong int) (*login, error) {
	l := &login{class: c, networks: v.networks, turn: make(chan error, 1)}
	q.mu.Lock()
	var debt time.Duration
	if c == stranger { // who was wrong goes behind who was not: TestNeighbours, 200 bots
		debt = time.Duration(wrong) * q.took
	}
	q.classes[c].add(l, l.networks, debt)
	q.fill()
	if q.waiting() > q.room() {
		q.refuseOne()
	}
	q.mu.Unlock()

	select {
	case err := <-l.turn:
		return l, err
	case <-ctx.Done():
	}
	q.mu.Lock()
	waited := q.classes[c].remove(l, l.networks)
	refused := q.busy()
	q.mu.Unlock()
	if !waited && <-l.turn == nil { // its turn came at the same moment
		q.leave(l, 0, true)
	}
	return nil, refused
}

// leave gives a login's place to the next one. Its check took that long, or was
// not run if took is 0.
func (q *queue) leave(l *login, took time.Duration, right bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.classes[l.class].leave(l.networks, took)
	switch { // some costly hashes must not make the room too small for a crowd: TestCrowd
	case q.took == 0:
		q.took = took
	case l.class == guesser:
	case took > q.took:
		q.took += (took - q.took) / 64
	case took > 0:
		q.took += (took - q.took) / 2
	}
	if l.class == guesser {
		// TestGuesses, 64 who spin: they leave nine tenths of the machine to others.
		if rest := restFor * took; !right && rest > 0 && q.othersRate() >= manyOthers {
			time.AfterFunc(rest, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.guessing--
				q.fill()
			})
		} else {
			q.guessing--
		}
	}
	q.fill()
}

// othersRate returns how many other requests a second came lately. The caller
// must hold mu; so must those of all functions below.
func (q *queue) othersRate() float64 {
	if since := q.now().Sub(q.seenAt); since >= sampleEvery {
		n := q.others.Load()
		q.rate = float64(n-q.seen) / since.Seconds()
		q.seen, q.seenAt = n, q.now()
	}
	return q.rate
}

// places returns how many checks may run: TestPlaces.
func (q *queue) places() int {
	if q.othersRate() < someOthers {
		return q.cores
	}
	return max(1, q.cores-1)
}

// waiting returns how many logins wait.
func (q *queue) waiting() (n int) {
	for c := range q.classes {
		n += q.classes[c].waiting
	}
	return n
}

// room returns how many logins may wait: as many as get their turn within maxWait
// (TestRoom).
func (q *queue) room() int {
	if q.took == 0 {
		return maxWaiting
	}
	return min(maxWaiting, int(maxWait/q.took)*q.places())
}

// busy refuses a login until those that wait have had their turn.
func (q *queue) busy() *Refused {
	wait := q.took * time.Duration(q.waiting()) / time.Duration(q.places())
	return &Refused{Busy, min(max(wait.Round(time.Second), time.Second), maxWait)}
}

// fill gives the free places to the logins whose turn it is.
func (q *queue) fill() {
	for q.running < q.places() {
		c, found := q.next()
		if !found {
			return
		}
		if c == guesser {
			q.guessing++
		}
		q.running++
		q.classes[c].next(c).turn <- nil
	}
}

// next returns the class whose turn it is: the best in which logins wait, and every
// fourth time the next one below (TestTurns). Guessers have half of the cores.
func (q *queue) next() (next class, found bool) {
	for c := range guesser + 1 {
		switch {
		case q.classes[c].waiting == 0:
			q.turns[c] = 0
			continue
		case c == guesser && q.guessing >= max(1, q.cores/2):
			continue
		}
		next, found = c, true
		if q.turns[c]++; q.turns[c]%4 != 0 {
			break
		}
	}
	return next, found
}

// refuseOne sends one login away so that there is room: of the worst class that
// waits, in the network that has the most, the one that would be served last.
func (q *queue) refuseOne() {
	c := guesser
	for q.classes[c].waiting == 0 {
		c--
	}
	n := &q.classes[c]
	for len(n.inside) > 0 {
		most := n.inside[0]
		for _, other := range n.inside {
			if cmp.Or(cmp.Compare(other.waiting, most.waiting), cmp.Compare(other.used, most.used)) >= 0 {
				most = other
			}
		}
		n = most
	}
	l := n.logins[len(n.logins)-1]
	if c == guesser {
		l = n.logins[0]
	}
	refused := q.busy()
	q.classes[c].remove(l, l.networks)
	l.turn <- refused
}

// add lets a login wait at the end of path, which leads from n to its address. A new
// network starts at its parent's clock, so idle networks build up no credit, and
// later by the debt.
func (n *network) add(l *login, path []netip.Prefix, debt time.Duration) {
	n.waiting++
	if len(path) == 0 {
		n.logins = append(n.logins, l)
		return
	}
	i := n.index(path[0])
	if i < 0 {
		i = len(n.inside)
		n.inside = append(n.inside, &network{prefix: path[0], used: n.clock + debt})
	}
	n.inside[i].add(l, path[1:], debt)
}

// remove takes out a login, and says whether it waited.
func (n *network) remove(l *login, path []netip.Prefix) bool {
	if len(path) == 0 {
		i := slices.Index(n.logins, l)
		if i < 0 {
			return false
		}
		n.logins = slices.Delete(n.logins, i, i+1)
		n.waiting--
		return true
	}
	i := n.index(path[0])
	if i < 0 || !n.inside[i].remove(l, path[1:]) {
		return false
	}
	n.waiting--
	n.forget(i)
	return true
}

// next takes out the login whose turn it is, to run.
func (n *network) next(c class) *login {
	n.waiting--
	n.running++
	if len(n.inside) > 0 {
		var next *network
		for _, in := range n.inside {
			if in.waiting > 0 && (next == nil || in.used < next.used) {
				next = in
			}
		}
		return next.next(c)
	}
	i := 0
	if c == guesser {
		// A guesser sends the next as soon as one is answered, so somebody else's
		// stays among the three newest: TestNeighbours, her colleagues log in.
		n.turns++
		i = max(0, len(n.logins)-1-n.turns%3)
	}
	l := n.logins[i]
	n.logins = slices.Delete(n.logins, i, i+1)
	return l
}

// leave ends a turn at the end of path, and charges for it.
func (n *network) leave(path []netip.Prefix, took time.Duration) {
	n.running--
	if len(path) == 0 {
		return
	}
	i := n.index(path[0])
	n.inside[i].used += took
	n.clock += took / time.Duration(len(n.inside))
	n.inside[i].leave(path[1:], took)
	n.forget(i)
}

// forget drops a network inside n if nobody waits or runs there.
func (n *network) forget(i int) {
	if n.inside[i].waiting+n.inside[i].running == 0 {
		n.inside = slices.Delete(n.inside, i, i+1)
	}
}

func (n *network) index(prefix netip.Prefix) int {
	return slices.IndexFunc(n.inside, func(in *network) bool { return in.prefix == prefix })
}
