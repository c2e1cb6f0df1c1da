// Package etcd keeps tokens in an etcd cluster, so that many replicas of a
// service share them and a restart loses none.
//
// Each replica holds all live tokens in its own memory. It lists the prefix once,
// and then watches it from the list's revision on, so that a look-up of a known
// token needs no network. Before it refuses an unknown one, it makes sure that its
// memory has everything that etcd had committed by then: with one read for all
// that are waiting.
//
// A token's key is the prefix and the SHA-256 of the token in hex; its value is
// the record in JSON. An etcd lease deletes it soon after its lifetime, but the
// record decides when the token ends.
//
// # Why a revoked token stays revoked
//
// A request to etcd may arrive late, twice or out of order: a member that was
// paused, or a network that held the request back, may deliver it when nobody
// is waiting for it any more. So each write is a transaction, which etcd orders
// among all others, and each copy of a write finds out for itself that it is
// late:
//
//   - Put writes a key only if it does not exist. A later copy of the put finds
//     the key and writes nothing.
//   - Delete keeps the key. It replaces the value with a tombstone, under the
//     key's lease, and only if the key exists. A put that arrives after the
//     revocation finds the tombstone.
//   - When the lease ends, etcd deletes the key and forgets the lease in one
//     step. A put that arrives after that names a lease that etcd does not know,
//     and etcd refuses it. Leases are not extended, and IDs are not reused.
//
// Nobody knows a token before its put was answered, so a revocation that finds
// no key has nothing to end, and writes nothing.
//
// A memory may be behind etcd, but it does not go back: a replica that has
// revoked a token does not take it back from a list or an event older than the
// revocation. A token that it has put is in its memory before the put is answered,
// but only if its mirror has not come that far: else the mirror has seen the token,
// and what came later, and decides. And a replica knows how far behind it is: it
// says that it can reach etcd only if, within the last second, its watch has
// delivered all that etcd had committed. See catchUp.
//
// During an update, replicas of a release that deleted the keys of revoked tokens
// may run alongside this one. They read a tombstone as an expired token; but the
// rule above holds only once none of them is left.
package etcd

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"simple-oauth2/internal/background"
	"simple-oauth2/internal/keypair"
	"simple-oauth2/internal/tokens"
)

// Store is a [tokens.Store] in etcd. Make one with New.
type Store struct {
	gateway *gateway
	prefix  string
	memory  tokens.Memory // what the mirror has seen, and what this replica has written since
	log     *slog.Logger
	asked   chan struct{} // somebody waits for setFresh

	certificates []*keypair.File // that are to be warned of

	mu      sync.Mutex
	at      header               // the state of the memory; revision 0 is before the first list
	moved   chan struct{}        // closed when at or fresh changes
	revoked map[tokens.Key]int64 // by this replica, at revisions that the memory has not reached yet
	up      bool
	lost    error     // why etcd cannot be reached
	fresh   time.Time // the memory has everything that etcd had committed by then

	leaseMu  sync.Mutex
	leases   map[time.Duration]lease // by the lifetime of their tokens
	granting map[time.Duration]*grant
}

