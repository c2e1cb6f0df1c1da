package form

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// post returns a request with a form in the body.
func post(body io.Reader) *http.Request {
	r := httptest.NewRequest("POST", "/", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// TestPlaces lets slow senders occupy all places, and others send forms meanwhile.
func TestPlaces(t *testing.T) {
	for _, tt := range []struct {
		name     string
		occupied int // places
		bytes    int // of the body
		took     time.Duration
		err      error
	}{
		{name: "small", occupied: 32, bytes: 100},
		{name: "the greatest that needs no place", occupied: 32, bytes: 4096},
		{name: "the least that needs one", occupied: 32, bytes: 4097, took: 5 * time.Second, err: ErrBusy},
		{name: "large", occupied: 32, bytes: 60_000, took: 5 * time.Second, err: ErrBusy},
		{name: "large, with a place left", occupied: 31, bytes: 60_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := NewReader()
				var slow []*io.PipeWriter
				occupy := func() {
					body, sender := io.Pipe()
					go reader.Parse(post(body), 64<<10)
					io.WriteString(sender, strings.Repeat("x", 4097))
					slow = append(slow, sender)
				}
				for range tt.occupied {
					occupy()
				}
				synctest.Wait()
				parse := func(took time.Duration, want error) {
					t.Helper()
					began := time.Now()
					body := "name=jane&x=" + strings.Repeat("x", tt.bytes-len("name=jane&x="))
					sent, err := reader.Parse(post(strings.NewReader(body)), 64<<10, "name")
					if !errors.Is(err, want) || err == nil && sent.Fields["name"] != "jane" || time.Since(began) != took {
						t.Errorf("%v, %v after %v; want %v after %v", sent.Fields, err, time.Since(began), want, took)
					}
				}
				parse(tt.took, tt.err)
				if tt.occupied < 32 {
					occupy()
					synctest.Wait()
				}
				ctx, end := context.WithTimeout(t.Context(), time.Second) // the service stops, or the client hangs up
				began := time.Now()
				large := post(strings.NewReader(strings.Repeat("x", 4097))).WithContext(ctx)
				if _, err := reader.Parse(large, 64<<10); err != ErrBusy || time.Since(began) != time.Second {
					t.Errorf("a request that ends after a second: %v after %v", err, time.Since(began))
				}
				end()
				for _, sender := range slow {
					sender.Close()
				}
				synctest.Wait()
				parse(0, nil)
				if len(reader.places) != cap(reader.places) {
					t.Errorf("%d places were not given back", cap(reader.places)-len(reader.places))
				}
			})
		})
	}
}

// TestLongest checks that only the fields that are kept have a limit.
func TestLongest(t *testing.T) {
	for _, tt := range []struct{ name, form, err string }{
		{"at the limit", "a=" + strings.Repeat("x", 8191) + "&b=x", ""},
		{"at the limit, escaped", "a=" + strings.Repeat("%78", 8192), ""},
		{"above it", "a=" + strings.Repeat("x", 8191) + "&b=xx",
			"body.b: Fields must not be longer than 8192 bytes together"},
		{"one field alone", "b=" + strings.Repeat("x", 8193), "body.b: Fields must not be longer than 8192 bytes together"},
		{"not asked for", "a=x&c=" + strings.Repeat("x", 32_768), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewReader().Parse(post(strings.NewReader(tt.form)), 64<<10, "a", "b")
			if err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
