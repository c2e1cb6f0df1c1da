package watch

import (
	"context"
	"os"
)

// ReadFile is [os.ReadFile], but returns ctx's error if ctx ends first: a pipe, or
// a file of a server that hangs, may never end.
func ReadFile(ctx context.Context, name string) ([]byte, error) {
	return until(ctx, func() ([]byte, error) { return os.ReadFile(name) })
}

// until returns what f returns, or ctx's error if ctx ends first. Then nobody waits
// for f any more.
func until[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
}
