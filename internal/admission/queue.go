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
	lookEvery   = 50 * time.Millisecond // at how many other requests come
	someOthers  = 20                    // a second: they get a core
	manyOthers  = 1000                  // a second: guessers get less
	restFor     = 3                     // times what a guesser's wrong password took
	longestRest = 5 * time.Second
)

// class is how a login is treated, the best first.
type class int

const (
	known class = iota
	stranger
	guesser
)

// price is what a second of processor time costs each class.
var price = [...]time.Duration{known: 1, stranger: 3, guesser: 24}

// queue gives each login its turn.
type queue struct {
	cores  int
	now    func() time.Time
	others atomic.Int64 // requests that are not logins

	mu       sync.Mutex
	root     node
	running  int
	guessing int // places in which a guesser's check runs, or that rest after one
	waiting  int
	turns    int           // counts up
	guesses  int           // counts the turns of guessers
	took     time.Duration // by the checks that take the least, about
	seen     int64         // others at the last look
	seenAt   time.Time
	rate     float64 // of others a second, before the last look
	looking  bool    // a timer will look again
}

// step is the way from a node to one of its children: a class, then networks.
type step struct {
	class   class
	network netip.Prefix
}

// node is a branch of the tree of the logins that wait or run.
type node struct {
	step
	parent   *node
	children map[step]*node
	logins   []*login // that wait, at the narrowest network
	waiting  int      // in it and below
	running  int
	used     time.Duration // processor time, times the class's price
	clock    time.Duration // what each child could have used so far
	turn     int           // when it came, or had its last turn
}

type login struct {
	class class
	leaf  *node
	turn  chan error // gets one value: nil when its turn has come
}

