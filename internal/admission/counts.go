package admission

import (
	"log/slog"
	"sort"
	"sync/atomic"
	"time"
)

// Counts are what an Admission has counted since it was made: how many logins had
// the right or the wrong password, were refused for guessing or because too many
// waited, or ended because the client hung up; how long logins waited for their
// check, and how long the checks took.
type Counts struct {
	Right, Wrong, Guessing, Busy, Gone atomic.Int64
	Waits, Checks                      Histogram

	logged atomic.Int64 // refusals that LogRefused has logged
}

// Histogram counts durations in buckets. A duration falls into the bucket of the
// first bound that is not less, or into the last bucket if there is none.
type Histogram struct {
	Bounds  []float64      // in seconds
	Buckets []atomic.Int64 // one more than Bounds
	Sum     atomic.Int64   // in nanoseconds
}

func newHistogram(bounds ...float64) Histogram {
	return Histogram{Bounds: bounds, Buckets: make([]atomic.Int64, len(bounds)+1)}
}

func (h *Histogram) observe(d time.Duration) {
	h.Buckets[sort.SearchFloat64s(h.Bounds, d.Seconds())].Add(1)
	h.Sum.Add(int64(d))
}

// LogRefused logs how many logins were refused since the last call, if any were. A
// line for each would let a flood fill the disk.
func (c *Counts) LogRefused(log *slog.Logger) {
	refused := c.Guessing.Load() + c.Busy.Load()
	if n := refused - c.logged.Swap(refused); n > 0 {
		log.Warn("logins refused", "count", n)
	}
}
