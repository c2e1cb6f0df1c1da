package tokens_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/tokens/conformance"
)

// TestRunSweeps runs in a bubble, where time passes at once.
func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		memory := &tokens.Memory{Now: time.Now}
		go memory.Run(ctx)
		for i, lifetime := range []time.Duration{5, 10, 11, 100} {
			memory.Put(ctx, tokens.Key{byte(i)}, &tokens.Record{Expires: time.Now().Add(lifetime * time.Second).Unix()})
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
			memory.Retain(func(tokens.Key) bool { kept++; return true })
			if kept != tt.kept {
				t.Errorf("%d records, want %d", kept, tt.kept)
			}
		}
		stop()
	})
}

func TestMemory(t *testing.T) {
	conformance.Run(t, func(*testing.T) tokens.Store { return &tokens.Memory{Now: time.Now} })
}
