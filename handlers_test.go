package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"math/big"
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
	"syscall"
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
	"johndoe": {"full_name": "John Doe", "email": "johndoe@example.com", "disabled": false, "hashed_password": "` + hashOf("secret") + `"},
	"alice": {"full_name": "Alice Wonderson", "email": "alice@example.com", "disabled": true, "hashed_password": "` + hashOf("secret2") + `"},
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
	s := &service{t: t, log: &syncBuffer{}, file: filepath.Join(t.TempDir(), "users.json"), clock: time.Unix(1700000000, 0)}
	s.write(usersJSON)
	s.memory = &tokens.Memory{Now: func() time.Time { return s.clock }}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	s.auth = &auth{
		users:     &users{file: s.file, log: log},
		tokens:    s.memory,
		now:       func() time.Time { return s.clock },
		tokenTTL:  30 * time.Minute,
		admission: admission.New(3, func() time.Time { return s.clock }),
		clients:   &clientaddr.Clients{Proxies: clientaddr.Proxies{netip.MustParsePrefix("10.0.0.0/8")}, Log: log},
		forms:     form.NewReader(),
		files:     watch.New(log),
		log:       log,
	}
	s.auth.services = clientauth.New(log, s.auth.admission, s.auth.users.find, s.auth.users.authenticate, (*storedUser).client)
	if err := s.auth.users.load(); err != nil {
		t.Fatal(err)
	}
	var err error
	s.pages, err = (&swaggerui.Config{On: true}).Pages(docs, true, func() []string { return s.auth.users.loaded.Load().scopes })
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

func (s *service) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// post sends a form, with the bearer token if there is one.
func (s *service) post(path, form, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
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
	w := s.post("/token", "username="+username+"&password="+passwords[username]+"&scope="+strings.Join(scopes, "+"), "")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK || answer.AccessToken == "" {
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
		"login duplicate username, right one last":  {422, `{"detail":[{"type":"value_error","loc":["body","username"],"msg":"Field must not be repeated","input":null}]}`},
		"login duplicate username, right one first": {422, `{"detail":[{"type":"value_error","loc":["body","username"],"msg":"Field must not be repeated","input":null}]}`},
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

// row is a request, and what the client gets for it.
type row struct {
	name    string
	request string            // method and target, if not those of the path
	kind    string            // the Content-Type; if empty, a body is a urlencoded form
	body    string            // {name} and {name scope} become tokens
	auth    string            // Authorization, with tokens as in the body
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
	{name: "a tab", auth: "Bearer\t{johndoe}", status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "an unknown token", auth: "Bearer x",
		status: 401, headers: bearer, want: detail("Not authenticated")},
	{name: "by PUT", request: "PUT /users/me", auth: "Bearer {johndoe}",
		status: 405, headers: map[string]string{"Allow": "GET, HEAD"}, want: detail("Method Not Allowed")},
}

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
		status: 422, want: missing("", "token")},
	{name: "token twice", body: "token=x&token=x", status: 422, want: repeated("token")},
	{name: "too large", body: "token=" + strings.Repeat("x", 64<<10), status: 413, want: tooLarge},
	{name: "by GET", request: "GET /revoke",
		status: 405, headers: map[string]string{"Allow": "POST"},
		want: refused("invalid_request", "Method Not Allowed")},
}

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
}

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
					r.Header.Set("Authorization", withTokens(tt.auth))
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

