package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/clientaddr"
	"simple-oauth2/internal/clientauth"
	"simple-oauth2/internal/cors"
	"simple-oauth2/internal/form"
	"simple-oauth2/internal/loginpage"
	"simple-oauth2/internal/openapitest"
	"simple-oauth2/internal/swaggerui"
	"simple-oauth2/internal/tokens"
	tokensfile "simple-oauth2/internal/tokens/file"
	"simple-oauth2/internal/usersfile"
	"simple-oauth2/internal/watch"
)

// hashOf returns a hash of the password, the same each time.
func hashOf(password string) string {
	hash, known := hashes.Load(password)
	if !known {
		hash, _ = hashes.LoadOrStore(password, newHashOf(password))
	}
	return hash.(string)
}

var hashes sync.Map

// newHashOf returns a hash with a new salt. It costs a test next to nothing.
func newHashOf(password string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(hash)
}

// testUsers are the tutorial's two, one who may hold scopes, services that may
// introspect, and one with the longest password.
func testUsers() string {
	return `{
	"johndoe": {"full_name": "John Doe", "email": "johndoe@example.com", "disabled": false,
		"hashed_password": "` + hashOf("secret") + `"},
	"alice": {"full_name": "Alice Wonderson", "email": "alice@example.com", "disabled": true,
		"hashed_password": "` + hashOf("secret2") + `"},
	"scopey": {"hashed_password": "` + hashOf("secret3") + `", "scopes": ["items:read", "items:write"]},
	"gate": {"hashed_password": "` + hashOf("secret4") + `", "scopes": ["introspect"]},
	"shut": {"hashed_password": "` + hashOf("battery staple") + `", "scopes": ["introspect"], "disabled": true},
	"items service": {"hashed_password": "` + hashOf("battery staple") + `", "scopes": ["introspect"]},
	"long": {"hashed_password": "` + hashOf(strings.Repeat("x", 72)) + `"}
}`
}

var passwords = map[string]string{"johndoe": "secret", "alice": "secret2", "scopey": "secret3", "gate": "secret4"}

// service is a service under test: its handler, its log, its users file, and
// its clock, which stands still unless a test moves it.
type service struct {
	http.Handler
	t      testing.TB
	auth   *auth
	pages  []swaggerui.Page
	memory *tokens.Memory
	log    *syncBuffer
	file   string
	clock  time.Time
}

func newService(t testing.TB, usersJSON string) *service {
	t.Helper()
	s := &service{
		t:     t,
		log:   &syncBuffer{},
		file:  filepath.Join(t.TempDir(), "users.json"),
		clock: time.Unix(1700000000, 0),
	}
	s.write(usersJSON)
	s.memory = &tokens.Memory{Now: func() time.Time { return s.clock }}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	s.auth = &auth{
		users:     &users{file: s.file, log: log},
		tokens:    s.memory,
		now:       func() time.Time { return s.clock },
		tokenTTL:  30 * time.Minute,
		admission: admission.New(3, func() time.Time { return s.clock }),
		addresses: &clientaddr.Clients{Proxies: clientaddr.Proxies{netip.MustParsePrefix("10.0.0.0/8")}, Log: log},
		forms:     form.NewReader(),
		files:     watch.New(log),
		log:       log,
	}
	u := s.auth.users
	s.auth.clients = clientauth.New(log, s.auth.admission, u.find, u.authenticate, (*storedUser).client)
	if err := u.load(); err != nil {
		t.Fatal(err)
	}
	var err error
	s.pages, err = (&swaggerui.Config{On: true}).Pages(docs, true, u.scopes)
	if err != nil {
		t.Fatal(err)
	}
	s.Handler = newHandler(s.auth, s.pages)
	if _, bench := t.(*testing.B); !bench {
		s.Handler = openAPI().Handler(t, s.Handler)
	}
	return s
}

func (s *service) write(usersJSON string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(usersJSON), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// reload puts other users in the place of the service's.
func (s *service) reload(usersJSON string) {
	s.t.Helper()
	s.write(usersJSON)
	if err := s.auth.users.load(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func formRequest(path, form string) *http.Request {
	r := httptest.NewRequest("POST", path, strings.NewReader(form))
	r.Header.Set("Content-Type", urlencoded)
	return r
}

// post sends a form, with the bearer token if there is one.
func (s *service) post(path, form, token string) *httptest.ResponseRecorder {
	r := formRequest(path, form)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.do(r)
}

func (s *service) me(token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/users/me", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return s.do(r)
}

// login returns a token for a user, with the requested scopes.
func (s *service) login(username string, scopes ...string) string {
	s.t.Helper()
	form := "username=" + username + "&password=" + passwords[username] + "&scope=" + strings.Join(scopes, "+")
	w := s.post("/token", form, "")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	err := json.Unmarshal(w.Body.Bytes(), &answer)
	if err != nil || w.Code != http.StatusOK || answer.AccessToken == "" {
		s.t.Fatalf("login of %s: %d %s", username, w.Code, w.Body)
	}
	return answer.AccessToken
}

// syncBuffer is a log that can be read while it is being written.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// # Every path

// row is a request, and what the client gets for it.
type row struct {
	name    string
	request string            // method and target, if not those of the path
	kind    string            // the Content-Type; if empty, a body is a urlencoded form
	body    string            // {name} and {name scope} become tokens
	auth    string            // Authorization, a header a line, with tokens as in the body
	status  int               // 200 if 0
	headers map[string]string // some of the answer's; "" for one that it must not have
	want    string            // the body, with the token of a login as "opaque"
}

const (
	urlencoded = "application/x-www-form-urlencoded"
	part       = "--B\r\nContent-Disposition: form-data; name="
	cdn        = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@" + swaggerui.Version
	johndoe    = `{"username":"johndoe","email":"johndoe@example.com","full_name":"John Doe","disabled":false}`
)

var (
	tokenHeaders = map[string]string{
		"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json",
	}
	bearer         = map[string]string{"WWW-Authenticate": "Bearer"}
	invalidToken   = map[string]string{"WWW-Authenticate": `Bearer error="invalid_token"`}
	bothChallenges = map[string]string{"WWW-Authenticate": `Basic realm="simple-oauth2", charset="UTF-8"; Bearer`}
	challenge      = map[string]string{
		"WWW-Authenticate": `Basic realm="simple-oauth2", charset="UTF-8"`, "Cache-Control": "no-store",
	}

	wrong    = refused("invalid_grant", "Incorrect username or password")
	noClient = refused("invalid_client", "Incorrect client credentials")
	twoWays  = refused("invalid_request", "More than one authentication method is used")
	tooLarge = refused("invalid_request", "Request body larger than 64 KiB")
)

// basic is a header of HTTP Basic.
func basic(credentials string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

// granted is the answer to a login, with more fields.
func granted(more string) string {
	return `{"access_token":"opaque","token_type":"bearer","expires_in":1800` + more + `}`
}

// active is what /introspect says of a live token.
func active(username, scope string) string {
	if scope != "" {
		scope = `"scope":"` + scope + `",`
	}
	return `{"active":true,"username":"` + username + `","sub":"` + username + `",` + scope +
		`"token_type":"bearer","iat":1700000000,"exp":1700001800}`
}

// detail is an error as FastAPI writes it.
func detail(message string) string { return `{"detail":"` + message + `"}` }

// refused is an error of /token, /revoke or /introspect.
func refused(code, message string) string { return refusedAs(code, `"`+message+`"`, message) }

func refusedAs(code, detail, description string) string {
	return `{"detail":` + detail + `,"error":"` + code + `","error_description":"` + description + `"}`
}

// fault is the error for a form with something wrong at loc.
func fault(loc, message string) string {
	quoted := `"` + strings.ReplaceAll(loc, ".", `","`) + `"`
	detail := `[{"type":"value_error","loc":[` + quoted + `],"msg":"` + message + `","input":null}]`
	return refusedAs("invalid_request", detail, loc+": "+message)
}

func repeated(field string) string { return fault("body."+field, "Field must not be repeated") }

// missing is the error for a form without these fields. More is what its
// description says besides.
func missing(more string, fields ...string) string {
	var details, descriptions []string
	for _, field := range fields {
		details = append(details, `{"type":"missing","loc":["body","`+field+`"],"msg":"Field required","input":null}`)
		descriptions = append(descriptions, "body."+field+": Field required")
	}
	detail := "[" + strings.Join(details, ",") + "]"
	return refusedAs("invalid_request", detail, strings.Join(descriptions, "; ")+more)
}

func otherGrant(grantType string) string {
	const message = "String should match pattern '^password$'"
	detail := `[{"type":"string_pattern_mismatch","loc":["body","grant_type"],"msg":"` + message +
		`","input":"` + grantType + `","ctx":{"pattern":"^password$"}}]`
	return refusedAs("unsupported_grant_type", detail, "body.grant_type: "+message)
}

// TestEndpoints sends the rows of each path.
func TestEndpoints(t *testing.T) {
	s := newService(t, testUsers())
	withTokens := func(text string) string {
		return regexp.MustCompile(`\{(\w+)( \S+)?\}`).ReplaceAllStringFunc(text, func(found string) string {
			name, scope, _ := strings.Cut(strings.Trim(found, "{}"), " ")
			return s.login(name, scope)
		})
	}
	succeeded := make(map[string]bool) // method and path of each request that got 200
	for _, path := range []struct {
		request string
		rows    []row
	}{
		{"POST /token", tokenRows},
		{"GET /users/me", usersMeRows},
		{"POST /revoke", revokeRows},
		{"POST /introspect", introspectRows},
		{"GET /auth", authRows},
		{"GET /", otherRows},
	} {
		for _, tt := range path.rows {
			t.Run(path.request+", "+tt.name, func(t *testing.T) {
				method, target, _ := strings.Cut(cmp.Or(tt.request, path.request), " ")
				r := httptest.NewRequest(method, target, strings.NewReader(withTokens(tt.body)))
				if tt.kind != "" || tt.body != "" {
					r.Header.Set("Content-Type", cmp.Or(tt.kind, urlencoded))
				}
				if tt.auth != "" {
					r.Header["Authorization"] = strings.Split(withTokens(tt.auth), "\n")
				}
				w := s.do(r)
				if want := cmp.Or(tt.status, http.StatusOK); w.Code != want {
					t.Errorf("status %d, want %d", w.Code, want)
				}
				if w.Code == http.StatusOK {
					succeeded[method+" "+r.URL.Path] = true
				}
				for name, value := range tt.headers {
					if got := strings.Join(w.Header().Values(name), "; "); got != value {
						t.Errorf("%s %q, want %q", name, got, value)
					}
				}
				opaque := regexp.MustCompile(`"access_token":"[A-Za-z0-9_-]{43}"`)
				if got := opaque.ReplaceAllString(w.Body.String(), `"access_token":"opaque"`); got != tt.want {
					t.Errorf("body %s\nwant %s", got, tt.want)
				}
			})
		}
	}
	for _, route := range routes(&auth{}, nil) {
		if path := cmp.Or(route.Method, "GET") + " " + route.Path; !succeeded[path] {
			t.Errorf("handlers_test.go: add rows to TestEndpoints for %s, one of them with status 200", path)
		}
	}
	for _, secret := range []string{"secret", "hunter2", "staple", hashOf("secret")} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log contains %q", secret)
		}
	}
}

// TestRecordedAnswers replays requests to FastAPI's own app, over a real
// connection, and wants the same answers, except for the differences listed in
// guide/tutorial.md.
func TestRecordedAnswers(t *testing.T) {
	text, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded []struct {
		Name, Request, Body string
		Status              int
		Headers             map[string]string
	}
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	if len(recorded) != 46 {
		t.Fatalf("%d recorded answers, want 46", len(recorded))
	}
	differs := map[string]struct {
		status int
		body   string
	}{
		"root":    {307, ``},
		"me HEAD": {200, ``},
		"login duplicate username, right one last":  {422, asFastAPI(repeated("username"))},
		"login duplicate username, right one first": {422, asFastAPI(repeated("username"))},
	}
	s := newService(t, testUsers())
	server := httptest.NewServer(s)
	defer server.Close()
	for _, tt := range recorded {
		t.Run(tt.Name, func(t *testing.T) {
			request := tt.Request
			for _, name := range []string{"johndoe", "alice"} {
				if strings.Contains(request, "{TOKEN:"+name+"}") {
					request = strings.ReplaceAll(request, "{TOKEN:"+name+"}", s.login(name))
				}
			}
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			parsed, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), parsed)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}

			want := tt
			if d, ok := differs[tt.Name]; ok {
				want.Status, want.Body = d.status, d.body
				delete(want.Headers, "allow")
				delete(want.Headers, "content-type")
			}
			if response.StatusCode != want.Status {
				t.Errorf("status %d, want %d", response.StatusCode, want.Status)
			}
			for name, value := range want.Headers {
				got := response.Header.Get(name)
				switch name {
				case "location": // a path, which the client resolves against the URL of its request
					location, err := response.Location()
					if err != nil {
						t.Fatal(err)
					}
					base := *parsed.URL
					base.Scheme, base.Host = "http", parsed.Host
					got = base.ResolveReference(location).String()
				case "allow": // HEAD works wherever GET does
					got = strings.TrimSuffix(got, ", HEAD")
				}
				if got != value {
					t.Errorf("%s %q, want %q", name, got, value)
				}
			}
			if got := asFastAPI(string(body)); got != want.Body {
				if strings.HasPrefix(want.Body, `{"access_token":`) {
					want.Body = `{"access_token":"opaque","token_type":"bearer"}`
				}
				want.Body = strings.Replace(want.Body, `,"hashed_password":"fakehashedsecret"`, "", 1)
				if got != want.Body {
					t.Errorf("body %s, want %s", got, want.Body)
				}
			}
		})
	}
}

