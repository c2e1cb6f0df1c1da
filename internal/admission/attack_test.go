package admission

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/clientaddr"
)

// machine is a simulated one: each check takes its time, give or take a tenth,
// and other requests come all the time.
type machine struct {
	a       *Admission
	ctx     context.Context
	took    time.Duration // by a check
	checks  atomic.Int64
	clients sync.WaitGroup
}

// How many requests other than logins come in 20 ms.
const (
	alone = 0
	light = 2
	heavy = 200
)

// attack runs f on a machine of two cores. What f started ends with it.
func attack(t *testing.T, took time.Duration, others int64, f func(m *machine)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		m := &machine{a: New(10, time.Now), ctx: ctx, took: took}
		m.a.queue.cores = 2
		if others > 0 {
			m.goes(func() { m.a.queue.others.Add(others); m.sleep(20 * time.Millisecond) })
		}
		f(m)
		end()
		m.clients.Wait()
		time.Sleep(time.Minute) // the last rest is over
		synctest.Wait()
		m.a.queue.wantEmpty(t)
	})
}

// goes runs f again and again.
func (m *machine) goes(f func()) {
	m.clients.Go(func() {
		for m.ctx.Err() == nil {
			f()
		}
	})
}

func (m *machine) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-m.ctx.Done():
	}
}

// login says how long a login took, and what is to be waited if it was refused.
func (m *machine) login(from netip.Addr, username string, right bool) (took, retryAfter time.Duration) {
	return m.loginFor(m.took, from, username, right)
}

func (m *machine) loginFor(check time.Duration, from netip.Addr, username string, right bool) (took, retryAfter time.Duration) {
	began := time.Now()
	_, err := m.a.Try(m.ctx, from, username, func() bool {
		m.checks.Add(1)
		time.Sleep(check + time.Duration(m.checks.Load()%21-10)*check/100)
		return right
	})
	if refused := (*Refused)(nil); errors.As(err, &refused) {
		return time.Since(began), refused.RetryAfter
	}
	return time.Since(began), 0
}

// spin guesses as fast as answers come, from each client's address, at another
// username each time.
func (m *machine) spin(clients int, from func(int) netip.Addr) {
	for i := range clients {
		n := 0
		m.goes(func() { n++; m.login(from(i), fmt.Sprint(i, "-", n), false) })
	}
}

// each guesses at home again and again, after a burst.
func each(gap time.Duration, burst int) func(m *machine) {
	return func(m *machine) {
		for i := range burst {
			go m.login(home, fmt.Sprint("burst", i), false)
		}
		n := 0
		m.goes(func() { n++; go m.login(home, fmt.Sprint(n), false); m.sleep(gap) })
	}
}

// bots guess as fast as they are told to come again.
func (m *machine) bots(clients int, from func(int) netip.Addr, username string) {
	for i := range clients {
		n := 0
		m.goes(func() {
			n++
			name := username
			if name == "" {
				name = fmt.Sprint(i, "-", n)
			}
			_, retryAfter := m.login(from(i), name, false)
			m.sleep(max(retryAfter, time.Millisecond))
		})
	}
}

// served logs in n times, a while apart. It returns the median and the longest of
// the times that took, and how many were refused.
func (m *machine) served(t *testing.T, n int, from func(int) netip.Addr, username func(int) string) (median, longest time.Duration, refused int) {
	t.Helper()
	var took []time.Duration
	for i := range n {
		m.sleep(3*time.Second + time.Duration(i)*17*time.Millisecond)
		d, retryAfter := m.login(from(i), username(i), true)
		if retryAfter > 0 {
			refused++
		}
		took = append(took, d)
	}
	slices.Sort(took)
	return took[n/2], took[n-1], refused
}

var (
	home      = netip.MustParseAddr("192.0.2.1")
	atHome    = func(int) netip.Addr { return home }
	elsewhere = func(i int) netip.Addr { return address(i << 8) } // a /24 each
	in48      = func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 6: byte(i >> 8), 7: byte(i), 15: 1})
	}
	jane      = func(int) string { return "jane" }
	colleague = func(i int) string { return fmt.Sprint("colleague", i) }                        // a new one each time
	anew      = func(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 16, byte(i), 1}) } // a /24 each time
)

// ever48 is each time an address in the next /48 of a /32.
func ever48() func(int) netip.Addr {
	var n atomic.Int32
	return func(int) netip.Addr {
		i := n.Add(1)
		return netip.AddrFrom16([16]byte{0x20, 1, 4: byte(i >> 8), 5: byte(i), 15: 1})
	}
}

const (
	cost10 = 58 * time.Millisecond
	cost12 = 232 * time.Millisecond
)

