// Package keypair loads a certificate and its key from files that may be renewed
// while they are in use. If a pair is broken or half written, or its halves do not
// match, the old one stays. When the certificate expires within a week, it warns
// once a day.
package keypair

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"simple-oauth2/internal/watch"
)

// soon is how long before a certificate expires the warnings begin.
const soon = 7 * 24 * time.Hour

// Pair is a certificate chain and its key, from the PEM files Cert and Key. Flags
// names the two flags, for the errors and the log. A nil Pair has nothing to load
// or to warn about.
type Pair struct {
	Cert, Key string
	Flags     [2]string
	Log       *slog.Logger

	loaded atomic.Pointer[tls.Certificate]
	warned atomic.Pointer[warning]
}

// warning is when the last warning was, and which end of a certificate it named.
type warning struct{ at, end time.Time }

// Load reads the files. If that fails, the error names the flags, and the previous
// pair stays. The error is ctx's if that ends first.
func (p *Pair) Load(ctx context.Context) error {
	if p == nil {
		return nil
	}
	pair, err := Read(ctx, p.Cert, p.Key)
	if err != nil {
		return fmt.Errorf("%s %s and %s %s: %w", p.Flags[0], p.Cert, p.Flags[1], p.Key, err)
	}
	p.loaded.Store(&pair)
	p.Log.Info("certificate loaded", "file", p.Cert, "ends", pair.Leaf.NotAfter)
	p.WarnOfEnd()
	return nil
}

// Read reads a certificate chain and its key from PEM files.
func Read(ctx context.Context, certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := ReadPEM(ctx, certFile)
	if err != nil {
		return pair, err
	}
	key, err := ReadPEM(ctx, keyFile)
	if err != nil {
		return pair, err
	}
	return tls.X509KeyPair(cert, key)
}

// ReadPEM reads a file of PEM blocks, and refuses one that is half written. Whoever
// decodes the blocks would skip the half one, and a chain without its last
// certificate is a valid pair too.
func ReadPEM(ctx context.Context, name string) ([]byte, error) {
	text, err := watch.ReadFile(ctx, name)
	if err == nil && !whole(text) {
		err = fmt.Errorf("%s: a PEM block has no end: is the file half written?", name)
	}
	return text, err
}

func whole(text []byte) bool {
	const begin = "-----BEGIN "
	begun := 0
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte(begin)) {
			begun++
		} else if bytes.HasPrefix([]byte(begin), line) { // cut off within it
			return false
		}
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		begun--
	}
	return begun == 0
}

// Certificate returns the certificate that was loaded last.
func (p *Pair) Certificate() *tls.Certificate { return p.loaded.Load() }

// End returns when the certificate expires, or the zero time if there is none.
func (p *Pair) End() time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.loaded.Load().Leaf.NotAfter
}

// WarnOfEnd warns if the certificate expires within a week, at most once a day
// for each certificate.
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