// asFastAPI returns a body without what this service adds to FastAPI's.
func asFastAPI(body string) string {
	body = regexp.MustCompile(`,"error":"[a-z_]+","error_description":"[^"\\]+"}$`).ReplaceAllString(body, "}")
	body = regexp.MustCompile(`"access_token":"[A-Za-z0-9_-]{43}"`).ReplaceAllString(body, `"access_token":"opaque"`)
	return strings.Replace(body, `,"expires_in":1800`, "", 1)
}

// openAPI is docs/openapi.json, which every answer in these tests must match.
var openAPI = sync.OnceValue(func() *openapitest.Description {
	text, err := docs.ReadFile("docs/openapi.json")
	if err != nil {
		panic(err)
	}
	description, err := openapitest.Parse("docs/openapi.json", text)
	if err != nil {
		panic(err)
	}
	return description
})

// TestDescription checks that the description is consistent, and has each route.
func TestDescription(t *testing.T) {
	var served []string
	for _, route := range routes(&auth{}, nil) {
		served = append(served, cmp.Or(route.Method, "GET")+" "+route.Path)
	}
	for _, fault := range openAPI().Faults(served) {
		t.Error(fault)
	}
}

// TestNotStored holds that no cache keeps what depends on who asks.
func TestNotStored(t *testing.T) {
	s := newService(t, testUsers())
	for _, path := range []string{"/users/me", "/auth", "/auth/items?a=b", "/nowhere"} {
		for _, user := range []string{"johndoe", "alice", ""} {
			r := httptest.NewRequest("GET", path, nil)
			if user != "" {
				r.Header.Set("Authorization", "Bearer "+s.login(user))
			}
			if got := s.do(r).Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("%s for %q: Cache-Control %q, want no-store", path, user, got)
			}
		}
	}
}

// brokenStore is a store that cannot be reached, but still knows the tokens that
// it knew before.
type brokenStore struct {
	*tokens.Memory
	up bool
}

func (s brokenStore) Put(context.Context, tokens.Key, *tokens.Record) error {
	return tokens.ErrUnavailable
}

func (s brokenStore) Find(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	if record, _ := s.Memory.Find(ctx, key); record != nil {
		return record, nil
	}
	return nil, tokens.ErrUnavailable
}

func (s brokenStore) Delete(context.Context, tokens.Key) error { return tokens.ErrUnavailable }

func (s brokenStore) Status() (bool, string) { return s.up, "what is wrong" }

