package clientauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/admission"
)

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

func TestRead(t *testing.T) {
	pairs := func(list ...string) (c Credentials) {
		for i := 0; i < len(list); i += 2 {
			c = append(c, pair{list[i], list[i+1]})
		}
		return c
	}
	for _, tt := range []struct {
		name          string
		authorization []string
		id, secret    string
		want          Credentials
		err           error
	}{
		{"nothing", nil, "", "", nil, nil},
		{"a bearer token", []string{"Bearer x"}, "", "", nil, nil},
		{"a name alone, as public clients send it", nil, "gate", "", Credentials{}, nil},
		{"a bearer token and a name", []string{"Bearer x"}, "gate", "", nil, nil},
		{"in the form", nil, "gate", "a+b%20c", pairs("gate", "a+b%20c"), nil},
		{"in the form, without a name", nil, "", "s", pairs("", "s"), nil},
		{"Basic", []string{basic("gate:s")}, "", "", pairs("gate", "s"), nil},
		{"Basic and the name", []string{basic("gate:s")}, "gate", "", pairs("gate", "s"), nil},
		{"Basic in other letters, two spaces", []string{"bASIC  Z2F0ZTpz"}, "", "", pairs("gate", "s"), nil},
		{"Basic, a space as it is", []string{basic("gate:battery staple")}, "", "", pairs("gate", "battery staple"), nil},
		{"Basic, a plus", []string{basic("gate:battery+staple")}, "", "", pairs("gate", "battery+staple", "gate", "battery staple"), nil},
		{"Basic, a percent sign", []string{basic("gate:battery%20staple")}, "", "", pairs("gate", "battery%20staple", "gate", "battery staple"), nil},
		{"Basic, a colon in the name", []string{basic("a%3Ab:s:t")}, "", "", pairs("a%3Ab", "s:t", "a:b", "s:t"), nil},
		{"Basic, UTF-8", []string{basic("gate:%C3%BC")}, "", "", pairs("gate", "%C3%BC", "gate", "ü"), nil},
		{"Basic, a percent sign that encodes nothing", []string{basic("a+b:100%")}, "", "", pairs("a+b", "100%"), nil},
		{"Basic, white space around the name", []string{basic(" gate\u00a0:s ")}, "", "", pairs("gate", "s "), nil},
		{"Basic, encoded white space around the name", []string{basic("+gate%09:s")}, "", "",
			pairs("+gate%09", "s", "gate", "s"), nil},
		{"Basic, only white space for a name", []string{basic(" :s")}, "", "", Credentials{}, nil},
		{"in the form, white space around the name", nil, " gate\n", " s", pairs("gate", " s"), nil},
		{"Basic, no colon", []string{basic("gate")}, "", "", Credentials{}, nil},
		{"Basic, no name", []string{basic(":s")}, "", "", Credentials{}, nil},
		{"Basic, no secret", []string{basic("gate:")}, "", "", Credentials{}, nil},
		{"Basic, no base64", []string{"Basic gate:s"}, "", "", Credentials{}, nil},
		{"Basic, nothing", []string{"Basic"}, "", "", Credentials{}, nil},
		{
			name:          "Basic and the same in the form",
			authorization: []string{basic("gate:s")},
			id:            "gate",
			secret:        "s",
			want:          pairs("gate", "s"),
		},
		{
			name:          "Basic, encoded, and the same in the form",
			authorization: []string{basic("g%61te:battery+staple")},
			id:            "gate",
			secret:        "battery staple",
			want:          pairs("gate", "battery staple"),
		},
		{
			name:          "Basic, not encoded, and the same in the form",
			authorization: []string{basic("gate:battery+staple")},
			id:            "gate",
			secret:        "battery+staple",
			want:          pairs("gate", "battery+staple"),
		},
		{
			name:          "Basic and another name in the form",
			authorization: []string{basic("gate:s")},
			id:            "alice",
			secret:        "s",
			err:           ErrTwoWays,
		},
		{
			name:          "Basic and another secret in the form",
			authorization: []string{basic("gate:s")},
			id:            "gate",
			secret:        "t",
			err:           ErrTwoWays,
		},
		{
			name:          "Basic, and a form in which only one half is encoded",
			authorization: []string{basic("a+b:s+t")},
			id:            "a b",
			secret:        "s+t",
			err:           ErrTwoWays,
		},
		{
			name:          "Basic and a secret alone in the form",
			authorization: []string{basic("gate:s")},
			secret:        "s",
			err:           ErrTwoWays,
		},
		{
			name:          "Basic that is broken, and the form",
			authorization: []string{basic("gate")},
			id:            "gate",
			secret:        "s",
			err:           ErrTwoWays,
		},
		{"a bearer token and the form", []string{"Bearer x"}, "gate", "s", nil, ErrTwoWays},
		{"two headers", []string{basic("gate:s"), basic("gate:s")}, "", "", nil, ErrTwoWays},
		{"two headers of two schemes", []string{"Bearer x", basic("gate:s")}, "", "", nil, ErrTwoWays},
	} {
		got, err := Read(tt.authorization, tt.id, tt.secret)
		if !reflect.DeepEqual(got, tt.want) || err != tt.err {
			t.Errorf("%s: %q, %v; want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// user is a user in the tests. The secret stands for the hash's password.
type user struct {
	secret, hash string
	may          bool
}

// world is some users. A check of a secret takes a second, unless it is set.
type world struct {
	*Clients[user]
	users  map[string]user
	log    bytes.Buffer
	mu     sync.Mutex
	checks []string // name:secret
	took   time.Duration
}

func newWorld() *world {
	w := &world{took: time.Second, users: map[string]user{
		"gate":  {"battery staple", "1", true},
		"a+b":   {"s", "2", true},
		"a b":   {"t", "3", true},
		"a:b":   {"s:t", "4", true},
		"plain": {"a+b%20c", "5", true},
		"alice": {"s", "6", false},
	}}
	find := func(name string) (user, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		u, known := w.users[name]
		return u, known
	}
	check := func(name, secret string) (user, bool) {
		time.Sleep(w.took)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.checks = append(w.checks, name+":"+secret)
		u, known := w.users[name]
		return u, known && u.secret == secret
	}
	may := func(u user) ([]byte, bool) { return []byte(u.hash), u.may }
	w.Clients = New(slog.New(slog.NewTextHandler(&w.log, nil)), admission.New(10, time.Now), find, check, may)
	return w
}

// checksOf returns the checks of a user's secret.
func (w *world) checksOf(name string) (of []string) {
	for _, text := range w.checks {
		if strings.HasPrefix(text, name+":") {
			of = append(of, text)
		}
	}
	return of
}

// conn is a connection, from an address.
type conn struct {
	ctx  context.Context
	peer string
}

func connect(ctx context.Context, peer string) *conn { return &conn{ConnContext(ctx, nil), peer} }

const here, there = "192.0.2.1:1234", "192.0.2.2:1234"

// ask sends name:secret by Basic, over a connection.
func (w *world) ask(c *conn, text string) error {
	given, err := Read([]string{basic(text)}, "", "")
	if err != nil {
		return err
	}
	r := httptest.NewRequestWithContext(c.ctx, "POST", "/introspect", nil)
	r.RemoteAddr = c.peer
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	return w.Authenticate(r, netip.MustParseAddr("203.0.113.9"), given)
}

// askAnew is ask over a new connection. It also says how long that took.
func (w *world) askAnew(ctx context.Context, peer, text string) (time.Duration, error) {
	began := time.Now()
	err := w.ask(connect(ctx, peer), text)
	return time.Since(began), err
}

func TestAuthenticate(t *testing.T) {
	const (
		login  = `level=INFO msg="client login" client=203.0.113.9 username=`
		failed = `level=WARN msg="login failed" client=203.0.113.9 username=`

		tooLong = ` reason="the password has more than 72 bytes"`
		newline = ` reason="the password ends in a newline, which counts"`
	)
	long := strings.Repeat("x", 73)
	for _, tt := range []struct {
		text   string
		want   error
		checks []string
		log    string
	}{
		{text: "gate:battery staple", checks: []string{"gate:battery staple"}, log: login},
		{text: "gate:battery+staple", checks: []string{"gate:battery+staple", "gate:battery staple"}, log: login},
		{text: "gate:battery%20staple", checks: []string{"gate:battery%20staple", "gate:battery staple"}, log: login},
		{text: "g%61te:battery+staple", checks: []string{"g%61te:battery+staple", "gate:battery staple"}, log: login},
		{text: "plain:a+b%20c", checks: []string{"plain:a+b%20c"}, log: login},
		{text: "plain:a%2Bb%2520c", checks: []string{"plain:a%2Bb%2520c", "plain:a+b%20c"}, log: login},
		{text: "a+b:s", checks: []string{"a+b:s"}, log: login},
		{text: "a%2Bb:s", checks: []string{"a%2Bb:s", "a+b:s"}, log: login},
		{text: "a+b:t", checks: []string{"a+b:t", "a b:t"}, log: login},
		{text: "a%3Ab:s:t", checks: []string{"a%3Ab:s:t", "a:b:s:t"}, log: login},
		{text: "gate:wrong", want: ErrWrong, checks: []string{"gate:wrong"}, log: failed},
		{text: "gate:wrong+", want: ErrWrong, checks: []string{"gate:wrong+", "gate:wrong "}, log: failed},
		{text: "g%61te:wrong", want: ErrWrong, checks: []string{"g%61te:wrong", "gate:wrong"}, log: failed},
		{text: " gate :wrong", want: ErrWrong, checks: []string{"gate:wrong"}, log: failed + "gate\n"},
		{text: "gate :battery staple", checks: []string{"gate:battery staple"}, log: login + "gate"},
		{text: "gate:" + long, want: ErrWrong, checks: []string{"gate:" + long}, log: failed + "gate" + tooLong},
		{ // too long only as it was sent
			text: "gate:%78" + long[:70], want: ErrWrong,
			checks: []string{"gate:%78" + long[:70], "gate:x" + long[:70]}, log: failed + "gate\n",
		},
		{text: "gate:x\n", want: ErrWrong, checks: []string{"gate:x\n"}, log: failed + "gate" + newline},
		{ // as a library sends a secret that it has read from a file
			text: "gate:x%0A", want: ErrWrong, checks: []string{"gate:x%0A", "gate:x\n"}, log: failed + "gate" + newline,
		},
		{text: "zo\xeb:x", want: ErrWrong, checks: []string{"zo\xeb:x"},
			log: failed + `"zo\xeb" reason="the username is not UTF-8"`},
		{text: "nobody:battery staple", want: ErrWrong, checks: []string{"nobody:battery staple"}, log: failed},
		{text: "alice:s", want: ErrWrong, checks: []string{"alice:s"}, log: `level=WARN msg="client refused: the password`},
		{text: "gate", want: ErrWrong},
		{text: "gate:", want: ErrWrong},
	} {
		t.Run(tt.text, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if err := w.ask(connect(t.Context(), here), tt.text); err != tt.want {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if !slices.Equal(w.checks, tt.checks) {
					t.Errorf("checked %q, want %q", w.checks, tt.checks)
				}
				text := w.log.String()
				if !strings.Contains(text, tt.log) || strings.Count(text, "\n") > 1 ||
					strings.Contains(text, "staple") || strings.Contains(text, "wrong") {
					t.Errorf("the log: %s", text)
				}
			})
		})
	}
}

// TestRemembered authenticates again and again, over a new connection each time.
// Each row says how many secrets are checked.
func TestRemembered(t *testing.T) {
	set := func(name, secret, hash string, may bool) func(*world) {
		return func(w *world) { w.users[name] = user{secret, hash, may} }
	}
	remove := func(w *world) { delete(w.users, "gate") }
	const right = "gate:battery staple"
	rows := []struct {
		name   string
		change func(*world)
		peer   string
		text   string
		want   error
		checks int
	}{
		{name: "the first time", peer: here, text: right, checks: 1},
		{name: "again", peer: here, text: right},
		{name: "from another port", peer: "192.0.2.1:99", text: right},
		{name: "encoded differently", peer: here, text: "gate:battery+staple"},
		{name: "from another address", peer: there, text: right, checks: 1},
		{name: "a wrong secret", peer: here, text: "gate:wrong", want: ErrWrong},
		{name: "the same wrong secret", peer: here, text: "gate:wrong", want: ErrWrong},
		{name: "the right one after it", peer: here, text: right},
		{name: "a wrong one where nothing is remembered", peer: "192.0.2.3:1", text: "gate:wrong", want: ErrWrong, checks: 1},
		{name: "another name", peer: here, text: "plain:a+b%20c", checks: 1},
		{name: "a wrong secret, the name is encoded", peer: here, text: "pl%61in:wrong", want: ErrWrong, checks: 1},
		{name: "the right one after it", peer: here, text: "plain:a+b%20c"},
		{name: "disabled", change: set("gate", "battery staple", "1", false), peer: here, text: right, want: ErrWrong},
		{name: "a wrong secret of a disabled one", peer: here, text: "gate:wrong", want: ErrWrong},
		{name: "enabled", change: set("gate", "battery staple", "1", true), peer: here, text: right},
		{name: "hashed anew", change: set("gate", "battery staple", "7", true), peer: here, text: right, checks: 1},
		{name: "another password", change: set("gate", "new", "8", true), peer: here, text: right, want: ErrWrong, checks: 1},
		{name: "the new one", peer: here, text: "gate:new", checks: 1},
		{name: "removed", change: remove, peer: here, text: "gate:new", want: ErrWrong, checks: 1},
		{name: "back with that hash", change: set("gate", "new", "8", true), peer: here, text: "gate:new"},
		{name: "who may not be a client", peer: here, text: "alice:s", want: ErrWrong, checks: 1},
		{name: "is not remembered", peer: here, text: "alice:s", want: ErrWrong, checks: 1},
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, tt := range rows {
			if tt.change != nil {
				tt.change(w)
			}
			before := len(w.checks)
			lines := strings.Count(w.log.String(), "\n")
			_, err := w.askAnew(t.Context(), tt.peer, tt.text)
			if err != tt.want || len(w.checks)-before != tt.checks {
				t.Errorf("%s: %v after %d checks; want %v after %d", tt.name, err, len(w.checks)-before, tt.want, tt.checks)
			}
			lines = strings.Count(w.log.String(), "\n") - lines
			if wrong := strings.Contains(tt.text, ":wrong"); wrong && lines != 1 || !wrong && lines != tt.checks {
				t.Errorf("%s: %d lines in the log", tt.name, lines)
			}
		}
		if text := fmt.Sprintf("%+v", w.right); strings.Contains(text, "staple") || strings.Contains(text, "wrong") {
			t.Errorf("a secret is remembered: %s", text)
		}
	})
}

// TestConnection has the limit on guesses reached at the client's address, so that
// a right secret is served at once only over a connection that remembers it.
func TestConnection(t *testing.T) {
	const right = "gate:battery staple"
	hash := func(hash string) func(*world) {
		return func(w *world) { w.users["gate"] = user{"battery staple", hash, true} }
	}
	for _, tt := range []struct {
		name   string
		sent   []string // over the connection, after the right secret
		change func(*world)
		atOnce bool
		want   error
	}{
		{name: "nothing else", atOnce: true},
		{name: "another name's", sent: []string{"plain:a+b%20c", "nobody:x"}, atOnce: true},
		{name: "the right one, encoded", sent: []string{"gate:battery%20staple"}, atOnce: true},
		{name: "a wrong one", sent: []string{"gate:wrong"}},
		{name: "a wrong one, and the right one again", sent: []string{"gate:wrong", right}},
		{
			name: "disabled", atOnce: true, want: ErrWrong,
			change: func(w *world) { w.users["gate"] = user{"battery staple", "1", false} },
		},
		{name: "another hash", change: hash("7")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				kept := connect(t.Context(), here)
				for _, text := range append([]string{right}, tt.sent...) {
					w.ask(kept, text)
				}
				for range 10 {
					w.askAnew(t.Context(), here, "gate:guess")
				}
				if tt.change != nil {
					tt.change(w)
				}
				for range 100 {
					go w.askAnew(t.Context(), here, "gate:guess")
				}
				time.Sleep(time.Second / 2)
				began := time.Now()
				err := w.ask(kept, right)
				if took := time.Since(began); (took == 0) != tt.atOnce || tt.atOnce && err != tt.want {
					t.Errorf("%v after %v, want %v, at once %v", err, took, tt.want, tt.atOnce)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// TestGuesses guesses for ten minutes at a client's own address, while the client
// goes on. Both open a connection for each request.
func TestGuesses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		others func(i int) string // the guesses
	}{
		{
			name:   "as they are",
			others: func(i int) string { return fmt.Sprint("gate:", i) },
		},
		{
			name:   "spelled in many ways",
			others: func(i int) string { return fmt.Sprint([]string{"gate:", "g%61te:", "%67ate:"}[i%3], i, "+") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				client := func() bool { _, err := w.askAnew(t.Context(), here, "gate:battery staple"); return err == nil }
				client()
				ctx, end := context.WithTimeout(t.Context(), 10*time.Minute)
				defer end()
				compared, served, refused := 0, 0, 0
				var all sync.WaitGroup
				all.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if _, err := w.askAnew(ctx, here, tt.others(i)); err == ErrWrong && ctx.Err() == nil {
							compared++
						}
						time.Sleep(time.Millisecond)
					}
				})
				all.Go(func() {
					for ctx.Err() == nil {
						if client() {
							served++
						} else {
							refused++
						}
						time.Sleep(time.Second / 10)
					}
				})
				all.Wait()
				t.Logf("%d guesses are compared, the client is served %d times and refused %d times", compared, served, refused)
				if most := 10 + 15*10; compared > most || refused > served/10 {
					t.Errorf("%d guesses, want %d; served %d times, refused %d", compared, most, served, refused)
				}
				if n := len(w.checksOf("gate")); n != 1 {
					t.Errorf("%d secrets are checked, want the right one", n)
				}
			})
		})
	}
}

