package etcd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/keypair"
	"simple-oauth2/internal/tokens"
)

// member is an etcd of one member, started for a test.
type member struct {
	t        testing.TB
	endpoint string
	*gateway
}

func startEtcd(t testing.TB, args ...string) *member {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("no etcd here: Debian's etcd-server has it")
	}
	scheme := "http"
	if len(args) > 0 {
		scheme = "https"
	}
	endpoint := scheme + "://" + freeAddr(t)
	etcd := exec.Command("etcd", append(args, "--data-dir", t.TempDir(), "--log-level", "error", "--unsafe-no-fsync",
		"--listen-client-urls", endpoint, "--advertise-client-urls", endpoint, "--listen-peer-urls", "http://"+freeAddr(t))...)
	if err := etcd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		etcd.Process.Kill()
		etcd.Wait()
	})
	m := &member{t: t, endpoint: endpoint, gateway: &gateway{endpoints: []string{endpoint}, http: http.DefaultClient}}
	if scheme == "http" {
		m.ready()
	}
	return m
}

// ask calls etcd directly, not through the store, and only once: a test's request
// must not be carried out twice.
func (m *member) ask(path string, in any) (answer map[string]any) {
	m.t.Helper()
	if err := m.call(m.t.Context(), m.endpoint, path, in, &answer); err != nil {
		m.t.Fatal(err)
	}
	return answer
}