// New returns a store that is up once Run has listed what is in etcd. It returns
// an error if an endpoint refuses, because of a certificate or the password for
// example, or if it speaks http where https is configured, but not if it cannot be
// reached yet.
func New(ctx context.Context, c Config, log *slog.Logger) (*Store, error) {
	g, err := newGateway(c)
	if err != nil {
		return nil, err
	}
	g.log = log
	s := &Store{
		gateway: g,
		prefix:  c.Prefix,
		memory:  tokens.Memory{Now: time.Now},
		log:     log,
		asked:   make(chan struct{}, 1),
		moved:   make(chan struct{}),
		revoked: make(map[tokens.Key]int64),

		leases:   make(map[time.Duration]lease),
		granting: make(map[time.Duration]*grant),
	}
	for _, name := range []string{c.CA, c.Cert} {
		if name != "" {
			s.certificates = append(s.certificates, &keypair.File{Name: name})
		}
	}
	g.current.Store(rand.Int64N(int64(len(g.endpoints)))) // so that replicas spread
	errs := make([]error, len(g.endpoints))
	var checks sync.WaitGroup
	for i, endpoint := range g.endpoints {
		checks.Go(func() {
			if err := s.check(ctx, endpoint); err != nil {
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

// check returns an error if the endpoint refuses in a way that will not change.
func (s *Store) check(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := s.now(ctx, endpoint)
	if hungUp(err) {
		time.Sleep(100 * time.Millisecond) // if the member hung up because it died, it refuses by then
		_, err = s.now(ctx, endpoint)
	}
	switch {
	case hungUp(err):
		return errors.New("connection closed by etcd: http where https is expected, or the other way round?")
	case permanent(err):
		return err
	}
	return nil
}

// hungUp says whether the other side closed the connection without an answer:
// an end of file, or a reset if it had not read everything.
func hungUp(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// Put keeps a record under a key that was never used. It returns nil once etcd
// has committed it and this replica knows it.
func (s *Store) Put(ctx context.Context, key tokens.Key, record *tokens.Record) error {
	value, err := json.Marshal(valueOf(record))
	if err != nil {
		return err
	}
	limit := patience
	if s.isLost() { // etcd may be back, but is not worth the whole wait
		limit = patience / 2
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for range 2 { // the second time with a new lease
		var id int64
		if id, err = s.leaseFor(within, max(0, record.Lifetime())); err != nil {
			break
		}
		var at header
		if at, err = s.put(within, key, value, id); err == nil {
			s.committed(key, record, at)
		}
		if api := (*apiError)(nil); !errors.As(err, &api) || api.Code != notFound {
			break
		}
		s.forget(id)
	}
	return s.outcome(ctx, "could not store a token in etcd", err)
}

// put writes a key that does not exist, and returns where in etcd's history it was
// written. If it exists with the same value, another copy of this put has written
// it.
func (s *Store) put(ctx context.Context, key tokens.Key, value []byte, lease int64) (at header, err error) {
	name := s.keyOf(key)
	var answer transaction
	_, err = s.gateway.ask(ctx, "/v3/kv/txn", map[string]any{
		"compare": []any{map[string]any{"key": name, "target": "VERSION", "result": "EQUAL", "version": 0}},
		"success": []any{map[string]any{"request_put": map[string]any{"key": name, "value": value, "lease": lease}}},
		"failure": []any{map[string]any{"request_range": map[string]any{"key": name}}},
	}, &answer)
	if err != nil || answer.Succeeded {
		return answer.Header, err
	}
	if found := answer.found(); len(found) == 1 && bytes.Equal(found[0].Value, value) {
		return header{answer.Header.ClusterID, found[0].ModRevision}, nil
	}
	return header{}, errors.New("the key is taken")
}

// committed puts a token into the memory that this replica has written to etcd. If
// the memory has reached that revision, the mirror has seen the token, and knows
// what has happened to it since. While the mirror lists, it will find the token by
// itself.
func (s *Store) committed(key tokens.Key, record *tokens.Record, at header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.ClusterID == at.ClusterID && s.at.Revision < at.Revision {
		s.memory.Put(context.Background(), key, record)
	}
}

// value is a record as it is stored in etcd, with the names of introspection.
type value struct {
	Username string `json:"username"`
	Scope    string `json:"scope,omitempty"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	Since    int64  `json:"since,omitempty"` // in milliseconds, unlike the two

	Credential []byte `json:"credential"`
}

func valueOf(r *tokens.Record) value {
	return value{r.Username.String(), r.Scope.String(), r.Issued, r.Expires, r.Since, r.Credential[:]}
}

// tombstone is the value of a revoked token. A replica of a release that knows
// no tombstones reads it as an expired token.
var tombstone = []byte(`{"username":"-","iat":0,"exp":0}`)

// Delete ends a token, everywhere. It returns nil once etcd has committed that
// and this replica knows it.
func (s *Store) Delete(ctx context.Context, key tokens.Key) error {
	name := s.keyOf(key)
	var answer transaction
	_, err := s.gateway.ask(ctx, "/v3/kv/txn", map[string]any{
		"compare": []any{
			map[string]any{"key": name, "target": "VERSION", "result": "GREATER", "version": 0},
			map[string]any{"key": name, "target": "VALUE", "result": "NOT_EQUAL", "value": tombstone},
		},
		"success": []any{map[string]any{"request_put": map[string]any{"key": name, "value": tombstone, "ignore_lease": true}}},
	}, &answer)
	if err == nil {
		s.mu.Lock()
		if revision := answer.Header.Revision; revision > s.at.Revision {
			s.revoked[key] = revision
		}
		s.memory.Delete(ctx, key)
		s.mu.Unlock()
	}
	return s.outcome(ctx, "could not revoke a token in etcd", err)
}

// transaction is etcd's answer to a transaction.
type transaction struct {
	Header    header `json:"header"`
	Succeeded bool   `json:"succeeded"`
	Responses []struct {
		Range struct {
			KVs []keyValue `json:"kvs"`
		} `json:"response_range"`
	} `json:"responses"`
}

// found returns what the transaction read, one range after the other.
func (t transaction) found() (all []keyValue) {
	for _, response := range t.Responses {
		all = append(all, response.Range.KVs...)
	}
	return all
}

// outcome logs an error, and returns the one that the service gets to see.
func (s *Store) outcome(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() == nil { // else the client has hung up
		s.log.Error(what, "error", err)
	}
	return tokens.ErrUnavailable
}

// Find returns the record of a live token, or nil. It asks etcd only about a token
// that the memory does not have.
func (s *Store) Find(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	if record, _ := s.memory.Find(ctx, key); record != nil {
		return record, nil
	}
	return s.question(ctx, key)
}

// Live returns how many live tokens this replica knows.
func (s *Store) Live() int { return s.memory.Live() }

// Status says whether the tokens in etcd have been listed, and whether etcd can
// be reached.
func (s *Store) Status() (up bool, lacks string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil || time.Since(s.fresh) > time.Second {
		lacks = "etcd cannot be reached"
	}
	return s.up, lacks
}

// Run lists and watches, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { s.memory.Run(ctx) })
	tasks.Go(func() { s.warnOfEnds(ctx) })
	s.mirror(ctx)
}

// warnOfEnds warns of the certificates for etcd that expire within a week, once a
// day each.
func (s *Store) warnOfEnds(ctx context.Context) {
	warn := func() {
		for _, file := range s.certificates {
			file.WarnOfEnd(s.log)
		}
	}
	warn()
	background.Every(ctx, time.Hour, warn)
}

func (s *Store) keyOf(key tokens.Key) []byte { return []byte(s.prefix + hex.EncodeToString(key[:])) }

// parse returns the token of a key and its value, or nil if they are not a token:
// other keys under the prefix are left alone.
func (s *Store) parse(kv keyValue) (tokens.Key, *tokens.Record) {
	key, ok := s.parseKey(kv.Key)
	if !ok {
		return key, nil
	}
	return key, kv.record()
}

// parseKey is the inverse of keyOf.
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
// until: a lease for each would cost a login a second commit. From renew on, the
// next one is asked for, while this one still serves.
type lease struct {
	id           int64
	renew, until time.Time
}

// grant is a request for a lease, shared by all who need one.
type grant struct {
	lifetime time.Duration
	done     chan struct{} // closed when lease and err are set
	lease    lease
	err      error
}

// leaseFor returns a lease that lasts for a lifetime from now, and at most a
// thirtieth of it and some seconds longer.
func (s *Store) leaseFor(ctx context.Context, lifetime time.Duration) (int64, error) {
	s.leaseMu.Lock()
	current, now := s.leases[lifetime], time.Now()
	usable := now.Before(current.until)
	if usable && now.Before(current.renew) {
		s.leaseMu.Unlock()
		return current.id, nil
	}
	g := s.granting[lifetime]
	if g == nil {
		g = &grant{lifetime: lifetime, done: make(chan struct{})}
		s.granting[lifetime] = g
		go s.grant(g)
	}
	s.leaseMu.Unlock()
	if usable {
		return current.id, nil
	}
	select {
	case <-g.done:
		return g.lease.id, g.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// grant asks etcd for a lease. The request is nobody's own: a caller that stops
// waiting does not end it for the others.
func (s *Store) grant(g *grant) {
	now, shared := time.Now(), max(g.lifetime/30, time.Second)
	var answer struct {
		ID int64 `json:"ID,string"`
	}
	// Some callers join while the answer is pending, for patience at most.
	renew := now.Add(shared)
	until := renew.Add(patience) // for as long as the next one may take
	seconds := int64((until.Sub(now) + g.lifetime + patience + time.Second - 1) / time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// Each copy of a grant would leave a lease in etcd. So only one is sent, to the
	// member that has just answered a read.
	read := map[string]any{"key": []byte(s.prefix)}
	endpoint, err := s.gateway.ask(ctx, "/v3/kv/range", read, &struct{}{})
	if g.err = err; err == nil {
		g.err = s.gateway.call(ctx, endpoint, "/v3/lease/grant", map[string]any{"TTL": seconds}, &answer)
	}
	g.lease = lease{answer.ID, renew, until}
	s.leaseMu.Lock()
	if g.err == nil {
		maps.DeleteFunc(s.leases, func(_ time.Duration, old lease) bool { return !now.Before(old.until) })
		s.leases[g.lifetime] = g.lease
	}
	delete(s.granting, g.lifetime)
	s.leaseMu.Unlock()
	close(g.done)
}

// forget drops a lease that etcd does not know.
func (s *Store) forget(id int64) {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	maps.DeleteFunc(s.leases, func(_ time.Duration, l lease) bool { return l.id == id })
}
