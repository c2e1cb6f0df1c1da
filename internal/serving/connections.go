package serving

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"simple-oauth2/internal/clientaddr"
)

// bounded is a listener with a limit on open connections. At the limit, a new
// connection closes one that is waiting for a request: first one that has been
// silent since it was opened, for a second or more, then one of a crowd, and of those
// one that had no request yet, then the one that has waited longest. If none is
// waiting, the new connection waits until another ends.
//
// An address is a crowd if it has more than an eighth of the connections. What is
// new of a crowd closes only connections of addresses that have as many. An
// address may have seven eighths of the connections. So an address whose
// connections are all busy does not keep others out, and many addresses with
// little to say do not close those of a proxy. A /48 of IPv6 counts as one
// address.
type bounded struct {
	net.Listener
	most int

	mu     sync.Mutex
	change *sync.Cond // signals changes of the fields below
	open   map[*conn]bool
	from   map[netip.Prefix]int // open connections of an address
	closed bool
}

// conn is a connection of a bounded listener.
type conn struct {
	net.Conn
	of     *bounded
	addr   netip.Prefix
	waits  atomic.Int64 // since when, in nanoseconds; 0 while it has a request
	served atomic.Bool  // it has had a request
}

// grace is for clients whose first request is under way.
const grace = time.Second

func newBounded(listener net.Listener, most int) *bounded {
	b := &bounded{Listener: listener, most: most, open: make(map[*conn]bool), from: make(map[netip.Prefix]int)}
	b.change = sync.NewCond(&b.mu)
	return b
}

// Accept returns the next connection, once there is room for it.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		accepted, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, err := b.admit(accepted); c != nil || err != nil {
			return c, err
		}
	}
}

// admit returns the connection once there is room for it, or nil if its address
// has its share already; then the connection is closed.
func (b *bounded) admit(accepted net.Conn) (net.Conn, error) {
	c := &conn{Conn: accepted, of: b}
	c.addr = addressOf(accepted)
	c.waits.Store(time.Now().UnixNano())
	b.mu.Lock()
	defer b.mu.Unlock()
	share := max(1, b.most-b.most/8)
	for (len(b.open) >= b.most || b.from[c.addr] >= share) && !b.closed {
		switch least := b.least(c); {
		case least != nil:
			b.drop(least)
			least.Conn.Close()
		case b.from[c.addr] >= share:
			accepted.Close()
			return nil, nil
		default:
			b.change.Wait()
		}
	}
	if b.closed {
		accepted.Close()
		return nil, net.ErrClosed
	}
	b.open[c] = true
	b.from[c.addr]++
	return c, nil
}

// addressOf returns the network that one customer can get: an IPv4 address, or a
// /48 of IPv6. For a connection that is not TCP's it is the zero Prefix.
func addressOf(c net.Conn) netip.Prefix {
	peer, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	networks := clientaddr.Networks(peer.Addr())
	return networks[1]
}

// Close also ends an Accept that is waiting for room.
func (b *bounded) Close() error {
	b.mu.Lock()
	b.closed = true
	b.change.Broadcast()
	b.mu.Unlock()
	return b.Listener.Close()
}

// least returns the connection to close for a new one, or nil. It looks at random
// ones until it has seen enough that may be closed, since there may be very many.
// As for drop and isCrowd, the caller must hold mu.
func (b *bounded) least(newest *conn) (least *conn) {
	const enough = 64
	seen, crowd, late := 0, b.isCrowd(newest.addr), time.Now().Add(-grace).UnixNano()
	for c := range b.open {
		if c.waits.Load() == 0 || crowd && b.from[c.addr] < b.from[newest.addr] {
			continue
		}
		if least == nil || c.before(least, late) {
			least = c
		}
		if seen++; seen == enough {
			break
		}
	}
	return least
}

func (b *bounded) isCrowd(addr netip.Prefix) bool { return b.from[addr] > b.most/8 }

// isSilent says whether a connection has had no request since a time.
func (c *conn) isSilent(since int64) bool { return !c.served.Load() && c.waits.Load() <= since }

func (c *conn) before(other *conn, late int64) bool {
	silent, crowd, served := c.isSilent(late), c.of.isCrowd(c.addr), c.served.Load()
	switch {
	case silent != other.isSilent(late):
		return silent
	case crowd != other.of.isCrowd(other.addr):
		return crowd
	case crowd && served != other.served.Load():
		return !served
	}
	return c.waits.Load() < other.waits.Load()
}

func (b *bounded) drop(c *conn) {
	if !b.open[c] {
		return
	}
	delete(b.open, c)
	if b.from[c.addr]--; b.from[c.addr] == 0 {
		delete(b.from, c.addr)
	}
	b.change.Broadcast()
}

// Close makes room for another connection.
func (c *conn) Close() error {
	c.of.mu.Lock()
	c.of.drop(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite says that no more will be sent. Without it net/http can only close a
// connection on which something unread has arrived, and then the system may drop
// the answer.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// state is called by net/http when a connection gets a request, and when it has
// answered it.
func state(nc net.Conn, state http.ConnState) {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	c, ok := nc.(*conn)
	switch {
	case !ok:
	case state == http.StateActive:
		c.served.Store(true)
		c.waits.Store(0)
	case state == http.StateIdle:
		c.waits.Store(time.Now().UnixNano())
	}
}

// bound returns how many connections may be open with this many file descriptors.
// The rest is for what the service itself opens: its files, and etcd.
func bound(descriptors uint64) int {
	descriptors = min(descriptors, 1<<30)
	return int(descriptors - min(max(descriptors/4, 32), 1024, descriptors-1))
}