// TestCrowd has honest logins in the same moment.
func TestCrowd(t *testing.T) {
	for _, tt := range []struct {
		name     string
		took     time.Duration
		others   int64
		n        int
		from     func(int) netip.Addr
		typos    int // one of so many is wrong the first time
		costly   int // one of so many has a hash of cost 14
		allAfter time.Duration
	}{
		{"from one address", cost10, alone, 250, atHome, 0, 0, 125 * cost10},
		{"from as many addresses", cost10, alone, 250, elsewhere, 0, 0, 125 * cost10},
		{"from a /48", cost10, alone, 250, in48, 0, 0, 125 * cost10},
		{"beside other requests", cost10, light, 250, atHome, 0, 0, 250 * cost10},
		{"with typos", cost10, light, 250, atHome, 20, 0, 263 * cost10},
		{"at cost 12", cost12, alone, 170, atHome, 0, 0, 85 * cost12},
		{"of whom some have costlier hashes", cost10, alone, 200, atHome, 0, 20, 100*cost10 + 80*cost10},
		{"at MinCost", time.Millisecond, alone, 4000, atHome, 0, 0, 2000 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, tt.took, tt.others, func(m *machine) {
				m.login(address(1<<22), "who was here before", true)
				if tt.costly > 0 {
					m.loginFor(16*tt.took, address(1<<22), "who was here before", true)
				}
				m.sleep(time.Second)
				began := time.Now()
				var refused atomic.Int64
				var crowd sync.WaitGroup
				for i := range tt.n {
					crowd.Go(func() {
						if tt.typos > 0 && i%tt.typos == 0 {
							m.login(tt.from(i), fmt.Sprint("u", i), false)
						}
						took := tt.took
						if tt.costly > 0 && i%tt.costly == 0 {
							took *= 16
						}
						if _, retryAfter := m.loginFor(took, tt.from(i), fmt.Sprint("u", i), true); retryAfter > 0 {
							refused.Add(1)
						}
					})
				}
				crowd.Wait()
				if took := time.Since(began); refused.Load() > 0 || took > tt.allAfter+2*tt.took {
					t.Errorf("%d are refused and the last is served after %v, want %v", refused.Load(), took, tt.allAfter)
				}
			})
		})
	}
}

// TestNeighbours has jane log in while somebody has attacked for a minute. Before
// that, bots that have not guessed yet are a crowd.
func TestNeighbours(t *testing.T) {
	for _, tt := range []struct {
		name            string
		took            time.Duration
		others          int64
		attack          func(m *machine)
		jane            func(int) netip.Addr // where from
		names           func(int) string
		median, longest time.Duration
		refused         int // of 20
	}{
		{"one wrong login a second from her address", cost12, heavy, each(time.Second, 0), atHome, jane, time.Second, 20 * time.Second, 0},
		{"four wrong logins a second from her address", cost10, heavy, each(time.Second/4, 0), atHome, jane, time.Second, 20 * time.Second, 0},
		{"64 spin at her address", cost10, heavy, func(m *machine) { m.spin(64, atHome) }, atHome, jane, time.Second, 5 * time.Second, 0},
		{"64 spin at her address, at cost 12", cost12, heavy, func(m *machine) { m.spin(64, atHome) }, atHome, jane, time.Second, 5 * time.Second, 0},
		{"one a second, her colleagues log in", cost12, heavy, each(time.Second, 0), atHome, colleague, time.Second, 20 * time.Second, 0},
		{"one a second after a burst, her colleagues log in", cost12, heavy, each(time.Second, 25), atHome, colleague, 2 * time.Second, 20 * time.Second, 0},
		{"four a second after a burst, her colleagues log in", cost10, heavy, each(time.Second/4, 25), atHome, colleague, time.Second, 20 * time.Second, 0},
		{"64 spin, her colleagues log in", cost10, light, func(m *machine) { m.spin(64, atHome) }, atHome, colleague, time.Second, 20 * time.Second, 1},
		{"64 spin at cost 12, her colleagues log in", cost12, light, func(m *machine) { m.spin(64, atHome) }, atHome, colleague, 3 * time.Second, 20 * time.Second, 5},
		{"64 spin beside many other requests, her colleagues log in", cost10, heavy, func(m *machine) { m.spin(64, atHome) }, atHome, colleague, 3 * time.Second, 20 * time.Second, 6},
		{"64 spin elsewhere", cost10, heavy, func(m *machine) { m.spin(64, func(int) netip.Addr { return address(1) }) },
			atHome, jane, 200 * time.Millisecond, 2 * cost10, 0},
		{"64 spin in her /24", cost10, heavy, func(m *machine) { m.spin(64, func(int) netip.Addr { return netip.MustParseAddr("192.0.2.2") }) },
			atHome, jane, 200 * time.Millisecond, 2 * cost10, 0},
		{"400 bots of a /48", cost10, heavy, func(m *machine) { m.bots(400, in48, "") }, atHome, jane, time.Second, 20 * time.Second, 0},
		{"400 bots of a /48, she is new each time", cost10, heavy, func(m *machine) { m.bots(400, in48, "") }, anew, jane, time.Second, 20 * time.Second, 0},
		{"500 bots, each time from the next /48 of a /32", cost10, heavy, func(m *machine) { m.bots(500, ever48(), "") }, anew, jane, time.Second, 20 * time.Second, 0},
		{"200 bots", cost10, heavy, func(m *machine) { m.bots(200, elsewhere, "") }, atHome, jane, 2 * time.Second, 20 * time.Second, 0},
		{"200 bots at cost 12", cost12, heavy, func(m *machine) { m.bots(200, elsewhere, "") }, atHome, jane, 2 * time.Second, 20 * time.Second, 0},
		{"200 bots, she is new each time", cost10, heavy, func(m *machine) { m.bots(200, elsewhere, "") }, anew, jane, 2 * time.Second, 20 * time.Second, 0},
		{"200 bots at cost 12, she is new each time", cost12, heavy, func(m *machine) { m.bots(200, elsewhere, "") }, anew, jane, 2 * time.Second, 20 * time.Second, 0},
		{"1,000 bots that want her password", cost10, heavy, func(m *machine) { m.bots(1000, elsewhere, "jane") }, atHome, jane, time.Second, 20 * time.Second, 0},
		{"1,000 bots that want her password, she is new each time", cost10, heavy, func(m *machine) { m.bots(1000, elsewhere, "jane") },
			anew, jane, 10 * time.Second, 20 * time.Second, 0},
		{"a user with an account is wrong each other time", cost10, heavy, func(m *machine) {
			for i := range 64 {
				m.goes(func() { m.login(address(1), "mallory", true); m.login(address(1), fmt.Sprint(i), false) })
			}
		}, anew, jane, time.Second, 20 * time.Second, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, tt.took, tt.others, func(m *machine) {
				tt.attack(m)
				m.sleep(time.Minute)
				median, longest, refused := m.served(t, 20, tt.jane, tt.names)
				t.Logf("median %v, longest %v", median, longest)
				if median > tt.median || longest > tt.longest || refused > tt.refused {
					t.Errorf("median %v, longest %v, %d refused; want %v, %v and %d at most", median, longest, refused, tt.median, tt.longest, tt.refused)
				}
			})
		})
	}
}

