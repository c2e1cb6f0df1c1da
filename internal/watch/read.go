package watch

import (
	"context"
	"os"
)

// ReadFile is [os.ReadFile], or ctx's error if that ends first: a pipe, or a file
// of a server that hangs, may never come to its end.
func ReadFile(ctx context.Context, name string) ([]byte, error) {
	return until(ctx, func() ([]byte, error) { return os.ReadFile(name) })
}

// until is what f returns, or ctx's error if that ends first. Then f is left to
// end by itself.
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
