package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestAsk calls members that are slow, hang or fail, in simulated time, and notes
// when each is called.
func TestAsk(t *testing.T) {
	const ms, hangs, always = time.Millisecond, time.Hour, 2 * time.Hour
	var (
		refuses  = errors.New("connection refused")
		unwell   = &apiError{Code: unavailable}
		not      = &apiError{Code: 7, Message: "etcdserver: permission denied"}
		deadline = context.DeadlineExceeded
	)
	type member struct {
		after time.Duration
		err   error
	}
	for _, tt := range []struct {
		name    string
		members []member
		others  time.Duration   // from then on, the second member answers other calls; what hangs no longer does
		calls   []time.Duration // when each member is called
		took    time.Duration
		by      string // who answered
		err     error
	}{
		{name: "the first answers", members: []member{{after: 299 * ms}, {}, {}},
			calls: []time.Duration{0}, took: 299 * ms, by: "0"},
		{name: "the first is slow", members: []member{{after: 400 * ms}, {after: 200 * ms}, {}},
			calls: []time.Duration{0, 300 * ms}, took: 400 * ms, by: "0"},
		{name: "the first hangs", members: []member{{after: hangs}, {after: 200 * ms}, {}},
			calls: []time.Duration{0, 300 * ms}, took: 500 * ms, by: "1"},
		{name: "the first refuses", members: []member{{err: refuses}, {}, {}}, calls: []time.Duration{0, 0}, by: "1"},
		{name: "what was sent before an election is lost", members: []member{{after: hangs}, {after: hangs}, {}},
			others: 1700 * ms, calls: []time.Duration{0, 300 * ms, 1800 * ms}, took: 1800 * ms, by: "1"},
		{name: "an election, and the leader is dead", members: []member{{err: refuses}, {after: hangs}, {}},
			others: 1700 * ms, calls: []time.Duration{0, 0, 1800 * ms}, took: 1800 * ms, by: "1"},
		{name: "an election, and the third is dead", members: []member{{after: hangs}, {after: hangs}, {err: refuses}},
			others: 1700 * ms, calls: []time.Duration{0, 300 * ms, 1800 * ms}, took: 1800 * ms, by: "1"},
		{name: "others were answered before", members: []member{{after: always}, {after: always}, {}},
			others: 200 * ms, calls: []time.Duration{0, 300 * ms}, took: patience, err: deadline},
		{name: "two of five hang", members: []member{{after: hangs}, {after: hangs}, {}, {}, {}},
			calls: []time.Duration{0, 300 * ms, 600 * ms}, took: 600 * ms, by: "2"},
		{name: "one member hangs", members: []member{{after: hangs}},
			calls: []time.Duration{0}, took: patience, err: deadline},
		{name: "all hang", members: []member{{after: hangs}, {after: hangs}, {after: hangs}},
			calls: []time.Duration{0, 300 * ms}, took: patience, err: deadline},
		{name: "all hang, but answer others", members: []member{{after: always}, {after: always}, {after: always}},
			others: 400 * ms, calls: []time.Duration{0, 300 * ms, 600 * ms}, took: patience, err: deadline},
		{name: "all are unwell", members: []member{{err: unwell}, {err: unwell}, {err: unwell}},
			calls: []time.Duration{0, 0}, took: patience, err: unwell},
		{name: "all were unwell", members: []member{{err: unwell}, {err: unwell}, {err: unwell}},
			others: 400 * ms, calls: []time.Duration{0, 0, 600 * ms}, took: 600 * ms, err: unwell},
		{name: "one member is unwell", members: []member{{err: unwell}}, calls: []time.Duration{0}, err: unwell},
		{name: "the second of two answers late", members: []member{{after: hangs}, {after: 3 * time.Second}},
			calls: []time.Duration{0, 300 * ms}, took: 3300 * ms, by: "1"},
		{name: "not allowed", members: []member{{err: not}, {}, {}}, calls: []time.Duration{0}, err: not},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var mu sync.Mutex
				var calls []time.Duration
				s := bare(func(r *http.Request, _ string) (*http.Response, error) {
					mu.Lock()
					calls = append(calls, time.Since(began))
					mu.Unlock()
					m := tt.members[r.URL.Host[0]-'0']
					if m.after == hangs && tt.others > 0 && time.Since(began) > tt.others {
						m.after = 0
					}
					select {
					case <-time.After(m.after):
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
					if m.err != nil {
						return nil, m.err
					}
					return answers("{}")
				})
				s.gateway.endpoints = nil
				for i := range tt.members {
					s.gateway.endpoints = append(s.gateway.endpoints, fmt.Sprint("http://", i))
				}
				if tt.others > 0 {
					time.AfterFunc(tt.others, func() {
						s.gateway.answered.Store(&answered{s.gateway.endpoints[1], time.Now()})
					})
				}
				endpoint, err := s.gateway.ask(t.Context(), "/v3/kv/txn", struct{}{}, &struct{}{})
				by := strings.TrimPrefix(endpoint, "http://")
				if took := time.Since(began); took != tt.took || !errors.Is(err, tt.err) || by != tt.by {
					t.Errorf("%q, %v after %v; want %q, %v after %v", by, err, took, tt.by, tt.err, tt.took)
				}
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(calls, tt.calls) {
					t.Errorf("called after %v, want %v", calls, tt.calls)
				}
			})
		})
	}
}

