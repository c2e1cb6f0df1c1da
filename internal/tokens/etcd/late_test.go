package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/tokens"
)

// changeTransport is a change for run: each request goes to trip, which can pass
// it on to etcd with next.
func changeTransport(trip func(r *http.Request, body string, next http.RoundTripper) (*http.Response, error)) func(*Store) {
	return func(s *Store) {
		next := s.gateway.http.Transport
		s.gateway.http = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			return trip(r, string(body), next)
		})}
	}
}

// isPut recognizes a store's request to put a token.
func isPut(body string) bool { return strings.Contains(body, `"lease":`) }

// TestLateWrite revokes a token and then delivers a put of it that was sent
// before.
func TestLateWrite(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	otherWay := strings.Replace(m.endpoint, "127.0.0.1", "localhost", 1)
	revision := func(t *testing.T) int64 {
		t.Helper()
		var answer struct {
			Header header `json:"header"`
		}
		if err := m.call(t.Context(), m.endpoint, "/v3/kv/range", map[string]any{"key": []byte("any")}, &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Header.Revision
	}
	for i, tt := range []struct {
		name string
		// what is done with a copy of the put before and after the revocation
		before, after func(copyOfPut func())
		leaseEnds     bool
	}{
		{"after the revocation", nil, func(put func()) { put() }, false},
		{"before the revocation and after", func(put func()) { put() }, func(put func()) { put(); put() }, false},
		{"after the lease's end", nil, func(put func()) { put() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Endpoints: m.endpoint, Prefix: fmt.Sprintf("/late%d/", i)}
			var sent atomic.Pointer[string]
			a, _ := run(t, c, changeTransport(func(r *http.Request, body string, next http.RoundTripper) (*http.Response, error) {
				if isPut(body) {
					sent.Store(&body)
				}
				return next.RoundTrip(r)
			}))
			b, _ := run(t, c)
			key := put(t, a, a, b)
			copyOfPut := func() {
				response, err := http.Post(m.endpoint+"/v3/kv/txn", "application/json", strings.NewReader(*sent.Load()))
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
			}
			if tt.before != nil {
				tt.before(copyOfPut)
			}
			if err := b.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if tt.leaseEnds {
				m.ask("/v3/lease/revoke", map[string]any{"ID": a.leases[time.Minute].id})
			}
			tt.after(copyOfPut)
			at := put(t, b, a, b) // what is written after it is known everywhere
			for name, s := range map[string]*Store{"one replica": a, "the other": b} {
				if record, err := s.Find(t.Context(), key); record != nil || err != nil {
					t.Errorf("%s finds %+v, %v", name, record, err)
				}
				if record, _ := s.memory.Find(t.Context(), at); record == nil {
					t.Errorf("%s does not know a token that is not revoked", name)
				}
			}
			started, _ := run(t, c)
			if record, err := started.Find(t.Context(), key); record != nil || err != nil {
				t.Errorf("a replica that starts finds %+v, %v", record, err)
			}
		})
	}

	t.Run("held back on the way to the first endpoint", func(t *testing.T) {
		release, delivered := make(chan struct{}), make(chan struct{})
		var first sync.Once
		hold := changeTransport(func(r *http.Request, body string, next http.RoundTripper) (*http.Response, error) {
			held := false
			if isPut(body) {
				first.Do(func() { held = true })
			}
			if !held {
				return next.RoundTrip(r)
			}
			<-release // the network has it, whatever the client does
			response, err := next.RoundTrip(r.Clone(context.WithoutCancel(r.Context())))
			close(delivered)
			return response, err
		})
		c := Config{Endpoints: m.endpoint + "," + otherWay, Prefix: "/held/"}
		s, _ := run(t, c, hold)
		key := put(t, s, s)
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		close(release)
		<-delivered
		put(t, s, s)
		if record, err := s.Find(t.Context(), key); record != nil || err != nil {
			t.Errorf("found %+v, %v", record, err)
		}
	})

	t.Run("an answer lost, and the put sent again", func(t *testing.T) {
		var first sync.Once
		lose := changeTransport(func(r *http.Request, body string, next http.RoundTripper) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if isPut(body) {
				first.Do(func() { response, err = nil, errors.New("the answer is lost") })
			}
			return response, err
		})
		s, _ := run(t, Config{Endpoints: m.endpoint + "," + otherWay, Prefix: "/lost/"}, lose)
		put(t, s, s)
	})

	t.Run("a key that is taken", func(t *testing.T) {
		s, _ := run(t, Config{Endpoints: m.endpoint, Prefix: "/taken/"})
		key := put(t, s, s)
		_, other := newToken()
		other.Username = tokens.Share("jane")
		if err := s.Put(t.Context(), key, other); err == nil {
			t.Error("a second record was put under one key")
		}
		if record, _ := s.Find(t.Context(), key); record == nil || record.Username.String() != "johndoe" {
			t.Errorf("found %+v", record)
		}
	})

	t.Run("a revocation that has nothing to end writes nothing", func(t *testing.T) {
		s, _ := run(t, Config{Endpoints: m.endpoint, Prefix: "/nothing/"})
		unknown, _ := newToken()
		twice := put(t, s, s)
		if err := s.Delete(t.Context(), twice); err != nil {
			t.Fatal(err)
		}
		eventually(t, "told", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.revoked) == 0 })
		for name, key := range map[string]tokens.Key{"unknown": unknown, "revoked before": twice} {
			before := revision(t)
			if err := s.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
			if after := revision(t); after != before {
				t.Errorf("%s: from revision %d to %d", name, before, after)
			}
		}
	})
}

