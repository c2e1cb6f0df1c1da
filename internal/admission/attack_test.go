package admission

import (
	"cmp"
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

// loginFor is login with a check that takes as long as given.
func (m *machine) loginFor(check time.Duration, from netip.Addr, username string, right bool) (
	took, retryAfter time.Duration,
) {
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

// served logs in n times, a while apart, each time after some wrong passwords. It
// returns the median and the longest of the times that took, and how many were
// refused.
func (m *machine) served(n, typos int, from func(int) netip.Addr, username func(int) string) (
	median, longest time.Duration, refused int,
) {
	var took []time.Duration
	for i := range n {
		m.sleep(3*time.Second + time.Duration(i)*17*time.Millisecond)
		for range typos {
			m.login(from(i), username(i), false)
		}
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
	next24    = func(int) netip.Addr { return netip.MustParseAddr("192.0.2.2") } // in the /24 of home
	away      = func(int) netip.Addr { return address(1) }
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

// spin64 is 64 clients who guess as fast as they are answered.
func spin64(from func(int) netip.Addr) func(m *machine) { return func(m *machine) { m.spin(64, from) } }

func bots(clients int, from func(int) netip.Addr, username string) func(m *machine) {
	return func(m *machine) { m.bots(clients, from, username) }
}

// soon begins an attack in a minute, after jane has logged in at home.
func soon(attack func(m *machine)) func(m *machine) {
	return func(m *machine) {
		m.login(home, "jane", true)
		m.clients.Go(func() { m.sleep(time.Minute); attack(m) })
	}
}

// costly is 64 who spin and whose checks take as long as those of cost 14, as if
// one user had such a hash.
func costly(m *machine) {
	for i := range 64 {
		n := 0
		m.goes(func() { n++; m.loginFor(16*m.took, away(i), fmt.Sprint(i, "-", n), false) })
	}
}

// nineTries is 200 bots that stay below the limit of an address.
func nineTries(m *machine) {
	for i := range 200 {
		m.goes(func() {
			for n := range 9 {
				m.login(elsewhere(i), fmt.Sprint(i, "-", n), false)
			}
			m.sleep(15 * time.Minute)
		})
	}
}

// mallory has an account, and is wrong each other time.
func mallory(m *machine) {
	for i := range 64 {
		n := 0
		m.goes(func() {
			n++
			m.login(away(i), "mallory", true)
			m.login(away(i), fmt.Sprint(i, "-", n), false)
		})
	}
}

// hog has an account, and logs in all the time.
func hog(m *machine) {
	for range 64 {
		m.goes(func() { m.login(away(0), "mallory", true) })
	}
}

// colleagues guesses the passwords of a hundred users at the address that they
// logged in from.
func colleagues(m *machine) {
	m.login(home, "jane", true)
	for i := range 100 {
		m.login(home, fmt.Sprint("known", i), true)
	}
	for i := range 64 {
		n := i
		m.goes(func() { n++; m.login(home, fmt.Sprint("known", n%100), false); m.sleep(time.Millisecond) })
	}
}

// crowds is 600 honest strangers each 20 seconds, from as many addresses.
func crowds(m *machine) {
	n := 0
	m.goes(func() {
		for range 600 {
			n++
			go m.login(address(1<<23+n), fmt.Sprint("stranger", n), true)
		}
		m.sleep(20 * time.Second)
	})
}

// TestCrowd has honest logins in the same moment.
func TestCrowd(t *testing.T) {
	for _, tt := range []struct {
		name   string
		took   time.Duration // default cost10
		others int64
		n      int
		from   func(int) netip.Addr
		known  bool // they logged in from there before
		typos  int  // one of so many is wrong the first time
		costly int  // one of so many has a hash of cost 14
		attack func(m *machine)
		allIn  time.Duration
	}{
		{name: "from one address", n: 250, from: atHome, allIn: 125 * cost10},
		{name: "from as many addresses", n: 250, from: elsewhere, allIn: 125 * cost10},
		{name: "from a /48", n: 250, from: in48, allIn: 125 * cost10},
		{name: "known", n: 250, from: atHome, known: true, allIn: 125 * cost10},
		{name: "beside other requests", others: light, n: 250, from: atHome, allIn: 250 * cost10},
		{name: "with typos", others: light, n: 250, from: atHome, typos: 20, allIn: 263 * cost10},
		{name: "at cost 12", took: cost12, n: 170, from: atHome, allIn: 85 * cost12},
		{
			name: "of whom some have costlier hashes", n: 320, from: atHome, costly: 20,
			allIn: 160*cost10 + 120*cost10 + 16*cost10, // one of the costly may be the last
		},
		{name: "at MinCost", took: time.Millisecond, n: 4000, from: atHome, allIn: 2000 * time.Millisecond},
		// Guessers get one turn of four, and one core of two at most.
		{name: "beside 64 who spin", n: 100, from: atHome, attack: spin64(away), allIn: 67 * cost10},
		{
			name: "beside 64 who spin and other requests", others: light, n: 100, from: atHome,
			attack: spin64(away), allIn: 134 * cost10,
		},
		{
			name: "known, beside 64 who spin there", n: 100, from: atHome, known: true,
			attack: spin64(atHome), allIn: 67 * cost10,
		},
		{name: "beside 64 who spin at cost 14", n: 100, from: atHome, attack: costly, allIn: 100 * cost10},
		{
			name: "beside a user with an account", others: light, n: 100, from: elsewhere, attack: mallory,
			allIn: 140 * cost10,
		},
		{
			name: "known, beside a user with an account", others: light, n: 100, from: elsewhere, known: true,
			attack: mallory, allIn: 140 * cost10,
		},
		{
			name: "of an office beside a user with an account", others: light, n: 100, from: atHome,
			attack: mallory, allIn: 300 * cost10,
		},
		{
			name: "beside an account that logs in all the time", others: light, n: 80, from: atHome, attack: hog,
			allIn: 320 * cost10,
		},
		{
			name: "known, beside an account that logs in all the time", others: light, n: 80, from: elsewhere,
			known: true, attack: hog, allIn: 82 * cost10,
		},
		{name: "beside 200 bots", n: 100, from: atHome, attack: bots(200, elsewhere, ""), allIn: 67 * cost10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			took := cmp.Or(tt.took, cost10)
			attack(t, took, tt.others, func(m *machine) {
				m.login(address(1<<22), "who was here before", true)
				if tt.costly > 0 {
					m.loginFor(16*took, address(1<<22), "who was here before", true)
				}
				for i := 0; tt.known && i < tt.n; i++ {
					m.login(tt.from(i), fmt.Sprint("u", i), true)
				}
				if tt.attack != nil {
					tt.attack(m)
					m.sleep(time.Minute)
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
						check := took
						if tt.costly > 0 && i%tt.costly == 0 {
							check *= 16
						}
						if _, retryAfter := m.loginFor(check, tt.from(i), fmt.Sprint("u", i), true); retryAfter > 0 {
							refused.Add(1)
						}
					})
				}
				crowd.Wait()
				last := time.Since(began)
				t.Logf("longest %v, %d refused", last, refused.Load())
				if refused.Load() > 0 || last > tt.allIn+2*took {
					t.Errorf("%d are refused and the last is served after %v, want %v", refused.Load(), last, tt.allIn)
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
		took            time.Duration // default cost10
		others          int64
		attack          func(m *machine)
		from            func(int) netip.Addr
		names           func(int) string
		typos           int           // wrong passwords before the right one
		median, longest time.Duration // longest is maxWait by default
		refused         int           // of 20
	}{
		{
			name: "one wrong login a second from her address", took: cost12, others: heavy,
			attack: each(time.Second, 0), from: atHome, names: jane, median: time.Second,
		},
		{
			name: "four wrong logins a second from her address", others: heavy,
			attack: each(time.Second/4, 0), from: atHome, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "64 spin at her address", others: heavy, attack: spin64(atHome),
			from: atHome, names: jane, median: 200 * time.Millisecond, longest: 5 * time.Second,
		},
		{
			name: "64 spin at her address, at cost 12", took: cost12, others: heavy,
			attack: spin64(atHome), from: atHome, names: jane, median: time.Second, longest: 5 * time.Second,
		},
		{
			name: "64 guess her colleagues at their address", others: heavy, attack: colleagues,
			from: atHome, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "64 guess other users at their address", others: heavy, attack: colleagues,
			from: anew, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "one a second, her colleagues log in", took: cost12, others: heavy,
			attack: each(time.Second, 0), from: atHome, names: colleague, median: 1100 * time.Millisecond,
		},
		{
			name: "one a second after a burst, her colleagues log in", took: cost12, others: heavy,
			attack: each(time.Second, 25), from: atHome, names: colleague, median: 1100 * time.Millisecond,
		},
		{
			name: "four a second after a burst, her colleagues log in", others: heavy,
			attack: each(time.Second/4, 25), from: atHome, names: colleague, median: time.Second,
		},
		{
			name: "fifty a second, her colleagues log in", others: light, attack: each(time.Second/50, 25),
			from: atHome, names: colleague, median: 14 * time.Second, refused: 16,
		},
		{
			name: "64 spin, her colleagues log in", others: light, attack: spin64(atHome),
			from: atHome, names: colleague, median: time.Second, refused: 1,
		},
		{
			name: "64 spin at cost 12, her colleagues log in", took: cost12, others: light,
			attack: spin64(atHome), from: atHome, names: colleague, median: time.Second, refused: 5,
		},
		{
			name: "64 spin beside many other requests, her colleagues log in", others: heavy,
			attack: spin64(atHome), from: atHome, names: colleague, median: 3 * time.Second, refused: 6,
		},
		{
			name: "64 spin elsewhere", others: heavy, attack: spin64(away),
			from: atHome, names: jane, median: 200 * time.Millisecond, longest: 2 * cost10,
		},
		{
			name: "64 spin elsewhere, she is new each time", others: light, attack: spin64(away),
			from: anew, names: jane, median: 200 * time.Millisecond, longest: 2 * cost10,
		},
		{
			name: "64 spin in her /24", others: heavy, attack: spin64(next24),
			from: atHome, names: jane, median: 200 * time.Millisecond, longest: 2 * cost10,
		},
		{
			name: "64 spin in her /24, her colleagues log in", others: light, attack: spin64(next24),
			from: atHome, names: colleague, median: 200 * time.Millisecond, longest: 2 * cost10,
		},
		{
			name: "400 bots of a /48", others: heavy, attack: bots(400, in48, ""),
			from: atHome, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "400 bots of a /48, she is new each time", others: heavy, attack: bots(400, in48, ""),
			from: anew, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "500 bots, each time from the next /48 of a /32", others: heavy,
			attack: bots(500, ever48(), ""), from: anew, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "200 bots", others: heavy, attack: bots(200, elsewhere, ""),
			from: atHome, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "200 bots at cost 12", took: cost12, others: heavy, attack: bots(200, elsewhere, ""),
			from: atHome, names: jane, median: 500 * time.Millisecond,
		},
		{
			name: "200 bots, she is new each time", others: heavy, attack: bots(200, elsewhere, ""),
			from: anew, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "200 bots at cost 12, she is new each time", took: cost12, others: heavy,
			attack: bots(200, elsewhere, ""), from: anew, names: jane, median: 500 * time.Millisecond,
		},
		{
			name: "200 bots, she mistypes first", others: heavy, attack: bots(200, elsewhere, ""),
			from: anew, names: jane, typos: 1, median: 200 * time.Millisecond,
		},
		{
			name: "200 bots at cost 12, she mistypes first", took: cost12, others: heavy,
			attack: bots(200, elsewhere, ""), from: anew, names: jane, typos: 1, median: time.Second, refused: 1,
		},
		{
			name: "200 bots that try nine times", others: heavy, attack: nineTries,
			from: atHome, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "200 bots that try nine times, she is new each time", others: heavy, attack: nineTries,
			from: anew, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "1,000 bots begin", others: heavy, attack: soon(bots(1000, elsewhere, "")),
			from: atHome, names: jane, median: 200 * time.Millisecond, longest: 200 * time.Millisecond,
		},
		{
			name: "1,000 bots begin, she is new each time", others: heavy,
			attack: soon(bots(1000, elsewhere, "")), from: anew, names: jane, median: 200 * time.Millisecond, refused: 7,
		},
		{
			name: "1,000 bots that want her password", others: heavy,
			attack: bots(1000, elsewhere, "jane"), from: atHome, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "1,000 bots that want her password, she is new each time", others: heavy,
			attack: bots(1000, elsewhere, "jane"), from: anew, names: jane, median: 200 * time.Millisecond,
		},
		{
			name: "a user with an account is wrong each other time", others: heavy, attack: mallory,
			from: anew, names: jane, median: 500 * time.Millisecond,
		},
		{
			name: "a user with an account is wrong each other time, she is known", others: light, attack: mallory,
			from: atHome, names: jane, median: 110 * time.Millisecond,
		},
		{
			name: "a user with an account is wrong each other time, first logins there", others: heavy,
			attack: mallory, from: away, names: colleague, median: 8 * time.Second,
		},
		{
			name: "an account that logs in all the time", others: light, attack: hog, from: atHome, names: jane,
			median: 110 * time.Millisecond,
		},
		{
			name: "an account that logs in all the time, she is new each time", others: light, attack: hog,
			from: anew, names: jane, median: 300 * time.Millisecond,
		},
		{
			name: "an account that logs in all the time, first logins there", others: light, attack: hog,
			from: away, names: colleague, median: 300 * time.Millisecond,
		},
		{name: "crowds of 600", attack: crowds, from: atHome, names: jane, median: time.Second},
		{
			name: "crowds of 600, she is new each time and mistypes first", attack: crowds,
			from: anew, names: jane, typos: 1, median: time.Second,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, cmp.Or(tt.took, cost10), tt.others, func(m *machine) {
				tt.attack(m)
				m.sleep(time.Minute)
				median, longest, refused := m.served(20, tt.typos, tt.from, tt.names)
				t.Logf("median %v, longest %v, %d refused", median, longest, refused)
				if most := cmp.Or(tt.longest, maxWait); median > tt.median || longest > most || refused > tt.refused {
					t.Errorf("median %v, longest %v, %d refused; want %v, %v and %d at most",
						median, longest, refused, tt.median, most, tt.refused)
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
		took := time.Since(began)
		t.Logf("longest %v, %d refused", took, refused.Load())
		if refused.Load() > 0 || took > 16*time.Second {
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
		{name: "one username from one address", others: heavy, attack: bots(1, atHome, "jane"), most: 2},
		{name: "64 who spin at an address", others: heavy, attack: spin64(atHome), most: quarter},
		{name: "the same, and little else comes", others: light, attack: spin64(atHome), most: 4 * quarter},
		{name: "the same, and nothing else comes", others: alone, attack: spin64(atHome), most: 4 * quarter},
		{name: "64 who spin in a /48", others: heavy, attack: spin64(in48), most: quarter},
		{name: "64 who spin, each in a network", others: heavy, attack: spin64(elsewhere), most: quarter},
		{name: "64 who guess a hundred users at their address", others: heavy, attack: colleagues, most: quarter + 1},
		{name: "20 networks that want one username", others: heavy, attack: bots(20, elsewhere, "jane"), most: 20 * 2},
		{name: "a /48 that wants one username", others: heavy, attack: bots(1000, in48, "jane"), most: 2*4 + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack(t, cost10, tt.others, func(m *machine) {
				tt.attack(m)
				m.sleep(time.Minute)
				before := m.checks.Load()
				m.sleep(2 * time.Minute)
				n := m.checks.Load() - before
				t.Logf("%d checks", n)
				if n > tt.most {
					t.Errorf("%d checks, want %d at most", n, tt.most)
				}
			})
		})
	}
}
