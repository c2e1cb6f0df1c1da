// Package metrics counts what the service does, and serves the counts to
// Prometheus at /metrics, on a listener of its own.
//
// Other packages do not import this one: it wraps the functions and handlers
// that it counts, and asks the others for their state when it is scraped.
// Counting takes no lock and allocates nothing: each number is atomic. Without
// an address nothing is wrapped.
//
// No label contains a username, an address or a token. A label has few values,
// and a client cannot add any: the routes, the statuses, and the results listed
// here.
package metrics

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/serving"
	"simple-oauth2/internal/tokens"
)

// Config says where to serve the metrics; with an empty Addr, nowhere.
type Config struct{ Addr string }

// Flags adds the flag, which is read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.Func("metrics-addr", "`address` to serve /metrics on, for Prometheus", func(s string) error { // which may be empty
		c.Addr = s
		return nil
	})
}

// Metrics are the counts. Make them with New, and wrap everything to be counted
// before Listen.
type Metrics struct {
	config   Config
	server   *serving.Server
	log      *slog.Logger
	requests requests

	logins         results
	waits, checks  histogram
	revocations    results
	introspections results

	store       tokens.Store
	loaded      func(what string) time.Time
	certificate func() time.Time
	load        func() (running, waiting int)
}

// results are counts by result.
type results [len(names)]atomic.Int64

// A result is an index of names.
type result int

const (
	ok result = iota
	wrong
	guessing
	busy
	gone
	unavailable
	active
	inactive
)

var names = [...]string{"ok", "wrong", "guessing", "busy", "gone", "unavailable", "active", "inactive"}

// New returns Metrics that have counted nothing.
func New(c Config) *Metrics {
	return &Metrics{config: c,
		waits:  newHistogram(.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10),
		checks: newHistogram(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10),
	}
}

func (m *Metrics) on() bool { return m.config.Addr != "" }

// try is the type of [admission.Admission.Try].
type try = func(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error)

// Logins returns next, with its results and times counted. A right password
// counts once its token is stored, see Tokens.
func (m *Metrics) Logins(next try) try {
	if !m.on() {
		return next
	}
	return func(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
		came := time.Now()
		right, err := next(ctx, client, username, func() bool {
			began := time.Now()
			m.waits.observe(began.Sub(came))
			defer func() { m.checks.observe(time.Since(began)) }()
			return check()
		})
		var refused *admission.Refused
		switch {
		case ctx.Err() != nil && err != nil:
			m.logins[gone].Add(1)
		case errors.As(err, &refused) && refused.Reason == admission.Guessing:
			m.logins[guessing].Add(1)
		case err != nil:
			m.logins[busy].Add(1)
		case !right:
			m.logins[wrong].Add(1)
		}
		return right, err
	}
}

// Tokens returns store, with the logins and revocations counted that it stores
// or fails to store.
func (m *Metrics) Tokens(store tokens.Store) tokens.Store {
	if !m.on() {
		return store
	}
	m.store = store
	return &counted{store, m}
}

type counted struct {
	tokens.Store
	m *Metrics
}

func (c *counted) Put(ctx context.Context, key tokens.Key, record *tokens.Record) error {
	err := c.Store.Put(ctx, key, record)
	c.m.logins[kept(err)].Add(1)
	return err
}

func (c *counted) Delete(ctx context.Context, key tokens.Key) error {
	err := c.Store.Delete(ctx, key)
	c.m.revocations[kept(err)].Add(1)
	return err
}

func kept(err error) result {
	if err != nil {
		return unavailable
	}
	return ok
}

// Introspected counts an answered introspection.
func (m *Metrics) Introspected(isActive bool) {
	if isActive {
		m.introspections[active].Add(1)
	} else {
		m.introspections[inactive].Add(1)
	}
}

// Watch sets the functions that say when the users and the certificate were last
// loaded, when the certificate expires (the zero time if there is none), and how
// many password checks are running and waiting.
func (m *Metrics) Watch(loaded func(what string) time.Time, certificate func() time.Time, load func() (running, waiting int)) {
	m.loaded, m.certificate, m.load = loaded, certificate, load
}

// Listen listens, if there is an address. Its error names the flag.
func (m *Metrics) Listen(log *slog.Logger) (err error) {
	if !m.on() {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.writeTo(w)
	})
	m.log = log
	m.server, err = serving.Listen(serving.Config{Addr: m.config.Addr, Flag: "-metrics-addr", Most: 16}, mux, log)
	return err
}

// Serve serves until ctx ends.
func (m *Metrics) Serve(ctx context.Context) {
	if m.server == nil {
		return
	}
	m.log.Info("metrics", "url", m.server.URL()+"/metrics")
	context.AfterFunc(ctx, m.server.Close)
	if err := m.server.Serve(); ctx.Err() == nil {
		m.log.Error("metrics are no longer served", "error", err)
	}
}