// TestRevokedWhileBehind revokes a token on a replica whose memory does not know
// it yet, and learns of it only afterwards.
func TestRevokedWhileBehind(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	c := Config{Endpoints: m.endpoint, Prefix: "/p/"}
	other, _ := run(t, c)
	for _, tt := range []struct{ name, path string }{
		{"a list under way", "/v3/kv/range"},
		{"a watch that is late", "/v3/watch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := New(t.Context(), c, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			key := tokens.Key{}
			reached, release := make(chan struct{}), make(chan struct{})
			var first sync.Once
			changeTransport(func(r *http.Request, body string, next http.RoundTripper) (*http.Response, error) {
				if r.URL.Path == "/v3/watch" && tt.path != r.URL.Path {
					return next.RoundTrip(r)
				}
				response, err := next.RoundTrip(r)
				if r.URL.Path == "/v3/watch" || r.URL.Path == tt.path && strings.Contains(body, `"limit"`) {
					first.Do(func() { close(reached); <-release })
				}
				return response, err
			})(s)
			if tt.path == "/v3/kv/range" {
				key = put(t, other, other)
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { s.Run(ctx); close(done) }()
			defer func() { stop(); <-done }()
			<-reached
			if tt.path == "/v3/watch" {
				key = put(t, other, other)
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			revived := func() bool { r, _ := s.memory.Find(t.Context(), key); return r != nil }
			stays := put(t, other, other)
			close(release)
			eventually(t, "up to date", func() bool {
				if revived() {
					t.Fatal("a revoked token works again")
				}
				r, _ := s.memory.Find(t.Context(), stays)
				return r != nil
			})
			eventually(t, "rid of what it need not remember", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.revoked) == 0 })
		})
	}
	t.Run("the memory at once", func(t *testing.T) {
		s, err := New(t.Context(), c, slog.New(slog.DiscardHandler)) // without a mirror
		if err != nil {
			t.Fatal(err)
		}
		key, record := newToken()
		s.memory.Put(t.Context(), key, record)
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if found, _ := s.memory.Find(t.Context(), key); found != nil {
			t.Error("a revoked token is in the memory")
		}
		s.setLost(errors.New("gone"))
		if found, err := s.Find(t.Context(), key); found != nil || err != nil {
			t.Errorf("while etcd cannot be reached it is %v, %v, want nothing", found, err)
		}
	})
}

