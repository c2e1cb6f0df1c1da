package admission

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/clientaddr"
)

// recall compares a password with a remembered one. It says how long that took, and
// what is to be waited if it was refused.
func (m *machine) recall(right bool) (took, retryAfter time.Duration) {
	began := time.Now()
	if refused := (*Refused)(nil); errors.As(m.a.Recall(m.ctx, home, "gate", right), &refused) {
		retryAfter = refused.RetryAfter
	}
	return time.Since(began), retryAfter
}

// TestRecall guesses a remembered password at its own address, while the right one
// comes ten times a second.
func TestRecall(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(m *machine)
		gap    time.Duration // between guesses
		most   int64         // guesses that are compared in two minutes
		atOnce int           // right ones of 50 in the end that do not wait
		served int
	}{
		{name: "one who guesses as often as allowed", gap: 4 * time.Second, most: 10 + 30, served: 40},
		{name: "one who guesses as fast as answered", gap: time.Millisecond, most: 10 + 30, served: 40},
		{
			name: "one a minute from a client that is wrong", gap: time.Minute, most: 3, atOnce: 35, served: 50,
			before: func(m *machine) {
				for range 10 {
					m.recall(false)
				}
			},
		},
		{
			name: "one, beside 64 who guess other names there", gap: time.Millisecond, most: 10 + 30, served: 40,
			before: func(m *machine) { m.spin(64, atHome) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, cost10, heavy, func(m *machine) {
				m.login(home, "gate", true)
				if tt.before != nil {
					tt.before(m)
				}
				var compared atomic.Int64
				m.goes(func() {
					if _, retryAfter := m.recall(false); retryAfter == 0 && m.ctx.Err() == nil {
						compared.Add(1)
					}
					m.sleep(tt.gap)
				})
				m.goes(func() { m.recall(true); m.sleep(time.Second / 10) })
				m.sleep(2 * time.Minute)
				if n := compared.Load(); n > tt.most {
					t.Errorf("%d guesses are compared, want %d", n, tt.most)
				}
				atOnce, served := 0, 0
				for range 50 {
					took, retryAfter := m.recall(true)
					if retryAfter == 0 {
						served++
					}
					if took == 0 {
						atOnce++
					}
					m.sleep(time.Second)
				}
				t.Logf("%d guesses; of 50 right ones %d are served, %d at once", compared.Load(), served, atOnce)
				if atOnce < tt.atOnce || served < tt.served {
					t.Errorf("want %d served and %d at once", tt.served, tt.atOnce)
				}
			})
		})
	}
}

// TestRecallSideBySide sends a thousand guesses in the same moment.
func TestRecallSideBySide(t *testing.T) {
	for _, max := range []int{0, 3, 10, 100} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := oneAtATime(max)
				a.Try(t.Context(), home, "gate", right)
				var compared atomic.Int64
				for range 1000 {
					go func() {
						if a.Recall(t.Context(), home, "gate", false) == nil {
							compared.Add(1)
						}
					}()
				}
				synctest.Wait()
				want := int64(10)
				if max == 3 {
					want = 3
				}
				if n := compared.Load(); n != want {
					t.Errorf("%d are compared, want %d", n, want)
				}
				if n := a.Wrong.Load(); n != want {
					t.Errorf("%d are counted as wrong, want %d", n, want)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// TestRecallStaysKnown sends a right password once a day for two months. It is
// remembered, so there is no login.
func TestRecallStaysKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := oneAtATime(10)
		a.Try(t.Context(), home, "gate", right)
		for range 60 {
			time.Sleep(24 * time.Hour)
			if err := a.Recall(t.Context(), home, "gate", true); err != nil {
				t.Fatal(err)
			}
		}
		if !a.history.knows(visit{clientaddr.Networks(home), "gate"}) {
			t.Error("the pair is no longer known")
		}
		if n := a.Right.Load(); n != 1 {
			t.Errorf("%d are counted as logins, want 1", n)
		}
	})
}
