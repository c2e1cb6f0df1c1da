package serving

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// from is a connection from an address.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(f.addr), Port: 1}
}

// TestBounded opens one connection more than is allowed, from 192.0.2.3. The right
// one must be closed.
func TestBounded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		open   string // address and state, the oldest first: n sent nothing yet, i is idle, a has a request; ! if just now
		closes int    // of them, or -1 if the new one waits
	}{
		{name: "the longest idle", open: "1i 1i 1i", closes: 0},
		{name: "one that never had a request", open: "1i 1n 1n", closes: 1},
		{name: "one that never had a request, whoever has it", open: "2i 2i 1n", closes: 2},
		{name: "the longest idle, and not one that has just been opened", open: "1i 2i 4i 5i 6i 7i 8i 9n!", closes: 0},
		{name: "of a crowd, one that has just been opened", open: "1i 1i 1n! 4i 5i 6i 7i 8i", closes: 2},
		{name: "one of a crowd, and not one that has just been opened", open: "1i 2i 2i 4i 5i 6i 7i 8n!", closes: 1},
		{name: "none that has a request", open: "1a 1a 1i", closes: 2},
		{name: "none that waits", open: "1a 2a 1a", closes: -1},
		{name: "of a crowd, none of an address that has fewer", open: "3a 3a 1i", closes: -1},
		{name: "of a crowd, none of an address that has fewer and sent nothing", open: "3a 3a 1n", closes: -1},
		{name: "of a crowd, an idle one of its own", open: "3i 3a 1a", closes: 0},
		{name: "one of a crowd", open: "1i 2i 2i 4i 5i 6i 7i 8i", closes: 1},
		{name: "the longest idle, without a crowd", open: "1i 2i 4i 5i 6i 7i 8i 9i", closes: 0},
		{name: "one that has fewer, by an address that is no crowd", open: "1i 3a 4a 5a 6a 7a 8a 9a", closes: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := newPipes()
				b := newBounded(conns, len(strings.Fields(tt.open)))
				accept := func(addr string) net.Conn {
					here, there := net.Pipe()
					t.Cleanup(func() { here.Close() })
					go func() { conns.conns <- from{there, addr} }()
					c, err := b.Accept()
					if err != nil {
						t.Error(err)
					}
					return c
				}
				var open []net.Conn
				for _, one := range strings.Fields(tt.open) {
					c := accept("192.0.2." + one[:1])
					if one[1] != 'n' {
						state(c, http.StateActive)
					}
					if one[1] == 'i' {
						state(c, http.StateIdle)
					}
					open = append(open, c)
					if !strings.HasSuffix(one, "!") {
						time.Sleep(time.Second)
					}
				}
				accepted := make(chan net.Conn, 1)
				go func() { accepted <- accept("192.0.2.3") }()
				synctest.Wait()
				closed := slices.IndexFunc(open, func(c net.Conn) bool { return !b.open[c.(*conn)] })
				if closed != tt.closes || len(b.open) > b.most {
					t.Errorf("closed %d, want %d; %d are open", closed, tt.closes, len(b.open))
				}
				if tt.closes < 0 {
					if len(accepted) != 0 {
						t.Error("accepted without room")
					}
					open[1].Close()
				}
				(<-accepted).Close()
			})
		})
	}
}

// wantsEOF wants the other end of a connection to have been closed.
func wantsEOF(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v, want EOF", n, err)
	}
}

