package clientauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
		{"Basic, encoded white space around the name", []string{basic("+gate%09:s")}, "", "", pairs("+gate%09", "s", "gate", "s"), nil},
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

// world is some users, and an admission that counts its calls.
type world struct {
	*Clients[user]
	users   map[string]user
	log     bytes.Buffer
	tries   []string // address and username
	refuse  error
	checks  int
	started chan struct{} // if not nil, each check signals that it has begun
	hold    chan struct{} // and waits
}

func newWorld() *world {
	w := &world{users: map[string]user{
		"gate":  {"battery staple", "1", true},
		"a+b":   {"s", "2", true},
		"a b":   {"t", "3", true},
		"a:b":   {"s:t", "4", true},
		"plain": {"a+b%20c", "5", true},
		"alice": {"s", "6", false},
	}}
	find := func(name string) (user, bool) { u, known := w.users[name]; return u, known }
	check := func(name, secret string) (user, bool) {
		w.checks++
		if w.started != nil {
			w.started <- struct{}{}
			<-w.hold
		}
		u, known := w.users[name]
		return u, known && u.secret == secret
	}
	w.Clients = New(slog.New(slog.NewTextHandler(&w.log, nil)), find, check, func(u user) ([]byte, bool) { return []byte(u.hash), u.may })
	return w
}

func (w *world) try(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error) {
	w.tries = append(w.tries, fmt.Sprint(client, " ", username))
	if w.refuse != nil || ctx.Err() != nil {
		return false, errors.Join(w.refuse, ctx.Err())
	}
	return check(), nil
}

var here, there = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

// ask sends name:secret by Basic.
func (w *world) ask(t *testing.T, client netip.Addr, text string) error {
	t.Helper()
	return w.askOn(t, client, "a:1", text)
}