func TestStoreUnavailable(t *testing.T) {
	const later = "The tokens cannot be reached, try again later"
	s := newService(t, testUsers())
	known := s.login("gate", "introspect")
	for _, tt := range []struct {
		name    string
		starts  bool // the store has not got its first list yet
		request string
		bearer  string
		token   string // in the form
		status  int
		want    string
	}{
		{name: "login", request: "POST /token", status: 503, want: refused("temporarily_unavailable", later)},
		{name: "a known token", request: "GET /users/me", bearer: known,
			status: 200, want: `{"username":"gate","email":null,"full_name":null,"disabled":null}`},
		{name: "an unknown token", request: "GET /users/me", bearer: "unknown", status: 503, want: detail(later)},
		{name: "no token", request: "GET /users/me", status: 401, want: detail("Not authenticated")},
		{name: "auth with a known token", request: "GET /auth", bearer: known, status: 200},
		{name: "auth with an unknown token", request: "GET /auth", bearer: "unknown", status: 503, want: detail(later)},
		{name: "revoke a known token", request: "POST /revoke", token: known,
			status: 503, want: refused("temporarily_unavailable", later)},
		{name: "revoke an unknown token", request: "POST /revoke", token: "unknown",
			status: 503, want: refused("temporarily_unavailable", later)},
		{name: "introspect an unknown token", request: "POST /introspect", bearer: known, token: "unknown",
			status: 503, want: refused("temporarily_unavailable", later)},
		{name: "introspect by an unknown token", request: "POST /introspect", bearer: "unknown", token: known,
			status: 503, want: refused("temporarily_unavailable", later)},
		{name: "healthz", request: "GET /healthz", status: 200, want: `{"status":"ok","detail":"what is wrong"}`},
		{name: "healthz before the first list", starts: true, request: "GET /healthz",
			status: 503, want: detail(later)},
		{name: "livez before the first list", starts: true, request: "GET /livez",
			status: 200, want: `{"status":"ok"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.auth.tokens = brokenStore{s.memory, !tt.starts}
			method, path, _ := strings.Cut(tt.request, " ")
			r := formRequest(path, "username=johndoe&password=secret&token="+tt.token)
			r.Method = method
			if tt.bearer != "" {
				r.Header.Set("Authorization", "Bearer "+tt.bearer)
			}
			w := s.do(r)
			retry := ""
			if tt.status == 503 {
				retry = "1"
			}
			if w.Code != tt.status || w.Body.String() != tt.want || w.Header().Get("Retry-After") != retry {
				t.Errorf("%d %v %s; want %d %s", w.Code, w.Header(), w.Body, tt.status, tt.want)
			}
		})
	}
	counts := &s.auth.counts
	if logins, revocations := counts.NotIssued.Load(), counts.NotRevoked.Load(); logins != 1 || revocations != 1 {
		t.Errorf("%d logins and %d revocations are counted as unavailable, want 1 of each", logins, revocations)
	}
	text := s.log.String()
	if strings.Contains(text, "token revoked") || strings.Contains(text, "msg=login client=192.0.2.1 username=johndoe") {
		t.Errorf("the log has what did not happen:\n%s", text)
	}
	for _, line := range []string{
		`level=WARN msg="login not stored" client=192.0.2.1 username=johndoe`,
		`level=WARN msg="revocation not stored" client=192.0.2.1 username=gate`,
	} {
		if strings.Count(text, line+"\n") != 1 {
			t.Errorf("no line %s:\n%s", line, text)
		}
	}
}

// TestCORS sends requests of pages. One of an allowed origin can read errors, too; at
// /auth only a gateway decides about preflights. Package cors has the rules.
func TestCORS(t *testing.T) {
	const app = "https://app.example.com"
	for _, tt := range []struct {
		name, origin, request string
		status                int
		allowed               string // Access-Control-Allow-Origin
	}{
		{name: "401", origin: app, request: "GET /users/me", status: 401, allowed: app},
		{name: "404", origin: app, request: "GET /nowhere", status: 404, allowed: app},
		{name: "429", origin: app, request: "POST /token", status: 429, allowed: app},
		{name: "preflight", origin: app, request: "OPTIONS /token", status: 204, allowed: app},
		{name: "preflight of a guarded page", origin: app, request: "OPTIONS /auth", status: 401, allowed: app},
		{name: "other origin", origin: "https://evil.example", request: "GET /users/me", status: 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, testUsers())
			const wrong = "username=johndoe&password=wrong"
			for range 3 {
				s.post("/token", wrong, "")
			}
			s.Handler = cors.Origins{app}.Handler(s.Handler, guardPath, slog.New(slog.DiscardHandler))
			method, path, _ := strings.Cut(tt.request, " ")
			r := formRequest(path, wrong)
			r.Method = method
			r.Header.Set("Origin", tt.origin)
			if method == "OPTIONS" {
				r.Header.Set("Access-Control-Request-Method", "POST")
			}
			w := s.do(r)
			if got := w.Header().Get("Access-Control-Allow-Origin"); w.Code != tt.status || got != tt.allowed {
				t.Errorf("%d for origin %q, want %d for %q", w.Code, got, tt.status, tt.allowed)
			}
		})
	}
}

// TestUnexpectedError answers with an error that has no status, and with one that
// wraps one with a status.
func TestUnexpectedError(t *testing.T) {
	s := newService(t, testUsers())
	for _, tt := range []struct {
		name   string
		err    error
		status int
		want   string
		logged string
	}{
		{name: "without a status", err: errors.New("inner detail"),
			status: 500, want: refused("server_error", "Internal Server Error"),
			logged: `level=ERROR msg="unexpected error" error="inner detail"`},
		{name: "wrapped", err: fmt.Errorf("outer: %w", errInactiveUser),
			status: 400, want: refused("invalid_token", "Inactive user")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			s.auth.handler(refuse(tt.err), true).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if w.Code != tt.status || w.Body.String() != tt.want {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.want)
			}
			if !strings.Contains(s.log.String(), tt.logged) {
				t.Errorf("no %s in the log:\n%s", tt.logged, s.log)
			}
		})
	}
}

// pipe is a listener with one connection, in memory, so that the connection
// follows the simulated clock.
type pipe struct {
	conns chan net.Conn
	close func() // closes conns, once
}

func listenOnPipe(conn net.Conn) pipe {
	conns := make(chan net.Conn, 1)
	conns <- conn
	return pipe{conns, sync.OnceFunc(func() { close(conns) })}
}

func (p pipe) Accept() (net.Conn, error) {
	conn, open := <-p.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipe) Close() error {
	p.close()
	return nil
}

func (p pipe) Addr() net.Addr { return &net.TCPAddr{} }

// TestConnectionBehindAnswer sends a body to each path, and then what a proxy
// that shares its connections between clients would send: the next client's
// request. After an answer the connection must stand behind the body's last byte,
// or end and have said so. What comes within a body must never be a request.
func TestConnectionBehindAnswer(t *testing.T) {
	const (
		form   = "Content-Type: application/x-www-form-urlencoded\r\n"
		marked = "GET /livez HTTP/1.1\r\nHost: a\r\nMarked: yes\r\n\r\n"

		soon, late, silence = time.Second, 11 * time.Second, time.Minute // the server waits 10 s for a body
	)
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }
	chunked := form + "Transfer-Encoding: chunked\r\n"
	expect := "Expect: 100-continue\r\n"
	s := newService(t, testUsers()).withPage(loginpage.Config{})
	handler := newHandler(s.auth, s.pages)
	targets := []string{
		"POST /token", "GET /token", "POST /token/", "POST /revoke", "POST /introspect",
		"GET /users/me", "POST /users/me", "GET /auth", "POST /auth", "PUT /auth/items?a=b", "POST /auth?scope=%zz",
		"GET /healthz", "POST /livez",
		"GET /docs", "GET /openapi.json", "POST /nowhere", "POST /../auth", "POST /", "OPTIONS /token",
		"GET /login", "POST /login", "POST /logout",
	}
	for _, tt := range []struct {
		name         string
		header, body string
		pause        time.Duration // between the body and what follows it
		within       bool          // what follows belongs to the body: it is no request
		version      string        // 1.1 if empty
		stop         bool          // the server stops before what follows is sent
	}{
		{name: "none"},
		{name: "none, of a form", header: form},
		{name: "empty", header: form + length(0)},
		{name: "whole", header: form + length(3), body: "a=b"},
		{name: "whole, of no known type", header: "Content-Type: text/plain\r\n" + length(3), body: "a=b"},
		{name: "whole, after a pause", header: form + length(3), body: "a=b", pause: silence},
		{name: "whole, in chunks", header: chunked, body: "3\r\na=b\r\n0\r\n\r\n"},
		{name: "whole, with a trailer", header: chunked, body: "3\r\na=b\r\n0\r\nRemote-User: x\r\n\r\n"},
		{name: "whole, HTTP/1.0", header: form + length(3) + "Connection: keep-alive\r\n", body: "a=b", version: "1.0"},
		{name: "whole, HTTP/1.0 without keep-alive", header: form + length(3), body: "a=b", version: "1.0"},
		{name: "whole, Expect", header: form + length(3) + expect, body: "a=b"},
		{name: "too long for a form", header: form + length(100<<10), body: strings.Repeat("a", 100<<10)},
		{name: "too long to be read at all", header: form + length(300<<10), body: strings.Repeat("a", 300<<10)},
		{name: "half, and silence", header: form + length(1000), body: "a=b&", pause: silence, within: true},
		{name: "half, and soon the rest", header: form + length(4+len(marked)), body: "a=b&",
			pause: soon, within: true},
		{name: "half, and late the rest", header: form + length(4+len(marked)), body: "a=b&",
			pause: late, within: true},
		{name: "all but a byte", header: form + length(3), body: "a=", pause: late, within: true},
		{name: "half of a large one", header: form + length(1<<30), body: strings.Repeat("a", 20<<10), within: true},
		{name: "half a chunk", header: chunked, body: "40\r\na=b", pause: late, within: true},
		{name: "no last chunk", header: chunked, body: "3\r\na=b\r\n", pause: late, within: true},
		{name: "a malformed chunk", header: chunked, body: "zz\r\n", within: true},
		{name: "a malformed chunk's end", header: chunked, body: "3\r\na=bXX0\r\n\r\n", within: true},
		{name: "Expect, and none", header: form + length(len(marked)) + expect, within: true},
		{name: "Expect, and a late one", header: form + length(len(marked)) + expect, pause: late, within: true},
		{name: "half, and a stop", header: form + length(4+len(marked)), body: "a=b&", stop: true, within: true},
		{name: "half of no known type, and a stop", header: "Content-Type: text/plain\r\n" + length(4+len(marked)),
			body: "a=b&", stop: true, within: true},
		{name: "all but the end of one too long, and a stop", header: form + length(100<<10),
			body: strings.Repeat("a", 100<<10-len(marked)), stop: true, within: true},
		{name: "whole, and a stop", header: form + length(3), body: "a=b", stop: true},
	} {
		for _, target := range targets {
			t.Run(tt.name+"/"+target, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var reached atomic.Bool
					var log syncBuffer
					server := &http.Server{ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
					server.ErrorLog = stdlog.New(&log, "", 0)
					server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Header["Marked"] != nil {
							reached.Store(true)
						}
						handler.ServeHTTP(w, r)
					})
					here, there := net.Pipe()
					go server.Serve(listenOnPipe(there))
					defer server.Close()
					defer time.Sleep(time.Minute) // until the server has noticed, too
					var client sync.WaitGroup
					defer client.Wait()
					defer here.Close()
					client.Go(func() {
						line := target + " HTTP/" + cmp.Or(tt.version, "1.1") + "\r\n"
						io.WriteString(here, line+"Host: a\r\n"+tt.header+"\r\n"+tt.body)
						time.Sleep(tt.pause)
						if tt.stop {
							synctest.Wait()
							client.Go(func() { server.Shutdown(context.Background()) })
							time.Sleep(time.Millisecond)
						}
						io.WriteString(here, marked)
					})
					answers := bufio.NewReader(here)
					first, err := http.ReadResponse(answers, nil)
					for err == nil && first.StatusCode == http.StatusContinue {
						first, err = http.ReadResponse(answers, nil)
					}
					if err != nil {
						t.Fatalf("no answer: %v", err)
					}
					if _, err := io.ReadAll(first.Body); err != nil {
						t.Fatalf("half an answer: %v", err)
					}
					second, err := http.ReadResponse(answers, nil)
					switch {
					case err == nil && (tt.within || first.Close):
						t.Errorf("%d, then to what is no request of it: %d", first.StatusCode, second.StatusCode)
					case err == nil && second.StatusCode != http.StatusOK:
						t.Errorf("%d, then to the next request: %d", first.StatusCode, second.StatusCode)
					case err != nil && !first.Close && tt.stop == tt.within:
						t.Errorf("%d, which does not say that the connection ends: %v", first.StatusCode, err)
					}
					here.Close()
					time.Sleep(time.Minute)
					if reached.Load() && (tt.within || first.Close) {
						t.Error("what is no request of this connection was taken for one")
					}
					if strings.Contains(log.String(), "panic") {
						t.Error(log.String())
					}
				})
			})
		}
	}
}

// TestManyAtOnce does everything at the same time. The race detector finds more in it.
func TestManyAtOnce(t *testing.T) {
	s := newService(t, testUsers())
	gate := s.login("gate", "introspect")
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 10 {
				token := s.login("johndoe")
				if w := s.me(token); w.Code != 200 {
					t.Errorf("live token: %d", w.Code)
				}
				if told := s.post("/introspect", "token="+token, gate).Body; !strings.Contains(told.String(), `:true`) {
					t.Errorf("live token: %s", told)
				}
				s.post("/revoke", "token="+token, "")
				if w := s.me(token); w.Code != 401 {
					t.Errorf("revoked token: %d", w.Code)
				}
			}
		})
	}
	clients.Go(func() {
		for range 50 {
			if err := s.auth.users.load(); err != nil {
				t.Error(err)
			}
		}
	})
	clients.Wait()
}

// # POST /token

var tokenRows = []row{
	{name: "login", body: "username=johndoe&password=secret", headers: tokenHeaders, want: granted("")},
	{name: "grant_type password", body: "grant_type=password&username=johndoe&password=secret",
		headers: tokenHeaders, want: granted("")},
	{name: "client in a Basic header", body: "username=johndoe&password=secret",
		auth: "Basic Y2xpZW50OnNlY3JldA==", want: granted("")},
	{name: "client in the form, any secret",
		body: "username=johndoe&password=secret&client_id=c&client_secret=s", want: granted("")},
	{name: "unknown field ignored", body: "username=johndoe&password=secret&foo=bar", want: granted("")},
	{name: "plus is a space", body: "username=john+doe&password=secret",
		status: 400, headers: tokenHeaders, want: wrong},
	{name: "white space around the username", body: "username=+johndoe+&password=secret", want: granted("")},
	{name: "other white space", body: "username=%C2%A0johndoe%0D%0A&password=secret", want: granted("")},
	{name: "white space around the password", body: "username=scopey&password=secret3+",
		status: 400, want: wrong},
	{name: "only white space for a username", body: "username=+&password=secret", status: 400, want: wrong},
	{name: "a password of 72 bytes", body: "username=long&password=" + strings.Repeat("x", 72), want: granted("")},
	{name: "a password of 73 bytes that begin alike", body: "username=long&password=" + strings.Repeat("x", 73),
		status: 400, want: wrong},
	{name: "wrong password", body: "username=johndoe&password=wrong",
		status: 400, headers: tokenHeaders, want: wrong},
	{name: "unknown user", body: "username=nobody&password=secret",
		status: 400, headers: tokenHeaders, want: wrong},
	{name: "names are exact", body: "username=JohnDoe&password=secret", status: 400, want: wrong},
	{name: "name not UTF-8", body: "username=%ff&password=secret", status: 400, want: wrong},
	{name: "the hash is no password",
		body:   "username=johndoe&password=" + strings.ReplaceAll(hashOf("secret"), "/", "%2F"),
		status: 400, want: wrong},
	{name: "body at the limit", body: "username=johndoe&password=secret&x=" + strings.Repeat("x", 64<<10-35),
		want: granted("")},
	{name: "body over the limit", body: "username=johndoe&password=secret&x=" + strings.Repeat("x", 64<<10-34),
		status: 413, headers: tokenHeaders, want: tooLarge},
	{name: "multipart over the limit", kind: "multipart/form-data; boundary=B",
		body:   part + "username\r\n\r\n" + strings.Repeat("x", 64<<10),
		status: 413, headers: tokenHeaders, want: tooLarge},
	{name: "other grant_type", body: "grant_type=<x>&username=johndoe&password=secret",
		status: 422, headers: tokenHeaders, want: otherGrant("<x>")},
	{name: "grant_type in capitals", body: "grant_type=Password&username=johndoe&password=secret",
		status: 422, want: otherGrant("Password")},
	{name: "by GET", request: "GET /token",
		status: 405, headers: map[string]string{"Allow": "POST", "Cache-Control": "no-store"},
		want: refused("invalid_request", "Method Not Allowed")},

	// a broken form logs nobody in
	{name: "form, username twice", body: "username=johndoe&username=johndoe&password=secret",
		status: 422, headers: tokenHeaders, want: repeated("username")},
	{name: "form, a field that is not read, twice",
		body: "username=johndoe&password=secret&resource=a&resource=b&client_secret=a&client_secret=b",
		want: granted("")},
	{name: "form, a percent sign as it is", body: "username=johndoe&password=100%&x=secret",
		status: 422,
		want:   fault("body", "A percent sign must be sent as %25, unless two hexadecimal digits follow it")},
	{name: "form, a semicolon as it is", body: "username=johndoe&password=a;b",
		status: 422, want: fault("body", "A semicolon must be sent as %3B")},
	{name: "form, JSON that is labelled as a form", body: `{"username":"johndoe","password":"secret"}`,
		status: 422, want: missing("; body: The body must be a form, not JSON", "username", "password")},
	{name: "multipart, no boundary in the type", kind: "multipart/form-data",
		body:   part + "username\r\n\r\njohndoe\r\n--B--\r\n",
		status: 422,
		want: fault("body",
			"The Content-Type has no boundary: leave that header to the library that makes the body")},
	{name: "form, type broken", kind: "a/b/c", body: "username=johndoe&password=secret",
		status: 422,
		want: missing("; body: The body must be a form, with Content-Type application/x-www-form-urlencoded",
			"username", "password")},
	{name: "multipart", kind: "multipart/form-data; boundary=B",
		body: part + "username\r\n\r\njohndoe\r\n" + part + "password\r\n\r\nsecret\r\n--B--\r\n", want: granted("")},
	{name: "multipart, a file", kind: "multipart/form-data; boundary=B",
		body:   part + "username\r\n\r\njohndoe\r\n" + part + "password; filename=p.txt\r\n\r\nsecret\r\n--B--\r\n",
		status: 422, want: fault("body.password", "Input should be a string, not a file")},

	// scopes
	{name: "scope, held", body: "username=scopey&password=secret3&scope=items:write+items:read",
		want: granted(`,"scope":"items:write items:read"`)},
	{name: "scope, one that is not held is left out",
		body: "username=scopey&password=secret3&scope=admin+items:read", want: granted(`,"scope":"items:read"`)},
	{name: "scope, none held", body: "username=johndoe&password=secret&scope=admin",
		want: granted(`,"scope":""`)},
	{name: "scope, asked twice", body: "username=scopey&password=secret3&scope=items:read++items:read+",
		want: granted(`,"scope":"items:read"`)},
	{name: "scope, other white space",
		body: "username=scopey&password=secret3&scope=%09items:read%0D%0Aitems:write",
		want: granted(`,"scope":"items:read items:write"`)},
	{name: "scope, only spaces", body: "username=scopey&password=secret3&scope=++", want: granted("")},
}

func TestTokensAreOpaque(t *testing.T) {
	s := newService(t, testUsers())
	seen := make(map[string]bool)
	for range 100 {
		token := s.login("johndoe")
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(token) {
			t.Errorf("%q is not 32 bytes in base64url", token)
		}
		if seen[token] {
			t.Errorf("%q was issued before", token)
		}
		seen[token] = true
	}
}

func TestHashesOfOtherTools(t *testing.T) {
	for _, version := range []string{"$2a$", "$2b$", "$2y$"} {
		hash := strings.Replace(hashOf("secret"), "$2a$", version, 1)
		s := newService(t, `{"johndoe": {"hashed_password": "`+hash+`"}}`)
		s.login("johndoe")
		if w := s.post("/token", "username=johndoe&password=wrong", ""); w.Code != 400 {
			t.Errorf("%s: wrong password: %d", version, w.Code)
		}
		const weak = `level=WARN msg="some users have weak hashes, hash their passwords again" users=`
		if !strings.Contains(s.log.String(), weak) {
			t.Errorf("no warning of a cost below 10:\n%s", s.log)
		}
	}
}

// TestNobodyCostsAsMuch checks that the hash that stands for an unknown username is
// as costly as the costliest of the users': otherwise the time of an answer would
// tell who exists.
func TestNobodyCostsAsMuch(t *testing.T) {
	for _, costs := range [][]int{{4}, {4, 6}, {12, 5}} {
		var records []string
		for i, cost := range costs {
			hash := strings.Replace(hashOf("secret"), "$04$", fmt.Sprintf("$%02d$", cost), 1)
			records = append(records, fmt.Sprintf(`"user%d": {"hashed_password": %q}`, i, hash))
		}
		s := newService(t, "{"+strings.Join(records, ", ")+"}")
		cost, err := bcrypt.Cost(s.auth.users.loaded.Load().noOne)
		if err != nil || cost != slices.Max(costs) {
			t.Errorf("users of cost %v: the unknown user's is %d, %v", costs, cost, err)
		}
	}
}

// TestLog sends usernames that would forge a line or fill the disk.
func TestLog(t *testing.T) {
	const failed = `level=WARN msg="login failed" client=192.0.2.1 username=`
	s := newService(t, testUsers())
	for _, tt := range []struct{ name, form, want string }{
		{name: "success", form: "username=scopey&password=secret3&client_id=app&scope=items:read",
			want: `level=INFO msg=login client=192.0.2.1 username=scopey client_id=app scope=items:read`},
		{name: "white space around, right", form: "username=+scopey+&password=secret3",
			want: `level=INFO msg=login client=192.0.2.1 username=scopey scope=""`},
		{name: "failure", form: "username=johndoe&password=hunter2", want: failed + "johndoe"},
		{name: "newline", form: "username=a%0Atime=2026&password=hunter2",
			want: failed + `"a\ntime=2026" reason="the username contains a control character"`},
		{name: "escape of a terminal", form: "username=%1b[2J&password=hunter2",
			want: failed + `"\x1b[2J" reason="the username contains a control character"`},
		{name: "white space around", form: "username=+alice%C2%A0%0D%0A&password=hunter2", want: failed + "alice"},
		{name: "only white space", form: "username=+&password=hunter2",
			want: failed + `"" reason="the username is empty"`},
		{name: "a username in Latin-1", form: "username=zo%EB&password=hunter2",
			want: failed + `"zo\xeb" reason="the username is not UTF-8"`},
		{name: "a password in Latin-1", form: "username=johndoe&password=zo%EB",
			want: failed + `johndoe reason="the password is not UTF-8"`},
		{name: "a password too long for bcrypt", form: "username=long&password=" + strings.Repeat("x", 73),
			want: failed + `long reason="the password has more than 72 bytes"`},
		{name: "a password too long, of nobody", form: "username=nobody&password=" + strings.Repeat("é", 37),
			want: failed + `nobody reason="the password has more than 72 bytes"`},
		{name: "long", form: "username=" + strings.Repeat("x", 1000) + "&password=hunter2",
			want: failed + strings.Repeat("x", 64) + "…"},
		{name: "long, cut in a letter", form: "username=x" + strings.Repeat("é", 1000) + "&password=hunter2",
			want: failed + "x" + strings.Repeat("é", 31) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(s.log.String())
			s.post("/token", tt.form, "")
			_, line, _ := strings.Cut(s.log.String()[before:], " ") // after the time
			if line != tt.want+"\n" {
				t.Errorf("logged %q, want %q", line, tt.want)
			}
		})
	}
	r := formRequest("/token", "username=johndoe&password=secret")
	r.Header.Set("X-Request-ID", "f7c1-22")
	if s.do(r); !strings.HasSuffix(s.log.String(), " username=johndoe request_id=f7c1-22 scope=\"\"\n") {
		t.Errorf("no ID of the request:\n%s", s.log)
	}
	if strings.Contains(s.log.String(), "hunter2") {
		t.Error("the log contains a password")
	}
}

// TestGuessing guesses a password, and sees what a client sees: after three wrong
// ones (this service's limit) even the right one has to wait.
func TestGuessing(t *testing.T) {
	tooMany := refused("temporarily_unavailable", "Too many wrong passwords for this username")
	for _, username := range []string{"johndoe", "alice", "nobody"} {
		t.Run(username, func(t *testing.T) {
			s := newService(t, testUsers())
			login := func(password, from string) *httptest.ResponseRecorder {
				r := formRequest("/token", "username="+username+"&password="+password)
				r.RemoteAddr = "10.0.0.1:1234" // the trusted proxy
				r.Header.Set("X-Forwarded-For", "6.6.6.6, "+from)
				return s.do(r)
			}
			for range 3 {
				if w := login("wrong", "1.2.3.4"); w.Code != 400 {
					t.Errorf("wrong password: %d", w.Code)
				}
			}
			fourth := login(passwords[username]+"x", "1.2.3.4")
			if fourth.Code != 429 || fourth.Header().Get("Retry-After") != "1" ||
				fourth.Header().Get("Cache-Control") != "no-store" || fourth.Body.String() != tooMany {
				t.Errorf("the fourth: %d %v %s", fourth.Code, fourth.Header(), fourth.Body)
			}
			if w := login("wrong", "1.2.3.5"); w.Code != 400 {
				t.Errorf("another address: %d", w.Code)
			}
			s.clock = s.clock.Add(time.Second)
			want := 200
			if username == "nobody" {
				want = 400
			}
			if w := login(passwords[username]+strings.Repeat("x", want/400), "1.2.3.4"); w.Code != want {
				t.Errorf("a second later: %d, want %d", w.Code, want)
			}
			if !strings.Contains(s.log.String(), " client=1.2.3.4 username="+username+"\n") {
				t.Errorf("the log does not have the client behind the proxy:\n%s", s.log)
			}
		})
	}
}

// TestLoginCrowd sends many logins at the same moment: all are served.
func TestLoginCrowd(t *testing.T) {
	s := newService(t, testUsers())
	var clients sync.WaitGroup
	for i := range 250 {
		clients.Go(func() {
			r := formRequest("/token", "username=johndoe&password=secret")
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1234", i%2)
			if w := s.do(r); w.Code != 200 {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
		})
	}
	clients.Wait()
}

// TestLoginGivenUp sends logins for a costly hash, and gives up those still
// waiting once one is served.
func TestLoginGivenUp(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), usersfile.LeastCost)
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, `{"johndoe": {"hashed_password": "`+string(hash)+`"}}`)
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	var clients sync.WaitGroup
	var givenUp atomic.Int32
	for range 4 * runtime.GOMAXPROCS(0) {
		clients.Go(func() {
			w := s.do(formRequest("/token", "username=johndoe&password=secret").WithContext(ctx))
			if w.Code == 200 {
				hangUp()
				return
			}
			givenUp.Add(1)
			if w.Code != 503 || w.Body.String() != refused("temporarily_unavailable", "Too many logins are waiting") ||
				!regexp.MustCompile(`^([1-9]|1[0-9]|20)$`).MatchString(w.Header().Get("Retry-After")) {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
		})
	}
	clients.Wait()
	if givenUp.Load() == 0 {
		t.Error("all were served")
	}
}

// TestLargeFormsWait posts a large form while slow senders have all 32 places, and
// ends its request, as the service does when it stops.
func TestLargeFormsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, testUsers())
		post := func(ctx context.Context, body io.Reader) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, "POST", "/token", body)
			r.Header.Set("Content-Type", urlencoded)
			return s.do(r)
		}
		for range 32 {
			body, sender := io.Pipe()
			defer sender.Close()
			go post(t.Context(), body)
			io.WriteString(sender, strings.Repeat("x", 5000))
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		w := post(ctx, strings.NewReader(strings.Repeat("x", 5000)))
		want := refused("temporarily_unavailable", "Too many large forms are being read, try again later")
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || w.Body.String() != want {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}

// # GET /users/me

var usersMeRows = []row{
	{name: "me", auth: "Bearer {johndoe}", want: johndoe},
	{name: "by HEAD, whose body the server leaves out", request: "HEAD /users/me", auth: "Bearer {johndoe}",
		headers: map[string]string{"Content-Type": "application/json"}, want: johndoe},
	{name: "unknown fields are null", auth: "Bearer {scopey}",
		want: `{"username":"scopey","email":null,"full_name":null,"disabled":null}`},
	{name: "query left alone", request: "GET /users/me?a=b", auth: "Bearer {johndoe}", want: johndoe},
	{name: "path escaped", request: "GET /users%2Fm%65", auth: "Bearer {johndoe}", want: johndoe},
	{name: "disabled", auth: "Bearer {alice}", status: 400, want: detail("Inactive user")},
	{name: "two spaces", auth: "Bearer  {johndoe}", want: johndoe},
	{name: "the scheme in other letters", auth: "bEARER {johndoe}", want: johndoe},
	{name: "no header", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "another scheme", auth: "Basic {johndoe}", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "two headers", auth: "Bearer {johndoe}\nBearer {johndoe}",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "no token", auth: "Bearer ", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "spaces and no token", auth: "Bearer   ", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "a tab", auth: "Bearer\t{johndoe}", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "an unknown token", auth: "Bearer x",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "by PUT", request: "PUT /users/me", auth: "Bearer {johndoe}",
		status: 405, headers: map[string]string{"Allow": "GET, HEAD"}, want: detail("Method Not Allowed")},
}

func TestTokenEndsAtItsSecond(t *testing.T) {
	s := newService(t, testUsers())
	token, gate := s.login("johndoe"), ""
	for _, tt := range []struct {
		after  time.Duration
		status int
		active string
	}{
		{after: 0, status: 200, active: `"active":true`},
		{after: 30*time.Minute - time.Nanosecond, status: 200, active: `"active":true`},
		{after: 30 * time.Minute, status: 401, active: `"active":false`},
		{after: time.Hour, status: 401, active: `"active":false`},
	} {
		s.clock = time.Unix(1700000000, 0).Add(tt.after)
		if w := s.me(token); w.Code != tt.status {
			t.Errorf("after %v: status %d, want %d", tt.after, w.Code, tt.status)
		}
		gate = s.login("gate", "introspect")
		if w := s.post("/introspect", "token="+token, gate); !strings.Contains(w.Body.String(), tt.active) {
			t.Errorf("after %v: %s, want %s", tt.after, w.Body, tt.active)
		}
	}
}

// TestUsersChange reloads the users while they have tokens.
func TestUsersChange(t *testing.T) {
	gate := `, "gate": {"hashed_password": "` + hashOf("secret4") + `", "scopes": ["introspect"]}`
	scopey := func(hash, rest string) string {
		return `{"scopey": {"hashed_password": "` + hash + `"` + rest + `}` + gate + `}`
	}
	const reads = `, "scopes": ["items:read"]`
	same := hashOf("secret3")
	for _, tt := range []struct {
		name, users string
		broken      bool // the users are, and the previous ones stay
		status      int
		introspect  string
	}{
		{name: "unchanged", users: testUsers(), status: 200, introspect: `"scope":"items:read"`},
		{name: "the same hash", users: scopey(same, reads), status: 200, introspect: `"scope":"items:read"`},
		{name: "disabled", users: scopey(same, `, "disabled": true`), status: 400, introspect: `{"active":false}`},
		{name: "removed", users: `{"johndoe": {"hashed_password": "` + hashOf("secret") + `"}` + gate + `}`,
			status: 401, introspect: `{"active":false}`},
		{name: "another password", users: scopey(newHashOf("changed"), reads),
			status: 401, introspect: `{"active":false}`},
		{name: "the same password, hashed anew", users: scopey(newHashOf("secret3"), reads),
			status: 401, introspect: `{"active":false}`},
		{name: "the same password, the hash's prefix changed",
			users:  scopey(strings.Replace(same, "$2a$", "$2b$", 1), reads),
			status: 401, introspect: `{"active":false}`},
		{name: "scope withdrawn", users: scopey(same, `, "scopes": ["items:write"]`),
			status: 200, introspect: `"sub":"scopey","token_type"`},
		{name: "broken file", users: "{", broken: true, status: 200, introspect: `"scope":"items:read"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, testUsers())
			token, gate := s.login("scopey", "items:read"), s.login("gate", "introspect")
			s.write(tt.users)
			if err := s.auth.users.load(); (err != nil) != tt.broken {
				t.Errorf("load: %v", err)
			}
			if w := s.me(token); w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			if w := s.post("/introspect", "token="+token, gate); !strings.Contains(w.Body.String(), tt.introspect) {
				t.Errorf("introspection %s, want %s", w.Body, tt.introspect)
			}
		})
	}
}

