// Package admission decides which login may spend processor time on its
// password, and when.
//
// A password check is made to be expensive. Checks use all cores while nothing
// but logins is asked for, and all but one while other requests come. The
// logins beyond that wait, up to maxWait.
//
// A login has a class. It is known if its user logged in from its address within
// thirty days, and at most two wrong passwords for that user came from there
// since. It is a guesser's if its address, or a network around that, sent too many
// wrong passwords lately. Otherwise it is a stranger's.
//
// Waiting logins are the leaves of a tree: the classes, then the networks (/24 and
// /32 of IPv4; /48, /56 and /64 of IPv6). The next turn is found from the root: at
// each step the branch goes first that has used the least processor time. A branch
// that was empty starts level with the others; a stranger's starts later by a turn
// for each wrong password that came from there lately. A stranger's time counts
// three times and a guesser's twenty-four times, so that known logins come first
// and no class starves. At a guesser's address the three newest logins take turns: a guesser sends its
// next as soon as one is answered, so somebody else's stays among them.
//
// Guessers get half of the cores. While other requests come, a place in which a
// guesser's password was wrong rests for three times as long as its check took.
//
// After maxFailures wrong passwords in a row for one username from one address,
// that pair is refused for a second, and twice as long after each further one,
// up to a minute. A known pair waits instead, for up to five seconds; then chance
// decides between its owner and those who guess. Four times as many are allowed
// for each wider network. Strangers to a username that is guessed from many
// addresses wait before their turn, up to eight seconds.
//
// What each attacker can do, on two cores with bcrypt at cost 10 (58 ms):
//
//	attacker                             tries               what others notice
//	one address, one username            10, then 1 a minute nothing
//	one address, many usernames          4/s beside other    nothing; if they are more than 4/s, one
//	                                     requests, else 17/s in five first logins from there gets 503
//	a /24 or a /48                       as one address      the same, in that network
//	                                     after 40 or 160
//	many networks, many usernames        10 an address, then a first login from elsewhere waits while
//	                                     4/s in all          they have their first try; then nothing
//	many networks, one username          the same, and each  a first login of that user from
//	                                     waits up to 8 s     elsewhere takes up to 8 s longer
//	a user's own address (behind NAT)    15 a minute for     that user shares these tries with the
//	                                     that user           attacker, and waits; others notice nothing
//	a user with an account               as many wrong as    other networks take turns with it, its own
//	                                     right ones          waits; one core is left to other requests
//
// Someone who guesses from a user's own address can tell from the delay that this
// user logged in from there. Nothing else tells which users exist.
//
// All that is kept is bounded: logins that wait, by maxWaiting and by what can
// be checked within maxWait; refusals that are held back, by maxHeld; counts of
// wrong passwords, by 2 × maxCounts; known pairs, by 2 × maxKnown. That takes
// 12 MB when it is full. Only a check that was run is counted, so that pushing
// out a count costs an attacker thousands of checks, and pushing out a known
// pair takes right passwords.
//
// On a single core there is no core to leave to others: there, the Go scheduler
// interrupts a check every 10 ms, and lets other requests run.
package admission

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
)

// maxWait is how long a login waits at most. The server gives up on an answer
// after thirty seconds.
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
	delays  pace // of logins that wait before their turn
	refused atomic.Int64
}

// New is an Admission for the cores that Go may use. It refuses a username at an
// address after maxFailures wrong passwords in a row, or never if that is 0. now
// is its clock.
func New(maxFailures int, now func() time.Time) *Admission {
	a := &Admission{history: newHistory(maxFailures, now), pace: pace{now: now}}
	a.queue.cores = runtime.GOMAXPROCS(0)
	a.queue.now = now
	return a
}

// Try runs check when the login's turn has come, and returns what it says of
// the password. The error is a *Refused, and check was not run. A login whose
// ctx ends leaves the queue.
func (a *Admission) Try(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
	right, err := a.try(ctx, visit{networksOf(client), username}, check)
	if err != nil {
		a.refused.Add(1)
		a.pace.hold(ctx)
	}
	return right, err
}

// try is Try, told at once. A known pair that is guessed at its own address is
// not refused while it may wait: each time that a guess is due, chance decides
// between its owner and those who guess.
func (a *Admission) try(ctx context.Context, v visit, check func() bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	for {
		right, err := a.once(ctx, v, check)
		refused, ok := err.(*Refused)
		if !ok || refused.Reason != Guessing || !a.history.knows(v) ||
			!a.delays.wait(ctx, refused.RetryAfter+rand.N(time.Second)) || ctx.Err() != nil {
			return right, err
		}
	}
}

func (a *Admission) once(ctx context.Context, v visit, check func() bool) (bool, error) {
	if err := a.history.refuse(v); err != nil {
		return false, err
	}
	if delay := a.history.delay(v); delay > 0 {
		a.delays.wait(ctx, delay)
	}
	l, err := a.enter(ctx, v)
	if err != nil {
		return false, err
	}
	var took time.Duration
	right := false
	defer func() { a.queue.leave(l, took, right) }()
	// What waited beside this one may have been wrong in the meantime.
	if err := a.history.refuse(v); err != nil {
		return false, err
	}
	began := time.Now()
	right = check()
	took = time.Since(began)
	a.history.count(v, right)
	return right, nil
}

// enter waits for a place. Who has become a guesser meanwhile waits once more.
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

// Notice is next, and lets the Admission know of the requests that are no
// logins, those of another path than login.
func (a *Admission) Notice(login string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != login {
			a.queue.others.Add(1)
		}
		next.ServeHTTP(w, r)
	})
}

// Load is how many checks run, and how many logins wait for theirs.
func (a *Admission) Load() (running, waiting int) {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	return a.queue.running, a.queue.waiting
}

// LogRefused tells the log how many logins were refused since it did so last, if
// any were. A line for each would let a flood fill the disk.
func (a *Admission) LogRefused(log *slog.Logger) {
	if n := a.refused.Swap(0); n > 0 {
		log.Warn("logins refused", "count", n)
	}
}

// networksOf are the networks that an address counts for, the widest first. The
// last is what one customer gets: an IPv4 address, or a /64 of IPv6.
func networksOf(client netip.Addr) (networks []netip.Prefix) {
	client = client.Unmap().WithZone("")
	sizes := []int{24, 32}
	if client.Is6() {
		sizes = []int{48, 56, 64}
	}
	for _, bits := range sizes {
		network, _ := client.Prefix(bits)
		networks = append(networks, network)
	}
	return networks
}
