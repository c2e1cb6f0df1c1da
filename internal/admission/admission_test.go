package admission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/clientaddr"
)

func right() bool  { return true }
func wrongs() bool { return false }

// What the guide says.
const (
	days30  = 30 * 24 * time.Hour
	quarter = 15 * time.Minute
)

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// oneAtATime is an Admission on a machine of one core.
func oneAtATime(maxFailures int) *Admission {
	a := New(maxFailures, time.Now)
	a.queue.cores = 1
	return a
}

// logins are many that come one after the other and are let go one by one.
type logins struct {
	a       *Admission
	next    chan struct{}
	mu      sync.Mutex
	started []string
	refused map[string]*Refused
}

func newLogins(a *Admission) *logins {
	return &logins{a: a, next: make(chan struct{}), refused: make(map[string]*Refused)}
}

// come is a login that stays in its check until next; it returns when the login
// waits, runs or is refused.
func (l *logins) come(ctx context.Context, name, client string) {
	go func() {
		_, err := l.a.try(ctx, visit{clientaddr.Networks(netip.MustParseAddr(client)), name}, func() bool {
			l.mu.Lock()
			l.started = append(l.started, name)
			l.mu.Unlock()
			<-l.next
			return true
		})
		if refused := (*Refused)(nil); errors.As(err, &refused) {
			l.mu.Lock()
			l.refused[name] = refused
			l.mu.Unlock()
		}
	}()
	synctest.Wait()
}

// crowd is n logins from as many addresses as given, u0 and so on.
func (l *logins) crowd(n, addresses int) {
	for i := range n {
		l.come(context.Background(), fmt.Sprint("u", i), address(i%addresses<<8).String())
	}
}

// finish ends the running check after a tenth of a second, so that the next begins.
func (l *logins) finish() {
	time.Sleep(time.Second / 10)
	l.next <- struct{}{}
	synctest.Wait()
}

// finishAll ends what runs and waits, and checks that the queue is empty then.
func (l *logins) finishAll(t *testing.T) {
	for running, _ := l.a.Load(); running > 0; running, _ = l.a.Load() {
		l.finish()
	}
	l.a.queue.wantEmpty(t)
}

// wantEmpty checks that nobody waits or runs.
func (q *queue) wantEmpty(t *testing.T) {
	t.Helper()
	networks := 0
	for _, c := range q.classes {
		networks += len(c.inside)
	}
	if q.waiting() != 0 || q.running != 0 || q.guessing != 0 || networks != 0 {
		t.Errorf("the queue is left with %d waiting, %d running, %d guessing, %d networks",
			q.waiting(), q.running, q.guessing, networks)
	}
}

