package serving

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener with connections in memory, so that they follow the
// simulated clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   *sync.Once
}

func newPipes() pipes { return pipes{make(chan net.Conn), make(chan struct{}), new(sync.Once)} }

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestLimits runs slow and silent clients, one for each limit.
func TestLimits(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, tt := range []struct {
		name string
		// client uses the connection, and returns what it got.
		client func(conn net.Conn) string
		ends   time.Duration // when the connection ends, or the handler
		got    string        // how it begins
	}{
		{"a header that is not finished", func(conn net.Conn) string {
			io.WriteString(conn, request)
			return rest(conn)
		}, 5 * time.Second, ""},
		{"a connection that says nothing", rest, 5 * time.Second, ""},
		{"a body that is not finished", func(conn net.Conn) string {
			io.WriteString(conn, "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
			return rest(conn)
		}, 10 * time.Second, "HTTP/1.1 408 "},
		{"a body that trickles", func(conn net.Conn) string {
			io.WriteString(conn, "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
			go func() {
				for {
					time.Sleep(time.Second)
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
				}
			}()
			return rest(conn)
		}, 10 * time.Second, "HTTP/1.1 408 "},
		{"an answer that is not read", func(conn net.Conn) string {
			io.WriteString(conn, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
			time.Sleep(46 * time.Second)
			text := rest(conn)
			return text[:min(len(text), 4)]
		}, 46 * time.Second, ""},
		{"a connection that is idle", func(conn net.Conn) string {
			io.WriteString(conn, request+"\r\n")
			return rest(conn)
		}, 2 * time.Minute, "HTTP/1.1 200 "},
		{"a header within the limit", func(conn net.Conn) string {
			io.WriteString(conn, request+"Connection: close\r\nX: "+strings.Repeat("x", 15<<10)+"\r\n\r\n")
			return rest(conn)
		}, 0, "HTTP/1.1 200 "},
		{"a header over the limit", func(conn net.Conn) string {
			go io.WriteString(conn, request+"X: "+strings.Repeat("x", 21<<10)+"\r\n\r\n")
			status, _ := bufio.NewReader(conn).ReadString('\n')
			conn.Close()
			return status
		}, 0, "HTTP/1.1 431 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/body":
						if _, err := io.ReadAll(r.Body); err != nil {
							w.WriteHeader(http.StatusRequestTimeout)
						}
					case "/long":
						if _, err := io.WriteString(w, strings.Repeat("x", 1<<20)); err == nil {
							t.Error("an answer that nobody read was written")
						}
					}
				})
				s := newServer(slog.New(slog.DiscardHandler))
				s.http.Handler = handler
				listener := newPipes()
				go s.http.Serve(listener)
				here, there := net.Pipe()
				listener.conns <- there
				began := time.Now()
				if got := tt.client(here); !strings.HasPrefix(got, tt.got) || tt.got == "" && got != "" {
					t.Errorf("got %q, want %q", got, tt.got)
				}
				if took := time.Since(began); took != tt.ends {
					t.Errorf("it ended after %v, want %v", took, tt.ends)
				}
				s.http.Close()
				here.Close()
				time.Sleep(time.Minute) // until every client has noticed
			})
		})
	}
}

// TestLimitsOfHTTP2 writes the frames of HTTP/2 (RFC 9113 4.1) and waits until the
// connection ends.
func TestLimitsOfHTTP2(t *testing.T) {
	const (
		headers, settings, continuation = 1, 4, 9
		endHeaders                      = 4
	)
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, tt := range []struct {
		name   string
		client func(conn net.Conn)
		ends   time.Duration
	}{
		{name: "headers that stop", ends: 10 * time.Second, client: func(conn net.Conn) {
			writeFrame(conn, headers, 0, "\x82\x86\x84")
		}},
		{name: "headers that trickle", ends: 10 * time.Second, client: func(conn net.Conn) {
			writeFrame(conn, headers, 0, "\x82\x86\x84")
			for writeFrame(conn, continuation, 0, "\x40\x01a\x01b") == nil {
				time.Sleep(time.Second)
			}
		}},
		{name: "a client that answers nothing", ends: 10 * time.Second, client: func(conn net.Conn) {
			writeFrame(conn, headers, endHeaders, "\x82\x86\x84\x41\x01a")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(slog.New(slog.DiscardHandler))
				s.http.Handler = http.NotFoundHandler()
				s.http.Protocols = new(http.Protocols)
				s.http.Protocols.SetUnencryptedHTTP2(true)
				listener := newPipes()
				go s.http.Serve(listener)
				here, there := net.Pipe()
				listener.conns <- there
				began := time.Now()
				var client sync.WaitGroup
				client.Go(func() {
					io.WriteString(here, preface)
					writeFrame(here, settings, 0, "")
					tt.client(here)
				})
				rest(here)
				if took := time.Since(began); took > tt.ends {
					t.Errorf("it ended after %v, want %v", took, tt.ends)
				}
				here.Close()
				client.Wait()
				s.http.Close()
				time.Sleep(time.Minute) // until the server has noticed
			})
		})
	}
}

