package recent

import (
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

func after(d time.Duration) time.Time { return start.Add(d) }

func TestCounts(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(c *Counts)
		at   time.Duration
		want int
	}{
		{"nothing", func(*Counts) {}, 0, 0},
		{"three times", func(c *Counts) { c.Add(1, start, 9); c.Add(1, start, 9); c.Add(1, start, 9) }, 0, 3},
		{"up to most", func(c *Counts) { c.Add(1, start, 2); c.Add(1, start, 2); c.Add(1, start, 2) }, 0, 2},
		{"another key", func(c *Counts) { c.Add(2, start, 9) }, 0, 0},
		{"just before its end", func(c *Counts) { c.Add(1, start, 9) }, time.Minute - 1, 1},
		{"at its end", func(c *Counts) { c.Add(1, start, 9) }, time.Minute, 0},
		{"longer by a later one", func(c *Counts) { c.Add(1, start, 9); c.Add(1, after(time.Second), 9) }, time.Minute, 2},
		{"from one again after its end", func(c *Counts) { c.Add(1, start, 9); c.Add(1, after(time.Minute), 9) }, time.Minute, 1},
		{"lowered", func(c *Counts) { c.Add(1, start, 9); c.Lower(1, after(time.Second), func(n int) int { return n + 6 }) }, time.Minute - 1, 7},
		{"not longer when lowered", func(c *Counts) { c.Add(1, start, 9); c.Lower(1, after(time.Second), func(n int) int { return n }) }, time.Minute, 0},
		{"nothing to lower", func(c *Counts) { c.Lower(1, start, func(n int) int { return 5 }) }, 0, 0},
		{"deleted", func(c *Counts) { c.Add(1, start, 9); c.Delete(1) }, 0, 0},
		{"deleted among the older", func(c *Counts) { c.Add(1, start, 9); fill(c, 10); c.Delete(1) }, 0, 0},
		{"kept among as many as Size", func(c *Counts) { c.Add(1, start, 9); fill(c, 10) }, 0, 1},
		{"dropped after twice as many", func(c *Counts) { c.Add(1, start, 9); fill(c, 20) }, 0, 0},
		{"kept if it goes up", func(c *Counts) { c.Add(1, start, 9); fill(c, 10); c.Add(1, start, 9); fill(c, 10) }, 0, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Counts{Size: 10, Lasts: time.Minute}
			tt.do(c)
			if got := c.Find(1, after(tt.at)).N; got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
			if n := c.Len(); n > 20 {
				t.Errorf("%d are kept", n)
			}
		})
	}
}

// fill adds n other keys.
func fill(c *Counts, n int) {
	for i := range n {
		c.Add(uint64(100+i+c.Len()*1000), start, 9)
	}
}
