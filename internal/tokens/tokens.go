// Package tokens keeps a record of each issued bearer token under the token's
// SHA-256, so that a dump of the memory shows no token that anybody could use.
package tokens

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"iter"
	"regexp"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"simple-oauth2/internal/background"
)

// New returns a token that nobody can guess: 32 random bytes, in base64url.
func New() string {
	random := make([]byte, 32)
	rand.Read(random)
	return base64.RawURLEncoding.EncodeToString(random)
}

// A Key is the SHA-256 of a token.
type Key [sha256.Size]byte

// KeyOf returns the key of a token.
func KeyOf(token string) Key {
	// A conversion to []byte would allocate; a slice of 64 stays on the stack.
	return sha256.Sum256(append(make([]byte, 0, 64), token...))
}

// A Record is what is known about a token. Scope holds scopes separated by spaces
// (RFC 6749 3.3); Issued and Expires are in Unix seconds, as in introspection
// (RFC 7662 2.2). Since is Issued in Unix milliseconds, or the user's not_before if that
// was ahead of the clock. Credential binds the token to the password hash under which it was
// issued.
type Record struct {
	Username        Shared
	Scope           Shared
	Issued, Expires int64
	Since           int64
	Credential      Credential
}

// Lifetime returns how long the token lives.
func (r *Record) Lifetime() time.Duration { return time.Duration(r.Expires-r.Issued) * time.Second }

// longestTTL is the longest lifetime of a token: ten years. Its seconds fit into
// the 32 bits that some clients have for expires_in, and into a lease of etcd.
const longestTTL = 10 * 365 * 24 * time.Hour

// TTLFlag adds the flag -token-ttl, which is read into ttl: the lifetime of a
// token, in whole seconds like expires_in (RFC 6749 5.1).
func TTLFlag(flags *flag.FlagSet, ttl *time.Duration) {
	*ttl = 30 * time.Minute
	flags.Func("token-ttl", "lifetime of a token, a `duration` in whole seconds (default 30m)", func(s string) (err error) {
		*ttl, err = ParseTTL(s)
		return err
	})
}

// ParseTTL reads the lifetime of a token.
func ParseTTL(s string) (time.Duration, error) {
	ttl, err := time.ParseDuration(s)
	if err != nil || ttl < time.Second || ttl > longestTTL || ttl%time.Second != 0 {
		return 0, errors.New("must be a duration such as 30m or 8h, in whole seconds, from 1s to 87600h (ten years)")
	}
	return ttl, nil
}

// Shared is a string of which the process keeps one copy, and each record a
// pointer: millions of tokens share few usernames and scopes. The zero value is
// the empty string.
type Shared struct{ handle unique.Handle[string] }

// Share returns s as a Shared.
func Share(s string) Shared {
	if s == "" {
		return Shared{}
	}
	return Shared{unique.Make(s)}
}

func (s Shared) String() string {
	if s == (Shared{}) {
		return ""
	}
	return s.handle.Value()
}

// A Credential stands for a stored password hash: the first bytes of its
// SHA-256. Two hashes of one password differ by their salt, and so do their
// credentials.
type Credential [8]byte

// CredentialOf returns the credential of a stored password hash.
func CredentialOf(hash []byte) Credential {
	sum := sha256.Sum256(hash)
	return Credential(sum[:len(Credential{})])
}

// Terms are what a user's tokens depend on. NotBefore is that of the zero
// time, and TTL is 0, if the users file says nothing of them.
type Terms struct {
	Credential Credential
	NotBefore  int64         // in Unix milliseconds; a token from before is worthless
	TTL        time.Duration // of a token of this user
}

// TermsOf returns the terms of a user with a password hash. A part of a millisecond
// counts as a whole one, as a token's is left out.
func TermsOf(hash []byte, notBefore time.Time, ttl time.Duration) Terms {
	return Terms{CredentialOf(hash), notBefore.Add(time.Millisecond - 1).UnixMilli(), ttl}
}

// Lifetime returns how long a token lives: the user's own, or that of the others.
func (t *Terms) Lifetime(others time.Duration) time.Duration { return cmp.Or(t.TTL, others) }

// Since returns the Since of a token that is issued now. Whoever issues it knows of
// NotBefore, so the token is later than that, whatever the clock of this machine says.
func (t *Terms) Since(now time.Time) int64 { return max(now.UnixMilli(), t.NotBefore) }

