package clientauth

import (
	"context"
	"net"
	"strings"
	"sync"
)

// connection remembers the right credentials that came over a connection, by name.
// A nil one remembers nothing.
type connection struct {
	mu    sync.Mutex
	right map[string]*right
}

type connectionKey struct{}

// ConnContext is for [http.Server]: what is right on a connection is remembered in
// its context, and forgotten with it.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(connection))
}

// knows says whether a guess is right. If another was right, somebody else uses the
// connection, too: then it remembers nothing for that name and hash any more, as
// each time that it did would allow another guess.
func (c *connection) knows(g *guess) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.right[g.name()]
	if known == nil || known.hash != string(g.hash) {
		return false
	}
	if g.is(known.secret) {
		return true
	}
	known.secret = mac{} // of nothing
	return false
}

// keep remembers what is right for a name.
func (c *connection) keep(name string, known right) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.right[name]; old != nil && old.hash == known.hash {
		return
	}
	if c.right == nil {
		c.right = make(map[string]*right)
	}
	c.right[strings.Clone(name)] = &known
}
