package admission

import (
	"context"
	"sync"
	"time"
)

const (
	atOnce  = 100         // refusals a second
	maxHeld = 4096        // requests that may be delayed
	holdFor = time.Second // the shortest Retry-After
)

// pace delays refusals. A client that asks again as soon as it is refused costs as
// much as one that is served, so the first 100 refusals a second are sent at once
// and the rest are delayed. now is its clock; the zero value of the other fields is
// ready to use.
type pace struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time // when the second that is counted began
	sent  int       // refusals since
	held  int
}

// hold returns when a refusal may be sent, or when ctx ends.
func (p *pace) hold(ctx context.Context) {
	p.mu.Lock()
	if now := p.now(); now.Sub(p.since) >= time.Second {
		p.since, p.sent = now, 0
	}
	p.sent++
	soon := p.sent <= atOnce
	p.mu.Unlock()
	if !soon {
		p.wait(ctx, holdFor)
	}
}

// wait returns after d, or when ctx ends. It returns false at once if too many
// requests are delayed already.
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
