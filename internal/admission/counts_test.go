package admission

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestCounts lets one login after the other end in each way, on a machine where a
// check takes a second.
func TestCounts(t *testing.T) {
	type counts struct{ right, wrong, guessing, busy, gone int64 }
	occupied := func(t *testing.T, a *Admission) {
		go a.Try(t.Context(), address(1<<20), "who was here before", func() bool { time.Sleep(time.Hour); return true })
		synctest.Wait()
	}
	guessed := func(t *testing.T, a *Admission) { a.Try(t.Context(), address(1), "u", wrongs) }
	hangUp := func(end context.CancelCauseFunc) { end(nil) }
	stop := func(end context.CancelCauseFunc) { end(errors.New("the server is stopping")) }
	for _, tt := range []struct {
		name   string
		before func(*testing.T, *Admission)
		end    func(context.CancelCauseFunc) // after half a second
		right  bool
		want   counts
		logged string
	}{
		{name: "right", right: true, want: counts{right: 1}},
		{name: "wrong", want: counts{wrong: 1}},
		{name: "too many wrong ones", before: guessed, right: true, want: counts{wrong: 1, guessing: 1}, logged: "count=1"},
		{name: "nobody's turn comes", before: occupied, right: true, want: counts{busy: 1}, logged: "count=1"},
		{name: "the client hangs up while it waits", before: occupied, end: hangUp, right: true, want: counts{gone: 1}},
		{name: "the client hangs up during its check", end: hangUp, right: true, want: counts{right: 1}},
		{
			name: "the server stops while a client waits", before: occupied, end: stop, right: true,
			want: counts{busy: 1}, logged: "count=1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := oneAtATime(1)
				if tt.before != nil {
					tt.before(t, a)
				}
				ctx, end := context.WithCancelCause(t.Context())
				if tt.end != nil {
					time.AfterFunc(time.Second/2, func() { tt.end(end) })
				}
				a.Try(ctx, address(1), "u", func() bool { time.Sleep(time.Second); return tt.right })
				got := counts{a.Right.Load(), a.Wrong.Load(), a.Guessing.Load(), a.Busy.Load(), a.Gone.Load()}
				if got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
				var out bytes.Buffer
				log := slog.New(slog.NewTextHandler(&out, nil))
				a.LogRefused(log)
				a.LogRefused(log)
				lines := strings.Count(out.String(), "\n")
				if !strings.Contains(out.String(), tt.logged) || (lines == 1) != (tt.logged != "") || lines > 1 {
					t.Errorf("logged %s, want %q", &out, tt.logged)
				}
				time.Sleep(time.Hour)
				end(nil)
			})
		})
	}
}

// TestTimes has a login wait while another is checked.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := oneAtATime(0)
		check := func() bool { time.Sleep(300 * time.Millisecond); return true }
		go a.Try(t.Context(), address(1), "u", check)
		synctest.Wait()
		a.Try(t.Context(), address(1), "u", check)
		for _, tt := range []struct {
			name    string
			of      *Histogram
			buckets map[float64]int64 // 0 is the last
			sum     time.Duration
		}{
			{"waits", &a.Waits, map[float64]int64{.001: 1, .5: 1}, 300 * time.Millisecond},
			{"checks", &a.Checks, map[float64]int64{.5: 2}, 600 * time.Millisecond},
		} {
			for i := range tt.of.Buckets {
				bound := 0.
				if i < len(tt.of.Bounds) {
					bound = tt.of.Bounds[i]
				}
				if n := tt.of.Buckets[i].Load(); n != tt.buckets[bound] {
					t.Errorf("%s: %d up to %v s, want %d", tt.name, n, bound, tt.buckets[bound])
				}
			}
			if sum := time.Duration(tt.of.Sum.Load()); sum != tt.sum {
				t.Errorf("%s: %v in all, want %v", tt.name, sum, tt.sum)
			}
		}
	})
}

// TestHistogram observes a duration at a bound, and one beyond all.
func TestHistogram(t *testing.T) {
	h := newHistogram(1, 2)
	for _, d := range []time.Duration{time.Second, time.Second + 1, time.Minute} {
		h.observe(d)
	}
	for i, want := range []int64{1, 1, 1} {
		if n := h.Buckets[i].Load(); n != want {
			t.Errorf("bucket %d has %d, want %d", i, n, want)
		}
	}
}
