// Package withetcd runs the suite of [tokens.Store] against a real etcd. It is a
// package of its own so that a plain go test ./... shows when etcd is missing:
// "[no tests to run]" next to it means that the tests of package etcd that need
// it were skipped too.
package withetcd

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"simple-oauth2/internal/etcd"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/tokens/conformance"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := exec.LookPath("etcd"); err != nil {
		flag.Set("test.run", "^$")
	}
	os.Exit(m.Run())
}

func startEtcd(t *testing.T) (endpoint string) {
	freeURL := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	endpoint = freeURL()
	member := exec.Command("etcd", "--data-dir", t.TempDir(), "--log-level", "error", "--unsafe-no-fsync",
		"--listen-client-urls", endpoint, "--advertise-client-urls", endpoint, "--listen-peer-urls", freeURL())
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		member.Process.Kill()
		member.Wait()
	})
	return endpoint
}

// run runs a store until the test ends, and waits until it is up.
func run(t *testing.T, c etcd.Config) *etcd.Store {
	s, err := etcd.New(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if up, _ := s.Status(); up {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("not up")
		}
	}
}

func TestConformance(t *testing.T) {
	endpoint := startEtcd(t)
	t.Run("one replica", func(t *testing.T) {
		t.Parallel()
		s := run(t, etcd.Config{Endpoints: endpoint, Prefix: "/one/"})
		conformance.Run(t, func(*testing.T) tokens.Store { return s })
	})
	t.Run("look-ups by another replica", func(t *testing.T) {
		t.Parallel()
		c := etcd.Config{Endpoints: endpoint, Prefix: "/two/"}
		a := run(t, c)
		b := run(t, c)
		conformance.Run(t, func(*testing.T) tokens.Store { return twoReplicas{a, b} })
	})
}

// twoReplicas writes to one replica and reads from the other.
type twoReplicas struct {
	*etcd.Store
	reads *etcd.Store
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
