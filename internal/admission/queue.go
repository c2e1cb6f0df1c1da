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
	quietAfter  = 50 * time.Millisecond // without other requests, checks may have all cores
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
	others atomic.Int64 // requests that are no logins

	mu       sync.Mutex
	root     node
	running  int
	guessing int // places in which a guesser's check runs or that rest after it
	waiting  int
	turns    int           // counts up
	guesses  int           // counts the turns of guessers
	took     time.Duration // by a check of those that take the least, about
	seen     int64         // others, when looked at last
	seenAt   time.Time     // when it had changed
}

// step is the way from a node to one of its children: a class, then networks.
type step struct {
	class   class
	network netip.Prefix
}

// node is a branch of the tree of those who wait or run.
type node struct {
	step
	parent   *node
	children map[step]*node
	logins   []*login // that wait, at the narrowest network
	waiting  int      // in it and below
	running  int
	used     time.Duration // of the processor, times the class's price
	front    time.Duration // what the child that had the last turn had used before it
	wrong    int           // passwords that came from it lately
	turn     int           // when it came, or had its last turn
}

type login struct {
	class   class
	leaf    *node
	turn    chan error    // is told once: nil when its turn has come
	charged time.Duration // for its check, before that was run
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
	if !waited && <-l.turn == nil { // its turn came in the same moment
		q.leave(l, 0, true)
	}
	return nil, refused
}

// leave gives a login's place to the next. Its check took that long, or was not
// run if that is 0.
func (q *queue) leave(l *login, took time.Duration, right bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	for n := l.leaf; n != nil; n = n.parent {
		n.running--
	}
	l.charge(took - l.charged)
	l.leaf.forget()
	switch { // a few users with a costlier hash must not make the crowd be refused
	case q.took == 0:
		q.took = took
	case took > q.took:
		q.took += (took - q.took) / 64
	case took > 0:
		q.took += (took - q.took) / 2
	}
	if l.class == guesser {
		if rest := min(restFor*took, longestRest); !right && rest > 0 && !q.quiet() {
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

// quiet says whether no other requests come. Like all below it, it wants mu
// locked.
func (q *queue) quiet() bool {
	if n := q.others.Load(); n != q.seen {
		q.seen, q.seenAt = n, q.now()
	}
	return q.now().Sub(q.seenAt) >= quietAfter
}

// places is how many checks may run.
func (q *queue) places() int {
	if q.quiet() {
		return q.cores
	}
	return max(1, q.cores-1)
}

// room is how many logins may wait: as many as have their turn within maxWait.
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
		n.wrong = wrong[level]
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

// fill gives the free places to those whose turn it is.
func (q *queue) fill() {
	for q.waiting > 0 && q.running < q.places() {
		n := &q.root
		for n != nil && n.children != nil {
			n = n.next(q.guessing < max(1, q.cores/2))
		}
		if n == nil {
			return
		}
		l := n.logins[0]
		if last := len(n.logins) - 1; l.class == guesser {
			q.guesses++
			l = n.logins[max(0, last-q.guesses%3)]
		}
		q.turns++
		for n := l.leaf; n != nil; n = n.parent {
			n.running++
			n.turn = q.turns
			if n.parent != nil {
				n.parent.front = max(n.parent.front, n.used)
			}
		}
		q.running++
		if l.class == guesser {
			q.guessing++
		}
		l.charged = q.took
		l.charge(q.took)
		q.remove(l)
		l.turn <- nil
	}
}

// refuseOne sends one away so that there is room: of the worst class that waits,
// in the network that has the most or, of equals, used the most, the one that
// would be served last.
func (q *queue) refuseOne() {
	n := &q.root
	for n.children != nil {
		var most *node
		for _, child := range n.children {
			if child.waiting == 0 {
				continue
			}
			if most == nil || cmp.Or(cmp.Compare(child.class, most.class), cmp.Compare(child.waiting, most.waiting), cmp.Compare(child.used, most.used), cmp.Compare(child.turn, most.turn)) > 0 {
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

// child is the node one step down. One that is new, or was empty, starts level
// with those that have turns now, later by its debt: it has not saved up any.
func (n *node) child(s step, turn int, debt time.Duration) *node {
	found := n.children[s]
	if found == nil {
		found = &node{step: s, parent: n}
		if n.children == nil {
			n.children = make(map[step]*node)
		}
		n.children[s] = found
	}
	if found.waiting+found.running == 0 {
		found.used, found.turn = max(found.used, n.front+debt), turn
	}
	return found
}

// next is the child whose turn it is: of those in which logins wait, the one
// that has used the least, and of equals the one with the fewest wrong passwords
// or that came first. It is nil if
// only guessers wait and they may not run.
func (n *node) next(guessers bool) (next *node) {
	for _, child := range n.children {
		if child.waiting == 0 {
			child.forget()
			continue
		}
		if child.class == guesser && !guessers {
			continue
		}
		if next == nil || cmp.Or(cmp.Compare(child.used, next.used), cmp.Compare(child.class, next.class), cmp.Compare(child.wrong, next.wrong), cmp.Compare(child.turn, next.turn)) < 0 {
			next = child
		}
	}
	return next
}

// charge lets the login's class and networks pay for processor time.
func (l *login) charge(d time.Duration) {
	for n := l.leaf; n.parent != nil; n = n.parent {
		n.used += d * price[l.class]
	}
}

// forget drops what is no longer needed of n and the nodes above it: all below
// a node in which nobody waits or runs, and such a node itself if it would start
// level with the others anyway.
func (n *node) forget() {
	for ; n != nil && n.waiting+n.running == 0; n = n.parent {
		n.children, n.front = nil, 0
		if p := n.parent; p != nil && (n.used <= p.front || len(p.children) > maxWaiting) {
			delete(p.children, n.step)
		}
	}
}
