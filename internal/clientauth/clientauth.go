// Package clientauth authenticates clients that send their name and secret with
// each request (RFC 6749 2.3.1), in HTTP Basic or in the form. A client is a
// user who may be one, and the secret is the user's password.
//
// In Basic the RFC wants both parts form-encoded, but half of the libraries send
// them unencoded. So the pair is tried as it was sent and then, if that differs,
// form-decoded. If the two readings have the same name, they are one guess at it;
// otherwise each counts as a guess at its own name. A request that uses two
// methods is refused (RFC 6749 2.3), unless both say the same: otherwise two
// programs could take it to come from two different clients. White space around a
// name is left out, as at a login.
//
// A client is where its connection comes from: a gateway that passes on the
// X-Forwarded-For of the people it serves is still one client. Only the log has
// the address that was forwarded.
//
// A password check is slow on purpose, and goes through admission as a login
// does. Right credentials of a client are then remembered, so that the next
// request costs nothing. What is remembered is an HMAC of name and secret, under a
// random key that never leaves the process, and the user's stored hash: it ends
// when that changes. Each request asks whether the user may still be a client.
//
//   - They are remembered for the connection that sent them. There, the right
//     secret is served at once, whatever others send. Another secret for that name
//     ends this for as long as the connection lasts.
//   - They are remembered for the address that sent them, 1024 addresses for each
//     client. On a new connection a secret is compared with the right one there,
//     and admission counts each that is wrong: up to 10 of them are compared, then
//     15 a minute, as at a login. A right one clears no count, or a client that
//     opens many connections would allow a guesser beside it as many tries.
//
// Nothing else can tell a client's new connection from a guesser's lucky one. So a
// client whose secret is guessed from its own address is served at once only over
// the connections that it keeps; over a new one it waits, as admission says.
//
// While credentials from an address are being checked, further requests with the
// same ones wait for that check, so that a gateway that starts with hundreds of
// requests costs one check.
package clientauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/clientaddr"
	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/usersfile"
)

var (
	// ErrWrong is the error for credentials that are not those of a client.
	ErrWrong = errors.New("Incorrect client credentials")
	// ErrTwoWays is the error for a request that authenticates in more than one way,
	// unless the ways agree.
	ErrTwoWays = errors.New("More than one authentication method is used")
)

// Credentials are a name and a secret, in each reading that the client may have
// meant. They are empty if it sent something else.
type Credentials []pair

type pair struct{ name, secret string }

// name is the one that the log has.
func (c Credentials) name() string { return c[len(c)-1].name }

// Read returns the credentials of a request with these Authorization headers and
// these form fields, client_id and client_secret, which are empty if they were
// not sent. It returns nil if there are none: no header and no client_id, or a
// header with another scheme. The error is ErrTwoWays.
func Read(authorization []string, id, secret string) (Credentials, error) {
	if len(authorization) > 1 {
		return nil, ErrTwoWays
	}
	if len(authorization) == 0 {
		switch {
		case secret != "":
			return Credentials{{strings.TrimSpace(id), secret}}, nil
		case id != "":
			return Credentials{}, nil
		}
		return nil, nil
	}
	basic := readBasic(authorization[0])
	if secret == "" {
		return basic, nil
	}
	if inForm := (pair{strings.TrimSpace(id), secret}); slices.Contains(basic, inForm) {
		return Credentials{inForm}, nil
	}
	return nil, ErrTwoWays
}

// readBasic returns the credentials in an Authorization header, or nil if it has
// another scheme.
func readBasic(header string) Credentials {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	name, secret, found := strings.Cut(string(text), ":")
	name = strings.TrimSpace(name)
	if err != nil || !found || name == "" || secret == "" {
		return Credentials{}
	}
	plain := pair{name, secret}
	name, errName := url.QueryUnescape(name)
	secret, errSecret := url.QueryUnescape(secret)
	if decoded := (pair{strings.TrimSpace(name), secret}); errName == nil && errSecret == nil && decoded != plain {
		return Credentials{plain, decoded}
	}
	return Credentials{plain}
}

