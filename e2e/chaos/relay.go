//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// relay carries the TCP connections of one replica to one member. It delays
// everything, holds some connections back, or cuts them all. It delivers what it
// has received from a client, however late, even if the client has hung up: so
// does a network, and so does the kernel of a paused member.
//
// While the member cannot be reached the relay does not listen, so that the
// replica is refused, as it would be by a dead member.
type relay struct {
	addr, upstream string

	mu       sync.Mutex
	rng      *rand.Rand
	listener net.Listener // nil while the replica is refused
	conns    map[*connection]bool
	cut      bool
	delay    time.Duration
	holding  [2]hold // by direction
}

// hold is a share of the connections that is held back until a time.
type hold struct {
	share float64
	until time.Time
}

// A direction of a connection.
const (
	toMember = iota
	toReplica
)

type connection struct {
	client, server net.Conn
	heldUntil      [2]time.Time
}

// linger is how long after its last bytes the end of a connection is passed on. A
// member that sees both at once drops the request; if the packet with the end
// is lost and sent again, it does not.
const linger = 250 * time.Millisecond

func newRelay(addr, upstream string, rng *rand.Rand) *relay {
	return &relay{addr: addr, upstream: upstream, rng: rng, conns: make(map[*connection]bool)}
}

// hold holds back a share of the connections, existing and new, in one direction.
func (r *relay) hold(direction int, share float64, lasts time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding[direction] = hold{share, time.Now().Add(lasts)}
	for c := range r.conns {
		r.choose(c, direction)
	}
}

// choose decides whether to hold back a connection. The caller must hold mu.
func (r *relay) choose(c *connection, direction int) {
	if h := r.holding[direction]; r.rng.Float64() < h.share {
		c.heldUntil[direction] = h.until
	}
}

// setDelay delays everything from now on.
func (r *relay) setDelay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// setCut hangs up on the replica and refuses it, or lets it in again.
func (r *relay) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut = cut; cut {
		r.refuse()
		for c := range r.conns {
			reset(c.client)
		}
	}
}

// memberGone is called when the member has died.
func (r *relay) memberGone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse()
}

// refuse stops listening. The caller must hold mu.
func (r *relay) refuse() {
	if r.listener != nil {
		r.listener.Close()
		r.listener = nil
	}
}

// run relays until ctx ends.
func (r *relay) run(ctx context.Context) {
	for ctx.Err() == nil {
		if listener := r.listen(); listener != nil {
			stop := context.AfterFunc(ctx, r.memberGone)
			r.accept(ctx, listener)
			stop()
		}
		wait(ctx, time.Now().Add(20*time.Millisecond))
	}
}

// listen listens if the relay is not cut and the member is there; otherwise it
// returns nil.
func (r *relay) listen() net.Listener {
	server, err := net.Dial("tcp", r.upstream)
	if err != nil {
		return nil
	}
	server.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return nil
	}
	if r.listener, err = net.Listen("tcp", r.addr); err != nil {
		return nil
	}
	return r.listener
}

// accept takes connections until the listener is closed or the member is gone.
func (r *relay) accept(ctx context.Context, listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.upstream)
		if err != nil {
			r.memberGone()
			reset(client)
			return
		}
		go r.carry(ctx, client, server)
	}
}

// carry passes on what is sent on a connection, in both directions.
func (r *relay) carry(ctx context.Context, client, server net.Conn) {
	c := &connection{client: client, server: server}
	r.mu.Lock()
	r.conns[c] = true
	r.choose(c, toMember)
	r.choose(c, toReplica)
	r.mu.Unlock()
	ctx, end := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	var both sync.WaitGroup
	both.Go(func() {
		r.pump(ctx, c, toMember, server, client)
		wait(ctx, time.Now().Add(linger))
		server.Close()
	})
	both.Go(func() {
		r.pump(ctx, c, toReplica, client, server)
		client.Close()
	})
	both.Wait()
	end()
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
}

// pump passes on one direction, until its sender has hung up and everything is
// delivered.
func (r *relay) pump(ctx context.Context, c *connection, direction int, to, from net.Conn) {
	type packet struct {
		due   time.Time
		bytes []byte
	}
	taken := make(chan packet, 1024)
	go func() {
		defer close(taken)
		for {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			r.mu.Lock()
			due := time.Now().Add(r.delay)
			r.mu.Unlock()
			taken <- packet{due, buffer[:n]}
		}
	}()
	for p := range taken {
		for time.Now().Before(r.due(c, direction, p.due)) && ctx.Err() == nil {
			wait(ctx, r.due(c, direction, p.due))
		}
		to.Write(p.bytes) // an error is no reason to stop reading
	}
}

// due returns when a packet may be passed on: not before its connection is
// released.
func (r *relay) due(c *connection, direction int, due time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if held := c.heldUntil[direction]; held.After(due) {
		return held
	}
	return due
}

// wait waits until a time, or until ctx ends.
func wait(ctx context.Context, until time.Time) {
	select {
	case <-time.After(time.Until(until)):
	case <-ctx.Done():
	}
}

// reset hangs up at once, like a machine that has lost its memory.
func reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}