// TestTurns lets logins come, name@client in this order, while the first is checked.
func TestTurns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		known  string // where k logged in before
		wrong  string // where wrong passwords for k came from since, as many as n
		n      int
		come   string
		starts string
	}{
		{name: "one address, in order", come: "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1", starts: "a1 a2 a3"},
		{
			name: "another goes before what waits", come: "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1 b1@2.2.2.2",
			starts: "a1 b1 a2 a3",
		},
		{
			name: "two by turns", come: "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1 b1@2.2.2.2 b2@2.2.2.2 b3@2.2.2.2",
			starts: "a1 b1 a2 b2 a3 b3",
		},
		{
			name: "three by turns", come: "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1 b1@2.2.2.2 b2@2.2.2.2 c1@3.3.3.3",
			starts: "a1 b1 c1 a2 b2 a3",
		},
		{
			name: "a /64 is one", come: "a1@2001:db8::1 a2@2001:db8::2 a3@2001:db8::3 b1@2001:db8:0:1::1",
			starts: "a1 b1 a2 a3",
		},
		{
			name: "a /48 is one beside another", starts: "a1 b1 a2 a3",
			come: "a1@2001:db8::1 a2@2001:db8:0:100::1 a3@2001:db8:0:200::1 b1@2001:db8:1::1",
		},
		{
			name: "a /32 is one beside another", starts: "a1 b1 a2 a3",
			come: "a1@2001:db8::1 a2@2001:db8:1::1 a3@2001:db8:2::1 b1@2001:db9::1",
		},
		{
			name: "a /24 is one beside another", come: "a1@1.1.1.1 a2@1.1.1.2 a3@1.1.1.3 b1@1.1.2.1",
			starts: "a1 b1 a2 a3",
		},
		{
			name: "addresses of a /24 by turns", come: "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1 b1@1.1.1.2",
			starts: "a1 b1 a2 a3",
		},
		{
			name: "IPv4 in IPv6 is IPv4", come: "a1@1.1.1.1 a2@1.1.1.1 a3@::ffff:1.1.1.1 b1@::ffff:2.2.2.2",
			starts: "a1 b1 a2 a3",
		},
		{
			name: "known before strangers", known: "9.9.9.9",
			come: "a1@1.1.1.1 b1@2.2.2.2 c1@3.3.3.3 k@9.9.9.9", starts: "a1 k b1 c1",
		},
		{
			name: "known before strangers of the same address", known: "1.1.1.1",
			come: "a1@1.1.1.1 a2@1.1.1.1 k@1.1.1.1", starts: "a1 k a2",
		},
		{
			name: "a stranger after three known", known: "9.9.9.9",
			come: "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1" + strings.Repeat(" k@9.9.9.9", 9), starts: "a1 k k k a2 k k k a3 k k k",
		},
		{
			name: "known elsewhere is a stranger", known: "9.9.9.9",
			come: "a1@1.1.1.1 b1@2.2.2.2 k@9.9.9.8", starts: "a1 b1 k",
		},
		{
			name: "known, and two wrong passwords", known: "9.9.9.9", wrong: "9.9.9.9", n: 2,
			come: "a1@1.1.1.1 b1@2.2.2.2 k@9.9.9.9", starts: "a1 k b1",
		},
		{
			name: "no longer known after three wrong passwords", known: "9.9.9.9", wrong: "9.9.9.9", n: 3,
			come: "a1@1.1.1.1 b1@2.2.2.2 k@9.9.9.9", starts: "a1 b1 k",
		},
		{
			name: "strangers without a wrong password before others", wrong: "1.1.1.1", n: 1,
			come: "a1@1.1.1.1 a2@1.1.1.1 b1@2.2.2.2 b2@2.2.2.2", starts: "a1 b1 b2 a2",
		},
		{
			name: "a wrong password in the /24 is another's", wrong: "1.1.1.1", n: 1,
			come: "a1@1.1.1.2 a2@1.1.1.2 b1@2.2.2.2 b2@2.2.2.2", starts: "a1 b1 a2 b2",
		},
		{
			name: "of guessers the three newest by turns", wrong: "1.1.1.1", n: guesserAfter,
			come:   "a1@1.1.1.1 a2@1.1.1.1 a3@1.1.1.1 a4@1.1.1.1 a5@1.1.1.1 a6@1.1.1.1",
			starts: "a1 a4 a6 a3 a2 a5",
		},
		{
			name: "a guesser after three strangers", wrong: "1.1.1.1", n: guesserAfter,
			come:   "g@1.1.1.1 g@1.1.1.1 g@1.1.1.1" + strings.Repeat(" s@2.2.2.2", 9),
			starts: "g s s s g s s s g s s s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogins(oneAtATime(0))
				l.a.queue.took = time.Second / 10
				at := func(client string) visit { return visit{clientaddr.Networks(netip.MustParseAddr(client)), "k"} }
				if tt.known != "" {
					l.a.history.count(at(tt.known), true)
				}
				for range tt.n {
					l.a.history.count(at(tt.wrong), false)
				}
				for _, login := range strings.Fields(tt.come) {
					name, client, _ := strings.Cut(login, "@")
					l.come(t.Context(), name, client)
				}
				l.finishAll(t)
				if got := strings.Join(l.started, " "); got != tt.starts {
					t.Errorf("started %s, want %s", got, tt.starts)
				}
			})
		})
	}
}

