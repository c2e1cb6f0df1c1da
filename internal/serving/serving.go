// Package serving is the HTTP server: where it listens, its certificate, and
// the limits that keep slow or silent clients from holding connections.
//
// A client has 5 seconds to send a header of at most 16 KiB and 10 seconds for
// the whole request, gets its answer within 45 seconds of the header, and may
// leave a connection idle for 2 minutes. Over HTTP/2 a connection has at most 8
// requests at a time, and ends when the client has not answered a ping, which it
// gets after 5 seconds of silence, for another 5. In the middle of a header it
// cannot answer.
//
// TLS sessions are not resumed: a client would go on with a certificate that has
// been replaced.
//
// The limit on open connections is lower than the process's limit on file
// descriptors: see bounded.
//
// On Stop, a server with a delay keeps serving for that long. /healthz answers
// 503, so that a balancer notices before connections are refused; everything
// else is answered as before, and each answer closes its connection, so that no
// request can arrive on a connection just as it is closed. Then connections are
// refused. Requests in flight get 10 seconds. After 8 of them their contexts end,
// so that those that are still waiting for something get an answer too.
package serving

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/clientauth"
	"simple-oauth2/internal/keypair"
)

// Config says where to listen. Cert and Key are PEM files, or empty for plain
// HTTP. Delay is how long a stopping server keeps answering. Flag is the name of
// the flag that sets Addr, if that is not -addr. Most is how many connections may
// be open; 0 is as many as the file descriptors allow.
type Config struct {
	Addr      string
	Flag      string
	Cert, Key string
	Delay     time.Duration
	Most      int
}

// Flags adds the flags, which are read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.StringVar(&c.Addr, "addr", "127.0.0.1:8000", "`address` to listen on")
	flags.StringVar(&c.Cert, "tls-cert", "", "PEM `file` of the server's certificate chain")
	flags.StringVar(&c.Key, "tls-key", "", "PEM `file` of the certificate's key")
	flags.Func("shutdown-delay", "how long to keep serving after SIGTERM, with 503 at /healthz; a `duration` (default 0s)", func(s string) (err error) {
		if c.Delay, err = time.ParseDuration(s); err != nil || c.Delay < 0 {
			return errors.New("it must be a duration such as 10s, 0 or more")
		}
		return nil
	})
}

// Check returns an error if the flags do not go together.
func (c *Config) Check() error {
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("-tls-cert and -tls-key go together: give both or neither")
	}
	return nil
}

// TLS says whether the server speaks TLS.
func (c *Config) TLS() bool { return c.Cert != "" }

// Server is an HTTP server that listens.
type Server struct {
	Pair *keypair.Pair // must be loaded before Serve; nil without TLS

	http     http.Server
	listener net.Listener
	delay    time.Duration
	most     int
	stopping atomic.Bool
	log      *slog.Logger
	errors   *errorLog

	requests    context.Context // the parent of every request's
	endRequests context.CancelCauseFunc
}

// ErrStopping is the cause of the end of a request's context that the server ended
// as it stopped. If the client hung up, the cause is [context.Canceled].
var ErrStopping = errors.New("the server is stopping")

// Listen returns a Server that listens but does not serve yet. Its error names
// the flag.
func Listen(c Config, log *slog.Logger) (*Server, error) {
	s := newServer(log)
	s.delay, s.most = c.Delay, c.Most
	if c.TLS() {
		s.Pair = &keypair.Pair{Cert: c.Cert, Key: c.Key, Flags: [2]string{"-tls-cert", "-tls-key"}, Log: log}
		s.http.TLSConfig = &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return s.Pair.Certificate(), nil
			},
			SessionTicketsDisabled: true,
		}
	}
	var err error
	if s.listener, err = listen(c.Addr); err != nil {
		hint := ""
		if _, malformed := errors.AsType[*net.AddrError](err); malformed {
			hint = " (write it as host:port, or :port for all addresses)"
		}
		return nil, fmt.Errorf("%s: %w%s", cmp.Or(c.Flag, "-addr"), err, hint)
	}
	return s, nil
}

// listen listens. To package net an empty port is any free one, which nobody would find.
func listen(addr string) (net.Listener, error) {
	refused := ""
	if _, port, err := net.SplitHostPort(addr); err == nil && port == "" {
		refused = "missing port in address"
	}
	if strings.HasPrefix(addr, "unix:") || addr != "" && strings.Contains("/.@", addr[:1]) {
		refused = "Unix sockets are not supported"
	}
	if refused != "" {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: &net.AddrError{Err: refused, Addr: addr}}
	}
	return net.Listen("tcp", addr)
}

func newServer(log *slog.Logger) *Server {
	s := &Server{log: log, errors: &errorLog{log: log, kinds: make(map[string]*kind)}}
	s.requests, s.endRequests = context.WithCancelCause(context.Background())
	s.http = http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      45 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         state,
		BaseContext:       func(net.Listener) context.Context { return s.requests },
		ConnContext:       clientauth.ConnContext,
		HTTP2: &http.HTTP2Config{ // by default 250 requests on each connection, and a MiB of bodies that nobody has read
			MaxConcurrentStreams:          8,
			MaxReceiveBufferPerConnection: 64 << 10,
			MaxReceiveBufferPerStream:     16 << 10,
			MaxReadFrameSize:              16 << 10,
			SendPingTimeout:               5 * time.Second,
			PingTimeout:                   5 * time.Second,
		},
		ErrorLog: stdlog.New(s.errors, "", 0),
	}
	return s
}

// handler is next until the server stops.
func (s *Server) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() {
			w.Header().Set("Connection", "close")
			if r.URL.Path == "/healthz" {
				answer.NoStore(w.Header(), false)
				w.Header().Set("Retry-After", "1")
				answer.JSON(w, http.StatusServiceUnavailable, map[string]string{"detail": "The service is stopping"})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL returns where a browser on this machine finds the server.
func (s *Server) URL() string {
	at := s.listener.Addr().(*net.TCPAddr)
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if s.Pair != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(at.Port))
}

// Serve lets handler answer requests until Stop or Close, and then returns an
// error: [http.ErrServerClosed] if there is no delay.
func (s *Server) Serve(handler http.Handler) error {
	s.http.Handler = s.handler(handler)
	listener := newBounded(s.listener, cmp.Or(s.most, bound(descriptors())))
	if s.http.TLSConfig != nil {
		return s.http.ServeTLS(listener, "", "")
	}
	return s.http.Serve(listener)
}

const (
	settled     = 500 * time.Millisecond // net/http drops first requests that are read later
	lastAnswers = 8 * time.Second        // then requests that are still waiting are told to give up
)

// Stop keeps serving for the delay, then accepts no more connections, and gives
// in-flight requests up to 10 seconds.
func (s *Server) Stop() {
	if s.delay > 0 {
		s.stopping.Store(true)
		time.Sleep(s.delay)
		s.listener.Close()
		time.Sleep(settled)
	}
	inFlight, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	defer time.AfterFunc(lastAnswers, func() { s.endRequests(ErrStopping) }).Stop()
	if err := s.http.Shutdown(inFlight); err != nil {
		s.log.Warn("some requests were not answered", "error", err)
		s.Close()
	}
	s.errors.tell()
}

// Close stops at once.
func (s *Server) Close() {
	s.endRequests(ErrStopping)
	s.http.Close()
	s.listener.Close() // in case Serve was never called
	s.errors.tell()
}
