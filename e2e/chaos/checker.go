//go:build linux

package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// promise is what a user was promised, named by how it is broken.
type promise string

const (
	refused    promise = "a token is refused that is neither revoked nor over"
	woken      promise = "a revoked token works"
	outlived   promise = "a token works past its end"
	serverFail promise = "a replica fails inside"
	death      promise = "a replica died by itself"
	leak       promise = "a replica leaks goroutines"
	unexpected promise = "a replica logs what it never should"
	recovered  promise = "a replica does not get well by itself"
)

// promised is how long a revocation or an expiry may take to reach all replicas.
const promised = time.Second

// life is what the clients know about a token. The times are theirs: all they know
// about an event at the service is that it was between a request and its answer.
type life struct {
	given    time.Time // the login was answered
	endsFrom time.Time // the earliest end, by when the login was sent
	endsBy   time.Time // the latest, by when it was answered
	revoking time.Time // a revocation was sent; from then on the token may be refused
	revoked  time.Time // a revocation was confirmed
}

// born returns the life of a token from a login. The service counts whole seconds.
func born(sent, answered time.Time, ttl time.Duration) life {
	return life{given: answered, endsFrom: sent.Truncate(time.Second).Add(ttl), endsBy: answered.Truncate(time.Second).Add(ttl)}
}

// answer is what a replica said about a token.
type answer struct {
	alive       bool
	sent, came  time.Time
	runsSince   time.Time // of the replica, asked when the answer was there
	reachesEtcd bool      // so the replica said before and after
}

// judge says which promise an answer breaks, if any. late is how late this program
// itself has been recently: if three times that could explain why a revocation
// took more than its second, the machine is to blame, and the answer is left
// out.
func judge(l life, a answer, late time.Duration) (broken promise, leftOut bool) {
	switch {
	case a.alive && a.sent.After(l.endsBy.Add(promised)):
		return outlived, false
	case a.alive && !l.revoked.IsZero() && a.reachesEtcd:
		since := l.revoked
		if a.runsSince.After(since) {
			since = a.runsSince
		}
		if after := a.sent.Sub(since); after > promised+3*late {
			return woken, false
		} else if after > promised {
			return "", true
		}
	case !a.alive && l.revoking.IsZero() && a.sent.After(l.given) && a.came.Before(l.endsFrom):
		return refused, false
	}
	return "", false
}

// broken is a broken promise.
type broken struct {
	promise promise
	who     string // a process
	what    string
	at      time.Time
	times   int
}

// record is what is reported at the end. It is safe for concurrent use.
type record struct {
	began time.Time

	mu      sync.Mutex
	acts    []act // as they were begun
	kinds   map[kind]int
	failed  map[kind]int // acts that could not be done, for example without a leader
	answers map[string]map[int]int
	given   int
	revoked int
	checks  map[bool]int
	leftOut int
	slowest map[string]time.Duration
	broken  map[string]*broken
	notes   []string // about things that were not promised
}

func newRecord() *record {
	return &record{began: time.Now(), kinds: make(map[kind]int), failed: make(map[kind]int), answers: make(map[string]map[int]int), checks: make(map[bool]int),
		slowest: make(map[string]time.Duration), broken: make(map[string]*broken)}
}

// note writes under the lock.
func (r *record) note(write func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	write()
}

// answered counts an answer; status 0 means none.
func (r *record) answered(path string, status int) {
	r.note(func() {
		if r.answers[path] == nil {
			r.answers[path] = make(map[int]int)
		}
		r.answers[path][status]++
	})
}

// breaks records a broken promise, once for each thing that breaks it.
func (r *record) breaks(p promise, who, thing, what string) {
	r.note(func() {
		key := string(p) + who + thing
		if r.broken[key] == nil {
			r.broken[key] = &broken{promise: p, who: who, what: what, at: time.Now()}
			fmt.Printf("%7.1fs BROKEN: %s (%s): %s\n", time.Since(r.began).Seconds(), p, who, what)
		}
		r.broken[key].times++
	})
}

// inOrder returns the broken promises in the order in which they were broken.
func (r *record) inOrder() (all []*broken) {
	for _, b := range r.broken {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b *broken) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	return all
}

// lateness measures how late this program gets its turn.
type lateness struct {
	mu          sync.Mutex
	worst       time.Duration
	now, before time.Duration // the worst of this span, and of the one before
	spanBegan   time.Time
}

const span = 2 * time.Second

// measure measures for ever.
func (l *lateness) measure() {
	const step = 10 * time.Millisecond
	for {
		began := time.Now()
		time.Sleep(step)
		late := time.Since(began) - step
		l.mu.Lock()
		if time.Since(l.spanBegan) > span {
			l.before, l.now, l.spanBegan = l.now, 0, time.Now()
		}
		l.now, l.worst = max(l.now, late), max(l.worst, late)
		l.mu.Unlock()
	}
}

// lately returns the worst of the last two spans.
func (l *lateness) lately() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.now, l.before)
}

// expected are the errors that a replica may log while machines fail.
var expected = []string{"could not store a token in etcd", "could not revoke a token in etcd"}

// unexpectedLines returns the lines of a log that are errors other than the
// expected ones, or are not of the log's format, such as a stack trace.
func unexpectedLines(log string) (lines []string) {
	for line := range strings.Lines(log) {
		level := levelAndMessage.FindStringSubmatch(line)
		if level == nil || level[1] == "ERROR" && !slices.Contains(expected, strings.Trim(level[2], `"`)) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

var levelAndMessage = regexp.MustCompile(`^time=\S+ level=(\S+) msg=("(?:[^"\\]|\\.)*"|\S+)`)