// TestShare has an address whose connections all have requests: it leaves an
// eighth of the places to others, whose connections stay. One too many is closed,
// and one that ends makes room for one.
func TestShare(t *testing.T) {
	for _, tt := range []struct {
		name, prefix string // of the addresses of the flood
	}{{"an address", "192.0.2.1"}, {"a /48", "2001:db8:0:%d::1"}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := newPipes()
				b := newBounded(conns, 16)
				accepted := make(chan net.Conn, 100)
				go func() {
					for {
						c, err := b.Accept()
						if err != nil {
							return
						}
						accepted <- c
					}
				}()
				open := func(addr string) (client net.Conn) {
					client, there := net.Pipe()
					t.Cleanup(func() { client.Close() })
					conns.conns <- from{there, addr}
					synctest.Wait()
					return client
				}
				open("192.0.2.2")
				honest := <-accepted
				state(honest, http.StateActive)
				state(honest, http.StateIdle)
				var last net.Conn // of the flood, as it sees it
				var busy []net.Conn
				flood := func(n int) {
					t.Helper()
					for i := range n {
						addr := tt.prefix
						if strings.Contains(addr, "%d") {
							addr = fmt.Sprintf(addr, i)
						}
						last = open(addr)
						for len(accepted) > 0 {
							c := <-accepted
							state(c, http.StateActive)
							busy = append(busy, c)
						}
					}
					if has := len(b.open) - 1; !b.open[honest.(*conn)] || has != 14 {
						t.Errorf("the flood has %d connections, and the other one is open: %v", has, b.open[honest.(*conn)])
					}
				}
				flood(30)
				wantsEOF(t, last)
				busy[0].Close()
				flood(3)
				open("192.0.2.3")
				if len(accepted) != 1 {
					t.Error("another address is kept out")
				}
				b.Close()
			})
		})
	}
}

// TestServeBounded serves one connection at a time. A request that is being
// answered keeps its connection from a newer one.
func TestServeBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(slog.New(slog.DiscardHandler))
		s.most = 1
		conns := newPipes()
		s.listener = conns
		go s.Serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) }))
		defer s.Close()
		var clients sync.WaitGroup
		for i := range 2 {
			client, there := net.Pipe()
			conns.conns <- from{there, fmt.Sprintf("192.0.2.%d", i)}
			clients.Go(func() {
				io.WriteString(client, "GET / HTTP/1.0\r\n\r\n")
				answer, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil {
					t.Errorf("request %d: %v", i, err)
				} else if answer.StatusCode != http.StatusOK {
					t.Errorf("request %d: %s", i, answer.Status)
				}
			})
			synctest.Wait()
		}
		clients.Wait()
	})
}

// TestProxyBesideStrangers fills all places from more addresses than there are,
// beside a proxy that keeps 32 connections and uses one of them now and then.
func TestProxyBesideStrangers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sends  bool // each stranger sends a request
		prefix string
	}{
		{name: "silent ones", prefix: "10.0.%d.%d"},
		{name: "silent ones of IPv6", prefix: "2001:%x:%x::1"},
		{name: "ones that sent a request", sends: true, prefix: "10.0.%d.%d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := newPipes()
				b := newBounded(conns, 768)
				var ends []net.Conn
				open := func(addr string, sends bool) *conn {
					here, there := net.Pipe()
					ends = append(ends, here)
					go func() { conns.conns <- from{there, addr} }()
					c, err := b.Accept()
					if err != nil {
						t.Fatal(err)
					}
					if sends {
						state(c, http.StateActive)
						state(c, http.StateIdle)
					}
					return c.(*conn)
				}
				var kept []*conn
				for range 32 {
					kept = append(kept, open("192.0.2.1", true))
				}
				for i := range 2000 {
					time.Sleep(10 * time.Millisecond)
					open(fmt.Sprintf(tt.prefix, i/250, i%250), tt.sends)
					used := kept[i%32]
					state(used, http.StateActive)
					state(used, http.StateIdle)
				}
				left := 0
				for _, c := range kept {
					if b.open[c] {
						left++
					}
				}
				if left != 32 {
					t.Errorf("of the proxy's 32 connections %d are left", left)
				}
				state(open("192.0.2.1", true), http.StateActive) // the proxy may open one more, too
				for _, end := range ends {
					end.Close()
				}
			})
		})
	}
}

// TestBoundedClose closes a listener whose Accept is waiting for room.
func TestBoundedClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := newPipes()
		b := newBounded(conns, 0)
		failed := make(chan error)
		go func() {
			_, err := b.Accept()
			failed <- err
		}()
		client, there := net.Pipe()
		conns.conns <- there
		synctest.Wait()
		b.Close()
		if err := <-failed; err != net.ErrClosed {
			t.Errorf("error %v", err)
		}
		wantsEOF(t, client)
	})
}

func TestBound(t *testing.T) {
	for descriptors, want := range map[uint64]int{1: 1, 16: 1, 64: 32, 256: 192, 1024: 768, 20_000: 18_976, 1 << 63: 1<<30 - 1024} {
		if got := bound(descriptors); got != want {
			t.Error(fmt.Sprint(descriptors, ": ", got, ", want ", want))
		}
	}
}