// FuzzAuthorization lets only the right header in.
func FuzzAuthorization(f *testing.F) {
	s := newService(f, testUsers())
	token := s.login("johndoe")
	for _, seed := range []string{
		"", "Bearer", "Bearer ", "Bearer TOKEN", "bearer TOKEN", "BEARER  TOKEN", "Bearer TOKEN ", "Bearer\tTOKEN",
		"TOKEN", "Basic TOKEN", "Bearer TOKEN,Bearer TOKEN", "\u212aearer TOKEN",
	} {
		f.Add(seed)
	}
	right := regexp.MustCompile(`^(?i:bearer) +` + token + `$`)
	f.Fuzz(func(t *testing.T, header string) {
		header = strings.ReplaceAll(header, "TOKEN", token)
		r := httptest.NewRequest("GET", "/users/me", nil)
		r.Header.Set("Authorization", header)
		want := 401
		if right.MatchString(header) {
			want = 200
		}
		if w := s.do(r); w.Code != want {
			t.Errorf("%q: status %d, want %d", header, w.Code, want)
		}
	})
}

// # POST /revoke

var revokeRows = []row{
	{name: "revoke", body: "token={johndoe}", headers: tokenHeaders, want: `{}`},
	{name: "with a hint", body: "token={johndoe}&token_type_hint=refresh_token", want: `{}`},
	{name: "by client credentials in a Basic header", body: "token={johndoe}", auth: basic("app:any"),
		want: `{}`},
	{name: "by client credentials in the form", body: "token={johndoe}&client_id=app&client_secret=any",
		want: `{}`},
	{name: "by a client that names itself", body: "token={johndoe}&client_id=app", want: `{}`},
	{name: "by its own bearer token", body: "token={johndoe}", auth: "Bearer {johndoe}", want: `{}`},
	{name: "unknown token", body: "token=nonsense", headers: tokenHeaders, want: `{}`},
	{name: "no token", kind: urlencoded, status: 422, headers: tokenHeaders, want: missing("", "token")},
	{name: "token in the query", request: "POST /revoke?token=x", kind: urlencoded,
		status: 422, want: missing("; body: The body must have the fields: those in the URL do not count", "token")},
	{name: "token twice", body: "token=x&token=x", status: 422, want: repeated("token")},
	{name: "too large", body: "token=" + strings.Repeat("x", 64<<10), status: 413, want: tooLarge},
	{name: "by GET", request: "GET /revoke",
		status: 405, headers: map[string]string{"Allow": "POST"},
		want: refused("invalid_request", "Method Not Allowed")},
}

