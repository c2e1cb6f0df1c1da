package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/tokens"
)

// simulated is an etcd in simulated time, for a bare store. Its fields but mu are
// set before or written under the lock.
type simulated struct {
	mu       sync.Mutex
	revision int64
	events   []string                // since the start, for watches that are opened later
	watches  map[chan message]string // the endpoint of each
	requests map[string]int          // by path
	late     time.Duration           // how late each watch is
	stuck    string                  // the endpoint whose watch delivers nothing
	hangs    bool                    // no request is answered

	// txn answers a transaction.
	txn func(body string) (*http.Response, error)
}

// message is one of a watch, and when it is delivered.
type message struct {
	text string
	at   time.Time
}

func (e *simulated) trip(r *http.Request, body string) (*http.Response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests[r.URL.Path]++
	if e.hangs {
		e.mu.Unlock()
		<-r.Context().Done()
		e.mu.Lock()
		return nil, r.Context().Err()
	}
	switch r.URL.Path {
	case "/v3/watch":
		reader, writer := io.Pipe()
		messages := make(chan message, 1000)
		messages <- message{text: `{"result":{"created":true}}` + strings.Join(e.events, "")}
		e.watches[messages] = "http://" + r.URL.Host
		go func() {
			defer writer.Close()
			for m := range messages {
				select {
				case <-time.After(time.Until(m.at)):
				case <-r.Context().Done():
					return
				}
				io.WriteString(writer, m.text)
			}
		}()
		context.AfterFunc(r.Context(), func() {
			writer.CloseWithError(r.Context().Err())
			e.mu.Lock()
			defer e.mu.Unlock()
			e.closeWatch(messages)
		})
		return &http.Response{StatusCode: http.StatusOK, Body: reader}, nil
	case "/v3/kv/txn":
		e.mu.Unlock()
		defer e.mu.Lock()
		return e.txn(body)
	case "/v3/lease/grant":
		return answers(`{"ID":"7"}`)
	case "/v3/kv/put":
		e.write("/p/~beat", "")
	}
	return answers(fmt.Sprintf(`{"header":{"cluster_id":"1","revision":"%d"}}`, e.revision))
}

// closeWatch ends a watch. The caller has the lock.
func (e *simulated) closeWatch(messages chan message) {
	if _, open := e.watches[messages]; open {
		delete(e.watches, messages)
		close(messages)
	}
}

// write writes a key, which the watches deliver later. The caller has the lock.
func (e *simulated) write(key, value string) {
	e.revision++
	at := fmt.Sprint(e.revision)
	kv, _ := json.Marshal(map[string]any{"key": []byte(key), "value": []byte(value), "mod_revision": at})
	text := fmt.Sprintf(`{"result":{"header":{"cluster_id":"1","revision":"%s"},"events":[{"kv":%s}]}}`, at, kv)
	e.events = append(e.events, text)
	for messages, endpoint := range e.watches {
		if endpoint != e.stuck {
			messages <- message{text, time.Now().Add(e.late)}
		}
	}
}

// login writes a token, as another replica does.
func (e *simulated) login() (key tokens.Key) {
	key, record := newToken()
	e.mu.Lock()
	defer e.mu.Unlock()
	text, _ := json.Marshal(valueOf(record))
	e.write(fmt.Sprintf("/p/%x", key), string(text))
	return key
}

// count returns how often a path has been asked for.
func (e *simulated) count(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.requests[path]
}

// simulate runs a test in a bubble, with a store that is up and has caught up with
// a simulated etcd.
func simulate(t *testing.T, change func(*simulated), test func(*testing.T, *Store, *simulated)) {
	synctest.Test(t, func(t *testing.T) {
		e := &simulated{revision: 10}
		e.watches, e.requests = make(map[chan message]string), make(map[string]int)
		change(e)
		s := bare(e.trip)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.Run(ctx); close(done) }()
		time.Sleep(beat + beat/2) // so that no beat is about to come
		test(t, s, e)
		stop()
		<-done
	})
}

