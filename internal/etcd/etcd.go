// Package etcd keeps tokens in an etcd cluster, so that many replicas of a
// service share them and a restart loses none.
//
// Each replica holds all live tokens in its own memory, filled by a list of the
// prefix and kept fresh by a watch from the list's revision on: a look-up
// of a known token costs no network. An unknown one is asked for in etcd,
// together with the others that wait, before it is refused.
//
// A token lives at prefix + the SHA-256 of the token in hex; the value is the
// record in JSON. An etcd lease deletes it soon after its lifetime; what decides
// about its end is the record.
package etcd

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"simple-oauth2/internal/tokens"
)

// Store is a [tokens.Store] in etcd. Make one with New.
type Store struct {
	gateway   *gateway
	prefix    string
	memory    tokens.Memory // written by the mirror alone, so that it is never newer than its revision says; Delete may run ahead
	log       *slog.Logger
	questions chan question

	mu    sync.Mutex
	at    header        // what the memory is at; revision 0 is before a list
	moved chan struct{} // closed when at changes
	up    bool
	lost  error // why etcd cannot be reached

	leaseMu sync.Mutex
	lease   lease
}

// New is a store that is up once Run has listed what is in etcd. An endpoint
// that is reached and refuses, by its certificate or the password say, or that
// is http where https was said, is an error; one that cannot be reached yet is
// not.
func New(ctx context.Context, c Config, log *slog.Logger) (*Store, error) {
	g, err := newGateway(c)
	if err != nil {
		return nil, err
	}
	s := &Store{
		gateway:   g,
		prefix:    c.Prefix,
		memory:    tokens.Memory{Now: time.Now},
		log:       log,
		questions: make(chan question, mostQuestions),
		moved:     make(chan struct{}),
	}
	g.current.Store(rand.Int64N(int64(len(g.endpoints)))) // so that replicas spread
	errs := make([]error, len(g.endpoints))
	var checks sync.WaitGroup
	for i, endpoint := range g.endpoints {
		checks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := s.now(ctx, endpoint)
			if errors.Is(err, io.EOF) {
				time.Sleep(100 * time.Millisecond) // a member that hung up because it died refuses by then
				_, err = s.now(ctx, endpoint)
			}
			if errors.Is(err, io.EOF) {
				errs[i] = fmt.Errorf("-etcd %s: it hangs up, is it http or https?", endpoint)
			} else if permanent(err) {
				errs[i] = fmt.Errorf("-etcd %s: %w", endpoint, err)
			}
		})
	}
	checks.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Put keeps a record. It returns nil once etcd has committed it.
func (s *Store) Put(ctx context.Context, key tokens.Key, record *tokens.Record) error {
	value, err := json.Marshal(value{record.Username.String(), record.Scope.String(), record.Issued, record.Expires, record.Credential[:]})
	if err != nil {
		return err
	}
	lifetime := time.Duration(max(0, record.Expires-record.Issued)) * time.Second
	for range 2 { // the second time with a new lease
		var id int64
		if id, err = s.leaseFor(ctx, lifetime); err != nil {
			break
		}
		err = s.gateway.ask(ctx, "/v3/kv/put", map[string]any{"key": s.keyOf(key), "value": value, "lease": id}, &struct{}{})
		if api := (*apiError)(nil); !errors.As(err, &api) || api.Code != notFound {
			break
		}
		s.forget(id)
	}
	return s.outcome(ctx, "token not kept in etcd", err)
}

// value is a record as it is written in etcd, under introspection's names.
type value struct {
	Username string `json:"username"`
	Scope    string `json:"scope,omitempty"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`

	Credential []byte `json:"credential"`
}

// Delete forgets a token, everywhere. It returns nil once etcd has committed
// that, and it is true here.
func (s *Store) Delete(ctx context.Context, key tokens.Key) error {
	var answer struct {
		Header  header `json:"header"`
		Deleted int64  `json:"deleted,string"`
	}
	err := s.gateway.ask(ctx, "/v3/kv/deleterange", map[string]any{"key": s.keyOf(key)}, &answer)
	if err == nil {
		if answer.Deleted > 0 {
			s.waitFor(ctx, answer.Header.Revision)
		}
		s.memory.Delete(ctx, key)
	}
	return s.outcome(ctx, "token not revoked in etcd", err)
}

// waitFor waits until the memory is at a revision, so that what it still has
// to be told of a deleted token is behind it; a second at most, as the watch
// may be broken.
func (s *Store) waitFor(ctx context.Context, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		there, moved := s.at.Revision >= revision, s.moved
		s.mu.Unlock()
		if there {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// outcome is what the service is told of an error, whose own words go to the log.
func (s *Store) outcome(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() == nil { // else the client has hung up
		s.log.Error(what, "error", err)
	}
	return tokens.ErrUnavailable
}

// Find returns the record of a live token, or nil. Only a token that the memory
// does not have is asked for in etcd.
func (s *Store) Find(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	if record, _ := s.memory.Find(ctx, key); record != nil {
		return record, nil
	}
	return s.question(ctx, key)
}

// Status says whether what was in etcd has been listed, and whether etcd can
// be reached.
func (s *Store) Status() (up bool, lacks string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil {
		lacks = "etcd cannot be reached"
	}
	return s.up, lacks
}

// Run lists and watches, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { s.memory.Run(ctx) })
	background.Go(func() { s.answer(ctx) })
	s.mirror(ctx)
}

func (s *Store) keyOf(key tokens.Key) []byte { return []byte(s.prefix + hex.EncodeToString(key[:])) }

// parse is the token that a key and a value are, or nil if they are none; what
// else is under the prefix is left alone.
func (s *Store) parse(kv keyValue) (tokens.Key, *tokens.Record) {
	key, ok := s.parseKey(kv.Key)
	if !ok {
		return key, nil
	}
	return key, kv.record()
}

// parseKey is keyOf back.
func (s *Store) parseKey(name []byte) (key tokens.Key, ok bool) {
	text, ok := strings.CutPrefix(string(name), s.prefix)
	if !ok || len(text) != hex.EncodedLen(len(key)) {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(text))
	return key, err == nil
}

// # Leases

// lease is an etcd lease for all tokens of one lifetime that are issued before
// until: one for each would cost a login a second commit.
type lease struct {
	id       int64
	lifetime time.Duration
	until    time.Time
}

// leaseFor is a lease that lasts for a lifetime from now, and for a thirtieth
// of it more at most.
func (s *Store) leaseFor(ctx context.Context, lifetime time.Duration) (int64, error) {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	now := time.Now()
	if s.lease.lifetime == lifetime && now.Before(s.lease.until) {
		return s.lease.id, nil
	}
	shared := max(lifetime/30, time.Second)
	var answer struct {
		ID int64 `json:"ID,string"`
	}
	seconds := int64((lifetime + shared + 2*time.Second) / time.Second)
	if err := s.gateway.ask(ctx, "/v3/lease/grant", map[string]any{"TTL": seconds}, &answer); err != nil {
		return 0, err
	}
	s.lease = lease{answer.ID, lifetime, now.Add(shared)}
	return answer.ID, nil
}

// forget gives up a lease that etcd does not know.
func (s *Store) forget(id int64) {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	if s.lease.id == id {
		s.lease = lease{}
	}
}
