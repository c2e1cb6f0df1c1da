// Package clientauth authenticates clients that send their name and secret with
// each request (RFC 6749 2.3.1), in HTTP Basic or in the form. A client is a
// user who may be one, and the secret is the user's password.
//
// In Basic the RFC wants both parts form-encoded, but half of the libraries send
// them unencoded. So the pair is tried as it was sent and then, if that differs,
// form-decoded; one request still counts as one guess. A request that uses two
// methods is refused (RFC 6749 2.3), unless both say the same: otherwise two
// programs could take it to come from two different clients. White space around a
// name is left out, as at a login.
//
// A password check is slow on purpose, and goes through admission as a login
// does. Right credentials are remembered, so that the next request costs nothing:
//
//   - The memory holds an HMAC of the name, the secret and the user's stored hash,
//     under a random key that never leaves the process; it never holds a secret.
//     A new stored hash makes a new HMAC, and each request asks whether the user
//     may still be a client, so that a change of the users takes effect from the
//     next request on.
//   - It is valid for the address that sent the right credentials, until that
//     address sends another secret for the name; then the right one is checked
//     again. Otherwise a guesser could test a secret against the memory at full
//     speed, where admission allows a few checks a second.
//   - It is also valid for the connection that sent them, until another secret
//     comes over that one. So a client that keeps its connections open does not
//     notice a guesser at its own address. Nor is it checked again and again, each
//     time clearing the guesser's count of wrong secrets.
//   - At most 4096 addresses and 4096 connections are kept, in two megabytes; beyond
//     that a random one is dropped, and has to be checked again.
//
// While credentials from an address are being checked, further requests with the
// same ones wait for that check, so that a gateway that starts with hundreds of
// requests costs one check. It continues as long as any of them waits.
//
// Admission counts a guess under the decoded name. So most names have one count,
// here and at a login, however they are encoded. A name that contains a plus or a
// percent sign has two, one for each way to send it: to count it under the name
// that exists would reveal which names exist.
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
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

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

// counted is the name under which a guess is counted.
func (c Credentials) counted() string { return c[len(c)-1].name }

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
	log   *slog.Logger
	find  func(name string) (User, bool)
	check func(name, secret string) (User, bool)
	may   func(User) (hash []byte, may bool)
	key   []byte

	mu       sync.Mutex
	verdicts map[place]*verdict // pending, or for a right secret
	right    map[connection]mac // the right credentials of a connection
}

const mostKept = 4096 // of each

type place struct {
	name   string
	client netip.Addr
}

// connection is named by the peer's address and port. A guesser who gets the port
// of a closed connection has one more guess.
type connection struct {
	place
	peer string
}

type mac [sha256.Size]byte

// verdict is the result of checking credentials.
type verdict struct {
	of      [2]mac // of the pairs, with the hashes that the users had when it began
	waiting int    // callers
	cancel  context.CancelFunc

	done  chan struct{} // closed when the rest is known
	right mac           // of the pair that was right, or zero; guarded by mu
	err   error         // what Authenticate returns
}

// New returns the clients among some users. find returns the user with a name;
// check does the same if the secret is theirs, and is slow; may returns a user's
// stored hash, and whether the user may be a client. Each check is logged.
func New[User any](log *slog.Logger, find func(name string) (User, bool), check func(name, secret string) (User, bool), may func(User) (hash []byte, may bool)) *Clients[User] {
	key := make([]byte, sha256.Size)
	rand.Read(key)
	return &Clients[User]{log: log, find: find, check: check, may: may, key: key, verdicts: make(map[place]*verdict), right: make(map[connection]mac)}
}

// Try runs a check in its turn and returns its result, or an error if it was not
// run. Admission has such a method.
type Try func(ctx context.Context, client netip.Addr, username string, check func() bool) (bool, error)

// Authenticate returns nil if the credentials, sent from an address over the
// connection of a peer, are those of a client. The error is try's or ErrWrong, which also stands for the right
// secret of a user who may not be a client.
func (c *Clients[User]) Authenticate(ctx context.Context, client netip.Addr, peer string, given Credentials, try Try) error {
	if len(given) == 0 {
		return ErrWrong
	}
	var macs [2]mac
	var mays [2]bool
	for i, p := range given {
		var hash []byte
		if user, known := c.find(p.name); known {
			hash, mays[i] = c.may(user)
		}
		macs[i] = c.mac(p, hash)
	}
	at := place{given.counted(), client}
	on := connection{at, peer}
	c.mu.Lock()
	right := c.right[on]
	if right == (mac{}) || !slices.Contains(macs[:], right) {
		delete(c.right, on)
		v := c.verdicts[at]
		if v == nil || !v.isOf(macs) {
			v = c.begin(at, macs, given, try)
		}
		if right = v.right; right == (mac{}) {
			v.waiting++
			c.mu.Unlock()
			return c.wait(ctx, on, v)
		}
		c.keep(on, right)
	}
	c.mu.Unlock()
	if mays[slices.Index(macs[:], right)] {
		return nil
	}
	return ErrWrong
}

