// Package serving is the HTTP server: where it listens, its certificate, and
// the limits that keep a slow or silent client from holding a connection.
//
// A client has 5 seconds to send a header of at most 64 KiB and 10 seconds for
// the whole request, waits at most 30 seconds for its answer, and may leave a
// connection idle for 2 minutes.
package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"simple-oauth2/internal/keypair"
)

// Config says where to listen. Cert and Key are PEM files, or empty for plain
// HTTP.
type Config struct {
	Addr      string
	Cert, Key string
}

// Flags adds the flags that are read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.StringVar(&c.Addr, "addr", "127.0.0.1:8000", "`address` to listen on")
	flags.StringVar(&c.Cert, "tls-cert", "", "PEM `file` of the certificate chain to serve with")
	flags.StringVar(&c.Key, "tls-key", "", "PEM `file` of the certificate's key")
}

// Check says which flags do not go together.
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
	Pair *keypair.Pair // to be loaded before Serve; nil without TLS

	http     http.Server
	listener net.Listener
	log      *slog.Logger
}

// Listen returns a Server that listens and does not serve yet. Its error names
// the flag.
func Listen(c Config, handler http.Handler, log *slog.Logger) (*Server, error) {
	s := newServer(handler, log)
	if c.TLS() {
		s.Pair = &keypair.Pair{Cert: c.Cert, Key: c.Key, Flags: [2]string{"-tls-cert", "-tls-key"}, Log: log}
		s.http.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Pair.Certificate(), nil }}
	}
	var err error
	if s.listener, err = net.Listen("tcp", c.Addr); err != nil {
		return nil, fmt.Errorf("-addr: %w", err)
	}
	return s, nil
}

func newServer(handler http.Handler, log *slog.Logger) *Server {
	return &Server{log: log, http: http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is where a browser on this machine finds the server.
func (s *Server) URL() string {
	at := s.listener.Addr().(*net.TCPAddr)
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if s.http.TLSConfig != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(at.Port))
}

// Serve answers requests until Stop or Close, and then returns
// [http.ErrServerClosed].
func (s *Server) Serve() error {
	if s.http.TLSConfig != nil {
		return s.http.ServeTLS(s.listener, "", "")
	}
	return s.http.Serve(s.listener)
}

// Stop accepts no more connections, and gives the requests in flight up to 10
// seconds.
func (s *Server) Stop() {
	inFlight, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.http.Shutdown(inFlight); err != nil {
		s.log.Warn("requests left unanswered", "error", err)
		s.Close()
	}
}

// Close stops at once.
func (s *Server) Close() {
	s.http.Close()
	s.listener.Close() // for a server that did not come to serve
}
