package etcd

import (
	"context"
	"errors"
	"testing"
	"time"

	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/tokens/conformance"
)

// TestConformance runs the suite of [tokens.Store] against a real etcd.
func TestConformance(t *testing.T) {
	endpoint := startEtcd(t).endpoint
	t.Run("one replica", func(t *testing.T) {
		t.Parallel()
		s, _ := run(t, Config{Endpoints: endpoint, Prefix: "/one/"})
		conformance.Run(t, func(*testing.T) tokens.Store { return s })
	})
	t.Run("look-ups by another replica", func(t *testing.T) {
		t.Parallel()
		c := Config{Endpoints: endpoint, Prefix: "/two/"}
		a, _ := run(t, c)
		b, _ := run(t, c)
		conformance.Run(t, func(*testing.T) tokens.Store { return twoReplicas{a, b} })
	})
}

// twoReplicas writes to one replica and reads from the other.
type twoReplicas struct {
	*Store
	reads *Store
}

func (r twoReplicas) Find(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	return r.reads.Find(ctx, key)
}

// Delete returns once the other replica knows too, which may take a moment.
func (r twoReplicas) Delete(ctx context.Context, key tokens.Key) error {
	if err := r.Store.Delete(ctx, key); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if record, err := r.reads.Find(ctx, key); record == nil && err == nil {
			return nil
		}
	}
	return errors.New("a revoked token lives on")
}