func TestRevokedIsWorthNothing(t *testing.T) {
	s := newService(t, testUsers())
	token, other := s.login("johndoe"), s.login("johndoe")
	for _, form := range []string{"token=" + token, "token=" + token} {
		if w := s.post("/revoke", form, ""); w.Code != 200 {
			t.Fatalf("revoke: %d", w.Code)
		}
		if w := s.me(token); w.Code != 401 {
			t.Errorf("revoked token: %d, want 401", w.Code)
		}
	}
	told := s.post("/introspect", "token="+token, s.login("gate", "introspect")).Body.String()
	if told != `{"active":false}` {
		t.Errorf("introspection of a revoked token: %s", told)
	}
	if w := s.me(other); w.Code != 200 {
		t.Errorf("the user's other token: %d, want 200", w.Code)
	}
	if n := strings.Count(s.log.String(), `msg="token revoked" client=192.0.2.1 username=johndoe`); n != 1 {
		t.Errorf("%d revocations in the log, want 1:\n%s", n, s.log)
	}
}

// TestRevokeWhatIsNoToken sends what people send for a token. White space around it is
// left out; with anything else nobody may believe to be logged out.
func TestRevokeWhatIsNoToken(t *testing.T) {
	s := newService(t, testUsers())
	for _, tt := range []struct {
		name, before, behind string
		status, lives        int
	}{
		{name: "the token", status: 200, lives: 401},
		{name: "a newline behind", behind: "\r\n", status: 200, lives: 401},
		{name: "white space around", before: " ", behind: "\t ", status: 200, lives: 401},
		{name: "the header's value", before: "Bearer ", status: 422, lives: 200},
		{name: "quotes", before: `"`, behind: `"`, status: 422, lives: 200},
		{name: "the whole answer", before: `{"access_token":"`, behind: `"}`, status: 422, lives: 200},
		{name: "two", before: "a ", status: 422, lives: 200},
		{name: "another token", before: "x", status: 200, lives: 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := s.login("johndoe")
			w := s.post("/revoke", "token="+url.QueryEscape(tt.before+token+tt.behind), "")
			if w.Code != tt.status || strings.Contains(w.Body.String(), token) {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tt.status)
			}
			if w := s.me(token); w.Code != tt.lives {
				t.Errorf("the token then: %d, want %d", w.Code, tt.lives)
			}
		})
	}
}

// # POST /introspect

