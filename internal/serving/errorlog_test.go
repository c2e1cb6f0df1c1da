package serving

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a log that can be read while it is being written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestErrorLog checks that each kind has one line in an interval, whatever the number
// of connections that fail.
func TestErrorLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lines{}
		s := newServer(slog.New(slog.NewTextHandler(out, nil)))
		for i := range 1000 {
			s.http.ErrorLog.Printf("http: TLS handshake error from 192.0.2.1:%d: %s", i, [...]string{"i/o timeout", "EOF"}[i%2])
		}
		s.http.ErrorLog.Print("http: Accept error: too many open files; retrying in 1s")
		if out.String() != "" {
			t.Errorf("logged at once: %s", out)
		}
		time.Sleep(logInterval)
		synctest.Wait()
		for _, want := range []string{
			`msg="connections failed" count=1000 within=10s last="http: TLS handshake error from 192.0.2.1:999: EOF"`,
			`msg="connections failed" count=1 within=10s last="http: Accept error: too many open files; retrying in 1s"`,
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s in\n%s", want, out)
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(2 * logInterval)
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("logged without a cause: %s", out)
		}
		s.http.ErrorLog.Print("http: TLS handshake error from 192.0.2.1:1: unsupported protocols [\"panic serving\"]")
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("what a client says is taken for a panic: %s", out)
		}
		s.http.ErrorLog.Print("http: panic serving 192.0.2.1:1: nil")
		if !strings.Contains(out.String(), "level=ERROR msg=\"http: panic serving") {
			t.Errorf("the panic is not logged at once: %s", out)
		}
	})
}

// TestErrorLogAtTheEnd lets a connection fail in the last seconds of a server.
func TestErrorLogAtTheEnd(t *testing.T) {
	for name, end := range map[string]func(*Server){"stop": (*Server).Stop, "close": (*Server).Close} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := &lines{}
				s := newServer(slog.New(slog.NewTextHandler(out, nil)))
				s.listener = newPipes()
				s.http.ErrorLog.Print("http: TLS handshake error from 192.0.2.1:1: EOF")
				end(s)
				if n := strings.Count(out.String(), `msg="connections failed" count=1`); n != 1 {
					t.Errorf("%d lines: %s", n, out)
				}
				time.Sleep(2 * logInterval)
				if n := strings.Count(out.String(), "\n"); n != 1 {
					t.Errorf("then %d lines: %s", n, out)
				}
			})
		})
	}
}
