package admission

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// gate lets few in at a time, and the addresses that wait in turn.
type gate struct {
	mu      sync.Mutex
	free    int // places
	waiting int // logins, in all lines
	turn    int // counts up: the order in which lines came or were served last
	lines   map[netip.Addr]*line
}

// line is an address that has logins waiting or running, or that rests.
type line struct {
	running  int
	resting  int
	lastTurn int
	waiters  []chan error // each is told once: nil when its turn comes
}

// enter returns nil when the client has a place, which leave gives back.
func (g *gate) enter(ctx context.Context, client netip.Addr) error {
	g.mu.Lock()
	l := g.lines[client]
	if l == nil {
		g.turn++
		l = &line{lastTurn: g.turn}
	}
	if len(l.waiters) >= share {
		g.mu.Unlock()
		return &Refused{AddressBusy, time.Second}
	}
	if g.waiting >= maxWaiting && !g.makeRoom(len(l.waiters)) {
		g.mu.Unlock()
		return &Refused{Busy, time.Second}
	}
	turn := make(chan error, 1)
	l.waiters = append(l.waiters, turn)
	g.lines[client] = l
	g.waiting++
	g.fill()
	g.mu.Unlock()

	select {
	case err := <-turn:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(l.waiters, turn)
	if i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
		g.waiting--
		g.drop(client, l)
	}
	g.mu.Unlock()
	if i < 0 && <-turn == nil { // its turn came in the same moment
		g.leave(client, 0)
	}
	return &Refused{Busy, time.Second}
}

// leave gives the client's place to the next in turn, and lets its address rest
// before its own next turn.
func (g *gate) leave(client netip.Addr, rest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[client]
	l.running--
	g.free++
	g.turn++
	l.lastTurn = g.turn
	if rest > 0 {
		l.resting++
		time.AfterFunc(rest, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			l.resting--
			g.drop(client, l)
			g.fill()
		})
	}
	g.drop(client, l)
	g.fill()
}

// fill gives the free places to those whose turn it is. Like all below, it
// wants mu locked.
func (g *gate) fill() {
	for g.free > 0 {
		var next *line
		for _, l := range g.lines {
			if len(l.waiters) > 0 && l.resting == 0 && (next == nil || l.before(next)) {
				next = l
			}
		}
		if next == nil {
			return
		}
		next.waiters[0] <- nil
		next.waiters = slices.Delete(next.waiters, 0, 1)
		next.running++
		g.waiting--
		g.free--
		g.turn++
		next.lastTurn = g.turn
	}
}

func (l *line) before(other *line) bool {
	if l.running != other.running {
		return l.running < other.running
	}
	return l.lastTurn < other.lastTurn
}

// makeRoom sends the last of the longest line away for one whose line is
// shorter by two or more, so that a few addresses cannot fill the queue.
func (g *gate) makeRoom(length int) bool {
	var longest *line
	for _, l := range g.lines {
		if longest == nil || len(l.waiters) > len(longest.waiters) {
			longest = l
		}
	}
	last := len(longest.waiters) - 1
	if last <= length {
		return false
	}
	longest.waiters[last] <- &Refused{Busy, time.Second}
	longest.waiters = longest.waiters[:last]
	g.waiting--
	return true
}

// drop forgets a line that nobody stands in.
func (g *gate) drop(client netip.Addr, l *line) {
	if l.running == 0 && l.resting == 0 && len(l.waiters) == 0 {
		delete(g.lines, client)
	}
}