// Allow says whether a token with this record counts. A Since ahead of the clock tells
// that the token was issued under the same NotBefore, and nothing of any other; then the
// token counts from the beginning of its second. So does one of a release without Since.
func (t *Terms) Allow(record *Record) bool {
	since := record.Since
	if since != t.NotBefore && since/1000 != record.Issued {
		since = record.Issued * 1000
	}
	return record.Credential == t.Credential && since >= t.NotBefore
}

// Store keeps records. It is safe for concurrent use.
type Store interface {
	// Put keeps a record, under a key that was never used. When it returns
	// nil, everyone who shares the store finds the record, until it expires
	// or is deleted.
	Put(ctx context.Context, key Key, record *Record) error

	// Find returns the record of a token that has not expired, or nil. The
	// record is shared and must not be changed.
	Find(ctx context.Context, key Key) (*Record, error)

	// Delete ends a token, known or not. When it returns nil, the token can
	// no longer be found here, and no earlier call of Put brings it back.
	Delete(ctx context.Context, key Key) error

	// Live returns how many tokens are known here. An expired one may count
	// for some seconds more.
	Live() int

	// Status says whether the store is up yet and, in words, what is wrong.
	Status() (up bool, lacks string)

	// Run does the store's background work until ctx ends.
	Run(ctx context.Context)
}

var bearerToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// IsPlausible says whether a text may be a token at all: a b64token of RFC 6750 2.1.
func IsPlausible(text string) bool { return bearerToken.MatchString(text) }

// ErrUnavailable is a Store's error when it cannot look up or store something
// now; it is worth another try.
var ErrUnavailable = errors.New("the tokens cannot be reached")

// Memory is a Store in the memory of this process, a [sync.Map]. Its methods
// return no errors. Now is its clock and must be set.
type Memory struct {
	Now     func() time.Time
	records sync.Map // Key → *Record
	live    atomic.Int64
}

// Put keeps a record.
func (m *Memory) Put(_ context.Context, key Key, record *Record) error {
	if _, again := m.records.Swap(key, record); !again {
		m.live.Add(1)
	}
	return nil
}

// Find returns the record of a token that has not expired, or nil.
func (m *Memory) Find(_ context.Context, key Key) (*Record, error) {
	found, ok := m.records.Load(key)
	if !ok {
		return nil, nil
	}
	if record := found.(*Record); record.Live(m.Now()) {
		return record, nil
	}
	return nil, nil
}

// Live says whether the token has not expired.
func (r *Record) Live(now time.Time) bool { return now.Unix() < r.Expires }

// Delete forgets a token, known or not.
func (m *Memory) Delete(_ context.Context, key Key) error {
	m.forget(key)
	return nil
}

func (m *Memory) forget(key any) {
	if _, known := m.records.LoadAndDelete(key); known {
		m.live.Add(-1)
	}
}

// Retain forgets the tokens that keep says no to.
func (m *Memory) Retain(keep func(Key) bool) {
	m.records.Range(func(key, _ any) bool {
		if !keep(key.(Key)) {
			m.forget(key)
		}
		return true
	})
}

// All yields the live tokens. It may or may not include those that are added or
// deleted meanwhile.
func (m *Memory) All() iter.Seq2[Key, *Record] {
	return func(yield func(Key, *Record) bool) {
		now := m.Now()
		m.records.Range(func(key, record any) bool {
			return !record.(*Record).Live(now) || yield(key.(Key), record.(*Record))
		})
	}
}

// Live returns how many tokens are kept. An expired one counts until Sweep.
func (m *Memory) Live() int { return int(m.live.Load()) }

// Status says that the memory is up.
func (m *Memory) Status() (up bool, lacks string) { return true, "" }

// Run frees the memory of expired tokens every ten seconds. Nobody has to wait for
// it: the map is never locked as a whole.
func (m *Memory) Run(ctx context.Context) { background.Every(ctx, 10*time.Second, m.Sweep) }

// Sweep frees the memory of expired tokens.
func (m *Memory) Sweep() {
	now := m.Now()
	m.records.Range(func(key, record any) bool {
		if !record.(*Record).Live(now) {
			m.forget(key)
		}
		return true
	})
}