var introspectRows = []row{
	{name: "introspect", body: "token={scopey items:read}", auth: "Bearer {gate introspect}",
		headers: tokenHeaders, want: active("scopey", "items:read")},
	{name: "by another token that has the scope", body: "token={gate introspect}&token_type_hint=access_token",
		auth: "Bearer {gate introspect}", want: active("gate", "introspect")},
	{name: "another token of the same user", body: "token={scopey items:read}",
		auth:   "Bearer {scopey items:read}",
		status: 403, want: refused("insufficient_scope", "Not enough permissions")},
	{name: "no scope in the token", body: "token={johndoe}", auth: "Bearer {gate introspect}",
		want: active("johndoe", "")},
	{name: "unknown token", body: "token=nonsense", auth: "Bearer {gate introspect}",
		headers: tokenHeaders, want: `{"active":false}`},
	{name: "of a disabled user", body: "token={alice}", auth: "Bearer {gate introspect}",
		want: `{"active":false}`},
	{name: "no token", kind: urlencoded, auth: "Bearer {gate introspect}",
		status: 422, headers: tokenHeaders, want: missing("", "token")},
	{name: "token twice", body: "token=a&token=b", auth: "Bearer {gate introspect}",
		status: 422, want: repeated("token")},
	{name: "no credentials", body: "token={johndoe}",
		status: 401, headers: bothChallenges, want: refused("invalid_token", "Not authenticated")},
	{name: "another scheme", body: "token={johndoe}", auth: "Digest x",
		status: 401, headers: bothChallenges, want: refused("invalid_token", "Not authenticated")},
	{name: "a bearer token that is none", body: "token={johndoe}", auth: "Bearer ",
		status: 401, headers: bothChallenges, want: refused("invalid_token", "Not authenticated")},
	{name: "by an unknown token", body: "token={johndoe}", auth: "Bearer x",
		status: 401, headers: invalidToken, want: refused("invalid_token", "Not authenticated")},
	{name: "an unknown token by itself", body: "token=x", auth: "Bearer x",
		status: 401, headers: invalidToken, want: refused("invalid_token", "Not authenticated")},
	{name: "by a disabled user", body: "token={johndoe}", auth: "Bearer {alice}",
		status: 400, want: refused("invalid_token", "Inactive user")},
	{name: "scope not requested", body: "token={johndoe}", auth: "Bearer {gate}",
		status:  403,
		headers: map[string]string{"WWW-Authenticate": `Bearer error="insufficient_scope", scope="introspect"`},
		want:    refused("insufficient_scope", "Not enough permissions")},
	{name: "scope not allowed", body: "token={johndoe}", auth: "Bearer {johndoe introspect}",
		status: 403, want: refused("insufficient_scope", "Not enough permissions")},
	{name: "Basic", body: "token={scopey items:read}", auth: basic("gate:secret4"),
		headers: tokenHeaders, want: active("scopey", "items:read")},
	{name: "Basic, unknown token", body: "token=nonsense", auth: basic("gate:secret4"),
		want: `{"active":false}`},
	{name: "Basic, unencoded", body: "token=nonsense", auth: basic("items service:battery staple"),
		want: `{"active":false}`},
	{name: "Basic, with plus", body: "token=nonsense", auth: basic("items+service:battery+staple"),
		want: `{"active":false}`},
	{name: "Basic, with percent", body: "token=nonsense", auth: basic("items%20service:battery%20staple"),
		want: `{"active":false}`},
	{name: "client in the form", body: "token=nonsense&client_id=gate&client_secret=secret4",
		want: `{"active":false}`},
	{name: "client in a multipart form", kind: "multipart/form-data; boundary=B",
		body: part + "token\r\n\r\nx\r\n" + part + "client_id\r\n\r\ngate\r\n" +
			part + "client_secret\r\n\r\nsecret4\r\n--B--\r\n", want: `{"active":false}`},
	{name: "Basic, and the client names itself", body: "token=nonsense&client_id=gate",
		auth: basic("gate:secret4"), want: `{"active":false}`},
	{name: "Basic, wrong secret", body: "token=nonsense", auth: basic("gate:secret"),
		status: 401, headers: challenge, want: noClient},
	{name: "Basic, unknown client", body: "token=nonsense", auth: basic("nobody:secret"),
		status: 401, headers: challenge, want: noClient},
	{name: "Basic, no colon", body: "token=nonsense", auth: basic("gate"),
		status: 401, headers: challenge, want: noClient},
	{name: "Basic, a user who may not hold the scope", body: "token={johndoe}", auth: basic("johndoe:secret"),
		status: 401, headers: challenge, want: noClient},
	{name: "Basic, a disabled user", body: "token={johndoe}", auth: basic("shut:battery staple"),
		status: 401, headers: challenge, want: noClient},
	{name: "client in the form, wrong secret", body: "token=nonsense&client_id=gate&client_secret=secret",
		status: 401, headers: challenge, want: noClient},
	{name: "client in the form, without a name", body: "token=nonsense&client_secret=secret4",
		status: 401, headers: challenge, want: noClient},
	{name: "client in the form, without a secret", body: "token=nonsense&client_id=gate",
		status: 401, headers: challenge, want: noClient},
	{name: "client in the query", request: "POST /introspect?client_id=gate&client_secret=secret4",
		body:   "token=nonsense",
		status: 401, headers: bothChallenges, want: refused("invalid_token", "Not authenticated")},
	{name: "Basic and the same in the form", body: "token=nonsense&client_id=gate&client_secret=secret4",
		auth: basic("gate:secret4"), want: `{"active":false}`},
	{name: "Basic and another secret in the form", body: "token=nonsense&client_id=gate&client_secret=secret",
		auth:   basic("gate:secret4"),
		status: 400, headers: tokenHeaders, want: twoWays},
	{name: "a bearer token and the form", body: "token=nonsense&client_id=gate&client_secret=secret4",
		auth:   "Bearer {gate introspect}",
		status: 400, headers: tokenHeaders, want: twoWays},
	{name: "client_secret twice", body: "token=x&client_id=gate&client_secret=secret4&client_secret=x",
		status: 422, want: repeated("client_secret")},
	{name: "two headers", body: "token=x", auth: "Bearer x\nBearer x", status: 400, want: twoWays},
}

// TestIntrospectItself introspects a token without the scope, with the token
// itself.
func TestIntrospectItself(t *testing.T) {
	s := newService(t, testUsers())
	token := s.login("scopey", "items:read")
	for _, tt := range []struct {
		name   string
		change func()
		status int
		want   string
	}{
		{name: "alive", change: func() {}, status: 200, want: active("scopey", "items:read")},
		{name: "of a disabled user", change: func() {
			s.reload(`{"scopey": {"disabled": true, "hashed_password": "` + hashOf("secret3") + `"}}`)
		}, status: 400, want: refused("invalid_token", "Inactive user")},
		{name: "revoked", change: func() { s.post("/revoke", "token="+token, "") },
			status: 401, want: refused("invalid_token", "Not authenticated")},
	} {
		tt.change()
		if w := s.post("/introspect", "token="+token, token); w.Code != tt.status || w.Body.String() != tt.want {
			t.Errorf("%s: %d %s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

// TestClientCredentials guesses at client credentials, and changes the users
// between requests.
func TestClientCredentials(t *testing.T) {
	s := newService(t, testUsers())
	token := s.login("scopey")
	gate := func(password, rest string) string { // the users, with this one
		return `{"scopey": {"hashed_password": "` + hashOf("secret3") + `"},
			"gate": {"hashed_password": "` + hashOf(password) + `"` + rest + `}}`
	}
	const may = `, "scopes": ["introspect"]`
	for _, tt := range []struct {
		name, users string // the users are replaced if there are others
		secret      string
		status      int
	}{
		{name: "right", secret: "secret4", status: 200},
		{name: "hashed anew", users: strings.ReplaceAll(gate("secret4", may), hashOf("secret4"), newHashOf("secret4")),
			secret: "secret4", status: 200},
		{name: "another password", users: gate("fresh", may), secret: "secret4", status: 401},
		{name: "the new one", secret: "fresh", status: 200},
		{name: "the scope withdrawn", users: gate("fresh", ""), secret: "fresh", status: 401},
		{name: "disabled", users: gate("secret4", may+`, "disabled": true`), secret: "secret4", status: 401},
		{name: "enabled", users: gate("secret4", may), secret: "secret4", status: 200},
		{name: "removed", users: `{}`, secret: "secret4", status: 401},
		{name: "back again", users: gate("secret4", may), secret: "secret4", status: 200},
		{name: "a guess", secret: "guess", status: 401},
		{name: "and the right one", secret: "secret4", status: 200},
	} {
		if tt.users != "" {
			s.reload(tt.users)
		}
		r := formRequest("/introspect", "token="+token)
		r.SetBasicAuth("gate", tt.secret)
		if w := s.do(r); w.Code != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, w.Code, w.Body, tt.status)
		}
	}
	const login = "username=gate&password=secret4"
	t.Run("guessing here is guessing there", func(t *testing.T) {
		ask := func(path, form, client string) *httptest.ResponseRecorder {
			r := formRequest(path, form)
			r.RemoteAddr = client + ":1234" // an address that gate has not logged in from
			return s.do(r)
		}
		for range 3 {
			ask("/introspect", "token=x&client_id=g%61te&client_secret=guess", "198.51.100.1")
			ask("/token", "username=gate&password=guess", "203.0.113.1")
		}
		if w := ask("/token", login, "198.51.100.1"); w.Code != 429 {
			t.Errorf("login after three guesses: %d", w.Code)
		}
		w := ask("/introspect", "token=x&client_id=gate&client_secret=secret4", "203.0.113.1")
		if w.Code != 429 || !strings.Contains(w.Body.String(), `"error":"temporarily_unavailable"`) {
			t.Errorf("introspection after three wrong logins: %d %s", w.Code, w.Body)
		}
		s.clock = s.clock.Add(time.Minute)
		if w := ask("/token", login, "198.51.100.1"); w.Code != 200 {
			t.Errorf("login a minute later: %d", w.Code)
		}
	})
	for _, secret := range []string{"secret4", "secret5", "fresh", "guess"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log contains %q", secret)
		}
	}
}

// # /auth

var authRows = []row{
	{name: "auth", auth: "Bearer {johndoe}",
		headers: map[string]string{"Remote-User": "johndoe", "Remote-Name": "John Doe",
			"Remote-Email": "johndoe@example.com", "Remote-Scope": "", "Content-Type": ""}},
	{name: "by HEAD", request: "HEAD /auth", auth: "Bearer {johndoe}",
		headers: map[string]string{"Remote-User": "johndoe"}},
	{name: "any method", request: "PROPFIND /auth", auth: "Bearer {johndoe}",
		headers: map[string]string{"Remote-User": "johndoe"}},
	{name: "any path below", request: "DELETE /auth/items/1/", auth: "Bearer {johndoe}",
		headers: map[string]string{"Remote-User": "johndoe", "Location": ""}},
	{name: "the path of another endpoint", request: "POST /auth/../token",
		body:   "username=johndoe&password=secret",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "a body is not read", request: "POST /auth", body: "token=x&token=x;%zz", auth: "Bearer {johndoe}"},
	{name: "a scope that is held", request: "GET /auth?scope=items:read", auth: "Bearer {scopey items:read}",
		headers: map[string]string{"Remote-User": "scopey", "Remote-Name": "", "Remote-Scope": "items:read"}},
	{name: "one of two scopes held", request: "GET /auth?scope=items:read+items:write",
		auth:   "Bearer {scopey items:read}",
		status: 403,
		headers: map[string]string{"Remote-User": "",
			"WWW-Authenticate": `Bearer error="insufficient_scope", scope="items:read items:write"`},
		want: detail("Not enough permissions")},
	{name: "scopes in two parameters", request: "GET /auth?scope=items:read&scope=items:write",
		auth:   "Bearer {scopey items:read}",
		status: 403, want: detail("Not enough permissions")},
	{name: "scope not requested", request: "GET /auth?scope=items:read", auth: "Bearer {scopey}",
		status: 403, want: detail("Not enough permissions")},
	{name: "an empty scope", request: "GET /auth?scope=", auth: "Bearer {johndoe}",
		status: 403, want: detail("The scope in the query is empty or malformed")},
	{name: "a malformed query", request: "GET /auth?x=%zz", auth: "Bearer {johndoe}",
		status: 403, want: detail("The scope in the query is empty or malformed")},
	{name: "disabled", auth: "Bearer {alice}",
		status: 403, headers: map[string]string{"Remote-User": ""}, want: detail("Inactive user")},
	{name: "no token", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "no token, another method", request: "OPTIONS /auth",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "a bad token", request: "GET /auth/", auth: "Bearer x",
		status: 401, headers: invalidToken, want: detail("Not authenticated")},
	{name: "a bad token and a scope", request: "GET /auth?scope=items:read", auth: "Bearer x",
		status: 401, headers: invalidToken, want: detail("Not authenticated")},
	{name: "another scheme", auth: "Basic am9obmRvZTpzZWNyZXQ=",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "a token in the query", request: "GET /auth/?access_token={johndoe}",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "scopes for scope", request: "GET /auth?scopes=admin", auth: "Bearer {johndoe}",
		status: 403, want: detail("The query has a parameter other than scope")},
	{name: "scopes for scope, below", request: "GET /auth/x?scopes=admin", auth: "Bearer {johndoe}"},
}

// # The login page

// withPage turns the login page on. No client is generated for it, so docs/openapi.json
// does not have it.
func (s *service) withPage(c loginpage.Config) *service {
	c.On = true
	s.auth.page = c
	s.Handler = newHandler(s.auth, s.pages)
	return s
}

// enter logs in at the page as a browser does, and returns the cookie.
func (s *service) enter(username string) *http.Cookie {
	s.t.Helper()
	w := s.post("/login", "username="+username+"&password="+passwords[username], "")
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || len(cookies) == 0 || cookies[0].Value == "" && cookies[1].Value == "" {
		s.t.Fatalf("login of %s: %d %s", username, w.Code, w.Body)
	}
	if cookies[0].Value == "" {
		return cookies[1]
	}
	return cookies[0]
}

// TestLoginPageOff checks that nothing knows of the page unless it is on.
func TestLoginPageOff(t *testing.T) {
	s := newService(t, testUsers())
	token := s.login("scopey")
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/login", `{"detail":"Not Found"}`},
		{"POST", "/login", `{"detail":"Not Found"}`},
		{"POST", "/logout", `{"detail":"Not Found"}`},
		{"GET", "/auth", `{"detail":"Not authenticated"}`},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.Header.Set("Cookie", "__Host-simple_oauth2="+token+"; simple_oauth2="+token)
		r.Header.Set("X-Forwarded-Proto", "http")
		if w := s.do(r); w.Body.String() != tt.body || w.Header()["Set-Cookie"] != nil {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, w.Code, w.Body)
		}
	}
}

