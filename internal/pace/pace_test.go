package pace

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestHold sends more refusals than are told at once.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace{Now: time.Now}
		gone, hangUp := context.WithCancel(t.Context())
		var told, toldGone atomic.Int32
		for range 100 + 10 {
			go func() {
				p.Hold(t.Context())
				told.Add(1)
			}()
		}
		synctest.Wait()
		go func() {
			p.Hold(gone)
			toldGone.Add(1)
		}()
		synctest.Wait()
		if told.Load() != 100 || toldGone.Load() != 0 {
			t.Errorf("%d and %d told at once, want 100", told.Load(), toldGone.Load())
		}
		hangUp()
		synctest.Wait()
		if toldGone.Load() != 1 {
			t.Error("one who hung up is held back")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if told.Load() != 100+10 || p.held != 0 {
			t.Errorf("%d told after a second, want all", told.Load())
		}
	})
}

// TestWait holds back as many as there may be, and one more.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace{Now: time.Now}
		var over atomic.Int32
		for range maxHeld {
			go func() {
				if p.Wait(t.Context(), time.Minute) {
					over.Add(1)
				}
			}()
		}
		synctest.Wait()
		if began := time.Now(); p.Wait(t.Context(), time.Minute) || time.Since(began) != 0 {
			t.Errorf("one more waits %v", time.Since(began))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if over.Load() != maxHeld || !p.Wait(t.Context(), time.Second) {
			t.Errorf("%d have waited, want all, and room for another", over.Load())
		}
	})
}
