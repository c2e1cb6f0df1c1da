package background_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/background"
)

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		group := background.New(ctx)
		ticks, ended := 0, false
		group.Every(time.Minute, func() { ticks++ })
		group.Go(func(ctx context.Context) { <-ctx.Done(); ended = true })
		cancel()
		for _, tt := range []struct {
			wait  time.Duration
			ticks int
		}{
			{time.Minute - 1, 0},
			{1, 1},
			{10 * time.Minute, 11},
		} {
			time.Sleep(tt.wait)
			synctest.Wait()
			if ticks != tt.ticks || ended {
				t.Errorf("%d ticks, want %d; ended %v", ticks, tt.ticks, ended)
			}
		}
		group.Stop()
		if !ended {
			t.Error("Stop returned before a function had")
		}
	})
}
