// Package admission decides which login may spend processor time on its
// password, and when.
//
// A password check is made to be expensive. So few run at a time that the rest
// of the service always has a core; the others wait, and a turn goes to the
// client address that has the fewest checks running and has waited longest for
// one. However many logins an address sends, they wait behind each other and
// never in front of another's. After a wrong password an address rests for some
// times as long as the check took, so that one that only guesses leaves most of
// the core to others. An IPv6 client counts by its /64, which is what one
// customer gets. A refusal is told at once, but where they come by the hundred
// only after a second: else asking again would be a flood of its own.
//
// Whoever guesses waits too: after some wrong passwords in a row for one
// username from one address, that pair is refused for a second, and for twice
// as long after each further one, up to a minute. Other addresses are not
// refused, so a guesser locks nobody out.
//
// What is kept is bounded, whatever is sent: maxWaiting logins that wait, with
// their addresses; the few addresses that rest, each of which cost a check;
// maxHeld refusals that are held back; and 2 × maxPairs counts of wrong
// passwords, which take 6.3 MB when they are full; the rest takes about one. Only
// a check that was run is counted, so that pushing out a count costs an attacker
// maxPairs checks.
package admission

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
)

// At cost 10 (58 ms) the last of a share has its turn within maxWait, though all
// before it rest.
const (
	share      = 16               // logins of one address that may wait
	maxWaiting = 256              // logins that may wait in all
	maxWait    = 10 * time.Second // of one login
	restFor    = 7                // times what a wrong password took, before the address's next turn
	maxPairs   = 1 << 15          // counts of wrong passwords that are surely kept
)

// Reason is why a login was refused.
type Reason int

const (
	Guessing    Reason = iota // too many wrong passwords for this username from this address
	AddressBusy               // too many logins of this address wait
	Busy                      // too many logins wait, or this one has waited too long
)

// Refused is the error of a login whose password was not looked at. RetryAfter
// is when it is worth another try, in whole seconds and at least one.
type Refused struct {
	Reason     Reason
	RetryAfter time.Duration
}

// Error is a sentence that a client may read.
func (r *Refused) Error() string {
	switch r.Reason {
	case Guessing:
		return "Too many wrong passwords for this username"
	case AddressBusy:
		return "Too many logins from this address are waiting"
	default:
		return "Too many logins are waiting"
	}
}

// Admission lets logins in. Make one with New.
type Admission struct {
	gate    gate
	guesses *guesses // nil if nobody is refused for guessing
	pace    pace
	refused atomic.Int64
}

// New is an Admission that runs as many checks at a time as there are cores,
// less one, and refuses a pair of username and address after maxFailures wrong
// passwords in a row, or never if that is 0. now is its clock.
func New(maxFailures int, now func() time.Time) *Admission {
	a := &Admission{gate: gate{free: max(1, runtime.GOMAXPROCS(0)-1), lines: make(map[netip.Addr]*line)}, pace: pace{now: now}}
	if maxFailures > 0 {
		a.guesses = newGuesses(maxFailures, now)
	}
	return a
}

// Try runs check when the client's turn has come, and returns what it says of
// the password. The error is a *Refused, and check was not run. A login whose
// ctx ends leaves the queue.
func (a *Admission) Try(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
	right, err := a.try(ctx, networkOf(client), username, check)
	if err != nil {
		a.refused.Add(1)
		a.pace.hold(ctx)
	}
	return right, err
}

func (a *Admission) try(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
	if err := a.guesses.refuse(client, username); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	if err := a.gate.enter(ctx, client); err != nil {
		return false, err
	}
	var rest time.Duration
	defer func() { a.gate.leave(client, rest) }()
	// What waited beside this one may have been wrong in the meantime.
	if err := a.guesses.refuse(client, username); err != nil {
		return false, err
	}
	began := time.Now()
	right := check()
	if !right {
		rest = restFor * time.Since(began)
	}
	a.guesses.count(client, username, right)
	return right, nil
}

// LogRefused tells the log every interval how many logins were refused, if any
// were, until ctx ends. A line for each would let a flood fill the disk.
func (a *Admission) LogRefused(ctx context.Context, log *slog.Logger, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if n := a.refused.Swap(0); n > 0 {
				log.Warn("logins refused", "count", n, "within", interval)
			}
		}
	}
}

// networkOf is what an address counts as.
func networkOf(client netip.Addr) netip.Addr {
	client = client.Unmap().WithZone("")
	if client.Is6() {
		prefix, _ := client.Prefix(64)
		return prefix.Addr()
	}
	return client
}
