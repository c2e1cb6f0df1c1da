// Package keypair loads a certificate and its key from files that may be renewed
// while they are in use. If a pair is broken or half written, or its halves do not
// match, the old one stays. When the certificate, or another one of its chain,
// expires within a week, it warns once a day. It does so for other files of
// certificates, too.
package keypair

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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

	loaded atomic.Pointer[loaded]
	warned warnings
}

// loaded is a pair, and the certificate of its chain that expires first.
type loaded struct {
	pair  tls.Certificate
	first *x509.Certificate
}

// Load reads the files. If that fails, the error names the flags, and the previous
// pair stays.
func (p *Pair) Load() error {
	if p == nil {
		return nil
	}
	pair, err := Read(p.Cert, p.Key)
	if err != nil {
		return fmt.Errorf("%s %s and %s %s: %w", p.Flags[0], p.Cert, p.Flags[1], p.Key, err)
	}
	read := &loaded{pair, first(pair.Certificate)}
	p.loaded.Store(read)
	p.Log.Info("certificate loaded", "file", p.Cert, "ends", read.first.NotAfter)
	p.WarnOfEnd()
	return nil
}

// Read reads a certificate chain and its key from PEM files.
func Read(certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := ReadPEM(certFile)
	if err != nil {
		return pair, err
	}
	key, err := ReadPEM(keyFile)
	if err != nil {
		return pair, err
	}
	if pair, err = tls.X509KeyPair(cert, key); err != nil && encrypted(key) {
		err = fmt.Errorf("%s: the key is encrypted: write it without a passphrase, with openssl pkey", keyFile)
	}
	return pair, err
}

// encrypted says whether one of the blocks is an encrypted key, of PKCS #8 or of
// OpenSSL's older form (RFC 1421 4.6.1.1).
func encrypted(text []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.HasSuffix(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

// ReadPEM reads a file of PEM blocks, and refuses one that is half written or begins
// with a byte order mark. Whoever decodes the blocks would skip the half one, or the
// one behind the mark, and a chain without its last certificate is a valid pair too.
func ReadPEM(name string) ([]byte, error) {
	text, err := os.ReadFile(name)
	switch {
	case err != nil:
	case slices.ContainsFunc(marks, func(mark string) bool { return bytes.HasPrefix(text, []byte(mark)) }):
		err = fmt.Errorf("%s: it begins with a byte order mark: save it as UTF-8 without one", name)
	case !whole(text):
		err = fmt.Errorf("%s: a PEM block has no end: is the file half written?", name)
	}
	return text, err
}

// marks are the byte order marks of UTF-8 and UTF-16.
var marks = []string{"\ufeff", "\xff\xfe", "\xfe\xff"}

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
func (p *Pair) Certificate() *tls.Certificate { return &p.loaded.Load().pair }

// End returns when the first certificate of the chain expires, or the zero time if
// there is none.
func (p *Pair) End() time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.loaded.Load().first.NotAfter
}

// WarnOfEnd warns if a certificate of the chain expires within a week, at most once
// a day.
func (p *Pair) WarnOfEnd() {
	if p != nil {
		p.warned.of(p.loaded.Load().first, p.Cert, p.Log)
	}
}

// A File is a PEM file of certificates that another package loads, and whose
// expiry is worth the same warning.
type File struct {
	Name   string
	warned warnings
}

// WarnOfEnd warns about the certificate in the file that expires first, as the file
// is now. It does nothing if there is none.
func (f *File) WarnOfEnd(log *slog.Logger) {
	text, err := ReadPEM(f.Name)
	if err != nil {
		return
	}
	var chain [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	if cert := first(chain); cert != nil {
		f.warned.of(cert, f.Name, log)
	}
}

// first returns the certificate that expires first, or nil. One that cannot be
// parsed is skipped: whoever uses it will say so.
func first(chain [][]byte) (first *x509.Certificate) {
	for _, der := range chain {
		if cert, err := x509.ParseCertificate(der); err == nil && (first == nil || cert.NotAfter.Before(first.NotAfter)) {
			first = cert
		}
	}
	return first
}

// warnings is when the last warning was, and which expiry it was about.
type warnings struct {
	mu      sync.Mutex
	at, end time.Time
}

// of warns about a certificate that expires within a week, once a day.
func (w *warnings) of(cert *x509.Certificate, file string, log *slog.Logger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, end := time.Now(), cert.NotAfter
	if end.Sub(now) > soon || w.end.Equal(end) && now.Sub(w.at) < 24*time.Hour {
		return
	}
	w.at, w.end = now, end
	log.Warn("the certificate expires soon, or has expired", "file", file, "subject", cert.Subject.String(), "ends", end)
}