// ready waits until etcd answers.
func (m *member) ready() {
	m.t.Helper()
	eventually(m.t, "answered by etcd", func() bool {
		return m.call(m.t.Context(), m.endpoint, "/v3/kv/range", map[string]any{"key": []byte("any")}, &struct{}{}) == nil
	})
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// log is a log that can be read while it is being written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// run runs a store until the test ends, and waits until it is up.
func run(t testing.TB, c Config, change ...func(*Store)) (*Store, *log) {
	t.Helper()
	lines := &log{}
	s, err := New(t.Context(), c, slog.New(slog.NewTextHandler(lines, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range change {
		change(s)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	eventually(t, "up", func() bool { up, _ := s.Status(); return up })
	return s, lines
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

func newToken() (tokens.Key, *tokens.Record) {
	var key tokens.Key
	rand.Read(key[:])
	now := time.Now()
	return key, &tokens.Record{Username: tokens.Share("johndoe"), Issued: now.Unix(), Expires: now.Add(time.Minute).Unix(), Credential: tokens.Credential{1, 2, 3, 4, 5, 6, 7, 8}}
}

// put stores a new token, and waits until all memories have it.
func put(t *testing.T, by *Store, all ...*Store) tokens.Key {
	t.Helper()
	key, record := newToken()
	if err := by.Put(t.Context(), key, record); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		eventually(t, "told of a token", func() bool { r, _ := s.memory.Find(t.Context(), key); return r != nil })
	}
	return key
}

// TestWhatIsInEtcd checks that etcd has no token, and no record without an expiry.
func TestWhatIsInEtcd(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	s, _ := run(t, Config{Endpoints: m.endpoint, Prefix: "/p/"})
	key := tokens.KeyOf("the token itself")
	other, record := newToken()
	record.Since = 1700000000123
	for _, key := range []tokens.Key{key, other} {
		if err := s.Put(t.Context(), key, record); err != nil {
			t.Fatal(err)
		}
	}
	var raw struct {
		KVs []struct {
			Key, Value []byte
			Lease      string
		}
	}
	err := m.call(t.Context(), m.endpoint, "/v3/kv/range", map[string]any{"key": []byte("/p/"), "range_end": []byte("/p/~"), "sort_target": "CREATE"}, &raw)
	if err != nil || len(raw.KVs) != 2 {
		t.Fatalf("in etcd: %+v, %v", raw.KVs, err)
	}
	if name := string(raw.KVs[0].Key); name != fmt.Sprintf("/p/%x", key) {
		t.Errorf("key %s", name)
	}
	const kept = `{"username":"johndoe","iat":%d,"exp":%d,"since":1700000000123,"credential":"AQIDBAUGBwg="}`
	if value := string(raw.KVs[0].Value); value != fmt.Sprintf(kept, record.Issued, record.Expires) {
		t.Errorf("value %s", value)
	}
	if first, second := raw.KVs[0].Lease, raw.KVs[1].Lease; first == "" || first != second {
		t.Errorf("leases %q and %q, want one for both", first, second)
	}
}

// TestForeignKeys checks that keys under the prefix that are no tokens are left alone.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	name := "/p/" + strings.Repeat("ab", 32)
	for key, value := range map[string]string{"/p/x": "{}", "/p/" + strings.Repeat("zz", 32): "{}", name: "no JSON"} {
		m.ask("/v3/kv/put", map[string]any{"key": []byte(key), "value": []byte(value)})
	}
	s, _ := run(t, Config{Endpoints: m.endpoint, Prefix: "/p/"})
	m.ask("/v3/kv/put", map[string]any{"key": []byte(name), "value": []byte("[]")})
	put(t, s, s)
	key, ok := s.parseKey([]byte(name))
	if record, err := s.Find(t.Context(), key); !ok || record != nil || err != nil {
		t.Errorf("key %x, %v; found %v, %v", key, ok, record, err)
	}
}

// TestTLSWhereThereIsNone speaks TLS to an etcd that does not.
func TestTLSWhereThereIsNone(t *testing.T) {
	t.Parallel()
	endpoint := strings.Replace(startEtcd(t).endpoint, "http", "https", 1)
	_, err := New(t.Context(), Config{Endpoints: endpoint, Prefix: "/p/"}, slog.New(slog.DiscardHandler))
	if want := "-etcd " + endpoint + ": connection closed by etcd: http where https is expected, or the other way round?"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestLeaseGone loses the lease that tokens share, as after a long outage.
func TestLeaseGone(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	s, _ := run(t, Config{Endpoints: m.endpoint, Prefix: "/p/"})
	before := put(t, s, s)
	m.ask("/v3/lease/revoke", map[string]any{"ID": s.leases[time.Minute].id})
	eventually(t, "told that the lease's tokens are gone", func() bool { r, err := s.Find(t.Context(), before); return r == nil && err == nil })
	put(t, s, s)
}

// cut is a connection to etcd that a test can cut.
type cut struct {
	endpoint string
	cut      atomic.Bool
	mu       sync.Mutex
	conns    []net.Conn
}

func newCut(t *testing.T, to string) *cut {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cut{endpoint: "http://" + l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", strings.TrimPrefix(to, "http://"))
			if err != nil || c.cut.Load() {
				conn.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn, there)
			c.mu.Unlock()
			go func() { io.Copy(there, conn); there.Close() }()
			go func() { io.Copy(conn, there); conn.Close() }()
		}
	}()
	return c
}

func (c *cut) set(cut bool) {
	c.cut.Store(cut)
	if !cut {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// TestCutOff cuts a replica off while tokens come and go, and etcd compacts its
// history.
func TestCutOff(t *testing.T) {
	t.Parallel()
	m := startEtcd(t)
	for i, compact := range []string{"nothing", "what was revoked", "all"} {
		t.Run("etcd forgets "+compact, func(t *testing.T) {
			prefix := fmt.Sprintf("/%d/", i)
			way := newCut(t, m.endpoint)
			a, lines := run(t, Config{Endpoints: way.endpoint, Prefix: prefix})
			b, _ := run(t, Config{Endpoints: m.endpoint, Prefix: prefix})
			stays, goes := put(t, b, a, b), put(t, b, a, b)

			way.set(true)
			eventually(t, "aware of it", func() bool { _, lacks := a.Status(); return lacks == "etcd cannot be reached" })
			if record, err := a.Find(t.Context(), stays); record == nil || err != nil {
				t.Errorf("a known token: %v, %v", record, err)
			}
			key, _ := newToken()
			if _, err := a.Find(t.Context(), key); !errors.Is(err, tokens.ErrUnavailable) {
				t.Errorf("an unknown token: %v", err)
			}
			if err := b.Delete(t.Context(), goes); err != nil {
				t.Fatal(err)
			}
			revoked, err := b.now(t.Context(), m.endpoint)
			if err != nil {
				t.Fatal(err)
			}
			comes := put(t, b, b)
			if compact != "nothing" {
				at := revoked.Revision
				if compact == "all" {
					at++
				}
				m.ask("/v3/kv/compaction", map[string]any{"revision": at, "physical": true})
			}
			way.set(false)
			eventually(t, "aware that it is back", func() bool { up, lacks := a.Status(); return up && lacks == "" })
			eventually(t, "told of what changed", func() bool {
				gone, _ := a.memory.Find(t.Context(), goes)
				came, _ := a.memory.Find(t.Context(), comes)
				stayed, _ := a.memory.Find(t.Context(), stays)
				return gone == nil && came != nil && stayed != nil
			})
			text := lines.String()
			if strings.Count(text, "etcd cannot be reached") != 1 || strings.Count(text, "etcd can be reached again") != 1 {
				t.Errorf("not logged once each:\n%s", text)
			}
			if (compact == "nothing") == strings.Contains(text, "was compacted") {
				t.Errorf("the log says:\n%s", text)
			}
		})
	}
}

// TestAnotherCluster puts an empty cluster at the address, as after a restore.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	first, second := startEtcd(t), startEtcd(t)
	to := atomic.Pointer[string]{}
	to.Store(&first.endpoint)
	proxy := proxyTo(t, func() string { return *to.Load() }, func(*http.Request) bool { return false })
	s, _ := run(t, Config{Endpoints: proxy.URL, Prefix: "/p/"})
	key := put(t, s, s)
	to.Store(&second.endpoint)
	eventually(t, "rid of the first cluster's token", func() bool { r, _ := s.memory.Find(t.Context(), key); return r == nil })
	s.leaseMu.Lock()
	clear(s.leases)
	s.leaseMu.Unlock()
	put(t, s, s)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestSecured speaks TLS with a client certificate, as a user with a password,
// whose token etcd forgets.
func TestSecured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	m := startEtcd(t, "--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", cert)
	c := Config{Endpoints: m.endpoint, Prefix: "/p/", CA: cert, Cert: cert, Key: key}
	var err error
	if m.gateway, err = newGateway(c); err != nil {
		t.Fatal(err)
	}
	m.ready()
	for path, in := range map[string]any{
		"/v3/auth/user/add": map[string]any{"name": "root", "password": "hunter2"},
		"/v3/auth/role/add": map[string]any{"name": "root"},
	} {
		m.ask(path, in)
	}
	m.ask("/v3/auth/user/grant", map[string]any{"user": "root", "role": "root"})
	m.ask("/v3/auth/user/add", map[string]any{"name": "oauth2", "password": "hunter3"})
	m.ask("/v3/auth/role/add", map[string]any{"name": "oauth2"})
	m.ask("/v3/auth/role/grant", map[string]any{"name": "oauth2", "perm": map[string]any{"permType": "READWRITE", "key": []byte("/p/"), "range_end": []byte("/p0")}})
	m.ask("/v3/auth/user/grant", map[string]any{"user": "oauth2", "role": "oauth2"})
	m.ask("/v3/auth/enable", struct{}{})

	t.Run("certificates that change", func(t *testing.T) {
		c, now := c, t.TempDir()
		replace := func(name, from string) string {
			text, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(filepath.Join(now, name), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return filepath.Join(now, name)
		}
		c.CA, c.Cert, c.Key = replace("ca", cert), replace("cert", cert), replace("key", key)
		g, err := newGateway(c)
		if err != nil {
			t.Fatal(err)
		}
		lines := &log{}
		g.log = slog.New(slog.NewTextHandler(lines, nil))
		connect := func() error {
			g.http.CloseIdleConnections()
			return g.call(t.Context(), m.endpoint, "/v3/auth/authenticate", map[string]string{"name": "root", "password": "hunter2"}, &struct{}{})
		}
		other, _ := writeCertificate(t, t.TempDir())
		half := oneAndAHalf(t, cert)
		for _, step := range []struct {
			name, file, from string
			err              string
		}{
			{"as before", "ca", cert, ""},
			{"broken", "ca", key, ""},
			{"still broken", "ca", key, ""},
			{"another authority", "ca", other, "x509: "},
			{"the first again", "ca", cert, ""},
			{"half of another pair", "cert", other, ""},
			{"the pair again", "cert", cert, ""},
			{"a half-written chain", "cert", half, ""},
			{"whole", "cert", cert, ""},
			{"another authority behind it, half written", "ca", half, ""},
		} {
			replace(step.file, step.from)
			if err := connect(); (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
				t.Errorf("%s: %v, want %q", step.name, err, step.err)
			}
		}
		if n := strings.Count(lines.String(), "level=ERROR"); n != 4 {
			t.Errorf("%d errors, want one for each broken file:\n%s", n, lines)
		}
	})
	c.User, c.Password = "oauth2", "hunter3"
	t.Run("password in a file that changes", func(t *testing.T) {
		c := c
		c.Password, c.PasswordFile = "", filepath.Join(t.TempDir(), "password")
		for _, text := range []string{"hunter3", "hunter3\n", "hunter3\r\n", "\ufeffhunter3\r\n"} {
			if err := os.WriteFile(c.PasswordFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			g, err := newGateway(c)
			if err == nil {
				_, err = g.authenticate(t.Context(), m.endpoint, "")
			}
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
		g, err := newGateway(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.PasswordFile, []byte("hunter4"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := g.authenticate(t.Context(), m.endpoint, ""); err == nil || !strings.Contains(err.Error(), "authentication failed") {
			t.Errorf("the new password is not used: %v", err)
		}
		if err := os.WriteFile(c.PasswordFile, []byte("\xff\xfeh\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		want := "OAUTH2_ETCD_PASSWORD_FILE: " + c.PasswordFile + " is not UTF-8"
		if _, err := newGateway(c); err == nil || err.Error() != want {
			t.Errorf("UTF-16: %v, want %s", err, want)
		}
		os.Remove(c.PasswordFile)
		if _, err := newGateway(c); err == nil || !strings.HasPrefix(err.Error(), "OAUTH2_ETCD_PASSWORD_FILE: open ") {
			t.Errorf("no file: %v", err)
		}
	})
	s, lines := run(t, c)
	token := put(t, s, s)
	s.gateway.mu.Lock()
	s.gateway.token = "forgotten.1"
	s.gateway.mu.Unlock()
	if err := s.Delete(t.Context(), token); err != nil {
		t.Error(err)
	}
	eventually(t, "a warning of each file, as the certificate ends in an hour", func() bool {
		return strings.Count(lines.String(), "the certificate expires soon, or has expired") == 2
	})
	if strings.Contains(lines.String(), "hunter") {
		t.Errorf("the log contains a password:\n%s", lines)
	}

	for _, tt := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"wrong password", func(c *Config) { c.Password = "hunter4" }, "etcdserver: authentication failed, invalid user ID or password"},
		{"no user", func(c *Config) { c.User = "" }, "etcdserver: permission denied"},
		{"prefix not the user's", func(c *Config) { c.Prefix = "/q/" }, "etcdserver: permission denied"},
		{"authority not the server's", func(c *Config) { c.CA = "" }, "tls: failed to verify certificate: x509: "},
		{"no certificate", func(c *Config) { c.Cert = "" }, "remote error: tls: "},
		{"no TLS", func(c *Config) {
			*c = Config{Endpoints: strings.Replace(c.Endpoints, "https", "http", 1), Prefix: c.Prefix}
		}, "connection closed by etcd: http where https is expected, or the other way round?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := c
			tt.change(&c)
			_, err := New(t.Context(), c, slog.New(slog.DiscardHandler))
			if err == nil || !strings.HasPrefix(err.Error(), "-etcd "+c.Endpoints+": ") || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter") {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}

// TestNew tests the faults of a configuration that can be found without etcd.
func TestNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, line, missing := filepath.Join(dir, "empty"), filepath.Join(dir, "line"), filepath.Join(dir, "missing")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.WriteFile(line, []byte("\r\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	half := oneAndAHalf(t, cert)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }))
	defer page.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	defer other.Close()
	nothing := httptest.NewServer(http.NotFoundHandler())
	defer nothing.Close()
	secured := strings.Replace(other.URL, "http", "https", 1)
	const form = " is not of the form http://host:2379"
	for _, tt := range []struct {
		name   string
		config Config
		err    string
	}{
		{"no URL", Config{Endpoints: "localhost:2379"}, "-etcd: endpoint 1" + form},
		{"no host", Config{Endpoints: "http://:2379"}, "-etcd: endpoint 1" + form},
		{"second malformed", Config{Endpoints: "http://a:2379, ftp://b"}, "-etcd: endpoint 2" + form},
		{"a password in the URL", Config{Endpoints: "http://user:hunter2@a:2379"}, "-etcd: endpoint 1" + form},
		{"a path", Config{Endpoints: "http://a:2379/v3"}, "-etcd: endpoint 1" + form},
		{"authority missing", Config{Endpoints: "https://a", CA: missing},
			"-etcd-ca: open " + missing + ": no such file or directory"},
		{"authority garbage", Config{Endpoints: "https://a", CA: garbage}, "-etcd-ca: no certificate in " + garbage},
		{"certificate garbage", Config{Endpoints: "https://a", Cert: cert, Key: garbage}, "-etcd-cert " + cert + " and -etcd-key " + garbage + ": tls: "},
		{"authority half written", Config{Endpoints: "https://a", CA: half}, "-etcd-ca: " + half + ": a PEM block has no end"},
		{"certificate half written", Config{Endpoints: "https://a", Cert: half, Key: key}, "-etcd-cert " + half + " and -etcd-key " + key + ": " + half + ": a PEM block has no end"},
		{"certificates and no TLS", Config{Endpoints: "http://a", CA: cert}, "-etcd-ca, -etcd-cert and -etcd-key need an https endpoint"},
		{"password file empty", Config{Endpoints: "http://a", User: "u", PasswordFile: empty}, "OAUTH2_ETCD_PASSWORD_FILE: " + empty + " is empty"},
		{"password file with an empty line", Config{Endpoints: "http://a", User: "u", PasswordFile: line}, "OAUTH2_ETCD_PASSWORD_FILE: " + line + " is empty"},
		{"a page", Config{Endpoints: page.URL}, "-etcd " + page.URL + ": invalid character '<'"},
		{"another service", Config{Endpoints: other.URL}, "-etcd " + other.URL + ": HTTP status 200, is this etcd?"},
		{"nothing there", Config{Endpoints: "http://127.0.0.1:1," + nothing.URL}, "-etcd " + nothing.URL + ": HTTP status 404, is this etcd?"},
		{"TLS where there is none", Config{Endpoints: secured},
			"-etcd " + secured + `: Post "` + secured + `/v3/kv/range": http: server gave HTTP response to HTTPS client`},
		{"nobody there yet", Config{Endpoints: "http://127.0.0.1:1"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Prefix = "/p/"
			_, err := New(t.Context(), tt.config, slog.New(slog.DiscardHandler))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("error %q", err)
			}
		})
	}
}

// BenchmarkStart measures the time from the start of a replica until it is up,
// with a hundred thousand live tokens in etcd.
func BenchmarkStart(b *testing.B) {
	m := startEtcd(b)
	s, _ := run(b, Config{Endpoints: m.endpoint, Prefix: "/p/"})
	id, err := s.leaseFor(b.Context(), time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for range 1000 {
		var puts []any
		for range 100 {
			key, record := newToken()
			record.Expires += 3600
			text, _ := json.Marshal(valueOf(record))
			puts = append(puts, map[string]any{"request_put": map[string]any{"key": s.keyOf(key), "value": text, "lease": id}})
		}
		m.ask("/v3/kv/txn", map[string]any{"success": puts})
	}
	for b.Loop() {
		run(b, Config{Endpoints: m.endpoint, Prefix: "/p/"})
	}
}

// TestWarnOfEnds checks the daily warning about each file with a certificate that
// expires within a week, at the start too.
func TestWarnOfEnds(t *testing.T) {
	const day = 24 * time.Hour
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca, client := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "client.pem")
		put := func(name string, ends ...time.Duration) {
			var text []byte
			for _, end := range ends {
				text = append(text, certificateUntil(t, time.Now().Add(end))...)
			}
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put(ca, 90*day)
		put(client, 6*day)
		s, err := New(t.Context(), Config{Endpoints: "https://127.0.0.1:1", CA: ca}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s.certificates = append(s.certificates, &keypair.File{Name: client}) // without its key
		lines := &log{}
		s.log = slog.New(slog.NewTextHandler(lines, nil))
		ctx, cancel := context.WithCancel(t.Context())
		go s.warnOfEnds(ctx)
		for _, step := range []struct {
			name        string
			change      func()
			wait        time.Duration
			ca, clients int
		}{
			{"at the start", func() {}, 0, 0, 1},
			{"23 hours later", func() {}, 23 * time.Hour, 0, 1},
			{"a day later", func() {}, time.Hour, 0, 2},
			{"renewed", func() { put(client, 90*day) }, 2 * day, 0, 2},
			{"one of two authorities ends soon", func() { put(ca, 365*day, day) }, time.Hour, 1, 2},
			{"the day after", func() {}, day, 2, 2},
			{"gone", func() { os.Remove(ca) }, day, 2, 2},
			{"both", func() { put(ca, day); put(client, day) }, 25 * time.Hour, 4, 4},
		} {
			step.change()
			time.Sleep(step.wait)
			synctest.Wait()
			text := lines.String()
			if ca, clients := strings.Count(text, "file="+ca), strings.Count(text, "file="+client); ca != step.ca || clients != step.clients {
				t.Errorf("%s: warned %d times of the authority and %d of the client's, want %d, %d\n%s", step.name, ca, clients, step.ca, step.clients, text)
			}
		}
		cancel()
	})
}

// certificateUntil returns a certificate that expires at end, in PEM.
func certificateUntil(t *testing.T, end time.Time) []byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// oneAndAHalf writes a file with the content of a PEM file, and half of it again.
func oneAndAHalf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	half := filepath.Join(t.TempDir(), "half.pem")
	if err == nil {
		err = os.WriteFile(half, append(text, text[:len(text)/2]...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return half
}

// writeCertificate writes a self-signed certificate for 127.0.0.1.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// TestMain lets more tests run at a time than there are cores, unless -parallel
// says otherwise: they mostly wait.
func TestMain(m *testing.M) {
	flag.Set("test.parallel", "16")
	os.Exit(m.Run())
}
