// Package metrics serves counts of what the service does to Prometheus at /metrics,
// on a listener of its own.
//
// It counts the answers, which costs no lock and no allocation. All other counts
// belong to whoever does what is counted; they are read when they are scraped.
//
// No label contains a username, an address or a token. A label has few values,
// and a client cannot add any: the routes, the statuses, and the results listed
// here.
package metrics

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
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
	flags.Func("metrics-addr", "`address` to serve /metrics on, for Prometheus",
		func(s string) error { // which may be empty
			c.Addr = s
			return nil
		})
}

// Counts are what the endpoints count: the tokens of right passwords that could
// not be stored; the live tokens that were revoked, or that could not be; the
// introspections whose token was active or inactive.
type Counts struct{ NotIssued, Revoked, NotRevoked, Active, Inactive atomic.Int64 }

// Sources are where the metrics come from. Loaded says when the users and the
// certificate were last loaded, and Certificate when the certificate expires: the
// zero time if there is none.
type Sources struct {
	Counts      *Counts
	Admission   *admission.Admission
	Store       tokens.Store
	Loaded      func(what string) time.Time
	Certificate func() time.Time
}

// Metrics are the counts of the answers, and the listener. Make them with New.
type Metrics struct {
	config   Config
	server   *serving.Server
	log      *slog.Logger
	requests requests
	sources  Sources
}

// New returns Metrics that have counted nothing.
func New(c Config) *Metrics { return &Metrics{config: c} }

func (m *Metrics) on() bool { return m.config.Addr != "" }

// Listen listens, if there is an address. Its error names the flag.
func (m *Metrics) Listen(log *slog.Logger) (err error) {
	if m.on() {
		m.log = log
		m.server, err = serving.Listen(serving.Config{Addr: m.config.Addr, Flag: "-metrics-addr", Most: 16}, log)
	}
	return err
}

// Serve serves what the sources say until ctx ends.
func (m *Metrics) Serve(ctx context.Context, sources Sources) {
	if m.server == nil {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.writeTo(w)
	})
	m.sources = sources
	m.log.Info("metrics", "url", m.server.URL()+"/metrics")
	context.AfterFunc(ctx, m.Close)
	if err := m.server.Serve(mux); ctx.Err() == nil {
		m.log.Error("metrics are no longer served", "error", err)
	}
}

// Close ends what Listen began.
func (m *Metrics) Close() {
	if m.server != nil {
		m.server.Close()
	}
}
