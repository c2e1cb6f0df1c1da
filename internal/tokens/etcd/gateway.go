package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long etcd may take to answer. After hedge, another endpoint is
// asked as well. A login has already waited for its password check, and should be
// answered within five seconds.
const (
	patience = 3500 * time.Millisecond
	hedge    = 300 * time.Millisecond
)

// mostBytes is how much of one answer of etcd is read, or of one message of a watch.
const mostBytes = 16 << 20

var errTooLarge = fmt.Errorf("an answer of etcd is larger than %d MiB", mostBytes>>20)

// gateway speaks etcd's HTTP/JSON gateway (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/).
type gateway struct {
	endpoints []string // http://host:port
	user      string
	password  func() (string, error)
	http      *http.Client
	loadTLS   func() (*tls.Config, error)
	log       *slog.Logger

	current  atomic.Int64 // the endpoint to ask, modulo their number
	answered atomic.Pointer[answered]

	mu    sync.Mutex
	token string // of the user

	tlsMu  sync.Mutex
	tls    *tls.Config // from the last files that were valid
	broken string      // the error of the current files, if they are not
}

// answered says when the last call began that was answered, and by whom.
type answered struct {
	endpoint string
	began    time.Time
}

// newGateway reads the endpoints and files of the configuration; its errors name
// the flag.
func newGateway(c Config) (*gateway, error) {
	g := &gateway{user: c.User, password: c.password, loadTLS: c.tls, log: slog.New(slog.DiscardHandler)}
	if _, err := c.password(); err != nil {
		return nil, err
	}
	secure := false
	for i, endpoint := range strings.Split(c.Endpoints, ",") {
		u, err := url.Parse(strings.TrimSpace(endpoint))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			// It is not shown, as it may contain a password.
			return nil, fmt.Errorf("-etcd: endpoint %d is not of the form http://host:2379", i+1)
		}
		secure = secure || u.Scheme == "https"
		g.endpoints = append(g.endpoints, u.Scheme+"://"+u.Host)
	}
	if !secure && c.CA+c.Cert != "" {
		return nil, errors.New("-etcd-ca, -etcd-cert and -etcd-key need an https endpoint")
	}
	var err error
	if g.tls, err = c.tls(); err != nil {
		return nil, err
	}
	g.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
			DialTLSContext:      g.dialTLS,
			MaxIdleConnsPerHost: 16,
			MaxConnsPerHost:     256, // or logins waiting for a hung member use up all file descriptors
			IdleConnTimeout:     time.Minute,
		},
		// A redirect would take the user's token to a host that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return g, nil
}

// dialTLS opens a connection with the files as they are now. Files that are broken
// or half written change nothing, and are logged once. They are read to the end: a
// dial that gave up reading would leave a goroutine behind, and so would the next.
func (g *gateway) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	g.tlsMu.Lock()
	config, err := g.loadTLS()
	if err == nil {
		g.tls, g.broken = config, ""
	} else if err.Error() != g.broken {
		g.broken = err.Error()
		g.log.Error("certificates for etcd could not be loaded again, keeping the previous ones", "error", err)
	}
	config = g.tls
	g.tlsMu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: config}).DialContext(ctx, network, addr)
}

// apiError is an error that etcd answers with. Code is gRPC's.
type apiError struct {
	status  int
	Message string `json:"message"`
	Code    int    `json:"code"`
}

func (e *apiError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("HTTP status %d, is this etcd?", e.status)
	}
	return e.Message
}

// The gRPC codes for which another endpoint, or a little patience, may help.
const (
	canceled          = 1
	unknown           = 2
	deadlineExceeded  = 4
	resourceExhausted = 8
	aborted           = 10
	internal          = 13
	unavailable       = 14
)

const notFound = 5

// permanent says whether an error will not go away on its own: something is
// configured wrong.
func permanent(err error) bool {
	if api := (*apiError)(nil); errors.As(err, &api) {
		switch api.Code {
		case canceled, unknown, deadlineExceeded, resourceExhausted, aborted, internal, unavailable:
			return false
		case 0:
			return api.status < 500
		}
		return true
	}
	var certificate *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	var noJSON *json.SyntaxError
	var alert *net.OpError
	return errors.As(err, &certificate) || errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &noTLS) || errors.As(err, &noJSON) ||
		errors.As(err, &alert) && alert.Op == "remote error" // a TLS alert
}