// TestOffice has a hundred colleagues log in at the same moment, while somebody
// from ever new networks does ten times a second.
func TestOffice(t *testing.T) {
	attack(t, cost10, light, func(m *machine) {
		m.login(address(1<<22), "who was here before", true)
		n := 1 << 20
		m.goes(func() { n += 256; go m.login(address(n), fmt.Sprint(n), true); m.sleep(time.Second / 10) })
		m.sleep(5 * time.Second)
		var refused atomic.Int64
		var office sync.WaitGroup
		began := time.Now()
		for i := range 100 {
			office.Go(func() {
				if _, retryAfter := m.login(home, fmt.Sprint("u", i), true); retryAfter > 0 {
					refused.Add(1)
				}
			})
		}
		office.Wait()
		if took := time.Since(began); refused.Load() > 0 || took > 16*time.Second {
			t.Errorf("%d are refused and the last is served after %v", refused.Load(), took)
		}
	})
}

// TestManyHomes has somebody with an account log in from ten thousand networks.
func TestManyHomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(10, time.Now)
		others := func(i int) visit { return visit{clientaddr.Networks(address(i)), fmt.Sprint("u", i)} }
		for i := range 100 {
			h.count(others(i), true)
		}
		mallory := func(i int) visit { return visit{clientaddr.Networks(address(1<<22 + i)), "mallory"} }
		for i := range 3 * maxKnown {
			h.count(mallory(i), true)
		}
		for i := range 100 {
			if !h.knows(others(i)) {
				t.Fatalf("user %d is no longer known", i)
			}
		}
		known := 0
		for i := range 3 * maxKnown {
			if h.knows(mallory(i)) {
				known++
			}
		}
		if known != 64 || !h.knows(mallory(3*maxKnown-1)) {
			t.Errorf("mallory is known at %d networks, want 64, the last one among them", known)
		}
	})
}

// TestGuesses counts the checks of guessers in two minutes, after the first
// minute.
func TestGuesses(t *testing.T) {
	const quarter = int64(2*time.Minute/(4*cost10)) + 1 // of a core
	for _, tt := range []struct {
		name   string
		others int64
		attack func(m *machine)
		most   int64
	}{
		{"one username from one address", heavy, func(m *machine) { m.bots(1, atHome, "jane") }, 2},
		{"64 who spin at an address", heavy, func(m *machine) { m.spin(64, atHome) }, quarter},
		{"64 who spin at an address, and little else comes", light, func(m *machine) { m.spin(64, atHome) }, 4 * quarter},
		{"64 who spin at an address, and nothing else comes", alone, func(m *machine) { m.spin(64, atHome) }, 4 * quarter},
		{"64 who spin in a /48", heavy, func(m *machine) { m.spin(64, in48) }, quarter},
		{"64 who spin, each in a network", heavy, func(m *machine) { m.spin(64, elsewhere) }, quarter},
		{"a /48 that wants one username", heavy, func(m *machine) { m.bots(1000, in48, "jane") }, 2*4 + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, cost10, tt.others, func(m *machine) {
				tt.attack(m)
				m.sleep(time.Minute)
				before := m.checks.Load()
				m.sleep(2 * time.Minute)
				if n := m.checks.Load() - before; n > tt.most {
					t.Errorf("%d checks, want %d at most", n, tt.most)
				}
			})
		})
	}
}