// TestTenTries sends wrong secrets for one name in each spelling, from an address
// where nothing is remembered.
func TestTenTries(t *testing.T) {
	for _, tt := range []struct {
		name      string
		spellings []string
	}{
		{"gate", []string{"gate", "g%61te", "%67ate"}},
		{"a+b", []string{"a+b", "a%2Bb", "a%2bb", "%61%2Bb"}},
		{"a b", []string{"a b", "a+b", "a%20b"}},
		{"a:b", []string{"a%3Ab", "a%3ab"}},
		{"50%", []string{"50%", "50%25"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.took = 0
				w.users[tt.name] = user{"the right one", "9", true}
				for i := range 10 {
					for _, spelling := range tt.spellings {
						w.askAnew(t.Context(), here, fmt.Sprint(spelling, ":wrong", i))
					}
				}
				if n := len(w.checksOf(tt.name)); n != 10 {
					t.Errorf("%d wrong secrets of it are looked at, want 10", n)
				}
			})
		})
	}
}

// TestBounded authenticates two clients from many addresses each, one after the
// other.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.askAnew(t.Context(), there, "gate:battery staple")
		client := netip.MustParseAddr("10.0.0.1")
		for range 1024 + 100 {
			client = client.Next()
			if _, err := w.askAnew(t.Context(), client.String()+":1", "plain:a+b%20c"); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(w.right["plain"]); n != 1024 {
			t.Errorf("%d addresses are remembered, want 1024", n)
		}
		for peer, text := range map[string]string{client.String() + ":1": "plain:a+b%20c", there: "gate:battery staple"} {
			if took, err := w.askAnew(t.Context(), peer, text); took != 0 || err != nil {
				t.Errorf("%s: %v after %v", peer, err, took)
			}
		}
		if n := len(w.checking); n != 0 {
			t.Errorf("%d checks are kept", n)
		}
	})
}

