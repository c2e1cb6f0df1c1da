package admission

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func right() bool  { return true }
func wrongs() bool { return false }

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// oneAtATime is an Admission as on a machine of two cores.
func oneAtATime(maxFailures int) *Admission {
	a := New(maxFailures, time.Now)
	a.gate.free = 1
	return a
}

// logins are many that come one after the other and are let go one by one.
type logins struct {
	a       *Admission
	next    chan struct{}
	started []string
	refused map[string]Reason
}

func newLogins(a *Admission) *logins {
	return &logins{a: a, next: make(chan struct{}), refused: make(map[string]Reason)}
}

// come is a login that stays in its check until next; it returns when the login
// waits, runs or is refused.
func (l *logins) come(ctx context.Context, name, client string) {
	go func() {
		_, err := l.a.try(ctx, networkOf(netip.MustParseAddr(client)), name, func() bool {
			l.started = append(l.started, name)
			<-l.next
			return true
		})
		if refused := (*Refused)(nil); errors.As(err, &refused) {
			l.refused[name] = refused.Reason
		}
	}()
	synctest.Wait()
}

// finish ends the running check, so that the next begins.
func (l *logins) finish() {
	l.next <- struct{}{}
	synctest.Wait()
}

// finishAll ends what runs and waits, and wants the gate as it was.
func (l *logins) finishAll(t *testing.T) {
	for l.a.gate.free == 0 {
		l.finish()
	}
	if l.a.gate.waiting != 0 || len(l.a.gate.lines) != 0 || l.a.gate.free != 1 {
		t.Errorf("the gate is left with %+v", &l.a.gate)
	}
}

func TestTurns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		come   []string // name@client, in this order
		starts string
	}{
		{"one address, in order", []string{"a1@1.1.1.1", "a2@1.1.1.1", "a3@1.1.1.1"}, "[a1 a2 a3]"},
		{"another goes before what waits", []string{"a1@1.1.1.1", "a2@1.1.1.1", "a3@1.1.1.1", "b1@2.2.2.2"}, "[a1 b1 a2 a3]"},
		{"two by turns", []string{"a1@1.1.1.1", "a2@1.1.1.1", "a3@1.1.1.1", "b1@2.2.2.2", "b2@2.2.2.2", "b3@2.2.2.2"}, "[a1 b1 a2 b2 a3 b3]"},
		{"three by turns", []string{"a1@1.1.1.1", "a2@1.1.1.1", "b1@2.2.2.2", "b2@2.2.2.2", "c1@3.3.3.3", "c2@3.3.3.3"}, "[a1 b1 c1 a2 b2 c2]"},
		{"a network of IPv6 is one", []string{"a1@2001:db8::1", "a2@2001:db8::2", "a3@2001:db8::3", "b1@2001:db8:0:1::1"}, "[a1 b1 a2 a3]"},
		{"IPv4 in IPv6 is IPv4", []string{"a1@1.1.1.1", "a2@::ffff:1.1.1.1", "b1@::ffff:2.2.2.2"}, "[a1 b1 a2]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogins(oneAtATime(0))
				for _, login := range tt.come {
					var name, client string
					fmt.Sscanf(login, "%2s@%s", &name, &client)
					l.come(t.Context(), name, client)
				}
				l.finishAll(t)
				if got := fmt.Sprint(l.started); got != tt.starts {
					t.Errorf("started %s, want %s", got, tt.starts)
				}
			})
		})
	}
}

func TestAsManyAsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(0, time.Now)
		a.gate.free = 3
		l := newLogins(a)
		for i := range 5 {
			l.come(t.Context(), fmt.Sprint("a", i), "1.1.1.1")
		}
		l.come(t.Context(), "b0", "2.2.2.2")
		if got := fmt.Sprint(l.started); got != "[a0 a1 a2]" {
			t.Errorf("started %s, want three", got)
		}
		for range 3 {
			l.finish()
		}
		if got := fmt.Sprint(l.started[3:]); got != "[b0 a3 a4]" {
			t.Errorf("then started %s, want the other address first", got)
		}
		for range 3 {
			l.finish()
		}
		if a.gate.free != 3 {
			t.Errorf("%d places free, want 3", a.gate.free)
		}
	})
}

func TestShareOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(oneAtATime(0))
		for i := range 1 + share {
			l.come(t.Context(), fmt.Sprint("a", i), "1.1.1.1")
		}
		if len(l.refused) > 0 {
			t.Errorf("refused %v, want none yet", l.refused)
		}
		l.come(t.Context(), "a more", "1.1.1.1")
		l.come(t.Context(), "b", "2.2.2.2")
		if len(l.refused) != 1 || l.refused["a more"] != AddressBusy {
			t.Errorf("refused %v, want the one that is too much", l.refused)
		}
		l.finishAll(t)
	})
}

func TestQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(oneAtATime(0))
		l.come(t.Context(), "runs", "9.9.9.9")
		for i := range maxWaiting {
			l.come(t.Context(), fmt.Sprint(i), address(i/share).String())
		}
		l.come(t.Context(), "new", "1.1.1.1")
		if reason, ok := l.refused["new"]; ok {
			t.Errorf("an address with nobody waiting is refused: %v", reason)
		}
		if len(l.refused) != 1 {
			t.Errorf("refused %v, want one of the longest line", l.refused)
		}
		for i := range 2 * maxWaiting {
			l.come(t.Context(), fmt.Sprint("many", i), address(1000+i).String())
		}
		if l.a.gate.waiting != maxWaiting || l.refused[fmt.Sprint("many", 2*maxWaiting-1)] != Busy {
			t.Errorf("%d wait, want %d and the last refused", l.a.gate.waiting, maxWaiting)
		}
		l.finishAll(t)
	})
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
		if reason, ok := l.refused["a2"]; !ok || reason != Busy {
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
			{0, "u", me, right, time.Second}, {999 * time.Millisecond, "u", me, right, time.Second}, {time.Millisecond, "u", me, right, 0}, {0, "u", me, wrongs, 0}}},
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
			{forgetAfter, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, time.Second}}},
		{"another address is let in", []step{
			{0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0}, {0, "u", me, wrongs, 0},
			{0, "u", other, right, 0}, {0, "u", me, right, time.Second}}},
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
					got, err := a.Try(t.Context(), netip.MustParseAddr(s.from), s.user, func() bool { looked = true; return s.check() })
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

// TestRefusalsAreHeld sends more refusals than are told at once.
func TestRefusalsAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := oneAtATime(1)
		a.Try(t.Context(), address(1), "u", wrongs)
		gone, hangUp := context.WithCancel(t.Context())
		var told, toldGone atomic.Int32
		for range atOnce + 10 {
			go func() {
				a.Try(t.Context(), address(1), "u", right)
				told.Add(1)
			}()
		}
		synctest.Wait()
		go func() {
			a.Try(gone, address(1), "u", right)
			toldGone.Add(1)
		}()
		synctest.Wait()
		if told.Load() != atOnce || toldGone.Load() != 0 {
			t.Errorf("%d and %d told at once, want %d", told.Load(), toldGone.Load(), atOnce)
		}
		hangUp()
		synctest.Wait()
		if toldGone.Load() != 1 {
			t.Error("one who hung up is held")
		}
		time.Sleep(holdFor)
		synctest.Wait()
		if told.Load() != atOnce+10 || a.pace.held != 0 {
			t.Errorf("%d told after a second, want all", told.Load())
		}
	})
}

// TestRest gives an address whose password was wrong its next turn later, and
// meanwhile another's goes on.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := oneAtATime(0)
		began := time.Now()
		var starts [3]time.Duration
		for i, login := range []struct {
			client netip.Addr
			right  bool
		}{{address(1), false}, {address(1), true}, {address(2), true}} {
			go a.Try(t.Context(), login.client, "u", func() bool {
				starts[i] = time.Since(began)
				time.Sleep(time.Second)
				return login.right
			})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := [3]time.Duration{0, (1 + restFor) * time.Second, time.Second}; starts != want {
			t.Errorf("started after %v, want %v", starts, want)
		}
		if len(a.gate.lines) != 0 || a.gate.free != 1 {
			t.Errorf("the gate is left with %+v", &a.gate)
		}
	})
}

// TestGuessesSideBySide sends more guesses than allowed before the first is
// answered: those that waited are refused without a look.
func TestGuessesSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := oneAtATime(3)
		var looks, refusals atomic.Int32
		for range 10 {
			go func() {
				_, err := a.Try(t.Context(), address(1), "u", func() bool { looks.Add(1); time.Sleep(time.Millisecond); return false })
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

// TestBounded sends a million usernames, and then a million addresses that
// come and go while no place is free.
func TestBounded(t *testing.T) {
	const million = 1_000_000
	a := oneAtATime(1)
	for i := range million {
		a.guesses.count(address(i), strconv.Itoa(i), false)
	}
	if kept := len(a.guesses.recent) + len(a.guesses.older); kept > 2*maxPairs {
		t.Errorf("%d counts are kept, want %d at most", kept, 2*maxPairs)
	}
	if a.guesses.refuse(address(million-maxPairs), strconv.Itoa(million-maxPairs)) == nil {
		t.Errorf("one of the last %d counts is forgotten", maxPairs)
	}

	a.gate.free = 0
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for i := range maxWaiting / 2 {
		go a.gate.enter(t.Context(), address(million+i))
	}
	for i := range million {
		if a.gate.enter(gone, address(i)) == nil {
			t.Fatal("let in without a place")
		}
	}
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	if len(a.gate.lines) > maxWaiting || a.gate.waiting > maxWaiting {
		t.Errorf("%d lines with %d waiting, want %d at most", len(a.gate.lines), a.gate.waiting, maxWaiting)
	}
}

// TestTurnAndHangUpCoincide gives a login its turn in the moment in which its
// client hangs up. Which of the two it sees is chance, so it happens often.
func TestTurnAndHangUpCoincide(t *testing.T) {
	first, second, third := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			g := gate{free: 1, lines: make(map[netip.Addr]*line)}
			if err := g.enter(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			ctx, hangUp := context.WithCancel(t.Context())
			go func() {
				if g.enter(ctx, second) == nil {
					g.leave(second, 0)
				}
			}()
			synctest.Wait()
			hangUp()
			g.leave(first, 0)
			synctest.Wait()
			if g.free != 1 || g.waiting != 0 || len(g.lines) != 0 {
				t.Fatalf("%d places are free, %d logins wait in %d lines; want 1, 0 and 0", g.free, g.waiting, len(g.lines))
			}
			if err := g.enter(t.Context(), third); err != nil {
				t.Error(err)
			}
		})
	}
}
