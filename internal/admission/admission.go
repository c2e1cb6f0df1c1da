// Package admission decides which login may spend processor time on its
// password, and when.
//
// A password check is expensive on purpose. Checks use all cores while fewer than
// 20 other requests a second come, and otherwise all but one. Further logins wait,
// up to maxWait.
//
// A login has a class. It is known if its user logged in from its address within
// thirty days, and at most two wrong passwords for that user came from there
// since. It is a guesser's if its address, or a network around it, sent too many
// wrong passwords lately. Otherwise it is a stranger's.
//
// Each class has a queue. The best queue goes first, but every fourth turn goes a
// queue further down. In each queue the networks take turns, and so do the addresses
// within them (/24 and /32 of IPv4; /32, /48 and /64 of IPv6): next is the one that
// has used the least processor time. A new one starts at what each of the others
// could have used so far, so that nobody saves up turns; a stranger's starts later,
// by a turn for each wrong password that came from that address lately. At a
// guesser's address the three newest logins take turns.
//
// Guessers get half of the cores. While more than 1,000 other requests a second
// come, a place in which a guesser's password was wrong then rests for three times
// as long as its check took.
//
// After maxFailures wrong passwords in a row for one username from one address,
// that pair is refused for a second, and twice as long after each further one, up
// to a minute. A known pair waits instead, for up to five seconds; then chance
// decides between its owner and those who guess. Eight times as many are allowed
// for each wider network.
//
// What each attacker can do, on two cores with bcrypt at cost 10 (58 ms). At 12,
// four times fewer tries are made. 17/s is 4/s beside many other requests.
//
//	attacker                           tries                 what others notice
//	one address, one username          10, then 1 a minute   nothing
//	one address, many usernames        17/s                  nothing; first logins from there share the
//	                                                         17/s: beside 64 clients 1 in 40 gets 503,
//	                                                         beside 50 tries a second 2 in 3
//	a /24 or a /48; a /32 of IPv6      as one address after  the same, in that network
//	                                   80; after 640
//	many networks, many usernames      10 an address, then   first logins from elsewhere get 503 while
//	                                   17/s in all; or 9 in  1,000 addresses have their first try, for
//	                                   each 15 minutes       half a minute; then nothing
//	many networks, one username        the same              the same
//	a user's own address and username  15 a minute, and 10   of that user's logins from there 9 in 10
//	                                   after each login of   are served beside one guesser, 1 in 20
//	                                   that user             beside 64; others notice nothing
//	a user with an account             as many wrong as      networks take turns with it: 0.2 s; first
//	                                   right ones            logins from its own address wait 7 s
//
// A password that the caller remembers to be right needs no check and no turn: see
// Recall. What is compared with it counts as if it had been checked.
//
// Someone who guesses from a user's own address can tell from the delay that this
// user logged in from there. Nothing else tells which users exist.
//
// All that is kept is bounded, in 12 MB: logins that wait, by maxWaiting and by
// what can be checked within maxWait; counts of wrong passwords and known pairs.
// Only a check that was run is counted, and an account has at most 64 known pairs,
// so pushing out somebody's takes thousands of checks or accounts.
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

// maxWait is how long a login waits at most. The server allows 45 seconds for an
// answer.
const maxWait = 20 * time.Second

// Reason is why a login was refused.
type Reason int

const (
	Guessing Reason = iota // too many wrong passwords for this username from this network
	Busy                   // too many logins wait, or this one has waited too long
)

// Refused is the error of a login whose password was not looked at. RetryAfter
// is when it is worth another try, in whole seconds and at least one.
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

// Admission lets logins in. Make one with New.
type Admission struct {
	history history
	queue   queue
	pace    pace // of refusals
	delays  pace // of known pairs that are guessed at their address

	Counts
}

// New returns an Admission for the cores that Go may use. It refuses a username at
// an address after maxFailures wrong passwords in a row, or never if that is 0.
// now is its clock.
func New(maxFailures int, now func() time.Time) *Admission {
	a := &Admission{history: newHistory(maxFailures, now), pace: pace{now: now}}
	a.queue.cores = runtime.GOMAXPROCS(0)
	a.queue.now = now
	a.Waits = newHistogram(.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)
	a.Checks = newHistogram(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)
	return a
}

// Flag adds the flag -max-failures, which is read into maxFailures.
func Flag(flags *flag.FlagSet, maxFailures *int) {
	*maxFailures = 10
	flags.Func("max-failures", "wrong passwords in a row, for one username from one address, before it has to wait;\na `number`, 0 for no limit (default 10)", func(s string) (err error) {
		if *maxFailures, err = strconv.Atoi(s); err != nil || *maxFailures < 0 || *maxFailures > 1_000_000 {
			return errors.New("it must be a whole number from 0 to 1000000")
		}
		return nil
	})
}

// Try runs check when the login's turn has come, and returns what it says of
// the password. If the error is a *Refused, check was not run. A login whose ctx
// ends leaves the queue.
func (a *Admission) Try(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
	came := time.Now()
	right, err := a.try(ctx, visit{clientaddr.Networks(client), username}, func() bool {
		a.Waits.observe(time.Since(came))
		return check()
	})
	a.ended(ctx, right, err)
	return right, err
}

// ended counts how a login ended, and holds a refusal back.
func (a *Admission) ended(ctx context.Context, right bool, err error) {
	refused, _ := errors.AsType[*Refused](err)
	switch {
	case err != nil && context.Cause(ctx) == context.Canceled: // the client hung up, and was not refused by a server that stops
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
		a.pace.hold(ctx)
	}
}

// Recall is Try for a password that is compared with the right one, which the
// caller remembers for that address: right says whether they are the same. It
// takes no turn, as that costs nothing. The error is a *Refused while a password
// may not be compared, and the client must then learn nothing of right.
//
// A wrong one counts as one that was checked. A right one clears no count. Here
// the limit on wrong passwords is never more than 10, since no check slows them.
func (a *Admission) Recall(ctx context.Context, client netip.Addr, username string, right bool) error {
	v := visit{clientaddr.Networks(client), username}
	err := a.patiently(ctx, v, a.history.recalls(), func(context.Context) error { return a.history.recall(v, right) })
	if err != nil || !right {
		a.ended(ctx, right, err)
	}
	return err
}

// try is Try without the pace.
func (a *Admission) try(ctx context.Context, v visit, check func() bool) (right bool, err error) {
	err = a.patiently(ctx, v, a.history.max, func(ctx context.Context) (err error) {
		right, err = a.once(ctx, v, check)
		return err
	})
	return right, err
}

// patiently runs once. A known pair that is guessed at its own address, beyond the
// limit, is not refused while it may wait: until a moment that chance picks from the
// second after the next guess is due. So chance decides between the pair's owner
// and those who guess, and not who is the first to ask.
func (a *Admission) patiently(ctx context.Context, v visit, limit int, once func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	for {
		left, guessed := a.history.guessed(v, limit)
		room := true
		if wait := left + rand.N(time.Second); guessed && wait > 0 {
			room = a.delays.wait(ctx, wait)
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
	// Others that waited beside this one may have been wrong in the meantime.
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

// enter waits for a place. A login that became a guesser's meanwhile waits again.
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

// Notice is next, and lets the Admission know of the requests that are not
// logins: those to another path than logins.
func (a *Admission) Notice(next http.Handler, logins ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(logins, r.URL.Path) {
			a.queue.others.Add(1)
		}
		next.ServeHTTP(w, r)
	})
}

// Load returns how many checks are running, and how many logins wait for theirs.
func (a *Admission) Load() (running, waiting int) {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	return a.queue.running, a.queue.waiting()
}
