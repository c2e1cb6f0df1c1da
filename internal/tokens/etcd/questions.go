package etcd

import (
	"context"
	"time"

	"simple-oauth2/internal/tokens"
)

// question answers for a token that the memory does not have. It waits until the
// memory has the token, or has everything that etcd had committed when the
// question came. All questions wait together: one small read of etcd answers them
// all, so a flood of unknown tokens keeps nobody else's waiting.
func (s *Store) question(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	came := time.Now()
	for {
		s.mu.Lock()
		_, revoked := s.revoked[key]
		complete, lost, moved := s.fresh.After(came), s.lost != nil, s.moved
		s.mu.Unlock()
		// Looked up only now, as it may have come in the meantime.
		if record, _ := s.memory.Find(ctx, key); record != nil || complete || revoked {
			return record, nil
		}
		if lost {
			return nil, tokens.ErrUnavailable
		}
		select {
		case s.asked <- struct{}{}:
		default: // somebody else has asked, and that was not heard yet
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, tokens.ErrUnavailable
		}
	}
}
