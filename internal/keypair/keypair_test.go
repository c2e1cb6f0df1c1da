package keypair_test

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/keypair"
)

// issue writes a new certificate that expires at end, others of its chain that
// expire at those times, and its key.
func issue(t *testing.T, dir string, end time.Time, chain ...time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	var err1 error
	for i, end := range append([]time.Time{end}, chain...) {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end, Subject: pkix.Name{CommonName: fmt.Sprint("number ", i)}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
		err1 = errors.Join(err1, err)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	pkcs8, err2 := x509.MarshalPKCS8PrivateKey(private)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err3 := os.WriteFile(cert, text, 0o600)
	err4 := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestLoad(t *testing.T) {
	dir, other, end := t.TempDir(), t.TempDir(), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	cert, key := issue(t, dir, end)
	newCert, newKey := issue(t, other, end.Add(time.Hour))
	pair := &keypair.Pair{Cert: cert, Key: key, Flags: [2]string{"-tls-cert", "-tls-key"}, Log: slog.New(slog.DiscardHandler)}
	copyTo := func(to, from string, part float64) {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text[:int(part*float64(len(text)))], 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		change func()
		err    string
		end    time.Time
	}{
		{"at first", func() {}, "", end},
		{"half of the new certificate", func() { copyTo(cert, newCert, 0.5) }, "-tls-cert " + cert + " and -tls-key " + key + ": ", end},
		{"the new certificate with the old key", func() { copyTo(cert, newCert, 1) }, "private key does not match public key", end},
		{"half of the new key", func() { copyTo(key, newKey, 0.5) }, "-tls-key", end},
		{"the new key is gone", func() { os.Remove(key) }, "no such file", end},
		{"both", func() { copyTo(key, newKey, 1) }, "", end.Add(time.Hour)},
		{"one of its chain ends first", func() { issue(t, dir, end, end.Add(time.Hour), end.Add(-time.Hour)) }, "", end.Add(-time.Hour)},
		{"all of its chain end later", func() { issue(t, dir, end, end.Add(time.Hour), end.Add(2*time.Hour)) }, "", end},
	} {
		tt.change()
		err := pair.Load()
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
		if got := pair.End(); !got.Equal(tt.end) {
			t.Errorf("%s: the certificate ends at %v, want %v", tt.name, got, tt.end)
		}
	}
}

// TestWarnOfEnd lets certificates come to their end, those of a pair that is
// loaded and those of a file that is only looked at.
func TestWarnOfEnd(t *testing.T) {
	const day = 24 * time.Hour
	const warning = `level=WARN msg="the certificate expires soon, or has expired" `
	synctest.Test(t, func(t *testing.T) {
		dir, ofPair, ofFile := t.TempDir(), new(bytes.Buffer), new(bytes.Buffer)
		cert, key := issue(t, dir, time.Now().Add(8*day))
		pair := &keypair.Pair{Cert: cert, Key: key, Log: slog.New(slog.NewTextHandler(ofPair, nil))}
		file, log := &keypair.File{Name: cert}, slog.New(slog.NewTextHandler(ofFile, nil))
		load := func() {
			if err := pair.Load(); err != nil {
				t.Fatal(err)
			}
		}
		load()
		issued := func(ends ...time.Duration) func() {
			return func() {
				var at []time.Time
				for _, end := range ends {
					at = append(at, time.Now().Add(end))
				}
				issue(t, dir, at[0], at[1:]...)
				load()
			}
		}
		for _, tt := range []struct {
			name   string
			wait   time.Duration
			change func()
			warns  int
			of     string // the subject of the last warning
		}{
			{"eight days before", 0, func() {}, 0, ""},
			{"seven", day, func() {}, 1, "number 0"},
			{"an hour later", time.Hour, func() {}, 1, "number 0"},
			{"loaded again", 0, load, 1, "number 0"},
			{"a day later", 23 * time.Hour, func() {}, 2, "number 0"},
			{"when it has ended", 8 * day, func() {}, 3, "number 0"},
			{"another that ends soon", 0, issued(day), 4, "number 0"},
			{"one that ends late", 0, issued(90 * day), 4, "number 0"},
			{"one whose issuer ends soon", 0, issued(90*day, 2*day), 5, "number 1"},
			{"a day later", day, func() {}, 6, "number 1"},
			{"one whose issuer ends late", 0, issued(90*day, 365*day), 6, "number 1"},
			{"the second of three ends first", 0, issued(3*day, 2*day, 4*day), 7, "number 1"},
		} {
			time.Sleep(tt.wait)
			tt.change()
			pair.WarnOfEnd()
			file.WarnOfEnd(log)
			for what, log := range map[string]*bytes.Buffer{"pair": ofPair, "file": ofFile} {
				last := log.String()[strings.LastIndex(log.String(), warning)+1:]
				if n := strings.Count(log.String(), warning); n != tt.warns || n > 0 && !strings.Contains(last, `subject="CN=`+tt.of+`" `) {
					t.Errorf("%s, %s: %d warnings, want %d, the last of %s\n%s", tt.name, what, n, tt.warns, tt.of, log)
				}
			}
		}
	})
}

// TestHalfWritten writes a chain and its key up to each byte. What is not whole is
// refused, though its first certificate and the key are a pair; what is cut off
// between two blocks cannot be known.
func TestHalfWritten(t *testing.T) {
	dir := t.TempDir()
	cert, key := issue(t, dir, time.Now().Add(time.Hour))
	leaf, err1 := os.ReadFile(cert)
	text, err2 := os.ReadFile(key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file string
		text       []byte // which is whole
		from, to   int    // a cut there is between two blocks
	}{
		{"chain", cert, slices.Concat(leaf, leaf), len(leaf) - 1, len(leaf)},
		{"chain with a word before each", cert, slices.Concat([]byte("leaf\n"), leaf, []byte("issuer\n"), leaf), 5 + len(leaf) - 1, 5 + len(leaf) + 7},
		{"key behind parameters", key, slices.Concat([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), text), -1, -1},
		{"key before something", key, slices.Concat(text, leaf), len(text) - 1, len(text)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := os.ReadFile(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(tt.file, before, 0o600)
			pair := &keypair.Pair{Cert: cert, Key: key, Log: slog.New(slog.DiscardHandler)}
			for n := range len(tt.text) + 1 {
				os.Remove(tt.file) // or ext4 waits for the disk when it is truncated and written
				if err := os.WriteFile(tt.file, tt.text[:n], 0o600); err != nil {
					t.Fatal(err)
				}
				want := n >= len(tt.text)-1 || n >= tt.from && n <= tt.to
				if err := pair.Load(); (err == nil) != want {
					t.Errorf("the first %d of %d bytes: %v", n, len(tt.text), err)
				}
			}
		})
	}
	for _, tt := range []struct {
		name string
		text []byte
		err  string
	}{
		{"lines of Windows", bytes.ReplaceAll(slices.Concat(leaf, leaf), []byte("\n"), []byte("\r\n")), ""},
		{"half a certificate between two", slices.Concat(leaf, leaf[:len(leaf)/2], []byte("\n"), leaf), cert + ": a PEM block has no end"},
		{"a certificate without its end between two", slices.Concat(leaf, leaf[:len(leaf)-10], []byte("\n"), leaf), cert + ": a PEM block has no end"},
	} {
		if err := os.WriteFile(cert, tt.text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keypair.Read(cert, key); (err == nil) != (tt.err == "") ||
			err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

// TestNotPEM has files that are nearly right, and wants the error to say what is wrong.
func TestNotPEM(t *testing.T) {
	dir := t.TempDir()
	cert, key := issue(t, dir, time.Now().Add(time.Hour))
	leaf, err1 := os.ReadFile(cert)
	private, err2 := os.ReadFile(key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	block := func(kind string, headers map[string]string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: []byte("any")})
	}
	const (
		mark   = ": it begins with a byte order mark: save it as UTF-8 without one"
		secret = ": the key is encrypted: write it without a passphrase, with openssl pkey"
	)
	for _, tt := range []struct {
		name      string
		cert, key []byte
		err       string
	}{
		{name: "a mark before the certificate", cert: slices.Concat([]byte("\ufeff"), leaf), key: private, err: cert + mark},
		{name: "before the chain", cert: slices.Concat([]byte("\ufeff"), leaf, leaf), key: private, err: cert + mark},
		{name: "before the key", cert: leaf, key: slices.Concat([]byte("\ufeff"), private), err: key + mark},
		{name: "UTF-16", cert: []byte("\xff\xfe-\x00-\x00"), key: private, err: cert + mark},
		{name: "an encrypted key", cert: leaf, key: block("ENCRYPTED PRIVATE KEY", nil), err: key + secret},
		{
			name: "an encrypted key of OpenSSL", cert: leaf,
			key: block("RSA PRIVATE KEY", map[string]string{"Proc-Type": "4,ENCRYPTED"}), err: key + secret,
		},
		{name: "an encrypted key behind something", cert: leaf, key: slices.Concat(leaf, block("ENCRYPTED PRIVATE KEY", nil)),
			err: key + secret},
		{name: "another key behind the right one", cert: leaf,
			key: slices.Concat(private, block("ENCRYPTED PRIVATE KEY", nil))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := errors.Join(os.WriteFile(cert, tt.cert, 0o600), os.WriteFile(key, tt.key, 0o600)); err != nil {
				t.Fatal(err)
			}
			if _, err := keypair.Read(cert, key); fmt.Sprint(err) != cmp.Or(tt.err, "<nil>") {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}