// TestEventOfBefore sends a replica an event for a token that it has already
// revoked.
func TestEventOfBefore(t *testing.T) {
	key, _ := newToken()
	s := bare(func(r *http.Request, body string) (*http.Response, error) {
		if r.URL.Path == "/v3/watch" {
			kv, _ := json.Marshal(map[string]any{"key": []byte(fmt.Sprintf("/p/%x", key)), "mod_revision": "11",
				"value": []byte(`{"username":"a","exp":9999999999,"credential":"AQIDBAUGBwg="}`)})
			return answers(fmt.Sprintf(`{"result":{"created":true}} {"result":{"header":{"cluster_id":"1","revision":"12"},"events":[{"kv":%s}]}}`, kv))
		}
		return answers(`{"header":{"cluster_id":"1","revision":"12"},"succeeded":true}`)
	})
	s.at = header{ClusterID: "1", Revision: 10}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	s.watch(t.Context(), "http://a", func() {})
	if found, _ := s.memory.Find(t.Context(), key); found != nil || s.at.Revision != 11 {
		t.Errorf("found %+v; the memory is at %d", found, s.at.Revision)
	}
}

// TestStatus checks that the status depends on when the store last caught up.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bare(nil)
		s.up = true
		s.setFresh(time.Now())
		for _, tt := range []struct {
			wait  time.Duration
			lacks string
		}{
			{time.Second, ""},
			{1, "etcd cannot be reached"},
		} {
			time.Sleep(tt.wait)
			if up, lacks := s.Status(); !up || lacks != tt.lacks {
				t.Errorf("%v, %q; want %q", up, lacks, tt.lacks)
			}
		}
	})
}

// TestWatchThatIsStuck holds back the events of a watch, while everything else is
// answered.
func TestWatchThatIsStuck(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	for _, tt := range []struct {
		name      string
		endpoints int
	}{
		{"with another endpoint", 2},
		{"with none", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Endpoints: m.endpoint, Prefix: fmt.Sprintf("/stuck%d/", tt.endpoints)}
			var stuck atomic.Bool
			proxy := proxyTo(t, func() string { return m.endpoint }, func(r *http.Request) bool { return r.URL.Path == "/v3/watch" && stuck.Load() })
			other, _ := run(t, c)
			c.Endpoints = proxy.URL
			if tt.endpoints == 2 {
				c.Endpoints += "," + m.endpoint
			}
			s, _ := run(t, c, func(s *Store) { s.gateway.current.Store(0) })
			eventually(t, "well", func() bool { _, lacks := s.Status(); return lacks == "" })
			key := put(t, other, other, s)
			stuck.Store(true)
			if err := other.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			deleted := time.Now()
			knows := func() bool { r, _ := s.memory.Find(t.Context(), key); return r == nil }
			if tt.endpoints == 2 {
				eventually(t, "told of the revocation", knows)
				return
			}
			eventually(t, "aware that it is behind", func() bool { _, lacks := s.Status(); return lacks != "" })
			stuck.Store(false)
			eventually(t, "well again", func() bool {
				overdue := time.Since(deleted) > time.Second
				_, lacks := s.Status()
				if lacks == "" && overdue && !knows() {
					t.Fatal("it says that it can reach etcd, but has a token that was revoked a second ago")
				}
				return lacks == "" && overdue
			})
		})
	}
}

// proxyTo returns a proxy that swallows the answers to the requests that hold
// picks, for as long as it picks them.
func proxyTo(t *testing.T, endpoint func() string, hold func(*http.Request) bool) *httptest.Server {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, _ := http.NewRequestWithContext(r.Context(), r.Method, endpoint()+r.URL.Path, r.Body)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return
		}
		defer response.Body.Close()
		w.WriteHeader(response.StatusCode)
		for buffer := make([]byte, 4096); ; {
			n, err := response.Body.Read(buffer)
			if hold(r) {
				<-r.Context().Done()
				return
			}
			w.Write(buffer[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	}))
	t.Cleanup(func() { proxy.CloseClientConnections(); proxy.Close() })
	return proxy
}

// bare returns a store without a mirror, whose requests go to trip.
func bare(trip func(r *http.Request, body string) (*http.Response, error)) *Store {
	s := &Store{
		gateway: &gateway{endpoints: []string{"http://a", "http://b", "http://c"}, http: &http.Client{}},
		prefix:  "/p/",
		memory:  tokens.Memory{Now: time.Now},
		log:     slog.New(slog.DiscardHandler),
		asked:   make(chan struct{}, 1),
		moved:   make(chan struct{}),
		revoked: make(map[tokens.Key]int64),

		leases:   make(map[time.Duration]lease),
		granting: make(map[time.Duration]*grant),
	}
	changeTransport(func(r *http.Request, body string, _ http.RoundTripper) (*http.Response, error) { return trip(r, body) })(s)
	return s
}