// writeFrame writes a frame of stream 1, or of the connection for settings.
func writeFrame(conn net.Conn, kind, flags byte, payload string) error {
	stream := byte(1)
	if payload == "" {
		stream = 0
	}
	head := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}
	_, err := conn.Write(append(head, payload...))
	return err
}

// TestSettingsOfHTTP2 reads what the server allows a connection: 8 requests at a
// time (SETTINGS_MAX_CONCURRENT_STREAMS, RFC 9113 6.5.2), which net/http enforces.
func TestSettingsOfHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(slog.New(slog.DiscardHandler))
		s.http.Handler = http.NotFoundHandler()
		s.http.Protocols = new(http.Protocols)
		s.http.Protocols.SetUnencryptedHTTP2(true)
		listener := newPipes()
		go s.http.Serve(listener)
		here, there := net.Pipe()
		listener.conns <- there
		var client sync.WaitGroup
		client.Go(func() {
			io.WriteString(here, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			writeFrame(here, 4, 0, "")
		})
		head := make([]byte, 9)
		if _, err := io.ReadFull(here, head); err != nil || head[3] != 4 {
			t.Fatalf("no settings: %v, %v", head, err)
		}
		settings := make([]byte, head[2])
		if _, err := io.ReadFull(here, settings); err != nil {
			t.Fatal(err)
		}
		allowed := make(map[uint16]uint32)
		for ; len(settings) >= 6; settings = settings[6:] {
			allowed[binary.BigEndian.Uint16(settings)] = binary.BigEndian.Uint32(settings[2:])
		}
		if allowed[3] != 8 {
			t.Errorf("%d requests at a time, want 8", allowed[3])
		}
		here.Close()
		client.Wait()
		s.http.Close()
		time.Sleep(time.Minute) // until the server has noticed
	})
}

// TestAnswerBeforeBody sends a body that is too long to be read. The client gets
// the whole answer, and then the end of the connection instead of a reset.
func TestAnswerBeforeBody(t *testing.T) {
	s, err := Listen(Config{Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("a", 100_000))
	text, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(text), "too large\n") {
		t.Errorf("%q, %v", text, err)
	}
}

// rest reads until the connection ends.
func rest(conn net.Conn) string {
	text, _ := io.ReadAll(conn)
	return string(text)
}

// TestAddr checks that addresses that nobody can have meant are refused, in words.
func TestAddr(t *testing.T) {
	for _, tt := range []struct{ addr, err string }{
		{"unix:/run/x.sock", "Unix sockets are not supported"},
		{"unix:///run/x.sock", "Unix sockets are not supported"},
		{"unix:x.sock", "Unix sockets are not supported"},
		{"/run/x.sock", "Unix sockets are not supported"},
		{"./x.sock", "Unix sockets are not supported"},
		{"@x", "Unix sockets are not supported"},
		{":", "missing port in address"},
		{"127.0.0.1:", "missing port in address"},
		{"[::1]:", "missing port in address"},
		{"127.0.0.1", "missing port in address"},
		{"http://127.0.0.1:0", "too many colons in address"},
		{"127.0.0.1:0", ""},
	} {
		s, err := Listen(Config{Addr: tt.addr}, slog.New(slog.DiscardHandler))
		if err == nil {
			s.Close()
		}
		want := "-addr: listen tcp: address " + tt.addr + ": " + tt.err +
			" (write it as host:port, or :port for all addresses)"
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %s", tt.addr, err, want)
		}
	}
}