// TestLater lets a network come while another has had turns for a while: it has built
// up no credit. A network that waits does not wait for ever newer ones.
func TestLater(t *testing.T) {
	t.Run("no credit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLogins(oneAtATime(0))
			for i := range 14 {
				l.come(t.Context(), fmt.Sprint("a", i), "1.1.1.1")
			}
			for range 10 {
				l.finish()
			}
			for i := range 4 {
				l.come(t.Context(), fmt.Sprint("b", i), "2.2.2.2")
			}
			l.finishAll(t)
			if got := strings.Join(l.started[11:], " "); got != "b0 a11 b1 a12 b2 a13 b3" {
				t.Errorf("then started %s", got)
			}
		})
	})
	t.Run("newcomers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLogins(oneAtATime(0))
			l.come(t.Context(), "a0", "1.1.1.1")
			l.come(t.Context(), "a1", "1.1.1.1")
			for i := range 10 {
				l.come(t.Context(), "new", address(i<<8).String())
				l.finish()
			}
			if turn := slices.Index(l.started, "a1"); turn < 0 || turn > 5 {
				t.Errorf("started %s", l.started)
			}
			l.finishAll(t)
		})
	})
}

// TestPlaces counts the checks that run side by side.
func TestPlaces(t *testing.T) {
	guesser := netip.MustParseAddr("1.1.1.1")
	for _, tt := range []struct {
		name   string
		cores  int
		others bool // other requests come
		client netip.Addr
		want   int
	}{
		{"all cores", 4, false, address(1), 4},
		{"one is left to other requests", 4, true, address(1), 3},
		{"one core", 1, false, address(1), 1},
		{"one core and other requests", 1, true, address(1), 1},
		{"half for guessers", 4, false, guesser, 2},
		{"half for guessers beside other requests", 4, true, guesser, 2},
		{"a guesser on one core", 1, false, guesser, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogins(New(0, time.Now))
				l.a.queue.cores = tt.cores
				for range guesserAfter {
					l.a.history.count(visit{clientaddr.Networks(guesser), "other"}, false)
				}
				handler := l.a.Notice(http.NotFoundHandler(), "/token")
				stop := make(chan struct{})
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Second / someOthers / 2):
							path := "/token"
							if tt.others {
								path = "/users/me"
							}
							handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", path, nil))
						}
					}
				}()
				l.a.queue.othersRate()
				time.Sleep(time.Second)
				for range 6 {
					l.come(t.Context(), "u", tt.client.String())
				}
				if running, _ := l.a.Load(); running != tt.want {
					t.Errorf("%d checks run, want %d", running, tt.want)
				}
				close(stop)
				if tt.others { // and they end: from the next check on, all cores are used
					time.Sleep(3 * sampleEvery)
					l.finish()
					if running, _ := l.a.Load(); tt.client != guesser && running != tt.cores {
						t.Errorf("then %d checks run, want %d", running, tt.cores)
					}
				}
				l.finishAll(t)
			})
		})
	}
}

// TestOthers leaves a core to other requests if 20 of them come in a second.
func TestOthers(t *testing.T) {
	for _, tt := range []struct {
		others int64
		want   int
	}{{others: 0, want: 4}, {others: 19, want: 4}, {others: 20, want: 3}, {others: 1000, want: 3}} {
		synctest.Test(t, func(t *testing.T) {
			q := &queue{cores: 4, now: time.Now, seenAt: time.Now()}
			q.others.Add(tt.others)
			time.Sleep(time.Second)
			if got := q.places(); got != tt.want {
				t.Errorf("%d others: %d checks may run, want %d", tt.others, got, tt.want)
			}
		})
	}
}