func answers(text string) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// TestWithoutQuorum calls an etcd that does not answer, in simulated time.
func TestWithoutQuorum(t *testing.T) {
	hangs := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	for _, tt := range []struct {
		name  string
		hangs string        // the path of the calls that are not answered
		slow  time.Duration // how long each other call takes
		lost  error         // why etcd is known to be lost
		most  int64         // calls that hang at a time; 0 for any number
		limit time.Duration
	}{
		{name: "for a lease", hangs: "/v3/lease/grant", most: 1, limit: 3500 * time.Millisecond},
		{name: "for a put", hangs: "/v3/kv/txn", limit: 3500 * time.Millisecond},
		{name: "for a put, when it is known to be lost", hangs: "/v3/kv/txn", lost: errors.New("no endpoint answers"),
			limit: 1750 * time.Millisecond},
		{name: "for a put, after a lease that took its time", hangs: "/v3/kv/txn", slow: time.Second,
			limit: 3500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open, most atomic.Int64
				s := bare(func(r *http.Request, body string) (*http.Response, error) {
					if r.URL.Path != tt.hangs {
						time.Sleep(tt.slow) // for the read before the lease, and again for the lease
						return answers(`{"ID":"7"}`)
					}
					if n := open.Add(1); n > most.Load() {
						most.Store(n)
					}
					defer open.Add(-1)
					return hangs(r)
				})
				s.lost = tt.lost
				began := time.Now()
				var clients sync.WaitGroup
				for i := range 1000 {
					clients.Go(func() {
						time.Sleep(time.Duration(i) * 3 * time.Millisecond) // all within three seconds
						came := time.Now()
						key, record := newToken()
						if err := s.Put(t.Context(), key, record); !errors.Is(err, tokens.ErrUnavailable) {
							t.Errorf("put: %v", err)
						}
						if took := time.Since(came); took > tt.limit {
							t.Errorf("refused after %v", took)
						}
					})
				}
				clients.Go(func() { // a client that hangs up is gone at once
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					defer cancel()
					key, record := newToken()
					s.Put(ctx, key, record)
					if took := time.Since(began); took > time.Millisecond {
						t.Errorf("left after %v", took)
					}
				})
				clients.Wait()
				if tt.most > 0 && most.Load() > tt.most {
					t.Errorf("%d calls for a lease at a time, want %d", most.Load(), tt.most)
				}
				synctest.Wait()
			})
		})
	}
}

// TestSlowPut answers a put late.
func TestSlowPut(t *testing.T) {
	for _, tt := range []struct {
		name string
		lost error
		took time.Duration
		err  error
	}{
		{name: "in time", took: 3499 * time.Millisecond},
		{name: "too late", took: 3501 * time.Millisecond, err: tokens.ErrUnavailable},
		{name: "in time, when etcd is known to be lost", lost: io.EOF, took: 1749 * time.Millisecond},
		{name: "too late, when etcd is known to be lost", lost: io.EOF, took: 1751 * time.Millisecond,
			err: tokens.ErrUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := bare(func(r *http.Request, _ string) (*http.Response, error) {
					if r.URL.Path == "/v3/kv/txn" {
						select {
						case <-time.After(time.Until(began.Add(tt.took))):
						case <-r.Context().Done():
							return nil, r.Context().Err()
						}
						return answers(`{"header":{"cluster_id":"1","revision":"11"},"succeeded":true}`)
					}
					return answers(`{"ID":"7"}`)
				})
				s.lost = tt.lost
				key, record := newToken()
				if err := s.Put(t.Context(), key, record); err != tt.err {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			})
		})
	}
}

