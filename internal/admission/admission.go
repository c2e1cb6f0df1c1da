// Package admission decides which login may check its password, and when.
//
//  1. A check is expensive on purpose, so only as many run as there are cores, and
//     one fewer while 20 or more other requests a second come.
//  2. Further logins wait, up to 20 seconds and no more of them than can be checked
//     in that time; the rest are refused.
//  3. A login is known if its user logged in from its address within thirty days,
//     and at most two wrong passwords for that user came from there since.
//  4. It is a guesser's if ten wrong passwords came from its address within a
//     quarter of an hour, or eight times as many from each wider network, where a
//     right one makes up for a wrong one; otherwise it is a stranger's.
//  5. Each of the three has a queue: the best goes first, but every fourth turn goes
//     a queue further down.
//  6. In each queue the networks take turns, and so do the addresses within them
//     (/24 and /32 of IPv4; /32, /48 and /64 of IPv6): next is the one that has used
//     the least processor time, and strangers go back a turn for each wrong password
//     that came from their address lately.
//  7. Guessers get half of the cores, and at an address of theirs the three newest
//     logins take turns.
//  8. While 1,000 or more other requests a second come, a guesser's place rests after
//     a wrong password, for three times as long as the check took.
//  9. After maxFailures wrong passwords in a row for one username from one address,
//     or eight times as many from each wider network, that pair is refused for a
//     second, and twice as long after each further one, up to a minute.
//  10. A known pair waits instead, for up to five seconds, and then chance decides
//     between its owner and those who guess.
//
// The guide says under "Under attack" what each attacker can do, and what others
// notice of it.
//
// A password that the caller remembers to be right needs no check and no turn: see
// Recall.
//
// All that is kept is bounded, in 12 MB beside the logins that wait: counts of wrong
// passwords, and known pairs. Only a check that was run is counted, and an account
// has at most 64 known pairs, so pushing out somebody else's takes thousands of
// checks or accounts.
//
// On a single core there is no core to leave to others: there, the Go scheduler
// interrupts a check every 10 ms and lets other requests run.
package admission

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"simple-oauth2/internal/clientaddr"
)

// maxWait is how long a login may wait. The server allows 45 seconds for an answer.
const maxWait = 20 * time.Second

// Reason is why a login was refused.
type Reason int

const (
	Guessing Reason = iota // too many wrong passwords for this username from this address or network
	Busy                   // too many logins wait, or this one has waited too long
)

// Refused is the error of a login whose password was not checked. RetryAfter is when
// to try again, in whole seconds and at least one.
type Refused struct {
	Reason     Reason
	RetryAfter time.Duration
}

// Error is a sentence that a client may read.
func (r *Refused) Error() string {
	if r.Reason == Guessing {
		return "Too many wrong passwords for this username"
	}
	return "Too many logins are waiting"
}

// Admission gives logins their turn. Make one with New.
type Admission struct {
	history  history
	queue    queue
	refusals pace
	guessed  pace // known pairs that wait because their password is guessed

	Counts
}

// New returns an Admission for the cores that Go may use, with now as its clock. It
// refuses a username at an address after maxFailures wrong passwords in a row; 0 is
// no limit.
func New(maxFailures int, now func() time.Time) *Admission {
	a := &Admission{history: newHistory(maxFailures, now), refusals: pace{now: now}}
	a.queue.cores = runtime.GOMAXPROCS(0)
	a.queue.now = now
	a.Waits = newHistogram(.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)
	a.Checks = newHistogram(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)
	return a
}

// Flag adds the flag -max-failures, which is read into maxFailures.
func Flag(flags *flag.FlagSet, maxFailures *int) {
	*maxFailures = 10
	const usage = "wrong passwords in a row, for one username from one address, before further tries are delayed;\n" +
		"a `number`, 0 for no limit (default 10)"
	flags.Func("max-failures", usage, func(s string) (err error) {
		if *maxFailures, err = strconv.Atoi(s); err != nil || *maxFailures < 0 || *maxFailures > 1_000_000 {
			return errors.New("it must be a whole number from 0 to 1000000")
		}
		return nil
	})
}