// TestKey makes many keys.
func TestKey(t *testing.T) {
	var differ [32]bool
	first := newWorld()
	for range 32 {
		w := newWorld()
		if len(w.key) != 32 {
			t.Fatalf("%d bytes, want 32", len(w.key))
		}
		for i := range differ {
			differ[i] = differ[i] || w.key[i] != first.key[i]
		}
		if of := (pair{"gate", "battery staple"}); w.mac(of) == first.mac(of) {
			t.Fatal("the MAC does not depend on the key")
		}
	}
	if i := slices.Index(differ[:], false); i >= 0 {
		t.Errorf("byte %d of the key is always the same", i)
	}
}

// TestTogether lets 200 callers authenticate at once, while the check runs.
func TestTogether(t *testing.T) {
	set := func(u user) func(*world) { return func(w *world) { w.users["gate"] = u } }
	for _, tt := range []struct {
		name   string
		hangUp int // callers, the first ones
		others []string
		change func(*world)
		checks int
		want   error // of those that did not hang up
	}{
		{name: "all wait", checks: 1},
		{name: "the first hangs up", hangUp: 1, checks: 1},
		{name: "all but the last hang up", hangUp: 199, checks: 1},
		{name: "a guess meanwhile", others: []string{"gate:wrong"}, checks: 2},
		{name: "a guess, and the right one again", others: []string{"gate:wrong", "gate:battery staple"}, checks: 3},
		{name: "the users change, the password stays", change: set(user{"battery staple", "7", true}), checks: 1},
		{name: "the users change, and the password", change: set(user{"new", "7", true}), checks: 1, want: ErrWrong},
		{name: "the users change, and the scope", change: set(user{"battery staple", "1", false}), checks: 1, want: ErrWrong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				gone, hangUp := context.WithCancel(t.Context())
				errs := make([]error, 200)
				var callers sync.WaitGroup
				for i := range errs {
					ctx := t.Context()
					if i < tt.hangUp {
						ctx = gone
					}
					callers.Go(func() { _, errs[i] = w.askAnew(ctx, here, "gate:battery staple") })
					synctest.Wait()
				}
				for _, text := range tt.others {
					callers.Go(func() { w.askAnew(t.Context(), here, text) })
					synctest.Wait()
				}
				hangUp()
				synctest.Wait()
				if tt.change != nil {
					w.mu.Lock()
					tt.change(w)
					w.mu.Unlock()
				}
				callers.Wait()
				for i, err := range errs[tt.hangUp:] {
					if err != tt.want {
						t.Fatalf("caller %d: %v, want %v", i, err, tt.want)
					}
				}
				if len(w.checks) != tt.checks {
					t.Errorf("%d checks, want %d", len(w.checks), tt.checks)
				}
			})
		})
	}
}

