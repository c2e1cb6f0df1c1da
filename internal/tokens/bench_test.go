package tokens_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"simple-oauth2/internal/tokens"
)

// BenchmarkMillion keeps a million tokens of one user in memory, and measures the
// heap that each takes, a sweep of them, and a look-up among them from all cores.
func BenchmarkMillion(b *testing.B) {
	const million = 1_000_000
	clock := time.Unix(1700000000, 0)
	memory := &tokens.Memory{Now: func() time.Time { return clock }}
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	issued := make([]tokens.Key, 0, 1024)
	for i := range million {
		key := tokens.KeyOf(tokens.New())
		err := memory.Put(b.Context(), key, &tokens.Record{
			Username: tokens.Share(strings.Clone("johndoe")),
			Scope:    tokens.Share(strings.Clone("items:read items:write")),
			Issued:   clock.Unix(),
			Expires:  clock.Add(30 * time.Minute).Unix(),
		})
		if err != nil {
			b.Fatal(err)
		}
		if i < cap(issued) {
			issued = append(issued, key)
		}
	}
	each := float64(heap()-before) / million
	b.Run("look-up", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if record, _ := memory.Find(b.Context(), issued[i%len(issued)]); record == nil {
					b.Error("a live token is not found")
				}
			}
		})
		b.ReportMetric(each, "heap-B/token")
	})
	b.Run("sweep", func(b *testing.B) {
		for b.Loop() { // none has expired
			memory.Sweep()
		}
		clock = clock.Add(time.Hour)
		began := time.Now()
		memory.Sweep()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-all-expired")
	})
}