// enter returns when the login has a place, which leave gives back. wrong is how
// many wrong passwords came from each of its networks. The error is a *Refused.
func (q *queue) enter(ctx context.Context, v visit, c class, wrong []int) (*login, error) {
	l := &login{class: c, turn: make(chan error, 1)}
	q.mu.Lock()
	q.add(l, v, wrong)
	q.fill()
	if q.waiting > q.room() {
		q.refuseOne()
	}
	q.mu.Unlock()

	select {
	case err := <-l.turn:
		return l, err
	case <-ctx.Done():
	}
	q.mu.Lock()
	waited := slices.Contains(l.leaf.logins, l)
	if waited {
		q.remove(l)
	}
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
	for n := l.leaf; n != nil; n = n.parent {
		n.running--
	}
	l.charge(took)
	l.leaf.forget()
	switch { // some users with costlier hashes must not make a crowd be refused
	case q.took == 0:
		q.took = took
	case took > q.took:
		q.took += (took - q.took) / 64
	case took > 0:
		q.took += (took - q.took) / 2
	}
	if l.class == guesser {
		if rest := min(restFor*took, longestRest); !right && rest > 0 && q.othersRate() >= manyOthers {
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
	if since := q.now().Sub(q.seenAt); since >= lookEvery {
		n := q.others.Load()
		q.rate = float64(n-q.seen) / since.Seconds()
		q.seen, q.seenAt = n, q.now()
	}
	return q.rate
}

// places returns how many checks may run.
func (q *queue) places() int {
	if q.othersRate() < someOthers {
		return q.cores
	}
	return max(1, q.cores-1)
}

// room returns how many logins may wait: as many as get their turn within maxWait.
func (q *queue) room() int {
	if q.took == 0 {
		return maxWaiting
	}
	return min(maxWaiting, int(maxWait/q.took)*q.places())
}

// busy refuses a login until those that wait have had their turn.
func (q *queue) busy() *Refused {
	wait := q.took * time.Duration(q.waiting) / time.Duration(q.places())
	return &Refused{Busy, min(max(wait.Round(time.Second), time.Second), maxWait)}
}

// add lets a login wait.
func (q *queue) add(l *login, v visit, wrong []int) {
	q.turns++
	n := q.root.child(step{class: l.class}, q.turns, 0)
	for level, network := range v.networks {
		var debt time.Duration
		if l.class == stranger {
			debt = time.Duration(wrong[level]) * q.took * price[stranger]
		}
		n = n.child(step{network: network}, q.turns, debt)
	}
	n.logins = append(n.logins, l)
	l.leaf = n
	q.waiting++
	for ; n != nil; n = n.parent {
		n.waiting++
	}
}

// remove takes a login from those that wait.
func (q *queue) remove(l *login) {
	i := slices.Index(l.leaf.logins, l)
	l.leaf.logins = slices.Delete(l.leaf.logins, i, i+1)
	q.waiting--
	for n := l.leaf; n != nil; n = n.parent {
		n.waiting--
	}
	l.leaf.forget()
}

// fill gives the free places to the logins whose turn it is. While somebody waits
// and a core is left to other requests, it looks again whether they still come.
func (q *queue) fill() {
	for q.waiting > 0 && q.running < q.places() {
		n := &q.root
		for n != nil && n.children != nil {
			n = n.next(q.guessing < max(1, q.cores/2))
		}
		if n == nil {
			break
		}
		l := n.logins[0]
		if last := len(n.logins) - 1; l.class == guesser {
			q.guesses++
			q.guessing++
			l = n.logins[max(0, last-q.guesses%3)]
		}
		q.turns++
		for n := l.leaf; n != nil; n = n.parent {
			n.running++
			n.turn = q.turns
		}
		q.running++
		q.remove(l)
		l.turn <- nil
	}
	if q.waiting > 0 && q.running < q.cores && !q.looking {
		q.looking = true
		time.AfterFunc(lookEvery, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.looking = false
			q.fill()
		})
	}
}

// refuseOne sends one login away so that there is room: of the worst class that
// waits, in the network that has the most or, of equals, used the most, the one
// that would be served last.
func (q *queue) refuseOne() {
	n := &q.root
	for n.children != nil {
		var most *node
		for _, child := range n.children {
			if child.waiting > 0 && (most == nil || cmp.Or(cmp.Compare(child.class, most.class), cmp.Compare(child.waiting, most.waiting),
				cmp.Compare(child.used, most.used), cmp.Compare(child.turn, most.turn)) > 0) {
				most = child
			}
		}
		n = most
	}
	l := n.logins[len(n.logins)-1]
	if l.class == guesser {
		l = n.logins[0]
	}
	refused := q.busy()
	q.remove(l)
	l.turn <- refused
}

// child returns the node one step down. A new one starts at the clock, so that it
// has saved up no turns and the others need not wait for it; it starts later by
// its debt.
func (n *node) child(s step, turn int, debt time.Duration) *node {
	found := n.children[s]
	if found == nil {
		if n.children == nil {
			n.children = make(map[step]*node)
		}
		found = &node{step: s, parent: n, used: n.clock + debt, turn: turn}
		n.children[s] = found
	}
	return found
}

// next returns the child whose turn it is: of those in which logins wait, the one
// that has used the least or, of equals, the one of the better class, or that has
// waited longest. It is nil if only guessers wait and they may not run.
func (n *node) next(guessers bool) (next *node) {
	for _, child := range n.children {
		if child.waiting == 0 || child.class == guesser && !guessers {
			continue
		}
		if next == nil || cmp.Or(cmp.Compare(child.used, next.used), cmp.Compare(child.class, next.class), cmp.Compare(child.turn, next.turn)) < 0 {
			next = child
		}
	}
	return next
}

// charge makes the login's class and networks pay for processor time. Each
// node's clock goes on by what all of its children could have used of it.
func (l *login) charge(d time.Duration) {
	d *= price[l.class]
	for n := l.leaf; n.parent != nil; n = n.parent {
		n.used += d
		n.parent.clock += d / time.Duration(len(n.parent.children))
	}
}

// forget drops a node in which nobody waits or runs, and those above that are
// left empty.
func (n *node) forget() {
	for ; n.parent != nil && n.waiting+n.running == 0; n = n.parent {
		delete(n.parent.children, n.step)
	}
}