// TestLeaseOutlastsItsTokens wants the lease to be so long that the record, and
// not etcd, decides when a token ends.
func TestLeaseOutlastsItsTokens(t *testing.T) {
	for _, lifetime := range []time.Duration{0, time.Second, time.Minute, 30 * time.Minute, 87600 * time.Hour} {
		t.Run(lifetime.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var granted []time.Duration
				s := bare(func(r *http.Request, body string) (*http.Response, error) {
					if r.URL.Path != "/v3/lease/grant" {
						return answers("{}")
					}
					var in struct{ TTL int64 }
					json.Unmarshal([]byte(body), &in)
					granted = append(granted, time.Duration(in.TTL)*time.Second)
					return answers(fmt.Sprintf(`{"ID":"%d"}`, len(granted)))
				})
				first := time.Now()
				id, err := s.leaseFor(t.Context(), lifetime)
				if err != nil || id != 1 {
					t.Fatal(id, err)
				}
				// The last token that shares the lease must not outlive it.
				// It may have been as late as the answer to the call.
				until := s.leases[lifetime].until
				last := first.Add(max(until.Add(-1).Sub(first), patience))
				time.Sleep(time.Until(until.Add(-1)))
				if id, err := s.leaseFor(t.Context(), lifetime); err != nil || id != 1 {
					t.Errorf("not shared until its last moment: lease %d, %v", id, err)
				}
				synctest.Wait()
				if ends, needs := first.Add(granted[0]), last.Add(lifetime+time.Second); ends.Before(needs) {
					t.Errorf("the lease ends %v before its last token", needs.Sub(ends))
				}
				if most := lifetime + lifetime/30 + 9*time.Second; granted[0] > most {
					t.Errorf("a lease of %v, want %v at most", granted[0], most)
				}
				time.Sleep(1)
				if id, err := s.leaseFor(t.Context(), lifetime); err != nil || id != 2 {
					t.Errorf("shared for too long: lease %d, %v", id, err)
				}
			})
		})
	}
}

// TestPagesOfOneRevision lists more than one page, and changes etcd in between.
func TestPagesOfOneRevision(t *testing.T) {
	var revisions []int64
	key, other := strings.Repeat("aa", 32), strings.Repeat("bb", 32)
	s := bare(func(_ *http.Request, body string) (*http.Response, error) {
		var in struct{ Revision int64 }
		json.Unmarshal([]byte(body), &in)
		revisions = append(revisions, in.Revision)
		page := func(name string, more bool) (*http.Response, error) {
			kv, _ := json.Marshal(map[string]any{"key": []byte("/p/" + name), "value": []byte(`{"username":"a","exp":9999999999,"credential":"AQIDBAUGBwg="}`)})
			return answers(fmt.Sprintf(`{"header":{"cluster_id":"1","revision":"%d"},"kvs":[%s],"more":%v}`, 10+len(revisions), kv, more))
		}
		if len(revisions) == 1 {
			return page(key, true)
		}
		return page(other, false)
	})
	if err := s.list(t.Context(), "http://a"); err != nil {
		t.Fatal(err)
	}
	if len(revisions) != 2 || revisions[0] != 0 || revisions[1] != 11 || s.at.Revision != 11 {
		t.Errorf("pages of revisions %v; the memory is at %d", revisions, s.at.Revision)
	}
	listed := 0
	s.memory.Retain(func(tokens.Key) bool { listed++; return true })
	if listed != 2 {
		t.Errorf("%d tokens listed, want 2", listed)
	}
}

// TestRedirect checks that no redirect is followed: it would take the user's token to
// a host that nobody configured.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, `{"header":{"cluster_id":"1","revision":"1"}}`)
	}))
	defer elsewhere.Close()
	here := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer here.Close()
	_, err := New(t.Context(), Config{Endpoints: here.URL, Prefix: "/p/"}, slog.New(slog.DiscardHandler))
	if want := "-etcd " + here.URL + ": HTTP status 307, is this etcd?"; err == nil || err.Error() != want || asked.Load() != 0 {
		t.Errorf("error %v, want %s; %d requests elsewhere", err, want, asked.Load())
	}
}

// TestHungUp closes connections in both of the ways in which they end.
func TestHungUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"an end of file", fmt.Errorf("Post: %w", io.EOF), true},
		{"a reset", fmt.Errorf("Post: %w", syscall.ECONNRESET), true},
		{"refused", errors.New("connection refused"), false},
		{"none", nil, false},
	} {
		if got := hungUp(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