// TestOneGrant checks that there is one request for a lease, to a member that answers.
func TestOneGrant(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hangs   string // the host that does not answer
		granted bool   // the member that is asked grants the lease
		want    string // the hosts that were asked for a lease
	}{
		{"the first answers", "", true, "a"},
		{"the first hangs", "a", true, "b"},
		{"the lease takes too long", "", false, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				asked := ""
				s := bare(func(r *http.Request, _ string) (*http.Response, error) {
					isGrant := r.URL.Path == "/v3/lease/grant"
					if isGrant {
						mu.Lock()
						asked += r.URL.Host
						mu.Unlock()
					}
					if r.URL.Host == tt.hangs || isGrant && !tt.granted {
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					return answers(`{"ID":"7"}`)
				})
				id, err := s.leaseFor(t.Context(), time.Minute)
				if (err == nil) != tt.granted || tt.granted && id != 7 {
					t.Errorf("lease %d, %v", id, err)
				}
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if asked != tt.want {
					t.Errorf("asked %q for a lease, want %q", asked, tt.want)
				}
			})
		})
	}
}

// TestRenewedAhead wants a lease to serve while the next one is asked for, however
// long that takes.
func TestRenewedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := bare(func(r *http.Request, _ string) (*http.Response, error) {
			if r.URL.Path != "/v3/lease/grant" {
				return answers("{}")
			}
			asked++
			if asked == 2 { // this one hangs
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answers(fmt.Sprintf(`{"ID":"%d"}`, asked))
		})
		for _, step := range []struct {
			wait  time.Duration
			lease int64
			asked int
		}{
			{wait: 0, lease: 1, asked: 1},
			{wait: time.Minute - 1, lease: 1, asked: 1},
			{wait: 1, lease: 1, asked: 2},
			{wait: patience - 1, lease: 1, asked: 2},
			{wait: 1, lease: 3, asked: 3},
			{wait: time.Second, lease: 3, asked: 3},
		} {
			time.Sleep(step.wait)
			synctest.Wait()
			came := time.Now()
			id, err := s.leaseFor(t.Context(), 30*time.Minute)
			synctest.Wait()
			if err != nil || id != step.lease || asked != step.asked || time.Since(came) != 0 {
				t.Errorf("after %v more: lease %d, %v after %v; asked %d times; want lease %d, asked %d times",
					step.wait, id, err, time.Since(came), asked, step.lease, step.asked)
			}
		}
	})
}

// TestLeasesOfSeveralLifetimes has users with lifetimes of their own log in by turns. A
// login must not cost a lease of its own, and old leases must not pile up.
func TestLeasesOfSeveralLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		granted := int64(0)
		s := bare(func(r *http.Request, _ string) (*http.Response, error) {
			if r.URL.Path == "/v3/lease/grant" {
				granted++
			}
			return answers(fmt.Sprintf(`{"ID":"%d"}`, granted))
		})
		lifetimes := []time.Duration{30 * time.Minute, time.Hour, 168 * time.Hour}
		for range 10 {
			for i, lifetime := range lifetimes {
				if id, err := s.leaseFor(t.Context(), lifetime); err != nil || id != int64(i)+1 {
					t.Errorf("for %v: lease %d, %v; want %d", lifetime, id, err, i+1)
				}
			}
		}
		if s.forget(2); granted != 3 {
			t.Errorf("%d leases granted, want 3", granted)
		}
		if id, err := s.leaseFor(t.Context(), lifetimes[1]); err != nil || id != 4 {
			t.Errorf("for the lifetime whose lease is gone: %d, %v; want 4", id, err)
		}
		time.Sleep(24 * time.Hour)
		if _, err := s.leaseFor(t.Context(), lifetimes[0]); err != nil || len(s.leases) != 1 {
			t.Errorf("%d leases are kept, %v; want the one in use", len(s.leases), err)
		}
	})
}

// TestPermanent says of each code of gRPC whether it is worth another try.
func TestPermanent(t *testing.T) {
	for _, tt := range []struct {
		code int
		name string
		want bool
	}{
		{1, "CANCELLED", false},
		{2, "UNKNOWN", false},
		{3, "INVALID_ARGUMENT", true},
		{4, "DEADLINE_EXCEEDED", false},
		{5, "NOT_FOUND", true},
		{6, "ALREADY_EXISTS", true},
		{7, "PERMISSION_DENIED", true},
		{8, "RESOURCE_EXHAUSTED", false},
		{9, "FAILED_PRECONDITION", true},
		{10, "ABORTED", false},
		{11, "OUT_OF_RANGE", true},
		{12, "UNIMPLEMENTED", true},
		{13, "INTERNAL", false},
		{14, "UNAVAILABLE", false},
		{15, "DATA_LOSS", true},
		{16, "UNAUTHENTICATED", true},
	} {
		// As the gateway answers: the status alone does not tell.
		if got := permanent(fmt.Errorf("list: %w", &apiError{status: 500, Code: tt.code})); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	statuses := map[int]bool{200: true, 307: true, 404: true, 429: true, 500: false, 502: false, 503: false}
	for status, want := range statuses {
		if got := permanent(&apiError{status: status}); got != want {
			t.Errorf("status %d without a code: %v, want %v", status, got, want)
		}
	}
}

// endless is a JSON string that never ends.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	if e.read == 0 {
		p[0] = '"'
	}
	e.read += len(p)
	return len(p), nil
}