// TestDescription wants the description to be consistent, and each route
// described.
func TestDescription(t *testing.T) {
	var served []string
	for _, route := range routes(&auth{}, nil) {
		served = append(served, cmp.Or(route.Method, "GET")+" "+route.Path)
	}
	for _, fault := range openAPI().Faults(served) {
		t.Error(fault)
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
	s := newService(t, testUsers())
	known := s.login("gate", "introspect")
	const resource, protocol = `{"detail":"The tokens cannot be reached, try again later"}`,
		`{"detail":"The tokens cannot be reached, try again later","error":"temporarily_unavailable","error_description":"The tokens cannot be reached, try again later"}`
	for _, tt := range []struct {
		name          string
		up            bool
		method, path  string
		bearer, token string
		status        int
		body          string
	}{
		{"login", true, "POST", "/token", "", "", 503, protocol},
		{"a known token", true, "GET", "/users/me", known, "", 200, `{"username":"gate","email":null,"full_name":null,"disabled":null}`},
		{"an unknown token", true, "GET", "/users/me", "unknown", "", 503, resource},
		{"no token", true, "GET", "/users/me", "", "", 401, `{"detail":"Not authenticated"}`},
		{"auth with a known token", true, "GET", "/auth", known, "", 200, ""},
		{"auth with an unknown token", true, "GET", "/auth", "unknown", "", 503, resource},
		{"revoke a known token", true, "POST", "/revoke", "", known, 503, protocol},
		{"revoke an unknown token", true, "POST", "/revoke", "", "unknown", 503, protocol},
		{"introspect an unknown token", true, "POST", "/introspect", known, "unknown", 503, protocol},
		{"introspect by an unknown token", true, "POST", "/introspect", "unknown", known, 503, protocol},
		{"healthz", true, "GET", "/healthz", "", "", 200, `{"status":"ok","detail":"what is wrong"}`},
		{"healthz before the first list", false, "GET", "/healthz", "", "", 503, resource},
		{"livez before the first list", false, "GET", "/livez", "", "", 200, `{"status":"ok"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.auth.tokens = brokenStore{s.memory, tt.up}
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader("username=johndoe&password=secret&token="+tt.token))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if tt.bearer != "" {
				r.Header.Set("Authorization", "Bearer "+tt.bearer)
			}
			w := s.do(r)
			retry := ""
			if tt.status == 503 {
				retry = "1"
			}
			if w.Code != tt.status || w.Body.String() != tt.body || w.Header().Get("Retry-After") != retry {
				t.Errorf("%d %s, Retry-After %q; want %d %s", w.Code, w.Body, w.Header().Get("Retry-After"), tt.status, tt.body)
			}
		})
	}
	if logins, revocations := s.auth.counts.NotIssued.Load(), s.auth.counts.NotRevoked.Load(); logins != 1 || revocations != 1 {
		t.Errorf("%d logins and %d revocations are counted as unavailable, want 1 of each", logins, revocations)
	}
	if text := s.log.String(); strings.Contains(text, "token revoked") {
		t.Errorf("the log has a revocation that did not happen:\n%s", text)
	}
}

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

// TestLoginPageOff wants nothing to know of the page unless it is on.
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

// TestLoginPageCookie wants only /auth and the page to read the cookie.
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

// TestLoginPageEnds wants whatever ends a token to end a session.
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

// TestLoginPageGuessing wants a guess at the page to be one at /token, and the other
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

// TestLargeFormsWait posts a large form while slow senders have all 32 places, and
// ends its request, as the service does when it stops.
func TestLargeFormsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, testUsers())
		post := func(ctx context.Context, body io.Reader) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, "POST", "/token", body)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
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
		const detail = "Too many large forms are being read, try again later"
		want := `{"detail":"` + detail + `","error":"temporarily_unavailable","error_description":"` + detail + `"}`
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || w.Body.String() != want {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}

// TestCORS wants a page of an allowed origin to read errors too, and only a
// gateway to decide about preflights at /auth. Package cors has the rules.
func TestCORS(t *testing.T) {
	const app = "https://app.example.com"
	for _, tt := range []struct {
		name, origin, request string
		status                int
		allowed               string // Access-Control-Allow-Origin
	}{
		{"401", app, "GET /users/me", 401, app},
		{"404", app, "GET /nowhere", 404, app},
		{"429", app, "POST /token", 429, app},
		{"preflight", app, "OPTIONS /token", 204, app},
		{"preflight that a gateway asks about", app, "OPTIONS /auth", 401, app},
		{"other origin", "https://evil.example", "GET /users/me", 401, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, testUsers())
			const wrong = "username=johndoe&password=wrong"
			for range 3 {
				s.post("/token", wrong, "")
			}
			s.Handler = cors.Origins{app}.Handler(s.Handler, guardPath, slog.New(slog.DiscardHandler))
			method, path, _ := strings.Cut(tt.request, " ")
			r := httptest.NewRequest(method, path, strings.NewReader(wrong))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
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

func TestChain(t *testing.T) {
	s := newService(t, testUsers())
	johndoe, alice, gate := s.login("johndoe"), s.login("alice"), s.login("gate", "introspect")
	for _, tt := range []struct {
		name                               string
		headers                            []string
		bearer, current, active, introspec error
	}{
		{"no header", nil, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated},
		{"other scheme", []string{"Basic " + johndoe}, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated},
		{"two headers", []string{"Bearer " + johndoe, "Bearer " + johndoe}, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated},
		{"spaces and no token", []string{"Bearer   "}, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated},
		{"no token", []string{"Bearer "}, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated},
		{"unknown token", []string{"Bearer x"}, nil, errNotAuthenticated, errNotAuthenticated, errNotAuthenticated},
		{"disabled user", []string{"Bearer " + alice}, nil, nil, errInactiveUser, errInactiveUser},
		{"active user", []string{"bEARER " + johndoe}, nil, nil, nil, errInsufficientScope("introspect")},
		{"user with the scope", []string{"Bearer " + gate}, nil, nil, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["Authorization"] = tt.headers
			check := func(link string, got, want error) {
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", link, got, want)
				}
			}
			_, err := bearerToken(r)
			check("bearerToken", err, tt.bearer)
			_, err = s.auth.currentUser(r)
			check("currentUser", err, tt.current)
			_, err = s.auth.currentActiveUser(r)
			check("currentActiveUser", err, tt.active)
			_, err = s.auth.scoped("introspect")(r)
			check("scoped", err, tt.introspec)
		})
	}
	t.Run("an error without a status reveals nothing", func(t *testing.T) {
		handler := s.auth.handler(depends(bearerToken, func(http.ResponseWriter, *http.Request, string) error { return errors.New("inner detail") }), false)
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer x")
		handler.ServeHTTP(w, r)
		if w.Code != 500 || w.Body.String() != `{"detail":"Internal Server Error"}` {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if !strings.Contains(s.log.String(), `level=ERROR msg="unexpected error" error="inner detail"`) {
			t.Errorf("it is not in the log:\n%s", s.log)
		}
	})
	t.Run("an error that wraps one with a status", func(t *testing.T) {
		handler := s.auth.handler(func(http.ResponseWriter, *http.Request) error { return fmt.Errorf("outer: %w", errInactiveUser) }, true)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 400 || w.Body.String() != `{"detail":"Inactive user","error":"invalid_token","error_description":"Inactive user"}` {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
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

func TestTokenEndsAtItsSecond(t *testing.T) {
	s := newService(t, testUsers())
	token, gate := s.login("johndoe"), ""
	for _, tt := range []struct {
		after  time.Duration
		status int
		active string
	}{
		{0, 200, `"active":true`},
		{30*time.Minute - time.Nanosecond, 200, `"active":true`},
		{30 * time.Minute, 401, `"active":false`},
		{time.Hour, 401, `"active":false`},
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
	if w := s.post("/introspect", "token="+token, s.login("gate", "introspect")); w.Body.String() != `{"active":false}` {
		t.Errorf("introspection of a revoked token: %s", w.Body)
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
		{"alive", func() {}, 200, `{"active":true,"username":"scopey","sub":"scopey","scope":"items:read","token_type":"bearer","iat":1700000000,"exp":1700001800}`},
		{"of a disabled user", func() {
			s.write(`{"scopey": {"disabled": true, "hashed_password": "` + hashOf("secret3") + `"}}`)
			s.auth.users.load()
		}, 400, `{"detail":"Inactive user","error":"invalid_token","error_description":"Inactive user"}`},
		{"revoked", func() { s.post("/revoke", "token="+token, "") }, 401, `{"detail":"Not authenticated","error":"invalid_token","error_description":"Not authenticated"}`},
	} {
		tt.change()
		if w := s.post("/introspect", "token="+token, token); w.Code != tt.status || w.Body.String() != tt.want {
			t.Errorf("%s: %d %s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

// introspectAs introspects a token with a name and a secret in HTTP Basic.
func (s *service) introspectAs(name, secret, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/introspect", strings.NewReader("token="+token))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(name, secret)
	return s.do(r)
}

// TestClientCredentials guesses at client credentials, and changes the users
// between requests.
func TestClientCredentials(t *testing.T) {
	s := newService(t, testUsers())
	token := s.login("scopey")
	gate := func(rest string) func() {
		return func() {
			s.write(`{"scopey": {"hashed_password": "` + hashOf("secret3") + `"}` + rest + `}`)
			if err := s.auth.users.load(); err != nil {
				t.Fatal(err)
			}
		}
	}
	fresh := newHashOf("fresh")
	for _, tt := range []struct {
		name, secret string
		before       func()
		status       int
	}{
		{"right", "secret4", nil, 200},
		{"hashed anew", "secret4", gate(`, "gate": {"hashed_password": "` + newHashOf("secret4") + `", "scopes": ["introspect"]}`), 200},
		{"another password", "secret4", gate(`, "gate": {"hashed_password": "` + fresh + `", "scopes": ["introspect"]}`), 401},
		{"the new one", "fresh", nil, 200},
		{"the scope withdrawn", "fresh", gate(`, "gate": {"hashed_password": "` + fresh + `"}`), 401},
		{"disabled", "secret4", gate(`, "gate": {"hashed_password": "` + hashOf("secret4") + `", "scopes": ["introspect"], "disabled": true}`), 401},
		{"enabled", "secret4", gate(`, "gate": {"hashed_password": "` + hashOf("secret4") + `", "scopes": ["introspect"]}`), 200},
		{"removed", "secret4", gate(""), 401},
		{"back again", "secret4", gate(`, "gate": {"hashed_password": "` + hashOf("secret4") + `", "scopes": ["introspect"]}`), 200},
		{"a guess", "guess", nil, 401},
		{"and the right one", "secret4", nil, 200},
	} {
		if tt.before != nil {
			tt.before()
		}
		if w := s.introspectAs("gate", tt.secret, token); w.Code != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, w.Code, w.Body, tt.status)
		}
	}
	const login = "username=gate&password=secret4"
	t.Run("guessing here is guessing there", func(t *testing.T) {
		ask := func(path, form, client string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", path, strings.NewReader(form))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.RemoteAddr = client + ":1234" // an address that gate has not logged in from
			return s.do(r)
		}
		for range 3 {
			ask("/introspect", "token=x&client_id=g%61te&client_secret=guess", "198.51.100.1")
			ask("/token", "username=gate&password=guess", "203.0.113.1")
		}
		if w := ask("/token", "username=gate&password=secret4", "198.51.100.1"); w.Code != 429 {
			t.Errorf("login after three guesses: %d", w.Code)
		}
		if w := ask("/introspect", "token=x&client_id=gate&client_secret=secret4", "203.0.113.1"); w.Code != 429 || !strings.Contains(w.Body.String(), `"error":"temporarily_unavailable"`) {
			t.Errorf("introspection after three wrong logins: %d %s", w.Code, w.Body)
		}
		s.clock = s.clock.Add(time.Minute)
		if w := ask("/token", "username=gate&password=secret4", "198.51.100.1"); w.Code != 200 {
			t.Errorf("login a minute later: %d", w.Code)
		}
	})
	t.Run("two headers", func(t *testing.T) {
		r := httptest.NewRequest("POST", "/introspect", strings.NewReader("token=x"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header["Authorization"] = []string{"Bearer x", "Bearer x"}
		if w := s.do(r); w.Code != 400 || !strings.Contains(w.Body.String(), `"error":"invalid_request"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	for _, secret := range []string{"secret4", "secret5", "fresh", "guess"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log contains %q", secret)
		}
	}
}

// TestKeptConnection has a client's secret guessed at its own address, until a new
// connection has to wait for a second. The connection that the client keeps does not.
func TestKeptConnection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(file, []byte(testUsers()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "-users", file)
	ask := func(client *http.Client, secret string) int {
		r, err := http.NewRequest("POST", "http://"+s.addr+"/introspect", strings.NewReader("token=x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("gate", secret)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		return response.StatusCode
	}
	kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	anew := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if status := ask(kept, "secret4"); status != 200 {
		t.Errorf("%d, want 200", status)
	}
	for range 10 {
		if status := ask(anew, "guess"); status != 401 {
			t.Errorf("a guess: %d, want 401", status)
		}
	}
	guessed := time.Now()
	if status := ask(kept, "secret4"); status != 200 || time.Since(guessed) >= time.Second {
		t.Errorf("on the kept connection: %d after %v", status, time.Since(guessed))
	}
	if status := ask(anew, "secret4"); status != 200 || time.Since(guessed) < 900*time.Millisecond {
		t.Errorf("on a new connection: %d after %v", status, time.Since(guessed))
	}
	kept.CloseIdleConnections()
	s.stop()
	s.waitForEnd(t)
}

// TestUsersChange reloads the users while they have tokens.
func TestUsersChange(t *testing.T) {
	gate := `, "gate": {"hashed_password": "` + hashOf("secret4") + `", "scopes": ["introspect"]}`
	user := func(name, rest string) string {
		return `{"` + name + `": {"hashed_password": "` + hashOf(passwords[name]) + `"` + rest + `}` + gate + `}`
	}
	for _, tt := range []struct {
		name, users string
		loads       bool
		status      int
		introspect  string
	}{
		{"unchanged", testUsers(), true, 200, `"scope":"items:read"`},
		{"disabled", user("scopey", `, "disabled": true`), true, 400, `{"active":false}`},
		{"removed", user("johndoe", ""), true, 401, `{"active":false}`},
		{"another password", `{"scopey": {"hashed_password": "` + newHashOf("changed") + `", "scopes": ["items:read"]}` + gate + `}`, true, 401, `{"active":false}`},
		{"the same password, hashed anew", `{"scopey": {"hashed_password": "` + newHashOf("secret3") + `", "scopes": ["items:read"]}` + gate + `}`, true, 401, `{"active":false}`},
		{"the same password, the hash's prefix changed", `{"scopey": {"hashed_password": "` + strings.Replace(hashOf("secret3"), "$2a$", "$2b$", 1) + `", "scopes": ["items:read"]}` + gate + `}`, true, 401, `{"active":false}`},
		{"the same hash", user("scopey", `, "scopes": ["items:read"]`), true, 200, `"scope":"items:read"`},
		{"scope withdrawn", user("scopey", `, "scopes": ["items:write"]`), true, 200, `"sub":"scopey","token_type"`},
		{"broken file", "{", false, 200, `"scope":"items:read"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, testUsers())
			token, gate := s.login("scopey", "items:read"), s.login("gate", "introspect")
			s.write(tt.users)
			if err := s.auth.users.load(); (err == nil) != tt.loads {
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

func TestUsersFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"johndoe": {}}`)
	var stderr syncBuffer
	err := run(t.Context(), []string{"-users", file, "-addr", "127.0.0.1:0"}, noEnv, &stderr)
	if want := "-users: " + file + `: user "johndoe": no hashed_password`; err == nil || err.Error() != want || !atMost.MatchString(stderr.String()) {
		t.Errorf("error %v, want %s; logged %q", err, want, &stderr)
	}
	write(`{"johndoe": {"hashed_password": "` + hashOf("secret") + `"}}`)
	s := start(t, "-users", file)
	s.stop()
	s.waitForEnd(t)
}

func TestHashesOfOtherTools(t *testing.T) {
	for _, version := range []string{"$2a$", "$2b$", "$2y$"} {
		s := newService(t, `{"johndoe": {"hashed_password": "`+strings.Replace(hashOf("secret"), "$2a$", version, 1)+`"}}`)
		s.login("johndoe")
		if w := s.post("/token", "username=johndoe&password=wrong", ""); w.Code != 400 {
			t.Errorf("%s: wrong password: %d", version, w.Code)
		}
		if !strings.Contains(s.log.String(), `level=WARN msg="some users have weak hashes, hash their passwords again" users=`) {
			t.Errorf("no warning of a cost below 10:\n%s", s.log)
		}
	}
}

// TestNobodyCostsAsMuch wants the hash that stands for an unknown username to be
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

var noEnv []string

// atMost matches the log of a start that failed: what was loaded, if anything.
var atMost = regexp.MustCompile(`^(\S+ level=INFO msg=(starting|"users loaded") .*\n|\S+ level=WARN .*\n)*$`)

func TestFlags(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	const ttl = "must be a duration such as 30m or 8h, in whole seconds, from 1s to 87600h (ten years)"
	for _, tt := range []struct {
		name string
		args string
		env  string // NAME=value
		err  string // how it begins; "" for help
	}{
		{"unknown flag", "-nope", "", "unknown flag -nope (-h lists the flags)"},
		{"unknown command", "serve", "", `unknown argument "serve" (-h lists the flags)`},
		{"address without a port", "-addr localhost", "", "-addr: listen tcp: address localhost: missing port in address (write it as host:port, or :port for all addresses)"},
		{"address with a bad port", "-addr 127.0.0.1:99999", "", "-addr: listen tcp: address 99999: invalid port (write it as host:port, or :port for all addresses)"},
		{"address from the environment", "", "OAUTH2_ADDR=localhost", "-addr: listen tcp: address localhost: missing port in address (write it as host:port, or :port for all addresses)"},
		{"the flag wins", "-addr flag", "OAUTH2_ADDR=env", "-addr: listen tcp: address flag: missing port in address (write it as host:port, or :port for all addresses)"},
		{"ttl no duration", "-token-ttl soon", "", `invalid value "soon" for flag -token-ttl: ` + ttl},
		{"ttl too long", "-token-ttl 2500000h", "", `invalid value "2500000h" for flag -token-ttl: ` + ttl},
		{"ttl from the environment", "", "OAUTH2_TOKEN_TTL=soon", `invalid value "soon" for OAUTH2_TOKEN_TTL: ` + ttl},
		{"max-failures negative", "-max-failures -1", "", `invalid value "-1" for flag -max-failures: it must be a whole number from 0 to 1000000`},
		{"shutdown-delay negative", "", "OAUTH2_SHUTDOWN_DELAY=-1s", `invalid value "-1s" for OAUTH2_SHUTDOWN_DELAY: it must be a duration such as 10s, 0 or more`},
		{"trusted proxy malformed", "-trusted-proxies 10.0.0.0/8,proxy", "", `invalid value "10.0.0.0/8,proxy" for flag -trusted-proxies: "proxy" is neither an address nor a range such as 10.0.0.0/8`},
		{"trusted range malformed", "", "OAUTH2_TRUSTED_PROXIES=10.0.0.0/33", `invalid value "10.0.0.0/33" for OAUTH2_TRUSTED_PROXIES: "10.0.0.0/33" is neither an address nor a range such as 10.0.0.0/8`},
		{"origin with a path", "-cors-origins https://a.example/", "", `invalid value "https://a.example/" for flag -cors-origins: "https://a.example/" is not an origin as browsers send it, did you mean https://a.example?`},
		{"origin without a scheme", "", "OAUTH2_CORS_ORIGINS=a.example", `invalid value "a.example" for OAUTH2_CORS_ORIGINS: "a.example" is not an origin such as https://app.example.com`},
		{"docs assets missing", "-addr 127.0.0.1:0 -docs-assets " + dir, "", "-docs-assets: open " + dir + "/swagger-ui-bundle.js: no such file or directory"},
		{"etcd's certificate alone", "-etcd https://127.0.0.1:1 -etcd-cert a", "", "-etcd-cert and -etcd-key go together: give both or neither"},
		{"etcd's user and no etcd", "", "OAUTH2_ETCD_USER=a",
			"-etcd-ca, -etcd-cert or OAUTH2_ETCD_USER is set, but -etcd is not"},
		{"etcd's prefix and no etcd", "-etcd-prefix /a/", "", "-etcd-prefix is set, but -etcd is not"},
		{"etcd's password file and no user", "-etcd http://127.0.0.1:1", "OAUTH2_ETCD_PASSWORD_FILE=a", "OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"},
		{"etcd's password and no user", "-etcd http://127.0.0.1:1", "OAUTH2_ETCD_PASSWORD=a",
			"OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"},
		{"etcd's user and no password", "-etcd http://127.0.0.1:1", "OAUTH2_ETCD_USER=a",
			"OAUTH2_ETCD_USER is set, but neither OAUTH2_ETCD_PASSWORD nor OAUTH2_ETCD_PASSWORD_FILE is"},
		{"a password for an etcd that is not given", "", "OAUTH2_ETCD_PASSWORD=a",
			"OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"},
		{"etcd no URL", "-addr 127.0.0.1:0", "OAUTH2_ETCD=localhost:2379", "-etcd: endpoint 1 is not of the form http://host:2379"},
		{"etcd's password on the command line", "-etcd-password a", "", "unknown flag -etcd-password: set OAUTH2_ETCD_PASSWORD in the environment instead"},
		{"tokens in a file and in etcd", "-etcd http://127.0.0.1:1", "OAUTH2_TOKENS_FILE=tokens", "-tokens-file and -etcd cannot be used together"},
		{"tokens file in no folder", "-addr 127.0.0.1:0 -tokens-file /nonexistent/tokens", "", "-tokens-file /nonexistent/tokens: open /nonexistent/tokens: no such file or directory"},
		{"tokens file a users file", "-addr 127.0.0.1:0 -tokens-file " + garbage, "", "-tokens-file " + garbage + ": not a tokens file, or one of another version"},
		{"docs neither on nor off", "-docs=maybe", "", `invalid boolean value "maybe" for -docs: it must be true or false`},
		{"docs no", "-docs no", "", `unknown argument "no" (-docs is written -docs=true or -docs=false)`},
		{"docs from the environment", "", "OAUTH2_DOCS=no", `invalid value "no" for OAUTH2_DOCS: it must be true or false`},
		{"login page neither on nor off", "-login-page=maybe", "", `invalid boolean value "maybe" for -login-page: it must be true or false`},
		{"login domain a URL", "", "OAUTH2_LOGIN_DOMAIN=https://a.example", `invalid value "https://a.example" for OAUTH2_LOGIN_DOMAIN: it must be a domain such as example.com, in lower case`},
		{"login domain and no page", "-login-domain a.example", "", "-login-domain is set, but -login-page is not"},
		{"log format", "-log-format xml", "", `invalid value "xml" for flag -log-format: it must be text or json`},
		{"no users file", "-addr 127.0.0.1:0 -users /nonexistent", "", "-users: open /nonexistent: no such file or directory"},
		{"users file from the environment", "-addr 127.0.0.1:0", "OAUTH2_USERS=/nonexistent", "-users: open /nonexistent: no such file or directory"},
		{"users file a folder", "-addr 127.0.0.1:0 -users " + dir, "", "-users: read " + dir + ": is a directory"},
		{"certificate alone", "-tls-cert a", "", "-tls-cert and -tls-key go together: give both or neither"},
		{"key alone", "", "OAUTH2_TLS_KEY=a", "-tls-cert and -tls-key go together: give both or neither"},
		{"certificate missing", "-addr 127.0.0.1:0 -tls-cert /nonexistent -tls-key " + key, "", "-tls-cert /nonexistent and -tls-key " + key + ": open /nonexistent: no such file"},
		{"certificate garbage", "-addr 127.0.0.1:0 -tls-cert " + garbage + " -tls-key " + key, "", "-tls-cert " + garbage + " and -tls-key " + key + ": tls: failed to find any PEM data"},
		{"key of the certificate garbage", "-addr 127.0.0.1:0 -tls-cert " + cert + " -tls-key " + garbage, "", "-tls-cert " + cert + " and -tls-key " + garbage + ": tls: failed to find any PEM data"},
		{"healthcheck, nobody there", "healthcheck -addr 127.0.0.1:1", "", "not healthy: "},
		{"healthcheck, bad flag", "healthcheck -nope", "", "unknown flag -nope (-h lists the flags)"},
		{"a misspelled variable", "", "OAUTH2_USER=/etc/users.json",
			`unknown environment variable "OAUTH2_USER", did you mean OAUTH2_USERS? If not, unset it`},
		{"a variable of another spelling", "", "OATH2_USERS=/etc/users.json",
			`unknown environment variable "OATH2_USERS", did you mean OAUTH2_USERS? If not, unset it`},
		{"a variable like no other", "", "OAUTH2_USRES=/etc/users.json",
			`unknown environment variable "OAUTH2_USRES": unset it (-h lists the flags, and each has a variable)`},
		{"a misspelled variable, healthcheck", "healthcheck", "OAUTH2_ADRR=:8000",
			`unknown environment variable "OAUTH2_ADRR", did you mean OAUTH2_ADDR?`},
		{"oauth2-proxy's variable", "-addr nowhere", "OAUTH2_PROXY_TLS_CERT_FILE=a", "-addr: listen tcp: address nowhere"},
		{"help", "-h", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr syncBuffer
			ctx, stop := context.WithCancel(t.Context())
			stop() // so that nothing serves if it is not refused
			err := run(ctx, strings.Fields(tt.args), strings.Fields(tt.env), &stderr)
			if tt.err == "" {
				if err != nil || !strings.Contains(stderr.String(), "-token-ttl duration") {
					t.Errorf("error %v, help %s", err, &stderr)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") || !atMost.MatchString(stderr.String()) {
				t.Errorf("error %v, want %s; logged %q", err, tt.err, &stderr)
			}
		})
	}
}

// TestEmptySettings gives each setting as an empty text, as a flag and in the
// environment, where compose puts one for a variable that is not set. It is
// refused if going without the setting is less safe or less durable.
func TestEmptySettings(t *testing.T) {
	const refused, accepted = "refused", "accepted"
	decided := map[string]string{
		"addr":                      refused, // every interface, on any port
		"users":                     refused, // the tutorial's users
		"tls-cert":                  refused,
		"tls-key":                   refused,
		"tokens-file":               refused,
		"etcd":                      refused,
		"etcd-prefix":               refused, // another service's tokens
		"etcd-ca":                   refused, // any public authority
		"etcd-cert":                 refused,
		"etcd-key":                  refused,
		"token-ttl":                 refused, // it may be longer than was meant
		"max-failures":              refused, // it may be more than was meant
		"docs":                      refused, // they may have been meant to be off
		"docs-assets":               refused, // from the CDN
		"shutdown-delay":            refused, // requests are lost
		"trusted-proxies":           accepted,
		"cors-origins":              accepted,
		"metrics-addr":              accepted,
		"log-format":                accepted,
		"login-page":                accepted,
		"login-domain":              accepted,
		"OAUTH2_ETCD_USER":          refused, // no login to etcd
		"OAUTH2_ETCD_PASSWORD":      refused,
		"OAUTH2_ETCD_PASSWORD_FILE": refused,
	}
	var help syncBuffer
	if err := run(t.Context(), []string{"-h"}, noEnv, &help); err != nil {
		t.Fatal(err)
	}
	var settings []string
	for _, found := range regexp.MustCompile(`(?m)^  -([a-z-]+)|(OAUTH2_ETCD_[A-Z_]+)`).FindAllStringSubmatch(help.String(), -1) {
		settings = append(settings, found[1]+found[2])
	}
	for name := range decided {
		if !slices.Contains(settings, name) {
			t.Errorf("there is no setting %s", name)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop() // so that nothing serves
	for _, name := range settings {
		twin := name
		if !strings.HasPrefix(name, "OAUTH2_") {
			twin = "OAUTH2_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		}
		for _, way := range []struct{ name, args, env string }{
			{"-" + name, "-" + name + "=", ""},
			{twin, "", twin + "="},
		} {
			if way.name == "-"+twin {
				continue // it has no flag
			}
			// Whatever passes ends at an address that is no address.
			err := run(ctx, strings.Fields(way.args), []string{way.env, "OAUTH2_ADDR=nowhere"}, io.Discard)
			if err == nil {
				t.Errorf("%s: it listens on some port", way.name)
				continue
			}
			said := accepted
			if !strings.HasPrefix(err.Error(), "-addr: listen tcp: address nowhere") {
				said = refused
			}
			if said != decided[name] {
				t.Errorf("%s is %s when it is empty, want %q (%v)", way.name, said, decided[name], err)
			}
			empty := strings.HasPrefix(err.Error(), way.name+" is empty: ") ||
				strings.HasPrefix(err.Error(), `invalid value "" for `) && strings.Contains(err.Error(), way.name+": ") ||
				strings.HasPrefix(err.Error(), `invalid boolean value "" for `+way.name)
			if said == refused && !empty {
				t.Errorf("the error does not say that %s is empty: %v", way.name, err)
			}
		}
	}
}

// TestLog sends usernames that would forge a line or fill the disk.
func TestLog(t *testing.T) {
	s := newService(t, testUsers())
	for _, tt := range []struct{ name, form, want string }{
		{"success", "username=scopey&password=secret3&client_id=app&scope=items:read", `level=INFO msg=login client=192.0.2.1 username=scopey client_id=app scope=items:read`},
		{"failure", "username=johndoe&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username=johndoe`},
		{"newline", "username=a%0Atime=2026&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username="a\ntime=2026"`},
		{"escape of a terminal", "username=%1b[2J&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username="\x1b[2J"`},
		{"white space around", "username=+alice%C2%A0%0D%0A&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username=alice`},
		{"only white space", "username=+&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username=""`},
		{"white space around, right", "username=+scopey+&password=secret3", `level=INFO msg=login client=192.0.2.1 username=scopey scope=""`},
		{"a password too long for bcrypt", "username=long&password=" + strings.Repeat("x", 73),
			`level=WARN msg="login failed" client=192.0.2.1 username=long reason="the password has more than 72 bytes"`},
		{"a password too long for bcrypt, of nobody", "username=nobody&password=" + strings.Repeat("é", 37),
			`level=WARN msg="login failed" client=192.0.2.1 username=nobody reason="the password has more than 72 bytes"`},
		{"long", "username=" + strings.Repeat("x", 1000) + "&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username=` + strings.Repeat("x", 64) + `…`},
		{"long, cut in a letter", "username=x" + strings.Repeat("é", 1000) + "&password=hunter2", `level=WARN msg="login failed" client=192.0.2.1 username=x` + strings.Repeat("é", 31) + `…`},
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
	r := httptest.NewRequest("POST", "/token", strings.NewReader("username=johndoe&password=secret"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
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
	refused := `{"detail":"Too many wrong passwords for this username","error":"temporarily_unavailable","error_description":"Too many wrong passwords for this username"}`
	for _, username := range []string{"johndoe", "alice", "nobody"} {
		t.Run(username, func(t *testing.T) {
			s := newService(t, testUsers())
			login := func(password, from string) *httptest.ResponseRecorder {
				r := httptest.NewRequest("POST", "/token", strings.NewReader("username="+username+"&password="+password))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.RemoteAddr = "10.0.0.1:1234" // the trusted proxy
				r.Header.Set("X-Forwarded-For", "6.6.6.6, "+from)
				return s.do(r)
			}
			for range 3 {
				if w := login("wrong", "1.2.3.4"); w.Code != 400 {
					t.Errorf("wrong password: %d", w.Code)
				}
			}
			if w := login(passwords[username]+"x", "1.2.3.4"); w.Code != 429 || w.Header().Get("Retry-After") != "1" || w.Header().Get("Cache-Control") != "no-store" || w.Body.String() != refused {
				t.Errorf("the fourth: %d %v %s", w.Code, w.Header(), w.Body)
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
			r := httptest.NewRequest("POST", "/token", strings.NewReader("username=johndoe&password=secret"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
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
	var refused atomic.Int32
	for range 4 * runtime.GOMAXPROCS(0) {
		clients.Go(func() {
			r := httptest.NewRequestWithContext(ctx, "POST", "/token", strings.NewReader("username=johndoe&password=secret"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := s.do(r)
			if w.Code == 200 {
				hangUp()
				return
			}
			refused.Add(1)
			if w.Code != 503 || w.Body.String() != `{"detail":"Too many logins are waiting","error":"temporarily_unavailable","error_description":"Too many logins are waiting"}` ||
				!regexp.MustCompile(`^([1-9]|1[0-9]|20)$`).MatchString(w.Header().Get("Retry-After")) {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
		})
	}
	clients.Wait()
	if refused.Load() == 0 {
		t.Error("all were served")
	}
}

// TestHalfRequests opens 300 connections that send half a request, and wants
// others to be served meanwhile. The server's time limits end them.
func TestHalfRequests(t *testing.T) {
	s := start(t)
	for i := range 300 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		half := "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\nusername="
		io.WriteString(conn, half[:len(half)-i%2*20]) // every other within its header
	}
	for range 10 {
		response, err := http.Get("http://" + s.addr + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
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
	s := newService(t, testUsers())
	handler := newHandler(s.auth, s.pages)
	targets := []string{
		"POST /token", "GET /token", "POST /token/", "POST /revoke", "POST /introspect", "GET /users/me", "POST /users/me",
		"GET /auth", "POST /auth", "PUT /auth/items?a=b", "POST /auth?scope=%zz", "GET /healthz", "POST /livez",
		"GET /docs", "GET /openapi.json", "POST /nowhere", "POST /../auth", "POST /", "OPTIONS /token",
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
		{name: "half, and soon the rest", header: form + length(4+len(marked)), body: "a=b&", pause: soon, within: true},
		{name: "half, and late the rest", header: form + length(4+len(marked)), body: "a=b&", pause: late, within: true},
		{name: "all but a byte", header: form + length(3), body: "a=", pause: late, within: true},
		{name: "half of a large one", header: form + length(1<<30), body: strings.Repeat("a", 20<<10), within: true},
		{name: "half a chunk", header: chunked, body: "40\r\na=b", pause: late, within: true},
		{name: "no last chunk", header: chunked, body: "3\r\na=b\r\n", pause: late, within: true},
		{name: "a malformed chunk", header: chunked, body: "zz\r\n", within: true},
		{name: "a malformed chunk's end", header: chunked, body: "3\r\na=bXX0\r\n\r\n", within: true},
		{name: "Expect, and none", header: form + length(len(marked)) + expect, within: true},
		{name: "Expect, and a late one", header: form + length(len(marked)) + expect, pause: late, within: true},
		{name: "half, and a stop", header: form + length(4+len(marked)), body: "a=b&", stop: true, within: true},
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
						t.Errorf("%d, then to what is no request of this connection: %d", first.StatusCode, second.StatusCode)
					case err == nil && second.StatusCode != http.StatusOK:
						t.Errorf("%d, then to the next request: %d", first.StatusCode, second.StatusCode)
					case err != nil && !first.Close && !tt.stop && !tt.within:
						t.Errorf("%d, which does not say that the connection ends, but it does: %v", first.StatusCode, err)
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

// TestManyAtOnce does everything at the same time, for the race detector.
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
				if w := s.post("/introspect", "token="+token, gate); !strings.Contains(w.Body.String(), `"active":true`) {
					t.Errorf("live token: %s", w.Body)
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
	go func() { s.done <- run(ctx, append(args, "-addr", "127.0.0.1:0"), noEnv, s.log) }()
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

// healthz waits until /healthz is answered with a body.
func (s *started) healthz(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		response, err := http.Get("http://" + s.addr + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == 200 && string(body) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s, %v; want %s", response.Status, body, err, want)
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

// TestRefusedBeforeAStop has a login refused in the last seconds before a stop.
func TestRefusedBeforeAStop(t *testing.T) {
	s := start(t, "-max-failures", "1")
	for _, want := range []int{400, 429} {
		response, err := http.PostForm("http://"+s.addr+"/token", url.Values{"username": {"nobody"}, "password": {"guess"}})
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != want {
			t.Errorf("%s, want %d", response.Status, want)
		}
	}
	s.stop()
	s.waitForEnd(t)
	if !strings.Contains(s.log.String(), `msg="logins refused" count=1`) {
		t.Errorf("the refusal is not in the log:\n%s", s.log)
	}
}

// TestRun runs the tutorial's session against the whole program, with its demo
// users.
func TestRun(t *testing.T) {
	s := start(t)
	if !regexp.MustCompile(`^time=\S+ level=INFO msg=starting version=\S+ go=go1\S+ url=http://` + s.addr + ` docs=http://` + s.addr + "/docs\n").MatchString(s.log.String()) {
		t.Errorf("the first line does not say that it is starting:\n%s", s.log)
	}
	if !strings.Contains(s.log.String(), "level=WARN msg=\"serving the tutorial's demo users") {
		t.Errorf("no warning about the demo users:\n%s", s.log)
	}
	if !strings.Contains(s.log.String(), `msg="users loaded" users=2 source=demonstration`) {
		t.Errorf("the users are not in the log:\n%s", s.log)
	}
	if err := run(t.Context(), []string{"healthcheck", "-addr", s.addr}, noEnv, io.Discard); err != nil {
		t.Errorf("healthcheck: %v", err)
	}
	for _, tt := range []struct{ username, password, want string }{
		{"johndoe", "secret", `{"username":"johndoe","email":"johndoe@example.com","full_name":"John Doe","disabled":false}`},
		{"alice", "secret2", `{"detail":"Inactive user"}`},
	} {
		response, err := http.Post("http://"+s.addr+"/token", "application/x-www-form-urlencoded", strings.NewReader("username="+tt.username+"&password="+tt.password))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		r, _ := http.NewRequest("GET", "http://"+s.addr+"/users/me", nil)
		r.Header.Set("Authorization", "Bearer "+answer.AccessToken)
		response, err = http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) != tt.want {
			t.Errorf("%s: %s, want %s", tt.username, body, tt.want)
		}
	}
	s.stop()
	s.waitForEnd(t)
	if err := run(t.Context(), []string{"healthcheck", "-addr", s.addr}, noEnv, io.Discard); err == nil {
		t.Error("healthcheck: a stopped service is healthy")
	}
}

// TestRunWithoutDocs wants no page that describes the service.
func TestRunWithoutDocs(t *testing.T) {
	s := start(t, "-docs=false")
	if strings.Contains(s.log.String(), "docs=") {
		t.Errorf("the log names /docs:\n%s", s.log)
	}
	for _, path := range []string{"/", "/docs", "/openapi.json", "/docs/page.js"} {
		response, err := http.Get("http://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, response.StatusCode)
		}
	}
}

// TestRunJSON wants a log in JSON, from the first line to the last.
func TestRunJSON(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	log, done := &syncBuffer{}, make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-addr", "127.0.0.1:0", "-log-format", "json"}, []string{"OAUTH2_PORT=hunter2"}, log)
	}()
	s := &started{log: log, stop: stop, done: done}
	s.waitFor(t, `"msg":"listening"`)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for _, line := range lines {
		var fields struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields.Time == "" || fields.Level == "" || fields.Msg == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
	if !strings.Contains(lines[1], `"level":"WARN","msg":"unknown environment variable","name":"OAUTH2_PORT"}`) || strings.Contains(log.String(), "hunter2") {
		t.Errorf("the variable is not in the log:\n%s", log)
	}
}

func TestRunAddressTaken(t *testing.T) {
	s := start(t)
	err := run(t.Context(), []string{"-addr", s.addr}, noEnv, io.Discard)
	if err == nil || err.Error() != "-addr: listen tcp "+s.addr+": bind: address already in use" {
		t.Errorf("error %v", err)
	}
}

// TestRunStopAtTheStart runs a program that is stopped already.
func TestRunStopAtTheStart(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	log := &syncBuffer{}
	if err := run(ctx, []string{"-addr", "127.0.0.1:0"}, noEnv, log); err != nil {
		t.Errorf("ended with %v\n%s", err, log)
	}
}

// TestLoadAllocations wants a user who does not come to cost little.
func TestLoadAllocations(t *testing.T) {
	const n = 1000
	file, text := filepath.Join(t.TempDir(), "users.json"), []byte("{")
	for i := range n {
		text = fmt.Appendf(text, `"user%d": {"full_name": "User %d", "email": "user%d@example.com", "hashed_password": "$2a$12$%053d", "scopes": ["items:read"]},`, i, i, i, i)
	}
	if err := os.WriteFile(file, append(text[:len(text)-1], '}'), 0o600); err != nil {
		t.Fatal(err)
	}
	u := &users{file: file, log: slog.New(slog.DiscardHandler)}
	got := testing.AllocsPerRun(3, func() {
		if err := u.load(); err != nil {
			t.Fatal(err)
		}
	})
	if got > 14*n {
		t.Errorf("%v allocations for %d users", got, n)
	}
}

// hangUp sends SIGHUP to this process.
func hangUp(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGHUP")
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGHUP)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRunReload sends SIGHUP to the program.
func TestRunReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(testUsers())
	s := start(t, "-users", file)
	write(`{"johndoe": {}}`)
	hangUp(t)
	s.waitFor(t, `level=ERROR msg="users could not be loaded again, keeping the previous version" error=".*users.json: user \\"johndoe\\": no hashed_password"`)
	s.healthz(t, `{"status":"ok","detail":"users could not be loaded again, keeping the previous version"}`)
	write(`{}`)
	hangUp(t)
	s.waitFor(t, `level=WARN msg="there are no users: nobody can log in" source=\S+users.json\n.*msg="users loaded" users=0 source=\S+users.json`)
	s.healthz(t, `{"status":"ok"}`)
	s.stop()
	s.waitForEnd(t)
}

// TestRunStop stops the program while a request is in flight.
func TestRunStop(t *testing.T) {
	s := start(t)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server sends 100 Continue once the handler reads the body.
	fmt.Fprintf(conn, "POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
	answers := bufio.NewReader(conn)
	if response, err := http.ReadResponse(answers, nil); err != nil || response.StatusCode != 100 {
		t.Fatalf("%v %v", response, err)
	}
	s.stop()
	s.waitFor(t, "msg=stopping")
	for { // until it accepts no more
		other, err := net.Dial("tcp", s.addr)
		if err != nil {
			break
		}
		other.Close()
	}
	fmt.Fprintf(conn, "token=x")
	if response, err := http.ReadResponse(answers, nil); err != nil || response.StatusCode != 200 {
		t.Errorf("the request in flight: %v %v", response, err)
	}
	s.waitForEnd(t)
}

func TestRunTLS(t *testing.T) {
	t.Parallel()
	cert, key := writeCertificate(t, t.TempDir())
	s := start(t, "-tls-cert", cert, "-tls-key", key)
	if err := run(t.Context(), []string{"healthcheck", "-addr", s.addr, "-tls-cert", cert, "-tls-key", key}, noEnv, io.Discard); err != nil {
		t.Errorf("healthcheck: %v", err)
	}
	if err := run(t.Context(), []string{"healthcheck", "-addr", s.addr}, noEnv, io.Discard); err != nil {
		t.Errorf("healthcheck without the TLS flags: %v", err)
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	response, err := client.Get("https://" + s.addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 || response.ProtoMajor != 2 {
		t.Errorf("%s %s", response.Proto, response.Status)
	}
	s.stop()
	s.waitForEnd(t)
}

// TestRunFilesChange replaces users and certificate, and sends no signal. A client
// that resumes TLS sessions sees the new certificate, too.
func TestRunFilesChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	file := filepath.Join(dir, "users.json")
	write := func(text string) {
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	write(testUsers())
	s := start(t, "-users", file, "-tls-cert", cert, "-tls-key", key)
	client := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	shown := func() []byte {
		conn, err := tls.Dial("tcp", s.addr, client)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /livez HTTP/1.0\r\n\r\n")
		if _, err := io.ReadAll(conn); err != nil { // the ticket for another session comes with the answer
			t.Error(err)
		}
		return conn.ConnectionState().PeerCertificates[0].Raw
	}
	before := shown()
	write(`{}`)
	writeCertificate(t, dir)
	s.waitFor(t, `msg="users loaded" users=0`)
	s.waitFor(t, `(?s)msg="certificate loaded".*msg="certificate loaded"`)
	if bytes.Equal(shown(), before) {
		t.Error("the certificate is still the old one")
	}
	s.stop()
	s.waitForEnd(t)
}

// writeCertificate makes a certificate for 127.0.0.1.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8)
}

// FuzzAuthorization wants only the right header to be let in.
func FuzzAuthorization(f *testing.F) {
	s := newService(f, testUsers())
	token := s.login("johndoe")
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer TOKEN", "bearer TOKEN", "BEARER  TOKEN", "Bearer TOKEN ", "Bearer\tTOKEN", "TOKEN", "Basic TOKEN", "Bearer TOKEN,Bearer TOKEN", "\u212aearer TOKEN"} {
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

// quiet returns a service without a log.
func quiet(b *testing.B, usersJSON string) *service {
	s := newService(b, usersJSON)
	s.auth.log = slog.New(slog.DiscardHandler)
	return s
}

// BenchmarkUsersMe measures the most frequent request, over loopback connections,
// next to a handler that only writes the same bytes and headers.
func BenchmarkUsersMe(b *testing.B) {
	s := quiet(b, testUsers())
	token := s.login("johndoe")
	body := s.me(token).Body.Bytes()
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	request := []byte("GET /users/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	for _, bb := range []struct {
		name    string
		handler http.Handler
	}{{"bare", bare}, {"protected", s}} {
		b.Run(bb.name, func(b *testing.B) {
			server := httptest.NewServer(bb.handler)
			defer server.Close()
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				answer := make([]byte, 4096)
				for pb.Next() {
					conn.Write(request)
					n, err := conn.Read(answer)
					if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 OK\r\n")) || !bytes.HasSuffix(answer[:n], body) {
						b.Errorf("%q, %v", answer[:n], err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkLogin measures a login at the usual cost, next to the bcrypt comparison
// alone.
func BenchmarkLogin(b *testing.B) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), usersfile.LeastCost)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bcrypt", func(b *testing.B) {
		for b.Loop() {
			if err := bcrypt.CompareHashAndPassword(hash, []byte("secret")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("login", func(b *testing.B) {
		s := quiet(b, `{"johndoe": {"hashed_password": "`+string(hash)+`"}}`)
		for b.Loop() {
			s.login("johndoe")
		}
	})
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
		r := httptest.NewRequest("POST", "/token", strings.NewReader("username=johndoe&password=secret"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
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

// BenchmarkMillionTokens keeps a million tokens, and measures the heap that each
// takes, a sweep of them, and a look-up among them from all cores.
func BenchmarkMillionTokens(b *testing.B) {
	const million = 1_000_000
	s := quiet(b, testUsers())
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	johndoe, _ := s.auth.users.find("johndoe")
	before := heap()
	issued := make([]string, 0, 1024)
	for i := range million {
		if token, _ := s.auth.issue(b.Context(), johndoe, strings.Clone("items:read items:write")); i < cap(issued) {
			issued = append(issued, token)
		}
	}
	each := float64(heap()-before) / million
	b.Run("look-up", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, record, _ := s.auth.session(b.Context(), issued[i%len(issued)]); record == nil {
					b.Error("a live token is not found")
				}
			}
		})
		b.ReportMetric(each, "heap-B/token")
	})
	b.Run("sweep", func(b *testing.B) {
		for b.Loop() { // none has expired
			s.memory.Sweep()
		}
		s.clock = s.clock.Add(time.Hour)
		started := time.Now()
		s.memory.Sweep()
		b.ReportMetric(float64(time.Since(started).Milliseconds()), "ms-all-expired")
	})
}

// BenchmarkSoak logs in, and uses tokens, revokes them or lets them expire, at full
// speed for as many logins as -benchtime says. It reports the goroutines and the
// heap before and after. Run it for minutes, by a number of logins: given a
// time, Go would run it over and over to find that number:
//
//	go test -run '^$' -bench Soak -benchtime 500000x
func BenchmarkSoak(b *testing.B) {
	s := quiet(b, testUsers())
	s.memory.Now, s.auth.now, s.auth.tokenTTL = time.Now, time.Now, 5*time.Second
	ctx, stop := context.WithCancel(b.Context())
	go s.memory.Run(ctx)
	defer stop()
	server := httptest.NewServer(s)
	defer server.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	client := &http.Client{Transport: transport}
	state := func() (goroutines, heapMB float64) {
		transport.CloseIdleConnections()
		time.Sleep(20 * time.Second) // until the last tokens are swept and the connections gone
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return float64(runtime.NumGoroutine()), float64(stats.HeapAlloc) / 1e6
	}
	ask := func(path, form, token string) (status int, body []byte) {
		r, _ := http.NewRequest("POST", server.URL+path, strings.NewReader(form))
		if form == "" {
			r, _ = http.NewRequest("GET", server.URL+path, nil)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(r)
		if err != nil {
			b.Error(err)
			return 0, nil
		}
		defer response.Body.Close()
		body, _ = io.ReadAll(response.Body)
		return response.StatusCode, body
	}
	goroutines, heap := state()
	b.ResetTimer()
	b.SetParallelism(6)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			status, body := ask("/token", "username=johndoe&password=secret", "")
			var answer struct {
				AccessToken string `json:"access_token"`
			}
			if json.Unmarshal(body, &answer); status != 200 {
				b.Errorf("login: %d %s", status, body)
				return
			}
			for range 10 {
				if status, body := ask("/users/me", "", answer.AccessToken); status != 200 {
					b.Errorf("use: %d %s", status, body)
				}
			}
			if i%2 == 0 { // the others expire
				ask("/revoke", "token="+answer.AccessToken, "")
				if status, _ := ask("/users/me", "", answer.AccessToken); status != 401 {
					b.Errorf("revoked: %d", status)
				}
			}
		}
	})
	b.StopTimer()
	goroutinesAfter, heapAfter := state()
	b.ReportMetric(goroutines, "goroutines-before")
	b.ReportMetric(goroutinesAfter, "goroutines-after")
	b.ReportMetric(heap, "heap-MB-before")
	b.ReportMetric(heapAfter, "heap-MB-after")
}

// BenchmarkRefusal sends a wrong password for a known user, for a disabled one, and
// for an unknown one, in turn. It reports the median time of each.
func BenchmarkRefusal(b *testing.B) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), usersfile.LeastCost)
	if err != nil {
		b.Fatal(err)
	}
	s := quiet(b, `{"johndoe": {"hashed_password": "`+string(hash)+`"}, "alice": {"disabled": true, "hashed_password": "`+string(hash)+`"}}`)
	s.auth.admission = admission.New(0, time.Now)
	names := []string{"johndoe", "alice", "nobody"}
	took := make(map[string][]time.Duration)
	for i := 0; b.Loop(); i++ {
		for j, name := range names {
			r := httptest.NewRequest("POST", "/token", strings.NewReader("username="+name+"&password=wrong"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.RemoteAddr = fmt.Sprintf("192.0.%d.%d:1", i%256, j) // one that does not rest
			began := time.Now()
			s.do(r)
			took[name] = append(took[name], time.Since(began))
		}
	}
	for _, name := range names {
		slices.Sort(took[name])
		b.ReportMetric(float64(took[name][len(took[name])/2].Microseconds()), "µs-"+name)
	}
}
