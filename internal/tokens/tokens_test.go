package tokens

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestSweepEvery runs in a bubble, where time passes at once.
func TestSweepEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		memory := &Memory{Now: time.Now}
		go memory.SweepEvery(ctx, 10*time.Second)
		for i, lifetime := range []time.Duration{5, 10, 11, 100} {
			memory.Put(Key{byte(i)}, &Record{Expires: time.Now().Add(lifetime * time.Second).Unix()})
		}
		for _, tt := range []struct {
			wait time.Duration
			kept int
		}{
			{9 * time.Second, 4},
			{time.Second, 2},
			{10 * time.Second, 1},
			{80 * time.Second, 0},
		} {
			time.Sleep(tt.wait)
			synctest.Wait()
			kept := 0
			memory.records.Range(func(any, any) bool { kept++; return true })
			if kept != tt.kept {
				t.Errorf("%d records, want %d", kept, tt.kept)
			}
		}
		stop()
	})
}
