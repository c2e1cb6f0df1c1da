//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// token is a token that a login gave.
type token struct {
	text string
	mu   sync.Mutex
	life
	refused map[int]time.Time // when each replica has last refused it
}

func (t *token) lived() life {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.life
}

// name is how a token is called in reports: the end of its key in etcd.
func (t *token) name() string {
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(t.text)))
	return "token …" + key[len(key)-8:]
}

// clients use the replicas, and compare the answers with what was promised.
type clients struct {
	replicas []*process
	ttl      time.Duration
	record   *record
	late     *lateness
	http     *http.Client
	gate     atomic.Pointer[token] // may introspect

	mu     sync.Mutex
	tokens map[*token]bool // those that did not end long ago
}

// patience is how long a client waits. A login may wait for etcd for four
// seconds.
const patience = 8 * time.Second

// ask sends one request; status 0 means no answer.
func (c *clients) ask(replica int, path, bearer string, form url.Values) (status int, body []byte, sent time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	method, text := "GET", ""
	if form != nil {
		method, text = "POST", form.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.replicas[replica].addr+path, strings.NewReader(text))
	if err != nil {
		panic(err) // only a malformed address can cause this
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	sent = time.Now()
	response, err := c.http.Do(request)
	if err == nil {
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	if err == nil {
		status = response.StatusCode
	}
	c.record.answered(path, status)
	if status >= 500 && status != http.StatusServiceUnavailable {
		c.record.breaks(serverFail, c.replicas[replica].name, path, fmt.Sprintf("%s: %d %s", path, status, body))
	}
	return status, body, sent
}

// took notes how long a success took, unless the replica was paused meanwhile.
func (c *clients) took(what string, replica int, sent time.Time) {
	took := time.Since(sent)
	if c.replicas[replica].runsSince().Before(sent) {
		c.record.note(func() { c.record.slowest[what] = max(c.record.slowest[what], took) })
	}
}

// login returns a new token, or nil.
func (c *clients) login(replica int, username string) *token {
	form := url.Values{"username": {username}, "password": {password}}
	if username == gate {
		form.Set("scope", "introspect")
	}
	status, body, sent := c.ask(replica, "/token", "", form)
	var answer struct {
		Token string `json:"access_token"`
	}
	if status != http.StatusOK || json.Unmarshal(body, &answer) != nil {
		return nil
	}
	c.took("login", replica, sent)
	t := &token{text: answer.Token, life: born(sent, time.Now(), c.ttl), refused: make(map[int]time.Time)}
	c.record.note(func() { c.record.given++ })
	c.mu.Lock()
	c.tokens[t] = true
	c.mu.Unlock()
	return t
}

// revoke revokes a token and says whether that was confirmed.
func (c *clients) revoke(replica int, t *token) bool {
	t.mu.Lock()
	if t.revoking.IsZero() {
		t.revoking = time.Now()
	}
	t.mu.Unlock()
	status, _, sent := c.ask(replica, "/revoke", "", url.Values{"token": {t.text}})
	if status != http.StatusOK {
		return false
	}
	c.took("revocation", replica, sent)
	c.record.note(func() { c.record.revoked++ })
	t.mu.Lock()
	t.revoked = time.Now()
	t.mu.Unlock()
	return true
}

// check asks a replica about a token and judges the answer.
func (c *clients) check(replica int, t *token) {
	a, how, ok := c.look(replica, t)
	if !ok {
		return
	}
	if l := t.lived(); a.alive && !l.revoked.IsZero() && a.sent.Sub(l.revoked) > promised {
		// Once more, between two answers in which the replica says how it is.
		before := c.reachesEtcd(replica)
		if a, how, ok = c.look(replica, t); !ok {
			return
		}
		a.reachesEtcd = before && c.reachesEtcd(replica)
		a.runsSince = c.replicas[replica].runsSince()
	}
	c.judge(replica, t, a, how)
}

func (c *clients) judge(replica int, t *token, a answer, how string) {
	t.mu.Lock()
	l, refused := t.life, t.refused[replica]
	if !a.alive {
		t.refused[replica] = a.came
	}
	t.mu.Unlock()
	p, leftOut := judge(l, a, c.late.lately())
	c.record.note(func() {
		c.record.checks[a.alive]++
		if leftOut {
			c.record.leftOut++
		}
	})
	if p == "" {
		return
	}
	what := fmt.Sprintf("%s by %s, given %.2fs before, over in %.2fs", t.name(), how, a.sent.Sub(l.given).Seconds(), l.endsBy.Sub(a.sent).Seconds())
	if !l.revoked.IsZero() {
		what += fmt.Sprintf(", revoked %.2fs before", a.sent.Sub(l.revoked).Seconds())
		if refused.IsZero() {
			what += ", and not refused here since"
		} else {
			what += fmt.Sprintf(", and refused here %.2fs before", a.sent.Sub(refused).Seconds())
		}
	}
	c.record.breaks(p, c.replicas[replica].name, t.text, what)
}

// look asks a replica about a token, as its owner or as another service would.
func (c *clients) look(replica int, t *token) (a answer, how string, ok bool) {
	asker := c.gate.Load()
	if asker == nil || asker.lived().endsFrom.Before(time.Now()) || rand.IntN(4) > 0 {
		var status int
		status, _, a.sent = c.ask(replica, "/users/me", t.text, nil)
		a.came, a.runsSince = time.Now(), c.replicas[replica].runsSince()
		a.alive = status == http.StatusOK
		return a, "/users/me", a.alive || status == http.StatusUnauthorized
	}
	status, body, sent := c.ask(replica, "/introspect", asker.text, url.Values{"token": {t.text}})
	a = answer{sent: sent, came: time.Now(), runsSince: c.replicas[replica].runsSince()}
	if status == http.StatusUnauthorized { // it is the asker's token that is refused
		c.judge(replica, asker, a, "/introspect")
		return a, "", false
	}
	var said struct {
		Active bool `json:"active"`
	}
	ok = status == http.StatusOK && json.Unmarshal(body, &said) == nil
	a.alive = said.Active
	return a, "/introspect", ok
}

// reachesEtcd says whether a replica says that it can reach etcd.
func (c *clients) reachesEtcd(replica int) bool {
	status, body, _ := c.ask(replica, "/healthz", "", nil)
	return status == http.StatusOK && !strings.Contains(string(body), "detail")
}

// session logs in, uses the token and mostly revokes it, over and over, each
// time on any replica. Half of the tokens are revoked soon, while what was sent
// for their login may still be under way.
func (c *clients) session(ctx context.Context) {
	anyone := func() int { return rand.IntN(len(c.replicas)) }
	pause := func(most time.Duration) { wait(ctx, time.Now().Add(rand.N(most))) }
	var checks sync.WaitGroup
	defer checks.Wait()
	for ctx.Err() == nil {
		t := c.login(anyone(), user)
		if t == nil {
			pause(time.Second)
			continue
		}
		for range 1 + rand.IntN(2) {
			c.check(anyone(), t)
		}
		if rand.IntN(5) == 0 {
			pause(time.Second)
			continue // it lives until it expires
		}
		if rand.IntN(2) == 0 {
			pause(2 * time.Second)
			c.check(anyone(), t)
		}
		for !c.revoke(anyone(), t) && time.Now().Before(t.endsBy) {
			pause(500 * time.Millisecond)
		}
		checks.Go(func() { c.checkRevoked(t) })
		pause(time.Second)
	}
}

// checkRevoked checks a token on all replicas as soon as its revocation must have
// reached them.
func (c *clients) checkRevoked(t *token) {
	l := t.lived()
	if l.revoked.IsZero() {
		return
	}
	time.Sleep(time.Until(l.revoked.Add(promised + 20*time.Millisecond)))
	for i := range c.replicas {
		c.check(i, t)
	}
}

// keepGate keeps a token that may introspect.
func (c *clients) keepGate(ctx context.Context) {
	for ctx.Err() == nil {
		t := c.login(rand.IntN(len(c.replicas)), gate)
		if t == nil {
			wait(ctx, time.Now().Add(200*time.Millisecond))
			continue
		}
		c.gate.Store(t)
		wait(ctx, time.Now().Add(c.ttl/3))
	}
}

// again asks a replica about all tokens, over and over, until long after each has
// ended.
func (c *clients) again(ctx context.Context, replica int) {
	const round, longOver = 3 * time.Second, 3 * time.Second
	for ctx.Err() == nil {
		var all []*token
		c.mu.Lock()
		for t := range c.tokens { // in any order
			if time.Now().After(t.endsBy.Add(longOver)) {
				delete(c.tokens, t)
			}
			all = append(all, t)
		}
		c.mu.Unlock()
		began := time.Now()
		for i, t := range all {
			c.check(replica, t)
			wait(ctx, began.Add(time.Duration(i+1)*round/time.Duration(len(all))))
		}
		wait(ctx, began.Add(round/10))
	}
}

// left returns how many tokens did not end long ago.
func (c *clients) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tokens)
}