// TestEndlessAnswer checks that each answer is read up to a bound.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, path string
		do         func(*Store) error
	}{
		{"a beat", "/v3/kv/range", func(s *Store) error { _, err := s.beat(context.Background(), "http://a"); return err }},
		{"a watch", "/v3/watch", func(s *Store) error { return s.watch(context.Background(), "http://a", func() {}) }},
		{"a put", "/v3/kv/txn", func(s *Store) error {
			key, _ := newToken()
			_, err := s.put(context.Background(), key, nil, 7)
			return err
		}},
		{"a login to etcd", "/v3/auth/authenticate", func(s *Store) error {
			s.gateway.user, s.gateway.password = "oauth2", func() (string, error) { return "hunter2", nil }
			_, err := s.gateway.authenticate(context.Background(), "http://a", "")
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var bodies []*endless
			s := bare(func(r *http.Request, _ string) (*http.Response, error) {
				if r.URL.Path != tt.path {
					t.Errorf("asked for %s", r.URL.Path)
				}
				bodies = append(bodies, &endless{})
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bodies[len(bodies)-1])}, nil
			})
			s.gateway.endpoints = []string{"http://a"}
			if err := tt.do(s); !errors.Is(err, errTooLarge) {
				t.Errorf("error %v", err)
			}
			for _, body := range bodies {
				if body.read > 16<<20 {
					t.Errorf("%d bytes read", body.read)
				}
			}
		})
	}
}

// TestLargeMessages watches more than is read of one answer, in messages that are
// not too large.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	const messages = 2
	message := fmt.Sprintf(`{"result":{"header":{"revision":"11"},"of another release":%q}}`, strings.Repeat("a", 9<<20))
	s := bare(func(*http.Request, string) (*http.Response, error) { return answers(strings.Repeat(message, messages)) })
	if err := s.watch(t.Context(), "http://a", func() {}); err != io.EOF {
		t.Errorf("error %v", err)
	}
}

// TestPageTooLarge lists tokens whose records are so long that a page of them is
// more than is read of one answer.
func TestPageTooLarge(t *testing.T) {
	t.Parallel()
	var limits []string
	s := bare(func(_ *http.Request, body string) (*http.Response, error) {
		_, limit, _ := strings.Cut(body, `"limit":`)
		limit, _, _ = strings.Cut(limit, ",")
		limits = append(limits, limit)
		if limit == "10000" {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(&endless{})}, nil
		}
		return answers(`{"header":{"cluster_id":"1","revision":"11"}}`)
	})
	if err := s.list(t.Context(), "http://a"); err != nil || !s.up || !slices.Equal(limits, []string{"10000", "1000"}) {
		t.Errorf("%v, up %v; pages of %v", err, s.up, limits)
	}
}

// TestMoreResultsThanAsked answers each transaction with results that nobody
// asked for.
func TestMoreResultsThanAsked(t *testing.T) {
	const kv = `{"key":"YQ==","value":"YQ==","mod_revision":"3"}`
	const surplus = `{"response_range":{"kvs":[` + kv + `,` + kv + `]}}`
	more := func(e *simulated) {
		e.txn = func(string) (*http.Response, error) {
			all := strings.Repeat(surplus+",", 200) + surplus
			return answers(`{"header":{"cluster_id":"1","revision":"10"},"responses":[` + all + `]}`)
		}
	}
	simulate(t, more, func(t *testing.T, s *Store, _ *simulated) {
		key, record := newToken()
		if err := s.Put(t.Context(), key, record); err == nil {
			t.Error("a token was put under a key that is taken")
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
		if found, err := s.Find(t.Context(), key); found != nil || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
	})
}

// TestMemberThatDies hangs up on the check of an endpoint, for longer or shorter,
// and then refuses.
func TestMemberThatDies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		lasts time.Duration
		want  string
	}{
		{"refuses", io.EOF, 0, ""},
		{"dies", io.EOF, 50 * time.Millisecond, ""},
		{"dies, with a reset", syscall.ECONNRESET, 99 * time.Millisecond, ""},
		{"hangs up again", io.EOF, 200 * time.Millisecond,
			"connection closed by etcd: http where https is expected, or the other way round?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := bare(func(*http.Request, string) (*http.Response, error) {
					if time.Since(began) < tt.lasts {
						return nil, tt.err
					}
					return nil, syscall.ECONNREFUSED
				})
				got := ""
				if err := s.check(t.Context(), "http://a"); err != nil {
					got = err.Error()
				}
				if got != tt.want {
					t.Errorf("error %q, want %q", got, tt.want)
				}
			})
		})
	}
}