// TestQuestion asks for tokens that the memory does not have.
func TestQuestion(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*simulated)         // of etcd, before the store runs
		before func(*Store, *simulated) // the question
		known  bool                     // etcd has the token
		err    error
		within time.Duration
	}{
		{name: "unknown", within: pause}, // in simulated time, the first read began when the question came
		{name: "another replica's", known: true, within: 0},
		{name: "another replica's, when the watch is late", known: true, within: 60 * time.Millisecond,
			change: func(e *simulated) { e.late = 60 * time.Millisecond }},
		{name: "another replica's, when the watch is very late", known: true, within: 450 * time.Millisecond,
			change: func(e *simulated) { e.late = 450 * time.Millisecond }},
		{name: "another replica's, when the watch is stuck", known: true, within: 800 * time.Millisecond,
			before: func(_ *Store, e *simulated) { e.stuck = "http://a" }},
		{name: "unknown, when the watch is stuck", within: 800 * time.Millisecond,
			before: func(_ *Store, e *simulated) { e.stuck, e.revision = "http://a", e.revision+1 }},
		{name: "unknown, after a write by another program", within: quiet + pause,
			before: func(_ *Store, e *simulated) { e.revision++ }},
		{name: "etcd lost", err: tokens.ErrUnavailable, within: 0,
			before: func(s *Store, _ *simulated) { s.setLost(errors.New("no endpoint answers")) }},
		{name: "etcd does not answer", err: tokens.ErrUnavailable, within: patience,
			before: func(_ *Store, e *simulated) { e.hangs = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change := tt.change
			if change == nil {
				change = func(*simulated) {}
			}
			simulate(t, change, func(t *testing.T, s *Store, e *simulated) {
				if tt.before != nil {
					e.mu.Lock()
					tt.before(s, e)
					e.mu.Unlock()
				}
				key, _ := newToken()
				if tt.known {
					key = e.login()
				}
				came := time.Now()
				record, err := s.Find(t.Context(), key)
				if err != tt.err || (record != nil) != tt.known {
					t.Errorf("found %v, %v", record, err)
				}
				if took := time.Since(came); took > tt.within {
					t.Errorf("answered after %v, want %v", took, tt.within)
				}
			})
		})
	}
}

// TestFloodOfQuestions asks for unknown tokens over many connections for a second.
// All are answered, with few requests to etcd. Tokens that other replicas give
// meanwhile are found.
func TestFloodOfQuestions(t *testing.T) {
	const strangers = 300
	for _, tt := range []struct {
		name        string
		change      func(*simulated)
		others      bool // other programs write to etcd
		reads, puts int  // at most, to etcd
		answered    int  // at least
	}{
		{name: "alone", reads: 110, puts: 0, answered: 100 * strangers},
		{name: "with a watch that is late", change: func(e *simulated) { e.late = 50 * time.Millisecond },
			reads: 110, puts: 0, answered: 15 * strangers},
		{name: "beside other programs", others: true, reads: 20, puts: 10, answered: 9 * strangers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change := tt.change
			if change == nil {
				change = func(*simulated) {}
			}
			simulate(t, change, func(t *testing.T, s *Store, e *simulated) {
				ctx, stop := context.WithTimeout(t.Context(), time.Second)
				defer stop()
				reads, puts := e.count("/v3/kv/range"), e.count("/v3/kv/put")
				var mu sync.Mutex
				answered := 0
				var clients sync.WaitGroup
				for range strangers {
					clients.Go(func() {
						for ctx.Err() == nil {
							key, _ := newToken()
							if record, err := s.Find(t.Context(), key); record != nil || err != nil {
								t.Errorf("found %v, %v", record, err)
							}
							mu.Lock()
							answered++
							mu.Unlock()
						}
					})
				}
				for ctx.Err() == nil {
					came := time.Now()
					if record, err := s.Find(t.Context(), e.login()); record == nil || err != nil {
						t.Errorf("a token that another replica gave is %v, %v", record, err)
					}
					if took := time.Since(came); took > e.late {
						t.Errorf("a token that another replica gave is found after %v", took)
					}
					if tt.others {
						e.mu.Lock()
						e.revision++
						e.mu.Unlock()
					}
					time.Sleep(100 * time.Millisecond)
				}
				clients.Wait()
				reads, puts = e.count("/v3/kv/range")-reads, e.count("/v3/kv/put")-puts
				if reads > tt.reads || puts > tt.puts || answered < tt.answered {
					t.Errorf("%d questions answered with %d reads of etcd and %d puts", answered, reads, puts)
				}
			})
		})
	}
}

// TestClientHangsUp leaves while it waits for etcd.
func TestClientHangsUp(t *testing.T) {
	simulate(t, func(*simulated) {}, func(t *testing.T, s *Store, e *simulated) {
		e.mu.Lock()
		e.hangs = true
		e.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		came := time.Now()
		key, _ := newToken()
		if _, err := s.Find(ctx, key); !errors.Is(err, tokens.ErrUnavailable) || time.Since(came) > time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(came))
		}
	})
}

