// Package background runs what a service does besides answering requests, and
// stops it when the service ends.
package background

import (
	"context"
	"sync"
	"time"
)

// A Group runs functions until Stop. Make one with New.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// New returns a Group whose functions have ctx's values but do not end with it:
// they continue while the last requests are answered.
func New(ctx context.Context) *Group {
	g := new(Group)
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return g
}

// Go runs f, which returns soon after its context ends.
func (g *Group) Go(f func(context.Context)) { g.wait.Go(func() { f(g.ctx) }) }

// Every runs f every interval, the first time after one interval.
func (g *Group) Every(interval time.Duration, f func()) {
	g.Go(func(ctx context.Context) { Every(ctx, interval, f) })
}

// Stop cancels the functions' context, and waits until they have returned.
func (g *Group) Stop() {
	g.cancel()
	g.wait.Wait()
}

// Every runs f every interval, the first time after one interval, until ctx ends.
func Every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}
