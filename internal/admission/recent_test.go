package admission

import (
	"testing"
	"time"
)

// TestRecentCounts lets counts last for a minute, and keeps at least ten.
func TestRecentCounts(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	type do func(c *recentCounts)
	add := func(after time.Duration) do { return func(c *recentCounts) { c.add(1, start.Add(after), 9) } }
	lower := func(after time.Duration) do { return func(c *recentCounts) { c.lower(1, start.Add(after)) } }
	remove := func(c *recentCounts) { c.delete(1) }
	others := func(n int) do {
		return func(c *recentCounts) {
			for i := range n {
				c.add(uint64(100+i+c.len()*1000), start, 9)
			}
		}
	}
	for _, tt := range []struct {
		name string
		do   []do
		at   time.Duration
		want int
	}{
		{name: "nothing"},
		{name: "three times", do: []do{add(0), add(0), add(0)}, want: 3},
		{name: "up to most", do: []do{add(0), func(c *recentCounts) { c.add(1, start, 1) }}, want: 1},
		{name: "another key", do: []do{others(1)}},
		{name: "just before its end", do: []do{add(0)}, at: time.Minute - 1, want: 1},
		{name: "at its end", do: []do{add(0)}, at: time.Minute},
		{name: "longer by a later one", do: []do{add(0), add(time.Second)}, at: time.Minute, want: 2},
		{name: "from one again after its end", do: []do{add(0), add(time.Minute)}, at: time.Minute, want: 1},
		{name: "lowered", do: []do{add(0), add(0), lower(time.Second)}, at: time.Minute - 1, want: 1},
		{name: "not longer when lowered", do: []do{add(0), add(0), lower(time.Second)}, at: time.Minute},
		{name: "nothing to lower", do: []do{lower(0)}},
		{name: "deleted", do: []do{add(0), remove}},
		{name: "deleted among the older", do: []do{add(0), others(10), remove}},
		{name: "kept among as many as size", do: []do{add(0), others(10)}, want: 1},
		{name: "dropped after twice as many", do: []do{add(0), others(20)}},
		{name: "kept if it goes up", do: []do{add(0), others(10), add(0), others(10)}, want: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &recentCounts{size: 10, lasts: time.Minute}
			for _, do := range tt.do {
				do(c)
			}
			if got := c.find(1, start.Add(tt.at)).n; got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
			if n := c.len(); n > 20 {
				t.Errorf("%d are kept, want 20 at most", n)
			}
		})
	}
}
