package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"simple-oauth2/internal/tokens"
)

// A member that hangs, or that the others have left behind, keeps the watch open
// but sends nothing, and a stuck connection looks the same. So on each beat the
// replica catches up with what a majority knows, within beatTimeout: this watch
// or the next one learns of a revoked token within a second. A question does not
// wait for the next beat, but causes one.
const (
	beat        = 250 * time.Millisecond
	beatTimeout = 500 * time.Millisecond
	quiet       = 100 * time.Millisecond // how long the watch may take to deliver what is known
	pause       = 10 * time.Millisecond  // between one beat and the next, however many questions wait
)

// header is part of each answer of etcd.
type header struct {
	ClusterID string `json:"cluster_id"`
	Revision  int64  `json:"revision,string"`
}

// mirror keeps the memory in step with etcd, through one endpoint after the other.
func (s *Store) mirror(ctx context.Context) {
	failed := 0
	for at := s.gateway.current.Load(); ctx.Err() == nil; at++ {
		endpoint := s.gateway.endpoints[at%int64(len(s.gateway.endpoints))]
		watched := false
		err := s.follow(ctx, endpoint, func() { watched = true })
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errCompacted) || errors.Is(err, errWentBack) {
			s.log.Info("listing the tokens again", "reason", err)
			s.setRevision(header{})
			at-- // nothing is wrong with the endpoint
			continue
		}
		if watched {
			failed = 0
		}
		if failed++; failed >= len(s.gateway.endpoints) {
			s.setLost(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(min(failed, 10)) * 20 * time.Millisecond):
		}
	}
}

// setLost notes why no endpoint can be followed, or with nil that one can.
func (s *Store) setLost(err error) {
	s.mu.Lock()
	was := s.lost
	s.lost = err
	s.mu.Unlock()
	switch {
	case err != nil && was == nil: // once, not at each try
		s.log.Warn("etcd cannot be reached, known tokens keep working", "error", err)
	case err == nil && was != nil:
		s.log.Info("etcd can be reached again")
	}
}

// isLost says whether no endpoint could be followed.
func (s *Store) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost != nil
}

// setRevision notes which revision of which cluster the memory has reached.
func (s *Store) setRevision(at header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached(at)
}

// reached is setRevision for a caller that has the lock.
func (s *Store) reached(at header) {
	s.at = at
	maps.DeleteFunc(s.revoked, func(_ tokens.Key, revision int64) bool { return revision <= at.Revision })
	s.wake()
}

// wake wakes whoever waits for the memory. The caller has the lock.
func (s *Store) wake() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// keep puts a token into the memory, unless this replica has revoked it in the
// meantime. The caller has the lock.
func (s *Store) keep(key tokens.Key, record *tokens.Record) {
	if _, revoked := s.revoked[key]; !revoked {
		s.memory.Put(context.Background(), key, record)
	}
}

var (
	errCompacted = errors.New("the revision to watch from was compacted")
	errWentBack  = errors.New("etcd's revision went back, or this is another cluster")
	errBehind    = errors.New("the watch has not seen a key that was written")
)