// ask calls one endpoint and, if that fails or its answer is late, others: at most
// as many as there are. It does not give up the calls that are late: a member that
// waits for a lost leader does not say so, and every request here may be carried
// out twice. It returns the endpoint that answered, or the last one's error.
//
// It calls a majority without delay, as one of them answers if any member does. But
// what members were sent while the leader was lost, is lost too. So the remaining
// calls wait until etcd has answered a later one, and go to whoever did.
func (g *gateway) ask(ctx context.Context, path string, in, out any) (endpoint string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type result struct {
		endpoint string
		answer   json.RawMessage
		err      error
	}
	results := make(chan result, len(g.endpoints))
	called, failed, first := 0, 0, g.current.Load()
	var last time.Time // when the last call began
	call := func(endpoint string) {
		called++
		last = time.Now()
		go func() {
			r := result{endpoint: endpoint}
			r.err = g.call(ctx, endpoint, path, in, &r.answer)
			results <- r
		}()
	}
	next := func() string {
		at := first + int64(called)
		g.current.CompareAndSwap(at-1, at) // the previous one has failed, or is slow
		return g.endpoints[at%int64(len(g.endpoints))]
	}
	call(next())
	late := time.NewTicker(hedge)
	defer late.Stop()
	err = context.DeadlineExceeded
	for failed < len(g.endpoints) {
		select {
		case r := <-results:
			if r.err == nil {
				return r.endpoint, json.Unmarshal(r.answer, out)
			}
			if err = r.err; permanent(err) {
				return "", err
			}
			failed++
		case <-late.C:
		case <-ctx.Done():
			return "", err
		}
		switch later := g.answered.Load(); {
		case called == len(g.endpoints):
		case called <= len(g.endpoints)/2:
			call(next())
		case later != nil && later.began.After(last):
			call(later.endpoint)
		}
	}
	return "", err
}

// call makes one call to one endpoint.
func (g *gateway) call(ctx context.Context, endpoint, path string, in, out any) error {
	began := time.Now()
	body, err := g.open(ctx, endpoint, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return err
	}
	g.answered.Store(&answered{endpoint, began})
	_, err = io.Copy(io.Discard, body) // so that the connection can be reused
	return err
}

// body is an answer of etcd, of which left bytes may be read.
type body struct {
	io.ReadCloser
	left int
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// open makes a call whose answer is a stream. It renews a user's token that etcd
// no longer knows, after a restart of etcd say.
func (g *gateway) open(ctx context.Context, endpoint, path string, in any) (*body, error) {
	if g.user == "" {
		return g.post(ctx, endpoint, path, "", in)
	}
	token, err := g.authenticate(ctx, endpoint, "")
	if err != nil {
		return nil, err
	}
	answer, err := g.post(ctx, endpoint, path, token, in)
	if api := (*apiError)(nil); errors.As(err, &api) && strings.Contains(api.Message, "auth") {
		if token, err = g.authenticate(ctx, endpoint, token); err != nil {
			return nil, err
		}
		return g.post(ctx, endpoint, path, token, in)
	}
	return answer, err
}

// authenticate returns a token for the user, other than stale.
func (g *gateway) authenticate(ctx context.Context, endpoint, stale string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token != stale {
		return g.token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // other calls wait for the token, to ask other endpoints
	defer cancel()
	password, err := g.password()
	if err != nil {
		return "", err
	}
	login := map[string]string{"name": g.user, "password": password}
	body, err := g.post(ctx, endpoint, "/v3/auth/authenticate", "", login)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return "", err
	}
	g.token = answer.Token
	return g.token, nil
}

func (g *gateway) post(ctx context.Context, endpoint, path, token string, in any) (*body, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := g.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		failed := &apiError{status: response.StatusCode}
		json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(failed) // if this fails, the status says enough
		return nil, failed
	}
	return &body{response.Body, mostBytes}, nil
}