// TestHangUpInTheQueue has the caller whose check waits for its turn hang up, while
// others wait for that check, and then all of them.
func TestHangUpInTheQueue(t *testing.T) {
	for _, tt := range []struct {
		name   string
		hangUp int // of 3 callers
		checks int
	}{
		{name: "the first", hangUp: 1, checks: 1},
		{name: "all", hangUp: 3, checks: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				for range runtime.GOMAXPROCS(0) {
					go w.admission.Try(t.Context(), netip.MustParseAddr("198.51.100.1"), "slow", func() bool {
						time.Sleep(10 * time.Second)
						return true
					})
				}
				synctest.Wait()
				gone, hangUp := context.WithCancel(t.Context())
				var callers sync.WaitGroup
				errs := make([]error, 3)
				for i := range errs {
					ctx := t.Context()
					if i < tt.hangUp {
						ctx = gone
					}
					callers.Go(func() { _, errs[i] = w.askAnew(ctx, here, "gate:battery staple") })
					synctest.Wait()
				}
				hangUp()
				callers.Wait()
				for i, err := range errs {
					if refused := (*admission.Refused)(nil); errors.As(err, &refused) != (i < tt.hangUp) {
						t.Errorf("caller %d: %v", i, err)
					}
				}
				if len(w.checks) != tt.checks || len(w.checking) != 0 {
					t.Errorf("%d checks, want %d; %d are left", len(w.checks), tt.checks, len(w.checking))
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// BenchmarkRemembered measures a request over a connection that was right, and
// over a new one.
func BenchmarkRemembered(b *testing.B) {
	w := newWorld()
	w.took = 0
	given, _ := Read([]string{basic("gate:battery staple")}, "", "")
	r := httptest.NewRequest("POST", "/introspect", nil)
	kept := r.WithContext(ConnContext(r.Context(), nil))
	for _, tt := range []struct {
		name string
		r    *http.Request
	}{{"kept", kept}, {"new", r}} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Authenticate(tt.r, netip.Addr{}, given); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