// TestLoginPageCookie checks that only /auth and the page read the cookie.
func TestLoginPageCookie(t *testing.T) {
	s := newService(t, testUsers()).withPage(loginpage.Config{})
	jane, gate := s.enter("scopey"), s.enter("gate")
	alice := s.login("alice")
	for _, tt := range []struct {
		name         string
		method, path string
		cookie       string
		bearer       string
		proto        string // what the gateway says; http, if empty
		status       int
		user         string // for /auth
	}{
		{name: "/auth", method: "GET", path: "/auth", cookie: jane.Value, status: 200, user: "scopey"},
		{name: "its scopes", method: "GET", path: "/auth?scope=items:read+items:write", cookie: jane.Value,
			status: 200, user: "scopey"},
		{name: "another method", method: "POST", path: "/auth/items", cookie: jane.Value, status: 200, user: "scopey"},
		{name: "a scope that the user may not hold", method: "GET", path: "/auth?scope=introspect", cookie: jane.Value,
			status: 403},
		{name: "a bearer token goes before", method: "GET", path: "/auth", cookie: jane.Value, bearer: gate.Value,
			status: 200, user: "gate"},
		{name: "also a wrong one", method: "GET", path: "/auth", cookie: jane.Value, bearer: "x", status: 401},
		{name: "a bearer token in the cookie", method: "GET", path: "/auth", cookie: s.login("gate"),
			status: 200, user: "gate"},
		{name: "a disabled user", method: "GET", path: "/auth", cookie: alice, status: 403},
		{name: "unknown", method: "GET", path: "/auth", cookie: "x", status: 401},
		{name: "http's on https", method: "GET", path: "/auth", cookie: jane.Value, proto: "https", status: 401},
		{name: "/users/me", method: "GET", path: "/users/me", cookie: jane.Value, status: 401},
		{name: "/introspect", method: "POST", path: "/introspect", cookie: gate.Value, status: 401},
		{name: "/revoke", method: "POST", path: "/revoke", cookie: jane.Value, status: 422},
		{name: "/token", method: "POST", path: "/token", cookie: jane.Value, status: 422},
		{name: "the page", method: "GET", path: "/login", cookie: jane.Value, status: 200},
		{name: "the page's other methods", method: "PUT", path: "/login", cookie: jane.Value, status: 405},
		{name: "a logout by GET", method: "GET", path: "/logout", cookie: jane.Value, status: 405},
		{name: "a page behind it", method: "GET", path: "/login/x", cookie: jane.Value, status: 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := "token=" + gate.Value
			if tt.path == "/revoke" {
				form = ""
			}
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(form))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Cookie", "simple_oauth2="+tt.cookie)
			r.Header.Set("X-Forwarded-Proto", cmp.Or(tt.proto, "http"))
			if tt.bearer != "" {
				r.Header.Set("Authorization", "Bearer "+tt.bearer)
			}
			w := s.do(r)
			if w.Code != tt.status || w.Header().Get("Remote-User") != tt.user || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%d for %q, %v %s", w.Code, w.Header().Get("Remote-User"), w.Header(), w.Body)
			}
		})
	}
}

// TestLoginPageEnds checks that whatever ends a token ends a session.
func TestLoginPageEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ends   func(s *service, cookie *http.Cookie)
		status int // of /auth then
		shows  string
	}{
		{name: "nothing", ends: func(*service, *http.Cookie) {}, status: 200, shows: "logged in as <strong>scopey"},
		{name: "time", status: 401, shows: "Password",
			ends: func(s *service, _ *http.Cookie) { s.clock = s.clock.Add(30 * time.Minute) }},
		{name: "/revoke", status: 401, shows: "Password",
			ends: func(s *service, c *http.Cookie) { s.post("/revoke", "token="+c.Value, "") }},
		{name: "/logout", status: 401, shows: "Password", ends: func(s *service, c *http.Cookie) {
			r := httptest.NewRequest("POST", "/logout", nil)
			r.AddCookie(c)
			s.do(r)
		}},
		{name: "another login", status: 200, shows: "<strong>scopey",
			ends: func(s *service, _ *http.Cookie) { s.enter("scopey") }},
		{name: "a new password", status: 401, shows: "Password", ends: func(s *service, _ *http.Cookie) {
			s.write(`{"scopey": {"hashed_password": "` + newHashOf("secret3") + `"}}`)
			s.auth.users.load()
		}},
		{name: "removed", status: 401, shows: "Password",
			ends: func(s *service, _ *http.Cookie) { s.write(`{}`); s.auth.users.load() }},
		{name: "disabled", status: 403, shows: "<strong>scopey</strong> is disabled", ends: func(s *service, _ *http.Cookie) {
			s.write(strings.Replace(testUsers(), `"scopey": {`, `"scopey": {"disabled": true, `, 1))
			s.auth.users.load()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, testUsers()).withPage(loginpage.Config{})
			cookie := s.enter("scopey")
			if cookie.MaxAge != 1800 {
				t.Errorf("the browser keeps it for %d s", cookie.MaxAge)
			}
			tt.ends(s, cookie)
			for path, want := range map[string]int{"/auth": tt.status, "/login": 200} {
				r := httptest.NewRequest("GET", path, nil)
				r.Header.Set("X-Forwarded-Proto", "http")
				r.AddCookie(cookie)
				w := s.do(r)
				if w.Code != want || path == "/login" && !strings.Contains(w.Body.String(), tt.shows) {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
			}
		})
	}
}

// TestLoginPageGuessing checks that a guess at the page is one at /token, and the other
// way round: the same counts, and the same lines in the log.
func TestLoginPageGuessing(t *testing.T) {
	for _, username := range []string{"johndoe", "alice", "nobody"} {
		t.Run(username, func(t *testing.T) {
			s := newService(t, testUsers()).withPage(loginpage.Config{})
			for i, path := range []string{"/login", "/token", "/login"} {
				if w := s.post(path, "username="+username+"&password=wrong", ""); w.Code != 400 {
					t.Errorf("guess %d: %d %s", i, w.Code, w.Body)
				}
			}
			lines := strings.Split(regexp.MustCompile(`time=\S+ `).ReplaceAllString(s.log.String(), ""), "\n")
			last := lines[len(lines)-4:]
			if last[0] != last[1] || last[1] != last[2] || !strings.Contains(last[0], "login failed") {
				t.Errorf("the log is\n%s", s.log)
			}
			w := s.post("/login", "username="+username+"&password="+cmp.Or(passwords[username], "any"), "")
			body := w.Body.String()
			if w.Code != 429 || w.Header().Get("Retry-After") != "1" || !strings.Contains(body, "Try again in 1 second.") ||
				strings.Contains(body, "disabled") {
				t.Errorf("the fourth: %d %s", w.Code, w.Body)
			}
		})
	}
	s := newService(t, testUsers()).withPage(loginpage.Config{})
	tokens := s.memory.Live()
	w := s.post("/login", "username=alice&password=secret2", "")
	if w.Code != 403 || !strings.Contains(w.Body.String(), "disabled") || w.Header()["Set-Cookie"] != nil ||
		s.memory.Live() != tokens {
		t.Errorf("a disabled user: %d %s, and %d tokens", w.Code, w.Body, s.memory.Live())
	}
	s.auth.tokens = brokenStore{s.memory, true}
	w = s.post("/login", "username=johndoe&password=secret", "")
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("without a store: %d %v", w.Code, w.Header())
	}
}

// # The other paths