// Clients are the users who may be clients. Make it with New.
type Clients[User any] struct {
	log       *slog.Logger
	admission *admission.Admission
	find      func(name string) (User, bool)
	check     func(name, secret string) (User, bool)
	may       func(User) (hash []byte, may bool)
	key       []byte

	mu       sync.Mutex
	right    map[string]map[netip.Addr]right // by name
	checking map[place]*checking
}

const mostAddresses = 1024 // of a client

type mac [sha256.Size]byte

// right is what is remembered of right credentials.
type right struct {
	secret mac    // of name and secret
	hash   string // the user's stored hash
}

type place struct {
	name string
	peer netip.Addr
}

// checking is a check that runs or waits for its turn.
type checking struct {
	of   [2]mac        // of the credentials
	done chan struct{} // closed once the rest is known
	err  error         // of Authenticate
	left bool          // the caller hung up before it was known
}

// New returns the clients among some users. find returns the user with a name;
// check does the same if the secret is theirs, and is slow; may returns a user's
// stored hash, and whether the user may be a client. Each check is logged.
func New[User any](
	log *slog.Logger, admission *admission.Admission, find func(name string) (User, bool),
	check func(name, secret string) (User, bool), may func(User) (hash []byte, may bool),
) *Clients[User] {
	key := make([]byte, sha256.Size)
	rand.Read(key)
	return &Clients[User]{
		log: log, admission: admission, find: find, check: check, may: may, key: key,
		right: make(map[string]map[netip.Addr]right), checking: make(map[place]*checking),
	}
}

// guess is one or two readings with the same name.
type guess struct {
	Credentials
	macs [2]mac // of each
	hash []byte // of the user, if there is one
	may  bool   // be a client
}

// is says whether the guess is the right one.
func (g *guess) is(secret mac) bool { return slices.Contains(g.macs[:len(g.Credentials)], secret) }

// verdict is Authenticate's error for the right secret.
func (g *guess) verdict() error {
	if !g.may {
		return ErrWrong
	}
	return nil
}

// guesses returns a guess for each name.
func (c *Clients[User]) guesses(given Credentials) (all []guess) {
	for i, p := range given {
		if i == 0 || p.name != given[i-1].name {
			g := guess{Credentials: given[i:i]}
			if user, known := c.find(p.name); known {
				g.hash, g.may = c.may(user)
			}
			all = append(all, g)
		}
		g := &all[len(all)-1]
		g.macs[len(g.Credentials)] = c.mac(p)
		g.Credentials = g.Credentials[:len(g.Credentials)+1]
	}
	return all
}

// Authenticate returns nil if the credentials in r are those of a client. The error
// is admission's or ErrWrong, which also stands for the right secret of a user who
// may not be a client. The address that r was forwarded for is only logged.
func (c *Clients[User]) Authenticate(r *http.Request, forwarded netip.Addr, given Credentials) error {
	if len(given) == 0 {
		return ErrWrong
	}
	guesses := c.guesses(given)
	on, _ := r.Context().Value(connectionKey{}).(*connection)
	for i := range guesses {
		if on.knows(&guesses[i]) {
			return guesses[i].verdict()
		}
	}
	at := place{given.name(), clientaddr.Proxies(nil).Of(r)}
	log := c.log.With("client", forwarded, "username", logs.Cut(given.name()), logs.Request(r.Header))
	for {
		unknown, err := c.recall(r.Context(), log, at.peer, on, guesses)
		if len(unknown) == 0 {
			return err
		}
		if again, err := c.checkOnce(r.Context(), log, at, unknown); !again {
			return err
		}
		guesses = c.guesses(given) // the users may have changed
	}
}