func (w *world) askOn(t *testing.T, client netip.Addr, conn, text string) error {
	t.Helper()
	given, err := Read([]string{basic(text)}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return w.Authenticate(t.Context(), client, conn, given, w.try)
}

func TestAuthenticate(t *testing.T) {
	for _, tt := range []struct {
		text   string
		want   error
		tries  string // the username that is counted, if any
		checks int
		log    string
	}{
		{"gate:battery staple", nil, "gate", 1, `level=INFO msg="client login" client=192.0.2.1 username=gate`},
		{"gate:battery+staple", nil, "gate", 2, `level=INFO msg="client login" client=192.0.2.1 username=gate`},
		{"gate:battery%20staple", nil, "gate", 2, ""},
		{"g%61te:battery+staple", nil, "gate", 2, ""},
		{"plain:a+b%20c", nil, "plain", 1, ""},
		{"plain:a%2Bb%2520c", nil, "plain", 2, ""},
		{"a+b:s", nil, "a b", 1, ""},
		{"a%2Bb:s", nil, "a+b", 2, ""},
		{"a+b:t", nil, "a b", 2, ""},
		{"a%3Ab:s:t", nil, "a:b", 2, ""},
		{"gate:wrong", ErrWrong, "gate", 1, `level=WARN msg="login failed" client=192.0.2.1 username=gate`},
		{"gate:wrong+", ErrWrong, "gate", 2, ""},
		{"g%61te:wrong", ErrWrong, "gate", 2, ""},
		{" gate :wrong", ErrWrong, "gate", 1, `level=WARN msg="login failed" client=192.0.2.1 username=gate` + "\n"},
		{"gate :battery staple", nil, "gate", 1, `level=INFO msg="client login" client=192.0.2.1 username=gate`},
		{"gate:" + strings.Repeat("x", 73), ErrWrong, "gate", 1,
			`level=WARN msg="login failed" client=192.0.2.1 username=gate reason="the password has more than 72 bytes"`},
		{"gate:%78" + strings.Repeat("x", 70), ErrWrong, "gate", 2, // too long only as it was sent
			`level=WARN msg="login failed" client=192.0.2.1 username=gate` + "\n"},
		{"nobody:battery staple", ErrWrong, "nobody", 1, ""},
		{"alice:s", ErrWrong, "alice", 1, `level=WARN msg="client refused: the password is right, but`},
		{"gate", ErrWrong, "", 0, ""},
		{"gate:", ErrWrong, "", 0, ""},
	} {
		t.Run(tt.text, func(t *testing.T) {
			w := newWorld()
			if err := w.ask(t, here, tt.text); err != tt.want {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if tries := strings.TrimPrefix(strings.Join(w.tries, ","), here.String()+" "); tries != tt.tries || w.checks != tt.checks {
				t.Errorf("%d checks of %q, want %d of %q", w.checks, tries, tt.checks, tt.tries)
			}
			if text := w.log.String(); !strings.Contains(text, tt.log) || strings.Contains(text, "staple") || strings.Contains(text, "wrong") {
				t.Errorf("the log: %s", text)
			}
		})
	}
	t.Run("refused by admission", func(t *testing.T) {
		w := newWorld()
		w.refuse = errors.New("too many")
		if err := w.ask(t, here, "gate:battery staple"); !errors.Is(err, w.refuse) {
			t.Errorf("%v, want %v", err, w.refuse)
		}
		w.refuse = nil
		if err := w.ask(t, here, "gate:battery staple"); err != nil || len(w.tries) != 2 {
			t.Errorf("then %v, after %d tries", err, len(w.tries))
		}
	})
}

// TestRemembered authenticates again and again; each row says how often admission
// was asked.
func TestRemembered(t *testing.T) {
	w := newWorld()
	set := func(name, secret, hash string, may bool) func() {
		return func() { w.users[name] = user{secret, hash, may} }
	}
	const right = "gate:battery staple"
	for _, tt := range []struct {
		name   string
		change func()
		client netip.Addr
		text   string
		want   error
		tries  int
	}{
		{"the first time", nil, here, right, nil, 1},
		{"again", nil, here, right, nil, 0},
		{"encoded differently", nil, here, "gate:battery+staple", nil, 0},
		{"from another address", nil, there, right, nil, 1},
		{"a wrong secret", nil, here, "gate:wrong", ErrWrong, 1},
		{"the same wrong secret", nil, here, "gate:wrong", ErrWrong, 1},
		{"the right one after it", nil, here, right, nil, 1},
		{"the other address is not affected", nil, there, right, nil, 0},
		{"another name", nil, here, "plain:a+b%20c", nil, 1},
		{"the first name is not affected", nil, here, right, nil, 0},
		{"a guess under another spelling of the name", nil, here, "g%61te:wrong", ErrWrong, 1},
		{"which counts for that name", nil, here, right, nil, 1},
		{"disabled", set("gate", "battery staple", "1", false), here, right, ErrWrong, 0},
		{"a wrong secret of a disabled one", nil, here, "gate:wrong", ErrWrong, 1},
		{"the right one of a disabled one", nil, here, right, ErrWrong, 1},
		{"again", nil, here, right, ErrWrong, 0},
		{"enabled", set("gate", "battery staple", "1", true), here, right, nil, 0},
		{"the same password hashed anew", set("gate", "battery staple", "7", true), here, right, nil, 1},
		{"another password", set("gate", "new", "8", true), here, right, ErrWrong, 1},
		{"the old hash again", set("gate", "battery staple", "7", true), here, right, nil, 1},
		{"removed", func() { delete(w.users, "gate") }, here, right, ErrWrong, 1},
	} {
		if tt.change != nil {
			tt.change()
		}
		before := len(w.tries)
		if err := w.ask(t, tt.client, tt.text); err != tt.want || len(w.tries)-before != tt.tries {
			t.Errorf("%s: %v after %d tries; want %v after %d", tt.name, err, len(w.tries)-before, tt.want, tt.tries)
		}
	}
	if text := fmt.Sprintf("%+v", w.verdicts); strings.Contains(text, "staple") || strings.Contains(text, "wrong") {
		t.Errorf("a secret is remembered: %s", text)
	}
}

// TestConnection guesses over other connections of the same address.
func TestConnection(t *testing.T) {
	w := newWorld()
	const right = "gate:battery staple"
	for _, tt := range []struct {
		name       string
		change     func()
		conn, text string
		want       error
		tries      int
	}{
		{"a client", nil, "a:1", right, nil, 1},
		{"another connection of it", nil, "a:2", right, nil, 0},
		{"somebody guesses", nil, "a:3", "gate:wrong", ErrWrong, 1},
		{"the client goes on", nil, "a:1", right, nil, 0},
		{"on both connections", nil, "a:2", "gate:battery+staple", nil, 0},
		{"somebody guesses again", nil, "a:3", "gate:worse", ErrWrong, 1},
		{"what is right is not told at once", nil, "a:3", right, nil, 1},
		{"a wrong secret on the client's connection", nil, "a:1", "gate:wrong", ErrWrong, 1},
		{"the right one after it", nil, "a:1", right, nil, 1},
		{"its other connection has not noticed", nil, "a:2", right, nil, 0},
		{"disabled", func() { w.users["gate"] = user{"battery staple", "1", false} }, "a:2", right, ErrWrong, 0},
		{"another hash", func() { w.users["gate"] = user{"battery staple", "7", true} }, "a:2", right, nil, 1},
	} {
		if tt.change != nil {
			tt.change()
		}
		before := len(w.tries)
		if err := w.askOn(t, here, tt.conn, tt.text); err != tt.want || len(w.tries)-before != tt.tries {
			t.Errorf("%s: %v after %d tries; want %v after %d", tt.name, err, len(w.tries)-before, tt.want, tt.tries)
		}
	}
}

func TestBounded(t *testing.T) {
	w := newWorld()
	client := here
	for range mostKept + 100 {
		client = client.Next()
		if err := w.ask(t, client, "plain:a+b%20c"); err != nil {
			t.Fatal(err)
		}
	}
	if n, conns := len(w.verdicts), len(w.right); n != mostKept || conns != mostKept {
		t.Errorf("%d addresses and %d connections are remembered, want %d of each", n, conns, mostKept)
	}
	if before := len(w.tries); w.ask(t, client, "plain:a+b%20c") != nil || len(w.tries) != before {
		t.Error("the last one was forgotten")
	}
}

// TestTogether lets 200 callers authenticate at once, while the check is blocked.
func TestTogether(t *testing.T) {
	for _, tt := range []struct {
		name   string
		hangUp int // callers, the first ones
		others []string
		change func(*world)
		checks int
		want   error // of those that did not hang up
	}{
		{"all wait", 0, nil, nil, 1, nil},
		{"the first hangs up", 1, nil, nil, 1, nil},
		{"all but the last hang up", 199, nil, nil, 1, nil},
		{"a guess meanwhile", 0, []string{"gate:wrong"}, nil, 2, nil},
		{"a guess, and the right one again", 0, []string{"gate:wrong", "gate:battery staple"}, nil, 3, nil},
		{"the users change, the password stays", 0, nil, func(w *world) { w.users["gate"] = user{"battery staple", "7", true} }, 1, nil},
		{"the users change, and the password", 0, nil, func(w *world) { w.users["gate"] = user{"new", "7", true} }, 1, ErrWrong},
		{"the users change, and the scope", 0, nil, func(w *world) { w.users["gate"] = user{"battery staple", "1", false} }, 1, ErrWrong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.started, w.hold = make(chan struct{}, 10), make(chan struct{})
				given, _ := Read([]string{basic("gate:battery staple")}, "", "")
				ctx, hangUp := context.WithCancel(t.Context())
				errs := make([]error, 200)
				var callers sync.WaitGroup
				for i := range errs {
					callers.Go(func() {
						ctx := ctx
						if i >= tt.hangUp {
							ctx = t.Context()
						}
						errs[i] = w.Authenticate(ctx, here, fmt.Sprint("a:", i), given, w.try)
					})
					synctest.Wait()
				}
				for _, text := range tt.others {
					callers.Go(func() { w.ask(t, here, text) })
					synctest.Wait()
				}
				hangUp()
				synctest.Wait()
				if tt.change != nil {
					tt.change(w)
				}
				close(w.hold)
				callers.Wait()
				for i, err := range errs[tt.hangUp:] {
					if err != tt.want {
						t.Fatalf("caller %d: %v, want %v", i, err, tt.want)
					}
				}
				if w.checks != tt.checks {
					t.Errorf("%d checks, want %d", w.checks, tt.checks)
				}
			})
		})
	}
}

