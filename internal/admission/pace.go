package admission

import (
	"context"
	"sync"
	"time"
)

const (
	atOnce  = 100         // refusals a second that are told at once
	maxHeld = 4096        // refusals and delayed logins that may be held back
	holdFor = time.Second // what a refused client was told to wait at least
)

// pace holds refusals back. A client that asks again as soon as it is refused
// takes as much of the machine as one that is served; so of those beyond
// atOnce in a second each is told only after the second that it was to wait.
type pace struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time // when the second that is counted began
	told  int       // refusals since
	held  int
}

// hold returns when a refusal may be told.
func (p *pace) hold(ctx context.Context) {
	p.mu.Lock()
	if now := p.now(); now.Sub(p.since) >= time.Second {
		p.since, p.told = now, 0
	}
	p.told++
	soon := p.told <= atOnce
	p.mu.Unlock()
	if !soon {
		p.wait(ctx, holdFor)
	}
}

// wait returns after d, or when ctx ends. It returns false at once if too many
// wait already.
func (p *pace) wait(ctx context.Context, d time.Duration) bool {
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