// follow watches one endpoint until that fails, and lists it first if necessary.
// It calls watched once the watch is open.
func (s *Store) follow(ctx context.Context, endpoint string, watched func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	asked := time.Now()
	if _, err := s.beat(ctx, endpoint); err != nil {
		return err
	}
	if s.at.Revision == 0 {
		if err := s.list(ctx, endpoint); err != nil {
			return err
		}
		s.setFresh(asked)
	}
	beating := make(chan struct{})
	defer func() { cancel(nil); <-beating }()
	go func() {
		defer close(beating)
		cancel(s.keepFresh(ctx, endpoint))
	}()
	err := s.watch(ctx, endpoint, watched)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

// keepFresh catches up on each beat, and at once if somebody asks, until that
// fails or ctx ends.
func (s *Store) keepFresh(ctx context.Context, endpoint string) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		if err := s.catchUp(ctx, endpoint); err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-tick.C:
		case <-s.asked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setFresh notes that the memory has everything that etcd had committed by then.
func (s *Store) setFresh(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = at
	s.wake()
}

// catchUp returns nil once the watch has delivered everything that the cluster
// knew when catchUp began. A watch sees no writes outside the prefix, by other
// programs say: if it seems to be behind, catchUp writes a key that the watch must
// deliver. A watch that delivers nothing for beatTimeout is an error.
func (s *Store) catchUp(ctx context.Context, endpoint string) error {
	asked := time.Now()
	now, err := s.beat(ctx, endpoint)
	if err != nil {
		return err
	}
	if !s.reaches(ctx, now.Revision, quiet) {
		var answer struct {
			Header header `json:"header"`
		}
		within, cancel := context.WithTimeout(ctx, beatTimeout)
		defer cancel()
		if err := s.gateway.call(within, endpoint, "/v3/kv/put", map[string]any{"key": []byte(s.prefix + "~beat")}, &answer); err != nil {
			return err
		}
		if !s.reaches(ctx, answer.Header.Revision, beatTimeout) {
			return errBehind
		}
	}
	s.setFresh(asked)
	return nil
}

// reaches waits until the memory has reached a revision, and says whether it has.
// It gives up when the memory has not moved for patience.
func (s *Store) reaches(ctx context.Context, revision int64, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		s.mu.Lock()
		there, moved := s.at.Revision >= revision, s.moved
		s.mu.Unlock()
		if there {
			return true
		}
		select {
		case <-moved:
			timer.Reset(patience)
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// beat asks an endpoint for the cluster's revision, which a majority must
// confirm.
func (s *Store) beat(ctx context.Context, endpoint string) (header, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	s.mu.Lock()
	before := s.at // while etcd answers, the watch may run ahead of the answer
	s.mu.Unlock()
	now, err := s.now(ctx, endpoint)
	if err == nil && (now.Revision < before.Revision || before.Revision != 0 && now.ClusterID != before.ClusterID) {
		return now, errWentBack
	}
	return now, err
}

// now returns the cluster's revision, with a linearizable read.
func (s *Store) now(ctx context.Context, endpoint string) (header, error) {
	var answer struct {
		Header header `json:"header"`
	}
	err := s.gateway.call(ctx, endpoint, "/v3/kv/range", map[string]any{"key": []byte(s.prefix)}, &answer)
	if err == nil && answer.Header.ClusterID == "" {
		err = &apiError{status: http.StatusOK}
	}
	return answer.Header, err
}

// end returns the first key after the prefix.
func (s *Store) end() []byte {
	end := bytes.TrimRight([]byte(s.prefix), "\xff")
	if len(end) == 0 {
		return []byte{0} // to etcd, no end
	}
	end[len(end)-1]++
	return end
}

// list fills the memory with what etcd holds at one revision, page by page.
func (s *Store) list(ctx context.Context, endpoint string) error {
	page := 10_000
	listed := make(map[tokens.Key]*tokens.Record)
	start, at := []byte(s.prefix), header{}
	for {
		var answer struct {
			Header header     `json:"header"`
			KVs    []keyValue `json:"kvs"`
			More   bool       `json:"more"`
		}
		within, cancel := context.WithTimeout(ctx, patience)
		err := s.gateway.call(within, endpoint, "/v3/kv/range",
			map[string]any{"key": start, "range_end": s.end(), "limit": page, "revision": at.Revision}, &answer)
		cancel()
		if errors.Is(err, errTooLarge) && page > 1 {
			page /= 10
			continue
		}
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if at.Revision == 0 {
			at = answer.Header
		}
		for _, kv := range answer.KVs {
			if key, record := s.parse(kv); record != nil {
				listed[key] = record
			}
			start = append(kv.Key, 0)
		}
		if !answer.More {
			break
		}
	}
	// All at once, and only now: tokens that others have revoked since the first
	// page are live in this list, until the watch says otherwise.
	for key, record := range listed {
		s.mu.Lock()
		s.keep(key, record)
		s.mu.Unlock()
	}
	s.memory.Retain(func(key tokens.Key) bool { return listed[key] != nil })
	s.setRevision(at)
	s.mu.Lock()
	s.up = true
	s.mu.Unlock()
	s.log.Info("tokens listed", "tokens", len(listed), "etcd", endpoint)
	return nil
}

// watch applies what changes after the memory's revision. It watches from that
// revision on, not from the next one: if the next one was a revocation and etcd
// has just compacted to it, older releases of etcd report neither
// (https://github.com/etcd-io/etcd/issues/18089).
func (s *Store) watch(ctx context.Context, endpoint string, watched func()) error {
	stream, err := s.gateway.open(ctx, endpoint, "/v3/watch", map[string]any{"create_request": map[string]any{
		"key": []byte(s.prefix), "range_end": s.end(), "start_revision": s.at.Revision, "progress_notify": true,
	}})
	if err != nil {
		return err
	}
	defer stream.Close()
	messages := json.NewDecoder(stream)
	for {
		stream.left = mostBytes
		var message struct {
			Result struct {
				Header          header  `json:"header"`
				Created         bool    `json:"created"`
				Canceled        bool    `json:"canceled"`
				CancelReason    string  `json:"cancel_reason"`
				CompactRevision int64   `json:"compact_revision,string"`
				Events          []event `json:"events"`
			} `json:"result"`
			Error *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := messages.Decode(&message); err != nil {
			return err
		}
		result := message.Result
		switch {
		case message.Error != nil:
			return fmt.Errorf("watch: %s", message.Error.Message)
		case result.CompactRevision != 0:
			return errCompacted
		case result.Canceled:
			return fmt.Errorf("watch: %s", result.CancelReason)
		case result.Created:
			s.log.Info("watching etcd", "etcd", endpoint)
			s.setLost(nil)
			watched()
			continue
		case len(result.Events) == 0: // everything up to here was delivered
			s.setRevision(result.Header)
			continue
		}
		s.apply(result.Header.ClusterID, result.Events)
	}
}

// event is a change of a key.
type event struct {
	Type string   `json:"type"`
	KV   keyValue `json:"kv"`
}

// apply changes the memory and its revision in one step, so that committed never
// sees one without the other.
func (s *Store) apply(cluster string, events []event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, event := range events {
		if event.KV.ModRevision <= s.at.Revision {
			continue
		}
		if key, record := s.parse(event.KV); record != nil && event.Type != "DELETE" {
			s.keep(key, record)
		} else if key, ok := s.parseKey(event.KV.Key); ok { // deleted, or a tombstone
			s.memory.Delete(context.Background(), key)
		}
	}
	// Not the header's revision, which may be ahead of this watch.
	s.reached(header{cluster, events[len(events)-1].KV.ModRevision})
}

// keyValue is a key and its value, as etcd sends them.
type keyValue struct {
	Key         []byte `json:"key"`
	Value       []byte `json:"value"`
	ModRevision int64  `json:"mod_revision,string"`
}

// record returns the record in the value, or nil if there is none, as in a
// tombstone.
func (kv keyValue) record() *tokens.Record {
	var v value
	if json.Unmarshal(kv.Value, &v) != nil || v.Username == "" || len(v.Credential) != len(tokens.Credential{}) {
		return nil
	}
	return &tokens.Record{
		Username:   tokens.Share(v.Username),
		Scope:      tokens.Share(v.Scope),
		Issued:     v.Issued,
		Expires:    v.Expires,
		Since:      v.Since,
		Credential: tokens.Credential(v.Credential),
	}
}
