package etcd

import (
	"context"
	"encoding/json"
	"time"

	"simple-oauth2/internal/tokens"
)

// A flood of unknown tokens becomes one request to etcd at a time, at most a
// hundred a second, for up to mostAtOnce tokens each (etcd allows 128 operations).
// When mostQuestions are waiting, the next is refused as unavailable.
const (
	mostAtOnce    = 100
	mostQuestions = 1000
	pause         = 10 * time.Millisecond
)

// question is a token that the memory does not have, and the channel for the
// answer.
type question struct {
	key    tokens.Key
	answer chan<- answer
}

type answer struct {
	record *tokens.Record
	err    error
}

// question asks etcd for a token. It does not change the memory: only the watch
// does, which knows what came later.
func (s *Store) question(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	if s.isLost() {
		return nil, tokens.ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := make(chan answer, 1)
	select {
	case s.questions <- question{key, answers}:
	default:
		return nil, tokens.ErrUnavailable
	}
	select {
	case answer := <-answers:
		return answer.record, answer.err
	case <-ctx.Done():
		return nil, tokens.ErrUnavailable
	}
}

// answer answers questions until ctx ends.
func (s *Store) answer(ctx context.Context) {
	for {
		var batch []question
		select {
		case <-ctx.Done():
			return
		case q := <-s.questions:
			batch = append(batch, q)
		}
		for len(batch) < mostAtOnce && len(s.questions) > 0 {
			batch = append(batch, <-s.questions)
		}
		records, err := s.lookUp(ctx, batch)
		for i, q := range batch {
			if err != nil {
				q.answer <- answer{err: err}
			} else {
				q.answer <- answer{record: records[i]}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// lookUp returns the live record of each token, or nil.
func (s *Store) lookUp(ctx context.Context, batch []question) ([]*tokens.Record, error) {
	var ranges []any
	for _, q := range batch {
		ranges = append(ranges, map[string]any{"request_range": map[string]any{"key": s.keyOf(q.key)}})
	}
	var found transaction
	err := s.gateway.ask(ctx, "/v3/kv/txn", map[string]any{"success": ranges}, &found)
	if err := s.outcome(ctx, "could not look up tokens in etcd", err); err != nil {
		return nil, err
	}
	records := make([]*tokens.Record, len(batch))
	for i, response := range found.Responses {
		for _, kv := range response.Range.KVs {
			if record := kv.record(); record != nil && record.Live(time.Now()) {
				records[i] = record
			}
		}
	}
	return records, nil
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
	return &tokens.Record{Username: tokens.Share(v.Username), Scope: tokens.Share(v.Scope), Issued: v.Issued, Expires: v.Expires, Credential: tokens.Credential(v.Credential)}
}