// Try runs check when the login's turn has come, and returns its result: whether the
// password is right. If the error is a *Refused, check was not run. A login whose
// ctx ends leaves the queue.
func (a *Admission) Try(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
	came := time.Now()
	right, err := a.try(ctx, visit{clientaddr.Networks(client), username}, func() bool {
		a.Waits.observe(time.Since(came))
		return check()
	})
	a.ended(ctx, right, err)
	return right, err
}

// ended counts how a login ended, and delays a refusal if there are many.
func (a *Admission) ended(ctx context.Context, right bool, err error) {
	refused, _ := errors.AsType[*Refused](err)
	switch {
	case err != nil && context.Cause(ctx) == context.Canceled: // the client hung up; a stop has another cause
		a.Gone.Add(1)
	case refused != nil && refused.Reason == Guessing:
		a.Guessing.Add(1)
	case err != nil:
		a.Busy.Add(1)
	case right:
		a.Right.Add(1)
	default:
		a.Wrong.Add(1)
	}
	if err != nil {
		a.refusals.hold(ctx)
	}
}

// Recall is Try for a password that the caller has compared with the right one,
// which it remembers for that address: right says whether they are the same. It
// takes no turn, since comparing costs nothing. If the error is a *Refused, the
// client must not learn right.
//
// A wrong password counts as one that was checked. A right one clears no count, but
// keeps its pair known. The limit on wrong passwords is at most 10 here, since no
// check slows them down.
func (a *Admission) Recall(ctx context.Context, client netip.Addr, username string, right bool) error {
	v := visit{clientaddr.Networks(client), username}
	err := a.patiently(ctx, v, a.history.recalls(), func(context.Context) error { return a.history.recall(v, right) })
	if err != nil || !right {
		a.ended(ctx, right, err)
	}
	return err
}

// try is Try without the counts.
func (a *Admission) try(ctx context.Context, v visit, check func() bool) (right bool, err error) {
	err = a.patiently(ctx, v, a.history.max, func(ctx context.Context) (err error) {
		right, err = a.once(ctx, v, check)
		return err
	})
	return right, err
}

// patiently runs once. A known pair beyond the limit is not refused: it waits until
// a random moment in the second after its next try is allowed. So chance decides
// between the user and those who guess, and not who asks first
// (TestKnownPairIsGuessed).
func (a *Admission) patiently(ctx context.Context, v visit, limit int, once func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	for {
		left, guessed := a.history.guessed(v, limit)
		room := true
		if wait := left + rand.N(time.Second); guessed && wait > 0 {
			room = a.guessed.wait(ctx, wait)
		}
		if guessed && ctx.Err() != nil {
			return refusal(max(left, 1))
		}
		err := once(ctx)
		refused, ok := errors.AsType[*Refused](err)
		if !ok || refused.Reason != Guessing || !room || !a.history.knows(v) {
			return err
		}
	}
}

// once is try for a pair that has waited as long as it must.
func (a *Admission) once(ctx context.Context, v visit, check func() bool) (bool, error) {
	if err := a.history.refuse(v); err != nil {
		return false, err
	}
	l, err := a.enter(ctx, v)
	if err != nil {
		return false, err
	}
	var took time.Duration
	right := false
	defer func() { a.queue.leave(l, took, right) }()
	// Others that waited beside this one may have been wrong meanwhile: TestGuessesSideBySide.
	if err := a.history.refuse(v); err != nil {
		return false, err
	}
	began := time.Now()
	right = check()
	took = time.Since(began)
	a.Checks.observe(took)
	a.history.count(v, right)
	return right, nil
}

// enter waits for a place. A login that became a guesser's meanwhile waits again, or
// a burst would be served as if it came from strangers: TestNeighbours, 64 spin at
// her address.
func (a *Admission) enter(ctx context.Context, v visit) (*login, error) {
	for {
		c, wrong := a.history.class(v)
		l, err := a.queue.enter(ctx, v, c, wrong)
		if now, _ := a.history.class(v); err != nil || now <= c {
			return l, err
		}
		a.queue.leave(l, 0, true)
	}
}

// Notice returns next as a handler that counts the requests that are not logins:
// those to another path than logins.
func (a *Admission) Notice(next http.Handler, logins ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(logins, r.URL.Path) {
			a.queue.others.Add(1)
		}
		next.ServeHTTP(w, r)
	})
}

// Load returns how many checks run, and how many logins wait for theirs.
func (a *Admission) Load() (running, waiting int) {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	return a.queue.running, a.queue.waiting()
}
