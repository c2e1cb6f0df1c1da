package admission

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestHold makes more refusals than are sent at once.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{now: time.Now}
		gone, hangUp := context.WithCancel(t.Context())
		var sent, sentGone atomic.Int32
		for range 100 + 10 {
			go func() {
				p.hold(t.Context())
				sent.Add(1)
			}()
		}
		synctest.Wait()
		go func() {
			p.hold(gone)
			sentGone.Add(1)
		}()
		synctest.Wait()
		if sent.Load() != 100 || sentGone.Load() != 0 {
			t.Errorf("%d and %d sent at once, want 100", sent.Load(), sentGone.Load())
		}
		hangUp()
		synctest.Wait()
		if sentGone.Load() != 1 {
			t.Error("one who hung up is delayed")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if sent.Load() != 100+10 || p.held != 0 {
			t.Errorf("%d sent after a second, want all", sent.Load())
		}
	})
}

// TestWait delays as many requests as may be, and one more.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{now: time.Now}
		var over atomic.Int32
		for range maxHeld {
			go func() {
				if p.wait(t.Context(), time.Minute) {
					over.Add(1)
				}
			}()
		}
		synctest.Wait()
		if began := time.Now(); p.wait(t.Context(), time.Minute) || time.Since(began) != 0 {
			t.Errorf("one more waits %v", time.Since(began))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if over.Load() != maxHeld || !p.wait(t.Context(), time.Second) {
			t.Errorf("%d have waited, want all, and room for another", over.Load())
		}
	})
}