// TestRest lets a guesser's password be wrong: its place rests, and nobody
// else's.
func TestRest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		others int64 // requests in 10 ms
		waits  int
		took   time.Duration
		right  bool
		want   time.Duration // from the end of the first check to the start of the next
	}{
		{"three times the check's time", 100, 1, 58 * time.Millisecond, false, 3 * 58 * time.Millisecond},
		{"not longer if many wait", 100, 64, 58 * time.Millisecond, false, 3 * 58 * time.Millisecond},
		{"at cost 16", 100, 1, 3700 * time.Millisecond, false, 3 * 3700 * time.Millisecond},
		{"not if nothing else comes", 0, 64, 58 * time.Millisecond, false, 0},
		{"at 1,300 other requests a second", 13, 1, 58 * time.Millisecond, false, 3 * 58 * time.Millisecond},
		{"not at 800", 8, 64, 58 * time.Millisecond, false, 0},
		{"not after a right one", 100, 64, 58 * time.Millisecond, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := New(0, time.Now)
				a.queue.cores = 2
				for range 2 * guesserAfter {
					a.history.count(visit{clientaddr.Networks(address(1)), "other"}, false)
				}
				ctx, hangUp := context.WithCancel(t.Context())
				go func() {
					for ctx.Err() == nil {
						a.queue.others.Add(tt.others)
						time.Sleep(10 * time.Millisecond)
					}
				}()
				a.queue.othersRate()
				time.Sleep(time.Second)
				began := time.Now()
				starts := make(chan time.Duration, 1+tt.waits)
				for i := range 1 + tt.waits {
					go a.Try(ctx, address(1), strconv.Itoa(i), func() bool {
						starts <- time.Since(began)
						time.Sleep(tt.took)
						return tt.right
					})
				}
				synctest.Wait()
				<-starts
				time.Sleep(tt.took) // the first is over
				synctest.Wait()
				if tt.want > 0 {
					free := false
					a.Try(t.Context(), address(2), "u", func() bool { free = true; return true })
					if !free || len(starts) != 0 {
						t.Error("somebody else waits too")
					}
				}
				if got := <-starts - tt.took; got != tt.want {
					t.Errorf("the next starts after %v, want %v", got, tt.want)
				}
				hangUp()
				time.Sleep(time.Minute)
				synctest.Wait()
				a.queue.wantEmpty(t)
			})
		})
	}
}

// TestRoom sends more logins than can be checked in time, or than are kept.
func TestRoom(t *testing.T) {
	for _, tt := range []struct {
		name string
		took time.Duration // a check, on average; 0: not known yet
		come func(l *logins)
		want int    // that wait
		gone string // one that is refused; "": nobody is
	}{
		{"as many as are kept", 0, func(l *logins) { l.crowd(maxWaiting, 1) }, maxWaiting, ""},
		{"one more", 0, func(l *logins) { l.crowd(maxWaiting+1, 1) }, maxWaiting, fmt.Sprint("u", maxWaiting)},
		{"as many as can be checked", 100 * time.Millisecond, func(l *logins) { l.crowd(200, 1) }, 200, ""},
		{"one more", 100 * time.Millisecond, func(l *logins) { l.crowd(201, 1) }, 200, "u200"},
		{"from many addresses", 100 * time.Millisecond, func(l *logins) { l.crowd(201, 201) }, 200, "u200"},
		{"the last of the address that has most", 100 * time.Millisecond, func(l *logins) {
			l.crowd(200, 1)
			l.come(context.Background(), "other", "2.2.2.2")
		}, 200, "u199"},
		{"a stranger goes before a known", 100 * time.Millisecond, func(l *logins) {
			for i := range 200 {
				l.a.history.count(visit{clientaddr.Networks(address(0)), fmt.Sprint("u", i)}, true)
			}
			l.crowd(200, 1)
			l.come(context.Background(), "other", "2.2.2.2")
		}, 200, "other"},
		{"the oldest of a guesser", 100 * time.Millisecond, func(l *logins) {
			for range guesserAfter {
				l.a.history.count(visit{clientaddr.Networks(address(0)), "other"}, false)
			}
			l.crowd(201, 1)
		}, 200, "u0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogins(oneAtATime(0))
				l.come(t.Context(), "runs", "9.9.9.9")
				l.a.queue.took = tt.took
				tt.come(l)
				_, refused := l.refused[tt.gone]
				if l.a.queue.waiting() != tt.want || refused != (tt.gone != "") || len(l.refused) > 1 {
					t.Errorf("%d wait and %v are refused, want %d and %q", l.a.queue.waiting(), l.refused, tt.want, tt.gone)
				}
				for name, err := range l.refused {
					wait := max(time.Second, time.Duration(tt.want)*tt.took)
					if *err != (Refused{Busy, wait}) {
						t.Errorf("%s: %+v, want to wait %v", name, err, wait)
					}
				}
				l.finishAll(t)
			})
		})
	}
}

func TestWhoHangsUpIsNotChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(oneAtATime(0))
		ctx, hangUp := context.WithCancel(t.Context())
		l.come(t.Context(), "a1", "1.1.1.1")
		l.come(ctx, "a2", "1.1.1.1")
		l.come(t.Context(), "a3", "1.1.1.1")
		hangUp()
		synctest.Wait()
		l.finishAll(t)
		if !slices.Equal(l.started, []string{"a1", "a3"}) {
			t.Errorf("started %v, want no a2", l.started)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(oneAtATime(0))
		l.come(t.Context(), "a1", "1.1.1.1")
		l.come(t.Context(), "a2", "1.1.1.1")
		time.Sleep(maxWait)
		synctest.Wait()
		if refused := l.refused["a2"]; refused == nil || refused.Reason != Busy {
			t.Errorf("refused %v, want a2", l.refused)
		}
		l.finishAll(t)
	})
}

func TestGuessing(t *testing.T) {
	type step struct {
		after      time.Duration // since the step before
		user, from string
		check      func() bool
		retryAfter time.Duration // 0: the password is looked at
	}
	const me, other = "1.1.1.1", "2.2.2.2"
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"a second after the third", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{0, "u", me, right, time.Second}, {999 * time.Millisecond, "u", me, right, time.Second},
			{time.Millisecond, "u", me, right, 0}, {0, "u", me, wrongs, 0}}},
		{"twice as long each time, to a minute", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, time.Second},
			{1 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, 2 * time.Second},
			{2 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, 4 * time.Second},
			{4 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, 8 * time.Second},
			{8 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, 16 * time.Second},
			{16 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, 32 * time.Second},
			{32 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, time.Minute},
			{60 * time.Second, "u", me, wrongs, 0}, {0, "u", me, wrongs, time.Minute}}},
		{"a right one clears", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, right, 0},
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, right, 0}}},
		{"time clears", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{quarter, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, time.Second}}},
		{"another address is let in", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{0, "u", other, right, 0}, {0, "u", me, right, time.Second}}},
		{"a pair that was known thirty days ago waits longer", []step{
			{0, "u", me, right, 0}, {days30, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{time.Second, "u", me, wrongs, 0}, {2 * time.Second, "u", me, wrongs, 0}, {4 * time.Second, "u", me, wrongs, 0},
			{0, "u", me, right, 8 * time.Second}}},
		{"another username is let in", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{0, "v", me, right, 0}, {0, "u", me, right, time.Second}}},
		{"a network of IPv6 is one", []step{
			{0, "u", "2001:db8::1", wrongs, 0}, {0, "u", "2001:db8::2", wrongs, 0}, {0, "u", "2001:db8::3", wrongs, 0},
			{0, "u", "2001:db8::4", right, time.Second}, {0, "u", "2001:db8:0:1::4", right, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := oneAtATime(3)
				for i, s := range tt.steps {
					time.Sleep(s.after)
					looked := false
					got, err := a.Try(t.Context(), netip.MustParseAddr(s.from), s.user, func() bool {
						looked = true
						return s.check()
					})
					refused := (*Refused)(nil)
					switch {
					case s.retryAfter == 0 && (err != nil || !looked || got != s.check()):
						t.Errorf("step %d: %v, %v; want the password looked at", i, got, err)
					case s.retryAfter > 0 && (!errors.As(err, &refused) || looked || *refused != Refused{Guessing, s.retryAfter}):
						t.Errorf("step %d: %+v, looked %v; want to wait %v", i, err, looked, s.retryAfter)
					}
				}
			})
		})
	}
}

