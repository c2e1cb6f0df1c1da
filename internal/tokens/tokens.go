// Package tokens keeps what is known of the bearer tokens that are out, in a
// [sync.Map] keyed by each token's SHA-256: a dump of the memory shows no token
// that anybody could use.
package tokens

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// A Key is the SHA-256 of a token.
type Key [sha256.Size]byte

// KeyOf is the key of a token.
func KeyOf(token string) Key {
	// A conversion to []byte would go to the heap; room for 64 stays off it.
	return sha256.Sum256(append(make([]byte, 0, 64), token...))
}

// A Record is what is known of a token. Scope holds scopes parted by spaces
// (RFC 6749 3.3); Issued and Expires are in Unix seconds, as introspection
// tells them (RFC 7662 2.2).
type Record struct {
	Username        string
	Scope           string
	Issued, Expires int64
}

// Memory keeps records in the memory of this process. Any number of goroutines
// may use it. Now is its clock and must be set.
type Memory struct {
	Now     func() time.Time
	records sync.Map // Key → *Record
}

// Put keeps a record.
func (m *Memory) Put(key Key, record *Record) { m.records.Store(key, record) }

// Find returns the record of a token that has not come to its last second, or
// nil. The record is shared and must not be changed.
func (m *Memory) Find(key Key) *Record {
	found, ok := m.records.Load(key)
	if !ok {
		return nil
	}
	if record := found.(*Record); m.Now().Unix() < record.Expires {
		return record
	}
	return nil
}

// Delete forgets a token, known or not.
func (m *Memory) Delete(key Key) { m.records.Delete(key) }

// SweepEvery frees the memory of expired tokens, each interval, until ctx ends.
// Nobody waits for it: the map is never locked as a whole.
func (m *Memory) SweepEvery(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.Sweep()
		}
	}
}

// Sweep frees the memory of the tokens that have expired.
func (m *Memory) Sweep() {
	now := m.Now().Unix()
	m.records.Range(func(key, record any) bool {
		if record.(*Record).Expires <= now {
			m.records.Delete(key)
		}
		return true
	})
}