func TestURL(t *testing.T) {
	for _, tt := range []struct {
		addr string
		tls  bool
		want string // before the port
	}{
		{"127.0.0.1:0", false, "http://127.0.0.1:"},
		{"localhost:0", false, "http://127.0.0.1:"},
		{":0", false, "http://localhost:"},
		{"0.0.0.0:0", false, "http://localhost:"},
		{"[::1]:0", false, "http://[::1]:"},
		{"127.0.0.1:0", true, "https://127.0.0.1:"},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			c := Config{Addr: tt.addr}
			if tt.tls {
				c.Cert, c.Key = "cert.pem", "key.pem"
			}
			s, err := Listen(c, slog.New(slog.DiscardHandler))
			if errors.Is(err, syscall.EADDRNOTAVAIL) && strings.Contains(tt.addr, "::1") {
				t.Skip("this machine has no IPv6")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, port, _ := net.SplitHostPort(s.Addr())
			if got := s.URL(); got != tt.want+port {
				t.Errorf("%s, want %s", got, tt.want+port)
			}
		})
	}
}

// TestStop stops a server that has a delay, and sends requests meanwhile over a
// connection that was open before and over new ones.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 10 * time.Second
		s := newServer(slog.New(slog.DiscardHandler))
		s.delay = delay
		listener := newPipes()
		s.listener = listener
		go s.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(5 * time.Second)
			}
		}))
		dial := func() net.Conn {
			here, there := net.Pipe()
			listener.conns <- there
			return here
		}
		ask := func(conn net.Conn, path string, status int, last bool) {
			t.Helper()
			io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != status || response.Close != last {
				t.Errorf("%s: %d %s, the connection's end: %v; want %d, %v", path, response.StatusCode, body, response.Close, status, last)
			}
			if retry := response.Header.Get("Retry-After"); (retry == "1") != (status == 503) {
				t.Errorf("%s: %d with Retry-After %q", path, status, retry)
			}
		}
		open := dial()
		ask(open, "/healthz", 200, false)
		ask(open, "/any", 200, false)
		began := time.Now()
		stopped := make(chan time.Duration)
		go func() {
			s.Stop()
			stopped <- time.Since(began)
		}()
		synctest.Wait()
		ask(open, "/any", 200, true)
		ask(dial(), "/healthz", 503, true)
		time.Sleep(delay - time.Second)
		ask(dial(), "/healthz", 503, true)
		ask(dial(), "/slow", 200, true) // it ends after the delay
		if took := <-stopped; took < delay+4*time.Second || took > delay+5*time.Second {
			t.Errorf("stopped after %v", took)
		}
		if _, err := listener.Accept(); err == nil {
			t.Error("the listener is not closed")
		}
	})
}

// TestStopWhileSomebodyWaits checks the answer to a request that would wait longer
// than a server that stops.
func TestStopWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(slog.New(slog.DiscardHandler))
		listener := newPipes()
		s.listener = listener
		go s.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				if cause := context.Cause(r.Context()); cause != ErrStopping {
					t.Errorf("the request ended with %v", cause)
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			case <-time.After(20 * time.Second):
			}
		}))
		here, there := net.Pipe()
		listener.conns <- there
		io.WriteString(here, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait()
		var stopped sync.WaitGroup
		stopped.Go(s.Stop)
		began := time.Now()
		if got := rest(here); !strings.HasPrefix(got, "HTTP/1.1 503 ") || time.Since(began) > 10*time.Second {
			t.Errorf("after %v it gets %q", time.Since(began), got)
		}
		here.Close()
		stopped.Wait()
	})
}

func TestShutdownDelayFlag(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration // -1: refused
	}{{"10s", 10 * time.Second}, {"0s", 0}, {"0", 0}, {"10", -1}, {"-1s", -1}, {"soon", -1}} {
		var c Config
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		c.Flags(flags)
		if err := flags.Set("shutdown-delay", tt.text); (err == nil) != (tt.want >= 0) || err == nil && c.Delay != tt.want {
			t.Errorf("%q is %v, %v; want %v", tt.text, c.Delay, err, tt.want)
		}
	}
}
