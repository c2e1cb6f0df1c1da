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
		name  string
		bytes int // of the body
		took  time.Duration
		err   error
	}{
		{"small", 100, 0, nil},
		{"the greatest that needs no place", small, 0, nil},
		{"the least that needs one", small + 1, patience, ErrBusy},
		{"large", 60_000, patience, ErrBusy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := NewReader()
				var slow []*io.PipeWriter
				for range cap(reader.places) {
					body, sender := io.Pipe()
					go reader.Parse(post(body), 64<<10)
					io.WriteString(sender, strings.Repeat("x", small+1))
					slow = append(slow, sender)
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
				ctx, end := context.WithTimeout(t.Context(), time.Second) // the service stops, or the client hangs up
				began := time.Now()
				large := post(strings.NewReader(strings.Repeat("x", small+1))).WithContext(ctx)
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
		{"at the limit", "a=" + strings.Repeat("x", longest-1) + "&b=x", ""},
		{"at the limit, escaped", "a=" + strings.Repeat("%78", longest), ""},
		{"above it", "a=" + strings.Repeat("x", longest-1) + "&b=xx", "body.b: Fields must not be longer than 8192 bytes together"},
		{"one field alone", "b=" + strings.Repeat("x", longest+1), "body.b: Fields must not be longer than 8192 bytes together"},
		{"not asked for", "a=x&c=" + strings.Repeat("x", 4*longest), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewReader().Parse(post(strings.NewReader(tt.form)), 64<<10, "a", "b")
			if err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