// TestGuessesSideBySide sends more guesses than allowed before the first is
// answered: those that waited are refused without a look.
func TestGuessesSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := oneAtATime(3)
		var looks, refusals atomic.Int32
		for range 10 {
			go func() {
				_, err := a.Try(t.Context(), address(1), "u", func() bool {
					looks.Add(1)
					time.Sleep(time.Millisecond)
					return false
				})
				if err != nil {
					refusals.Add(1)
				}
			}()
		}
		time.Sleep(time.Second / 2)
		synctest.Wait()
		if looks.Load() != 3 || refusals.Load() != 7 {
			t.Errorf("%d looks and %d refusals, want 3 and 7", looks.Load(), refusals.Load())
		}
	})
}

func TestNoLimitOnGuesses(t *testing.T) {
	a := New(0, time.Now)
	for range 100 {
		if _, err := a.Try(t.Context(), address(1), "u", wrongs); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKnownPairIsGuessed has somebody guess a user's password from the address
// that the user logged in from: both wait, and the user gets through.
func TestKnownPairIsGuessed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		guesses int // who guess
		every   time.Duration
		gap     time.Duration // between the user's logins
		served  int           // of 50 at least
	}{
		{"one, as fast as it is answered", 1, 0, time.Second, 45},
		{"one, each second", 1, time.Second, time.Second, 45},
		{"four", 4, 100 * time.Millisecond, time.Second, 20},
		{"one, and the user comes each minute", 1, 0, time.Minute, 40},
		{"eight, and the user comes each minute", 8, 0, time.Minute, 8},
		{"one, at the moment it may, and the user comes each minute", 1, 4*time.Second - time.Millisecond, time.Minute, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, cost10, alone, func(m *machine) {
				m.login(home, "jane", true)
				for range tt.guesses {
					m.goes(func() { m.login(home, "jane", false); m.sleep(tt.every + time.Millisecond) })
				}
				m.sleep(time.Minute)
				before, began, served := m.checks.Load(), time.Now(), 0
				for range 50 {
					_, retryAfter := m.login(home, "jane", true)
					m.sleep(max(retryAfter, tt.gap))
					if retryAfter == 0 {
						served++
					}
				}
				guesses := m.checks.Load() - before - int64(served)
				if most := 20 * int64(time.Since(began)/time.Minute+1); served < tt.served || guesses > most+int64(served)*10 {
					t.Errorf("%d of 50 are served beside %d guesses in %v, want %d", served, guesses, time.Since(began), tt.served)
				}
				t.Logf("%d of 50 are served beside %d guesses in %v", served, guesses, time.Since(began))
			})
		})
	}
}

// TestNetworksOfGuessers sends wrong passwords for one username, as many as each
// address may, from address after address of a network.
func TestNetworksOfGuessers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		from  func(i int) netip.Addr
		looks int // of 1,000
		other string
	}{
		{"a /24 has eight times an address's", func(i int) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		}, 8 * 3, "10.0.1.1"},
		{"a /48 has eight times a /64's", func(i int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 7: byte(i), 15: 1})
		}, 8 * 3, "2001:0:1::1"},
		{"a /32 has sixty-four times a /64's", func(i int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 5: byte(i), 15: 1})
		}, 64 * 3, "2001:1::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := oneAtATime(3)
				v := func(client netip.Addr) visit { return visit{clientaddr.Networks(client), "u"} }
				a.history.count(v(tt.from(255)), true) // logged in from there before
				looks := 0
				for i := range 200 {
					for range 5 {
						if a.history.refuse(v(tt.from(i))) == nil {
							looks++
							a.history.count(v(tt.from(i)), false)
						}
					}
				}
				if looks != tt.looks {
					t.Errorf("%d guesses, want %d", looks, tt.looks)
				}
				other := netip.MustParseAddr(tt.other)
				for client, refused := range map[netip.Addr]bool{tt.from(200): true, tt.from(255): false, other: false} {
					if err := a.history.refuse(v(client)); (err != nil) != refused {
						t.Errorf("%s: %v, want refused %v", client, err, refused)
					}
				}
			})
		})
	}
}

