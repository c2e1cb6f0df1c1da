package file

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkStart reads a file of a million tokens, none of which has expired, and
// reports the bytes that each takes in the file and on the heap.
func BenchmarkStart(b *testing.B) {
	const million = 1_000_000
	s, _ := open(b, filepath.Join(b.TempDir(), "tokens"))
	batch := make([]entry, 1000)
	for range million / len(batch) {
		for i := range batch {
			batch[i] = entry{newKey(), newRecord(time.Hour)}
		}
		if err := s.append(batch); err != nil {
			b.Fatal(err)
		}
	}
	size := s.end.offset
	b.Run("rewrite", func(b *testing.B) {
		for b.Loop() {
			rewrite(s)
		}
	})
	s.close()
	path := s.path
	s = nil
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	b.Run("start", func(b *testing.B) {
		var s *Store
		var err error
		before := heap()
		for b.Loop() {
			if s, err = Open(Config{path}, slog.New(slog.DiscardHandler)); err != nil {
				b.Fatal(err)
			}
			s.close()
		}
		b.ReportMetric(float64(heap()-before)/million, "heap-B/token")
		b.ReportMetric(float64(size)/million, "file-B/token")
		runtime.KeepAlive(s)
	})
}

// BenchmarkPut measures what a login waits for in addition to memory, next to a
// mere fsync of a line, with one client and with 64.
func BenchmarkPut(b *testing.B) {
	percentiles := func(b *testing.B, took []time.Duration) {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	}
	b.Run("fsync alone", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "file"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		var took []time.Duration
		line := make([]byte, 110)
		for b.Loop() {
			began := time.Now()
			f.Write(line)
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		percentiles(b, took)
	})
	for _, clients := range []int{1, 64} {
		b.Run(map[int]string{1: "one client", 64: "64 clients"}[clients], func(b *testing.B) {
			s, _ := open(b, filepath.Join(b.TempDir(), "tokens"))
			took := make([][]time.Duration, clients)
			left := make(chan struct{}, b.N)
			for range b.N {
				left <- struct{}{}
			}
			close(left)
			b.ResetTimer()
			var all sync.WaitGroup
			for i := range clients {
				all.Go(func() {
					for range left {
						key, record := newKey(), newRecord(time.Hour)
						began := time.Now()
						if err := s.Put(b.Context(), key, record); err != nil {
							b.Error(err)
						}
						took[i] = append(took[i], time.Since(began))
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			percentiles(b, slices.Concat(took...))
		})
	}
}
