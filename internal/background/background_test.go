package background_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/background"
)

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		group := background.New(ctx)
		var ticks atomic.Int64
		var ended atomic.Bool
		group.Every(time.Minute, func() { ticks.Add(1) })
		group.Go(func(ctx context.Context) { <-ctx.Done(); ended.Store(true) })
		cancel()
		for _, tt := range []struct {
			wait  time.Duration
			ticks int64
		}{
			{time.Minute - 1, 0},
			{1, 1},
			{10 * time.Minute, 11},
		} {
			time.Sleep(tt.wait)
			synctest.Wait()
			if ticks.Load() != tt.ticks || ended.Load() {
				t.Errorf("%d ticks, want %d; ended %v", ticks.Load(), tt.ticks, ended.Load())
			}
		}
		group.Stop()
		if !ended.Load() {
			t.Error("Stop returned before a function had")
		}
	})
}
