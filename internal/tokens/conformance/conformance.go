// Package conformance is the test suite that every [tokens.Store] must pass.
package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"simple-oauth2/internal/tokens"
)

// Run runs the suite. Each call of open must return a store that is up; it may
// hold other tokens.
func Run(t *testing.T, open func(t *testing.T) tokens.Store) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, s *store)
	}{
		{"unknown", func(t *testing.T, s *store) { s.wants(newKey(), nil) }},
		{"issue and look up", func(t *testing.T, s *store) {
			key, record := newKey(), newRecord(time.Minute)
			s.put(key, record)
			s.wants(key, record)
			s.wants(key, record)
		}},
		{"issue with an empty scope and odd letters", func(t *testing.T, s *store) {
			key, record := newKey(), &tokens.Record{Username: tokens.Share("jöhn\x00 \"doe\" <&>"), Issued: 1, Expires: time.Now().Add(time.Minute).Unix()}
			s.put(key, record)
			s.wants(key, record)
		}},
		{"issue under two hashes", func(t *testing.T, s *store) {
			for _, hash := range []string{"a hash", "another", ""} {
				key, record := newKey(), newRecord(time.Minute)
				record.Credential = tokens.CredentialOf([]byte(hash))
				s.put(key, record)
				s.wants(key, record)
			}
		}},
		{"issue without Since, as earlier releases did", func(t *testing.T, s *store) {
			key, record := newKey(), newRecord(time.Minute)
			record.Since = 0
			s.put(key, record)
			s.wants(key, record)
		}},
		{"expired before it came", func(t *testing.T, s *store) {
			key := newKey()
			s.put(key, newRecord(0))
			s.wants(key, nil)
		}},
		{"expire", func(t *testing.T, s *store) {
			key, record := newKey(), newRecord(2*time.Second)
			s.put(key, record)
			s.wants(key, record)
			for record.Live(time.Now()) {
				time.Sleep(time.Millisecond)
			}
			s.wants(key, nil)
		}},
		{"revoke", func(t *testing.T, s *store) {
			key, other, record := newKey(), newKey(), newRecord(time.Minute)
			s.put(key, record)
			s.put(other, record)
			s.delete(key)
			s.wants(key, nil)
			s.wants(other, record)
		}},
		{"revoke twice", func(t *testing.T, s *store) {
			key := newKey()
			s.put(key, newRecord(time.Minute))
			s.delete(key)
			s.delete(key)
			s.wants(key, nil)
		}},
		{"revoke unknown", func(t *testing.T, s *store) {
			key := newKey()
			s.delete(key)
			s.wants(key, nil)
		}},
		{"many at once", func(t *testing.T, s *store) {
			var clients sync.WaitGroup
			for range 16 {
				clients.Go(func() {
					for i := range 25 {
						key, record := newKey(), newRecord(time.Minute)
						s.put(key, record)
						s.wants(key, record)
						if i%2 == 0 {
							s.delete(key)
							s.wants(key, nil)
						}
					}
				})
			}
			clients.Wait()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, &store{t, open(t)})
		})
	}
	t.Run("up", func(t *testing.T) {
		s := open(t)
		up, lacks := s.Status()
		for deadline := time.Now().Add(10 * time.Second); lacks != "" && time.Now().Before(deadline); up, lacks = s.Status() {
			time.Sleep(time.Millisecond) // a machine under load may have missed a beat
		}
		if !up || lacks != "" {
			t.Errorf("up %v, lacks %q", up, lacks)
		}
	})
	t.Run("a request that was given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := &store{t, open(t)}
		key := newKey()
		s.Store.Put(ctx, key, newRecord(time.Minute))
		s.Store.Delete(ctx, key)
		if record, _ := s.Store.Find(ctx, key); record != nil {
			t.Errorf("found %+v", record)
		}
		s.delete(key)
		s.wants(key, nil)
	})
}

func newKey() (key tokens.Key) {
	rand.Read(key[:])
	return key
}

func newRecord(lifetime time.Duration) *tokens.Record {
	now := time.Now()
	return &tokens.Record{Username: tokens.Share("johndoe"), Scope: tokens.Share("items:read items:write"), Issued: now.Unix(), Expires: now.Add(lifetime).Unix(),
		Since: now.UnixMilli(), Credential: tokens.CredentialOf([]byte("a hash"))}
}

type store struct {
	t *testing.T
	tokens.Store
}

func (s *store) put(key tokens.Key, record *tokens.Record) {
	if err := s.Store.Put(s.t.Context(), key, record); err != nil {
		s.t.Errorf("put: %v", err)
	}
}

func (s *store) delete(key tokens.Key) {
	if err := s.Store.Delete(s.t.Context(), key); err != nil {
		s.t.Errorf("delete: %v", err)
	}
}

func (s *store) wants(key tokens.Key, want *tokens.Record) {
	s.t.Helper()
	if err := s.differs(key, want); err != nil {
		s.t.Error(err)
	}
}

func (s *store) differs(key tokens.Key, want *tokens.Record) error {
	record, err := s.Store.Find(s.t.Context(), key)
	if err != nil {
		return fmt.Errorf("find: %w", err)
	}
	if (record == nil) != (want == nil) || record != nil && *record != *want {
		return fmt.Errorf("found %+v, want %+v", record, want)
	}
	return nil
}