func TestClass(t *testing.T) {
	wrong := func(n int, client string) func(*history) {
		return func(h *history) {
			for i := range n {
				h.count(visit{clientaddr.Networks(netip.MustParseAddr(client)), strconv.Itoa(i)}, false)
			}
		}
	}
	wrongFrom := func(n int) func(*history) {
		return func(h *history) {
			for i := range n {
				wrong(10, fmt.Sprint("10.0.0.", 2+i))(h)
			}
		}
	}
	right := func(n int, client string) func(*history) {
		return func(h *history) {
			for i := range n {
				h.count(visit{clientaddr.Networks(netip.MustParseAddr(client)), fmt.Sprint("right", i)}, true)
			}
		}
	}
	wait := func(d time.Duration) func(*history) { return func(*history) { time.Sleep(d) } }
	for _, tt := range []struct {
		name   string
		before []func(*history)
		user   string
		client string
		want   class
	}{
		{"nobody", nil, "u", "10.0.0.1", stranger},
		{"a right password", []func(*history){right(1, "10.0.0.1")}, "right0", "10.0.0.1", known},
		{"a right password from elsewhere", []func(*history){right(1, "10.0.0.2")}, "right0", "10.0.0.1", stranger},
		{"another's right password", []func(*history){right(1, "10.0.0.1")}, "u", "10.0.0.1", stranger},
		{
			"a right password nearly thirty days ago", []func(*history){right(1, "10.0.0.1"), wait(days30 - 1)},
			"right0", "10.0.0.1", known,
		},
		{
			"a right password thirty days ago", []func(*history){right(1, "10.0.0.1"), wait(days30)},
			"right0", "10.0.0.1", stranger,
		},
		{"nine wrong", []func(*history){wrong(9, "10.0.0.1")}, "u", "10.0.0.1", stranger},
		{"ten wrong", []func(*history){wrong(10, "10.0.0.1")}, "u", "10.0.0.1", guesser},
		{
			"ten wrong, nearly a quarter of an hour ago", []func(*history){wrong(10, "10.0.0.1"), wait(quarter - 1)},
			"u", "10.0.0.1", guesser,
		},
		{
			"ten wrong, a quarter of an hour ago", []func(*history){wrong(10, "10.0.0.1"), wait(quarter)},
			"u", "10.0.0.1", stranger,
		},
		{"ten wrong from another address", []func(*history){wrong(10, "10.0.0.2")}, "u", "10.0.0.1", stranger},
		{"known among ten wrong", []func(*history){right(1, "10.0.0.1"), wrong(11, "10.0.0.1")}, "right0", "10.0.0.1", known},
		{
			"ten wrong and a right one", []func(*history){wrong(10, "10.0.0.1"), right(1, "10.0.0.1")},
			"u", "10.0.0.1", stranger,
		},
		{
			"a thousand wrong and eleven right", []func(*history){wrong(1000, "10.0.0.1"), right(11, "10.0.0.1")},
			"u", "10.0.0.1", stranger,
		},
		{
			"a thousand wrong and ten right", []func(*history){wrong(1000, "10.0.0.1"), right(10, "10.0.0.1")},
			"u", "10.0.0.1", guesser,
		},
		{"a thousand wrong in the /24", []func(*history){wrong(1000, "10.0.0.2")}, "u", "10.0.0.1", stranger},
		{"ten wrong from each of seven in the /24", []func(*history){wrongFrom(7)}, "u", "10.0.0.1", stranger},
		{"ten wrong from each of eight in the /24", []func(*history){wrongFrom(8)}, "u", "10.0.0.1", guesser},
		{"ten wrong in the /64", []func(*history){wrong(10, "2001:db8::1")}, "u", "2001:db8::2", guesser},
		{"ten wrong in the /48", []func(*history){wrong(10, "2001:db8::1")}, "u", "2001:db8:0:1::1", stranger},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory(0, time.Now)
				for _, do := range tt.before {
					do(&h)
				}
				if got, _ := h.class(visit{clientaddr.Networks(netip.MustParseAddr(tt.client)), tt.user}); got != tt.want {
					t.Errorf("class %d, want %d", got, tt.want)
				}
			})
		})
	}
}

