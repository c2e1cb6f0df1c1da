// Package keypair loads a certificate and its key from files that are renewed
// while they are in use. A pair that is broken, or whose halves do not match,
// changes nothing. It warns once a day when the certificate expires within a
// week.
package keypair

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// soon is how long before a certificate's end the warnings begin.
const soon = 7 * 24 * time.Hour

// Pair is a certificate chain and its key, of the PEM files Cert and Key. Flags
// names the two flags, for the errors and the log. A nil Pair is none: there is
// nothing to load or to warn of.
type Pair struct {
	Cert, Key string
	Flags     [2]string
	Log       *slog.Logger

	loaded atomic.Pointer[tls.Certificate]
	warned atomic.Pointer[warning]
}

// warning is the last one, and of which certificate's end it was.
type warning struct{ at, end time.Time }

// Load reads the files. Its error names the flags, and leaves the pair that was
// there.
func (p *Pair) Load(context.Context) error {
	if p == nil {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return fmt.Errorf("%s %s and %s %s: %w", p.Flags[0], p.Cert, p.Flags[1], p.Key, err)
	}
	p.loaded.Store(&pair)
	p.Log.Info("certificate loaded", "file", p.Cert, "ends", pair.Leaf.NotAfter)
	p.WarnOfEnd()
	return nil
}

// Certificate is what was loaded last.
func (p *Pair) Certificate() *tls.Certificate { return p.loaded.Load() }

// End is when the certificate ends, or the zero time if there is none.
func (p *Pair) End() time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.loaded.Load().Leaf.NotAfter
}

// WarnOfEnd warns of a certificate that ends within a week, if a day has passed
// since the last warning of it.
func (p *Pair) WarnOfEnd() {
	if p == nil {
		return
	}
	now, end := time.Now(), p.End()
	if last := p.warned.Load(); end.Sub(now) > soon || last != nil && last.end.Equal(end) && now.Sub(last.at) < 24*time.Hour {
		return
	}
	p.warned.Store(&warning{now, end})
	p.Log.Warn("the certificate expires soon, or has expired", "file", p.Cert, "ends", end)
}
