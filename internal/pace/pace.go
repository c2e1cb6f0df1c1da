// Package pace holds refusals back. A client that asks again as soon as it is
// refused takes as much of the machine as one that is served. So up to a hundred
// refusals a second are told at once, and each of the others after the second for
// which the client was told to wait.
package pace

import (
	"context"
	"sync"
	"time"
)

const (
	atOnce  = 100         // refusals a second
	maxHeld = 4096        // requests that may be held back
	holdFor = time.Second // a refused client is told to wait that long at least
)

// Pace counts the refusals, and the requests that are held back. Now is its
// clock; the zero value of the other fields is ready to use.
type Pace struct {
	Now func() time.Time

	mu    sync.Mutex
	since time.Time // when the second that is counted began
	told  int       // refusals since
	held  int
}

// Hold returns when a refusal may be told, or when ctx ends.
func (p *Pace) Hold(ctx context.Context) {
	p.mu.Lock()
	if now := p.Now(); now.Sub(p.since) >= time.Second {
		p.since, p.told = now, 0
	}
	p.told++
	soon := p.told <= atOnce
	p.mu.Unlock()
	if !soon {
		p.Wait(ctx, holdFor)
	}
}

// Wait returns after d, or when ctx ends. It returns false at once if too many
// requests are held back already.
func (p *Pace) Wait(ctx context.Context, d time.Duration) bool {
	p.mu.Lock()
	if p.held >= maxHeld {
		p.mu.Unlock()
		return false
	}
	p.held++
	p.mu.Unlock()

	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.held--
	p.mu.Unlock()
	return true
}