// wait returns what the verdict says once it is made.
func (c *Clients[User]) wait(ctx context.Context, on connection, v *verdict) error {

	// A caller that hangs up gets its answer with the others, but does not count.
	stop := context.AfterFunc(ctx, func() { c.leave(on.place, v) })
	defer stop()
	<-v.done
	if v.err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.keep(on, v.right)
	}
	return v.err
}

// keep remembers the right credentials of a connection. The caller must hold mu;
// so must those of all methods below but try.
func (c *Clients[User]) keep(on connection, right mac) {
	makeRoom(c.right)
	on.name = strings.Clone(on.name) // it is a part of a string that contains the secret
	c.right[on] = right
}

// makeRoom drops random entries of a map that is full.
func makeRoom[K comparable, V any](kept map[K]V) {
	for key := range kept {
		if len(kept) < mostKept {
			break
		}
		delete(kept, key)
	}
}

// isOf says whether the verdict is for the same credentials.
func (v *verdict) isOf(macs [2]mac) bool {
	if v.right != (mac{}) {
		return v.right == macs[0] || v.right == macs[1]
	}
	return v.of == macs
}

// begin starts a check of the credentials. Its verdict replaces one on other
// credentials at that place: nobody else waits for that one, or remembers it.
func (c *Clients[User]) begin(at place, macs [2]mac, given Credentials, try Try) *verdict {
	makeRoom(c.verdicts)
	ctx, cancel := context.WithCancel(context.Background()) // the check outlives a caller that hangs up
	v := &verdict{of: macs, cancel: cancel, done: make(chan struct{})}
	at.name = strings.Clone(at.name) // as in keep
	c.verdicts[at] = v
	go func() {
		defer cancel()
		defer close(v.done)
		right, err := c.try(ctx, at, given, try)
		v.err = err
		c.mu.Lock()
		defer c.mu.Unlock()
		if v.right = right; right == (mac{}) {
			c.drop(at, v)
		}
	}()
	return v
}

// leave is called when a caller hangs up.
func (c *Clients[User]) leave(at place, v *verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.waiting--; v.waiting == 0 && v.right == (mac{}) {
		c.drop(at, v)
		v.cancel()
	}
}

func (c *Clients[User]) drop(at place, v *verdict) {
	if c.verdicts[at] == v {
		delete(c.verdicts, at)
	}
}

// try checks the credentials in their turn. It returns the MAC of the right pair,
// if one is right, and the error of Authenticate.
func (c *Clients[User]) try(ctx context.Context, at place, given Credentials, try Try) (is mac, err error) {
	may := false
	right, err := try(ctx, at.client, at.name, func() bool {
		for _, p := range given {
			if user, ok := c.check(p.name, p.secret); ok {
				var hash []byte
				hash, may = c.may(user)
				is = c.mac(p, hash)
				return true
			}
		}
		return false
	})
	if err != nil {
		return mac{}, err
	}
	log := c.log.With("client", at.client, "username", logs.Cut(at.name))
	switch {
	case !right:
		log.Warn("login failed", usersfile.WhyWrong(given[len(given)-1].secret))
		return mac{}, ErrWrong
	case !may:
		log.Warn("client refused: the password is right, but the user is disabled or may not hold the scope")
		return is, ErrWrong
	}
	log.Info("client login")
	return is, nil
}

// mac is the HMAC of a pair and a stored hash, each after its length.
func (c *Clients[User]) mac(p pair, hash []byte) (m mac) {
	text := make([]byte, 0, 256)
	text = append(binary.AppendUvarint(text, uint64(len(p.name))), p.name...)
	text = append(binary.AppendUvarint(text, uint64(len(p.secret))), p.secret...)
	text = append(text, hash...)
	h := hmac.New(sha256.New, c.key)
	h.Write(text)
	h.Sum(m[:0])
	return m
}