var otherRows = []row{
	{name: "root", request: "GET /", status: 307, headers: map[string]string{"Location": "docs"}},
	{name: "root, POST", request: "POST /",
		status: 405, headers: map[string]string{"Allow": "GET, HEAD"}, want: detail("Method Not Allowed")},
	{name: "docs, HEAD", request: "HEAD /docs", headers: map[string]string{
		"Content-Type":           "text/html; charset=utf-8",
		"Cache-Control":          "no-cache",
		"X-Content-Type-Options": "nosniff",
		"Content-Security-Policy": "default-src 'none'; " +
			"script-src 'self' " + cdn + "/swagger-ui-bundle.js; style-src 'self' " + cdn + "/swagger-ui.css; " +
			"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}},
	{name: "docs, POST", request: "POST /docs",
		status: 405, headers: map[string]string{"Allow": "GET, HEAD"}, want: detail("Method Not Allowed")},
	{name: "docs, slash", request: "GET /docs/",
		status: 307, headers: map[string]string{"Location": "../docs"}},
	{name: "docs, the template itself", request: "GET /docs/page.html", status: 404, want: detail("Not Found")},
	{name: "docs, Swagger UI comes from the CDN", request: "GET /docs/swagger-ui.css",
		status: 404, want: detail("Not Found")},
	{name: "docs, script", request: "HEAD /docs/page.js",
		headers: map[string]string{"Content-Type": "text/javascript; charset=utf-8"}},
	{name: "docs, style sheet", request: "HEAD /docs/page.css",
		headers: map[string]string{"Content-Type": "text/css; charset=utf-8"}},
	{name: "openapi", request: "HEAD /openapi.json",
		headers: map[string]string{"Content-Type": "application/json"}},
	{name: "healthz", request: "GET /healthz",
		headers: map[string]string{"Content-Type": "application/json"}, want: `{"status":"ok"}`},
	{name: "livez", request: "GET /livez", want: `{"status":"ok"}`},
	{name: "healthz, POST", request: "POST /healthz",
		status: 405, headers: map[string]string{"Allow": "GET, HEAD"}, want: detail("Method Not Allowed")},
	{name: "slash, query kept", request: "GET /users/me/?a=b",
		status: 307, headers: map[string]string{"Location": "../../users/me?a=b"}},
}

// TestNotBefore logs a user out half a second after a login, and wants logins of the
// same second to work, and to stay so.
func TestNotBefore(t *testing.T) {
	second := time.Unix(1700000000, 0)
	s := newService(t, testUsers())
	gate := s.login("gate", "introspect")
	load := func(notBefore string) {
		t.Helper()
		s.write(strings.Replace(testUsers(), `"scopey": {`, `"scopey": {`+notBefore, 1))
		if err := s.auth.users.load(); err != nil {
			t.Fatal(err)
		}
	}
	loginAt := func(millis time.Duration) string {
		s.clock = second.Add(millis * time.Millisecond)
		return s.login("scopey")
	}
	const out, outAgain = `"not_before": "2023-11-14T22:13:20.5Z", `, `"not_before": "2023-11-14T22:13:20.8Z", `
	before, meanwhile := loginAt(499), loginAt(501) // meanwhile: the file has changed, and is not loaded yet
	load(out)
	after, behind := loginAt(600), loginAt(-5000)
	for _, step := range []struct {
		name      string
		notBefore string
		lives     []string
		ends      []string
	}{
		{name: "logged out", notBefore: out, lives: []string{meanwhile, after, behind}, ends: []string{before}},
		{name: "by the same file again", notBefore: out, lives: []string{meanwhile, after, behind}, ends: []string{before}},
		{name: "again", notBefore: outAgain, ends: []string{before, meanwhile, after, behind}},
		{name: "by a later zone", notBefore: `"not_before": "2023-11-15T00:13:20.5+02:00", `, lives: []string{after},
			ends: []string{before}},
		{name: "by a file of yesterday", lives: []string{before, meanwhile, after, behind}},
	} {
		t.Run(step.name, func(t *testing.T) {
			load(step.notBefore)
			s.clock = second.Add(time.Minute)
			for _, token := range append(step.lives, step.ends...) {
				status, active := 200, `"active":true`
				if slices.Contains(step.ends, token) {
					status, active = 401, `{"active":false}`
				}
				if w := s.me(token); w.Code != status {
					t.Errorf("status %d, want %d", w.Code, status)
				}
				if w := s.post("/introspect", "token="+token, gate); !strings.Contains(w.Body.String(), active) {
					t.Errorf("introspection %s, want %s", w.Body, active)
				}
			}
		})
	}
}

// TestLifetimeOfOnesOwn gives users tokens that live shorter and longer than the others'.
func TestLifetimeOfOnesOwn(t *testing.T) {
	user := func(name, rest string) string {
		return fmt.Sprintf(`%q: {"hashed_password": %q, "scopes": ["introspect"]%s}`, name, hashOf(passwords[name]), rest)
	}
	for _, tt := range []struct {
		name     string
		field    string
		lifetime time.Duration
	}{
		{name: "the service's", lifetime: 30 * time.Minute},
		{name: "null", field: `, "token_ttl": null`, lifetime: 30 * time.Minute},
		{name: "shorter", field: `, "token_ttl": "1s"`, lifetime: time.Second},
		{name: "longer", field: `, "token_ttl": "168h"`, lifetime: 168 * time.Hour},
		{name: "the longest", field: `, "token_ttl": "87600h"`, lifetime: 87600 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, "{"+user("johndoe", tt.field)+","+user("gate", "")+"}").withPage(loginpage.Config{})
			if kept := int64(s.enter("johndoe").MaxAge); kept != int64(tt.lifetime/time.Second) {
				t.Errorf("the browser keeps the cookie for %d s", kept)
			}
			w, seconds := s.post("/token", "username=johndoe&password=secret", ""), int64(tt.lifetime/time.Second)
			var granted struct {
				AccessToken string `json:"access_token"`
				ExpiresIn   int64  `json:"expires_in"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &granted); err != nil || granted.ExpiresIn != seconds {
				t.Errorf("%s, want expires_in of %d", w.Body, seconds)
			}
			exp := fmt.Sprintf(`"exp":%d}`, s.clock.Unix()+seconds)
			w = s.post("/introspect", "token="+granted.AccessToken, granted.AccessToken)
			if !strings.Contains(w.Body.String(), exp) {
				t.Errorf("introspection %s, want %s", w.Body, exp)
			}
			s.reload("{" + user("johndoe", `, "token_ttl": "5m"`) + "}") // which counts for the next login
			s.clock = s.clock.Add(tt.lifetime - 1)
			if w := s.me(granted.AccessToken); w.Code != 200 {
				t.Errorf("a moment before its end: %d", w.Code)
			}
			s.clock = s.clock.Add(1)
			if w := s.me(granted.AccessToken); w.Code != 401 {
				t.Errorf("at its end: %d", w.Code)
			}
		})
	}
}

// # The whole program

// started is a program that run is running.
type started struct {
	addr string
	log  *syncBuffer
	stop context.CancelFunc
	done chan error
}

var listening = regexp.MustCompile(`msg=listening addr=(\S+)`)

// start runs the whole program on a free port and waits until it listens.
func start(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &started{log: &syncBuffer{}, stop: stop, done: make(chan error, 1)}
	go func() { s.done <- run(ctx, append(args, "-addr", "127.0.0.1:0"), nil, s.log) }()
	s.waitFor(t, listening.String())
	s.addr = listening.FindStringSubmatch(s.log.String())[1]
	return s
}

// waitFor waits until the log matches.
func (s *started) waitFor(t *testing.T, pattern string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !regexp.MustCompile(pattern).MatchString(s.log.String()) {
		select {
		case err := <-s.done:
			t.Fatalf("ended: %v\n%s", err, s.log)
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in the log:\n%s", pattern, s.log)
		}
	}
}

func (s *started) waitForEnd(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if !strings.HasSuffix(s.log.String(), "msg=stopped\n") {
		t.Errorf("the log does not end with the stop:\n%s", s.log)
	}
}

// TestRun runs the tutorial's session against the whole program, with its demo
// users. What an operator sees of the program is tested in e2e.
func TestRun(t *testing.T) {
	s := start(t)
	ask := func(r *http.Request, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	for _, tt := range []struct{ username, password, want string }{
		{username: "johndoe", password: "secret", want: johndoe},
		{username: "alice", password: "secret2", want: detail("Inactive user")},
	} {
		form := strings.NewReader("username=" + tt.username + "&password=" + tt.password)
		r, err := http.NewRequest("POST", "http://"+s.addr+"/token", form)
		r.Header.Set("Content-Type", urlencoded)
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(ask(r, err)), &answer); err != nil {
			t.Fatal(err)
		}
		r, err = http.NewRequest("GET", "http://"+s.addr+"/users/me", nil)
		r.Header.Set("Authorization", "Bearer "+answer.AccessToken)
		if got := ask(r, err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.username, got, tt.want)
		}
	}
	s.stop()
	s.waitForEnd(t)
}

// quiet returns a service without a log.
func quiet(b *testing.B, usersJSON string) *service {
	s := newService(b, usersJSON)
	s.auth.log = slog.New(slog.DiscardHandler)
	return s
}

// BenchmarkTokensFile measures a login with the tokens in memory and in a file, at
// bcrypt's lowest cost: by one client, one after the other, and by 64 clients.
func BenchmarkTokensFile(b *testing.B) {
	services := func(b *testing.B) []*service {
		list := []*service{quiet(b, testUsers()), quiet(b, testUsers())}
		file, err := tokensfile.Open(tokensfile.Config{File: filepath.Join(b.TempDir(), "tokens")}, list[1].auth.log)
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan struct{})
		go func() { file.Run(ctx); close(done) }()
		b.Cleanup(func() { stop(); <-done })
		list[1].auth.tokens = file
		for _, s := range list {
			s.auth.now = time.Now
		}
		return list
	}
	login := func(b *testing.B, s *service, client string) time.Duration {
		began := time.Now()
		r := formRequest("/token", "username=johndoe&password=secret")
		r.RemoteAddr = client + ":1234"
		if w := s.do(r); w.Code != http.StatusOK {
			b.Errorf("login: %d %s", w.Code, w.Body)
		}
		return time.Since(began)
	}
	names := []string{"memory", "file"}
	b.Run("one client", func(b *testing.B) {
		list := services(b)
		var took [2][]time.Duration
		for b.Loop() {
			for i, s := range list {
				took[i] = append(took[i], login(b, s, "192.0.2.1"))
			}
		}
		for i, name := range names {
			slices.Sort(took[i])
			b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds()), name+"-median-µs")
			b.ReportMetric(float64(took[i][len(took[i])*99/100].Microseconds()), name+"-p99-µs")
		}
	})
	b.Run("64 clients", func(b *testing.B) {
		list := services(b)
		var took [2]time.Duration
		for b.Loop() { // sixteen logins of each client
			for i, s := range list {
				began := time.Now()
				var clients sync.WaitGroup
				for client := range 64 {
					clients.Go(func() {
						for range 16 {
							login(b, s, fmt.Sprint("192.0.2.", client))
						}
					})
				}
				clients.Wait()
				took[i] += time.Since(began)
			}
		}
		for i, name := range names {
			b.ReportMetric(float64(b.N*64*16)/took[i].Seconds(), name+"-logins/s")
		}
		b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "file/memory")
	})
}