// TestAllHangUp wants a check that nobody waits for to leave its queue, and the
// next caller to get a check of its own.
func TestAllHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		given, _ := Read([]string{basic("gate:battery staple")}, "", "")
		queue := func(ctx context.Context, _ netip.Addr, _ string, _ func() bool) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		}
		ctx, hangUp := context.WithCancel(t.Context())
		errs := make([]error, 3)
		var callers sync.WaitGroup
		for i := range errs {
			callers.Go(func() { errs[i] = w.Authenticate(ctx, here, "a:1", given, queue) })
		}
		synctest.Wait()
		hangUp()
		callers.Wait()
		if i := slices.IndexFunc(errs, func(err error) bool { return err != context.Canceled }); i >= 0 {
			t.Errorf("caller %d: %v", i, errs[i])
		}
		if err := w.Authenticate(t.Context(), here, "a:1", given, w.try); err != nil || len(w.tries) != 1 {
			t.Errorf("the next caller: %v after %d tries", err, len(w.tries))
		}
	})
}

func BenchmarkRemembered(b *testing.B) {
	w := newWorld()
	given, _ := Read([]string{basic("gate:battery staple")}, "", "")
	for b.Loop() {
		if err := w.Authenticate(b.Context(), here, "a:1", given, w.try); err != nil {
			b.Fatal(err)
		}
	}
}