// TestOwnToken puts a token, and looks at the memory before the watch delivers
// anything.
func TestOwnToken(t *testing.T) {
	key, record := newToken()
	text, _ := json.Marshal(valueOf(record))
	kv, _ := json.Marshal(map[string]any{"key": []byte("/p/"), "value": text, "mod_revision": "11"})
	const written = `{"header":{"cluster_id":"1","revision":"11"},"succeeded":true}`
	byCopy := `{"header":{"cluster_id":"1","revision":"15"},"responses":[{"response_range":{"kvs":[` + string(kv) + `]}}]}`
	for _, tt := range []struct {
		name   string
		answer string
		memory header
		want   bool
	}{
		{"the memory is behind", written, header{"1", 10}, true},
		{"the mirror has just seen the token", written, header{"1", 11}, false},
		{"the mirror has seen what came later", written, header{"1", 12}, false},
		{"the mirror lists", written, header{}, false},
		{"the mirror follows another cluster", written, header{"2", 5}, false},
		{"a copy was first", byCopy, header{"1", 10}, true},
		{"a copy was first, and the mirror has seen what came later", byCopy, header{"1", 12}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := bare(func(r *http.Request, _ string) (*http.Response, error) {
				if r.URL.Path == "/v3/kv/txn" {
					return answers(tt.answer)
				}
				return answers(`{"ID":"7"}`)
			})
			s.at = tt.memory
			if err := s.Put(t.Context(), key, record); err != nil {
				t.Fatal(err)
			}
			if found, _ := s.memory.Find(t.Context(), key); (found != nil) != tt.want {
				t.Errorf("in the memory: %v, want %v", found != nil, tt.want)
			}
		})
	}
}

// TestLateAnswerToPut holds the answer to a put back, until the token was revoked
// and the mirror has done what each row says. The token stays revoked.
func TestLateAnswerToPut(t *testing.T) {
	key, record := newToken()
	name := fmt.Sprintf("/p/%x", key)
	text, _ := json.Marshal(valueOf(record))
	revoke := func(_ *Store, e *simulated) { e.write(name, string(tombstone)) }
	listAgain := func(s *Store, e *simulated) {
		revoke(s, e)
		s.setRevision(header{})
		for messages := range e.watches {
			e.closeWatch(messages)
		}
	}
	for _, tt := range []struct {
		name string
		do   func(*Store, *simulated)
		wait time.Duration // before the answer to the put
	}{
		{"it has seen the tombstone", revoke, 100 * time.Millisecond},
		{"it lists again", listAgain, 0},
		{"it has listed again", listAgain, 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, func(*simulated) {}, func(t *testing.T, s *Store, e *simulated) {
				release := make(chan struct{})
				e.txn = func(string) (*http.Response, error) {
					e.mu.Lock()
					e.write(name, string(text))
					at := e.revision
					e.mu.Unlock()
					<-release
					return answers(fmt.Sprintf(`{"header":{"cluster_id":"1","revision":"%d"},"succeeded":true}`, at))
				}
				put := make(chan error)
				go func() { put <- s.Put(t.Context(), key, record) }()
				time.Sleep(hedge / 2) // so that no other copy is sent
				e.mu.Lock()
				tt.do(s, e)
				e.mu.Unlock()
				time.Sleep(tt.wait)
				close(release)
				if err := <-put; err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				for range 100 { // whatever the mirror does next
					if found, _ := s.memory.Find(t.Context(), key); found != nil {
						t.Fatal("a revoked token works again")
					}
					time.Sleep(time.Millisecond)
				}
				if found, err := s.Find(t.Context(), key); found != nil || err != nil {
					t.Errorf("found %v, %v", found, err)
				}
			})
		})
	}
}

// TestCommittedBesideApply puts a token into the memory, over and over, while the
// watch delivers both the token and its revocation.
func TestCommittedBesideApply(t *testing.T) {
	s := bare(nil)
	_, record := newToken()
	text, _ := json.Marshal(valueOf(record))
	for revision := int64(10); revision < 10_000; revision += 10 {
		s.at = header{"1", revision}
		key, _ := newToken()
		var applied atomic.Bool
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				for !applied.Load() {
					s.committed(key, record, header{"1", revision + 1})
				}
			})
		}
		s.apply("1", []event{
			{KV: keyValue{s.keyOf(key), text, revision + 1}},
			{KV: keyValue{s.keyOf(key), tombstone, revision + 2}},
		})
		applied.Store(true)
		both.Wait()
		if found, _ := s.memory.Find(t.Context(), key); found != nil {
			t.Fatal("a revoked token works again")
		}
	}
}