// recall compares the guesses with what is remembered for the address. It returns
// those of which nothing is, or none if one is right, and Authenticate's error.
func (c *Clients[User]) recall(
	ctx context.Context, log *slog.Logger, peer netip.Addr, on *connection, guesses []guess,
) (unknown []guess, err error) {
	err = ErrWrong
	for _, g := range guesses {
		c.mu.Lock()
		known := c.right[g.name()][peer]
		c.mu.Unlock()
		if known.hash == "" || known.hash != string(g.hash) {
			unknown = append(unknown, g)
			continue
		}
		is := g.is(known.secret)
		if refused := c.admission.Recall(ctx, peer, g.name(), is); refused != nil {
			err = refused
		} else if is {
			on.keep(g.name(), known)
			return nil, g.verdict()
		}
	}
	if len(unknown) == 0 && errors.Is(err, ErrWrong) {
		log.Warn("login failed", whyWrong(guesses))
	}
	return unknown, err
}

// checkOnce checks the guesses, or waits for another caller that checks the same
// ones from the same address; a different guess replaces that, so that nobody can
// compare many with it. It says whether to look again: one is right and remembered
// now, or the other caller hung up. Otherwise the error is Authenticate's.
func (c *Clients[User]) checkOnce(
	ctx context.Context, log *slog.Logger, at place, guesses []guess,
) (again bool, err error) {
	var of [2]mac
	for i, g := range guesses {
		copy(of[i:], g.macs[:])
	}
	c.mu.Lock()
	running := c.checking[at]
	if running != nil && running.of == of {
		c.mu.Unlock()
		select {
		case <-running.done:
			return running.err == nil || running.left, running.err
		case <-ctx.Done():
			return false, &admission.Refused{Reason: admission.Busy, RetryAfter: time.Second}
		}
	}
	running = &checking{of: of, done: make(chan struct{}), left: true}
	c.checking[at] = running
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.checking[at] == running {
			delete(c.checking, at)
		}
		close(running.done)
	}()
	running.err = c.try(ctx, log, at.peer, guesses)
	running.left = ctx.Err() != nil && !errors.Is(running.err, ErrWrong)
	return running.err == nil, running.err
}

// try checks the guesses in their turn. If one is right and of a client, it is
// remembered. The error is that of Authenticate.
func (c *Clients[User]) try(ctx context.Context, log *slog.Logger, peer netip.Addr, guesses []guess) (err error) {
	for _, g := range guesses {
		var known right
		may := false
		ok, refused := c.admission.Try(ctx, peer, g.name(), func() bool {
			return slices.ContainsFunc(g.Credentials, func(p pair) bool {
				user, ok := c.check(p.name, p.secret)
				if ok {
					var hash []byte
					hash, may = c.may(user)
					known = right{c.mac(p), string(hash)}
				}
				return ok
			})
		})
		switch {
		case refused != nil:
			err = refused
		case !ok:
			err = ErrWrong
		case !may:
			log.Warn("client refused: the password is right, but the user is disabled or may not hold the scope")
			return ErrWrong
		default:
			log.Info("client login")
			c.remember(g.name(), peer, known)
			return nil
		}
	}
	if errors.Is(err, ErrWrong) {
		log.Warn("login failed", whyWrong(guesses))
	}
	return err
}

// whyWrong is about the decoded reading, which is the shorter one and the RFC's.
func whyWrong(guesses []guess) slog.Attr {
	readings := guesses[len(guesses)-1].Credentials
	decoded := readings[len(readings)-1]
	return usersfile.WhyWrong(decoded.name, decoded.secret)
}

// remember keeps what is right at an address. If a client has too many, it drops
// a random one of that client.
func (c *Clients[User]) remember(name string, peer netip.Addr, known right) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.right[name] == nil {
		c.right[strings.Clone(name)] = make(map[netip.Addr]right) // name is a part of a string that has the secret
	}
	for other := range c.right[name] {
		if len(c.right[name]) < mostAddresses {
			break
		}
		delete(c.right[name], other)
	}
	c.right[name][peer] = known
}

// mac is the HMAC of a name and a secret, each after its length.
func (c *Clients[User]) mac(p pair) (m mac) {
	text := make([]byte, 0, 256)
	text = append(binary.AppendUvarint(text, uint64(len(p.name))), p.name...)
	text = append(binary.AppendUvarint(text, uint64(len(p.secret))), p.secret...)
	h := hmac.New(sha256.New, c.key)
	h.Write(text)
	h.Sum(m[:0])
	return m
}