// TestBounded sends 100,000 usernames from as many networks, wrong and right,
// and as many logins that come and go while no place is free.
func TestBounded(t *testing.T) {
	const many = 100_000
	a := oneAtATime(1)
	for i := range many {
		a.history.count(visit{clientaddr.Networks(address(i)), strconv.Itoa(i)}, i%2 == 0)
	}
	for name, counts := range map[string]*recentCounts{"counts": &a.history.wrong, "known pairs": &a.history.known} {
		if kept := counts.len(); kept > 2*counts.size || kept < counts.size {
			t.Errorf("%d %s are kept, want %d to %d", kept, name, counts.size, 2*counts.size)
		}
	}
	if a.history.refuse(visit{clientaddr.Networks(address(many - 1)), strconv.Itoa(many - 1)}) == nil {
		t.Error("the last count is forgotten")
	}

	running, err := a.queue.enter(t.Context(), visit{clientaddr.Networks(address(0)), "u"}, stranger, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for i := range 10 * maxWaiting {
		if _, err := a.queue.enter(gone, visit{clientaddr.Networks(address(i)), "u"}, stranger, 0); err == nil {
			t.Fatal("let in without a place")
		}
	}
	if n := len(a.queue.classes[stranger].inside); n > 1 { // the one that runs
		t.Errorf("%d networks are kept, in which nobody waits", n)
	}
	a.queue.leave(running, time.Millisecond, true)
	a.queue.wantEmpty(t)

	// One login each from more networks than are kept, while somebody waits always.
	running, _ = a.queue.enter(t.Context(), visit{clientaddr.Networks(address(0)), "u"}, stranger, 0)
	for i := range 4 * maxWaiting {
		entered := make(chan *login)
		go func() {
			next, _ := a.queue.enter(t.Context(), visit{clientaddr.Networks(address(i << 8)), "u"}, stranger, 0)
			entered <- next
		}()
		for _, waiting := a.Load(); waiting == 0; _, waiting = a.Load() {
			runtime.Gosched()
		}
		a.queue.leave(running, time.Millisecond, false)
		running = <-entered
	}
	if n := len(a.queue.classes[stranger].inside); n > 1 {
		t.Errorf("%d networks are kept, in which nobody waits", n)
	}
	a.queue.leave(running, time.Millisecond, true)
	a.queue.wantEmpty(t)
}

// TestTurnAndHangUpCoincide gives a login its turn in the moment in which its
// client hangs up. Which of the two it sees is chance, so it happens often.
func TestTurnAndHangUpCoincide(t *testing.T) {
	v := func(i int) visit { return visit{clientaddr.Networks(address(i << 8)), "u"} }
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			q := &oneAtATime(0).queue
			first, err := q.enter(t.Context(), v(1), stranger, 0)
			if err != nil {
				t.Fatal(err)
			}
			ctx, hangUp := context.WithCancel(t.Context())
			go func() {
				if second, err := q.enter(ctx, v(2), stranger, 0); err == nil {
					q.leave(second, 0, true)
				}
			}()
			synctest.Wait()
			hangUp()
			q.leave(first, time.Second, true)
			synctest.Wait()
			q.wantEmpty(t)
			if _, err := q.enter(t.Context(), v(3), stranger, 0); err != nil {
				t.Error(err)
			}
		})
	}
}
