package loginpage

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/form"
	"simple-oauth2/internal/tokens"
)

// fake is a service behind the page. Its users are jane and ann, who is disabled;
// their password is "secret". The username of a login may also be an error.
type fake struct {
	live  map[string]string // the user of each live token
	ended []string
	err   error // of User and LogOut
	log   bytes.Buffer
}

var errs = map[string]struct {
	status int
	after  time.Duration
}{
	"wrong":   {400, 0},
	"waits":   {429, 40 * time.Second},
	"busy":    {503, time.Second},
	"broken":  {500, 0},
	"toolong": {413, 0},
}

func (f *fake) page(c Config) *Page {
	c.On = true
	return c.New(Service{
		Forms: form.NewReader(),
		LogIn: func(r *http.Request, username, password string) (string, *tokens.Record, error) {
			if _, failing := errs[username]; failing {
				return "", nil, errors.New(username)
			}
			if password != "secret" || username != strings.TrimSpace(username) {
				return "", nil, errors.New("wrong")
			}
			token := fmt.Sprint("token-", len(f.live)+1)
			f.live[token] = username
			return token, &tokens.Record{Issued: 1700000000, Expires: 1700000000 + 8*3600}, nil
		},
		User: func(r *http.Request, token string) (string, bool, error) {
			return f.live[token], f.live[token] != "ann", f.err
		},
		LogOut: func(r *http.Request, token string) error {
			if f.err == nil {
				delete(f.live, token)
				f.ended = append(f.ended, token)
			}
			return f.err
		},
		AnswerTo: func(err error) *answer.HTTPException {
			e := errs[err.Error()]
			if e.after > 0 {
				return answer.TryLater(e.status, err.Error(), e.after)
			}
			return answer.Refusal(cmp.Or(e.status, 422), err.Error(), "")
		},
		Log: slog.New(slog.NewTextHandler(&f.log, nil)),
	})
}

func newFake() *fake { return &fake{live: map[string]string{"jane1": "jane", "ann1": "ann"}} }

// request makes a request to https://tool.example.com. Each header is a line.
func request(method, target, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "https://tool.example.com"+target, strings.NewReader(body))
	r.TLS = &tls.ConnectionState{}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Add(name, value)
		}
	}
	return r
}

func (p *Page) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	switch r.Method + " " + r.URL.Path {
	case "GET " + Path:
		p.Show(w, r)
	case "POST " + Path:
		p.Enter(w, r)
	case "POST " + LogoutPath:
		p.Leave(w, r)
	}
	return w
}

const right = "username=jane&password=secret"

// TestCookie is the cookie that a login sets.
func TestCookie(t *testing.T) {
	const host, secure, plain = "__Host-simple_oauth2", "__Secure-simple_oauth2", "simple_oauth2"
	for _, tt := range []struct {
		name    string
		domain  string
		headers []string
		http    bool // the connection to the service
		want    string
		removes string
	}{
		{name: "its own TLS", want: host, removes: plain},
		{name: "http", http: true, want: plain, removes: host},
		{name: "a proxy's https", http: true, headers: []string{"X-Forwarded-Proto: https"}, want: host, removes: plain},
		{name: "a proxy's http before TLS", headers: []string{"X-Forwarded-Proto: http"}, want: plain, removes: host},
		{name: "two proxies", http: true, headers: []string{"X-Forwarded-Proto: https, http"}, want: host, removes: plain},
		{name: "two headers", http: true, headers: []string{"X-Forwarded-Proto: http", "X-Forwarded-Proto: HTTPS"},
			want: host, removes: plain},
		{name: "the browser knows better", http: true,
			headers: []string{"Origin: https://tool.example.com", "X-Forwarded-Proto: http"},
			want:    host, removes: plain},
		{name: "the browser on http", headers: []string{"Origin: http://tool.example.com", "X-Forwarded-Proto: https"},
			want: plain, removes: host},
		{name: "a domain", domain: "example.com", want: secure, removes: plain},
		{name: "a domain on http", domain: "example.com", http: true, want: plain, removes: secure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			r := request("POST", "/login?to=/a", right, tt.headers...)
			if tt.http {
				r.TLS = nil
			}
			w := f.page(Config{Domain: tt.domain}).serve(r)
			attributes := "; Path=/"
			if tt.domain != "" {
				attributes += "; Domain=" + tt.domain
			}
			line := func(name, value, age string) string {
				line := name + "=" + value + attributes + "; Max-Age=" + age + "; HttpOnly"
				if name != plain {
					line += "; Secure"
				}
				return line + "; SameSite=Lax"
			}
			got := strings.Join(w.Header()["Set-Cookie"], "\n")
			for _, want := range []string{line(tt.want, "token-3", "28800"), line(tt.removes, "", "0")} {
				if !strings.Contains(got, want) {
					t.Errorf("%s, want %s", got, want)
				}
			}
			if len(w.Header()["Set-Cookie"]) != 2 || w.Code != 303 {
				t.Errorf("%d %s", w.Code, got)
			}
			if warned := strings.Contains(f.log.String(), "by http"); warned != (tt.want == plain) {
				t.Errorf("logged %s", &f.log)
			}
		})
	}
}

// TestWarnsOnce logs in by http twice.
func TestWarnsOnce(t *testing.T) {
	f := newFake()
	p := f.page(Config{})
	for range 2 {
		p.serve(request("POST", "/login", right, "X-Forwarded-Proto: http"))
		p.serve(request("POST", "/login", right, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"))
	}
	if n := strings.Count(f.log.String(), "\n"); n != 2 || strings.Contains(f.log.String(), "token-") {
		t.Errorf("logged %s", &f.log)
	}
}

// TestAuthorize is which token /auth learns of.
func TestAuthorize(t *testing.T) {
	const host, secure, plain = "__Host-simple_oauth2", "__Secure-simple_oauth2", "simple_oauth2"
	for _, tt := range []struct {
		name    string
		domain  string
		headers []string
		want    string
	}{
		{name: "nothing", want: ""},
		{name: "https", headers: []string{"Cookie: " + host + "=a"}, want: "Bearer a"},
		{name: "among others", headers: []string{"Cookie: x=y; " + host + "=a; z=1"}, want: "Bearer a"},
		{name: "in a second header", headers: []string{"Cookie: x=y", "Cookie: " + host + "=a"}, want: "Bearer a"},
		{name: "8 KiB of others", headers: []string{"Cookie: x=" + strings.Repeat("y", 8<<10) + "; " + host + "=a"},
			want: "Bearer a"},
		{name: "8 KiB itself", headers: []string{"Cookie: " + host + "=" + strings.Repeat("a", 8<<10)},
			want: "Bearer " + strings.Repeat("a", 8<<10)},
		{name: "http", headers: []string{"Cookie: " + plain + "=a", "X-Forwarded-Proto: http"}, want: "Bearer a"},
		{name: "plain on https", headers: []string{"Cookie: " + plain + "=a", "X-Forwarded-Proto: https"}},
		{name: "plain, of two proxies", headers: []string{"Cookie: " + plain + "=a", "X-Forwarded-Proto: https, http"}},
		{name: "plain, of two headers",
			headers: []string{"Cookie: " + plain + "=a", "X-Forwarded-Proto: http", "X-Forwarded-Proto: https"}},
		{name: "plain, scheme unknown", headers: []string{"Cookie: " + plain + "=a"}},
		{name: "https before plain", want: "Bearer a",
			headers: []string{"Cookie: " + plain + "=b; " + host + "=a", "X-Forwarded-Proto: http"}},
		{name: "white space behind the name", headers: []string{"Cookie: " + host + " =a"}},
		{name: "a tab behind the name, among others", headers: []string{"Cookie: x=y; " + host + "\t=a"}},
		{name: "two of one name", headers: []string{"Cookie: " + host + "=a; " + host + "=b"}},
		{name: "two plain ones", headers: []string{"Cookie: " + plain + "=a; " + plain + "=b", "X-Forwarded-Proto: http"}},
		{name: "two of a kind, and a plain one", headers: []string{"Cookie: " + host + "=a; " + host + "=b; " + plain + "=c",
			"X-Forwarded-Proto: http"}},
		{name: "empty", headers: []string{"Cookie: " + host + "="}},
		{name: "in other letters", headers: []string{"Cookie: __host-simple_oauth2=a"}},
		{name: "a name that ends so", headers: []string{"Cookie: x__Host-simple_oauth2=a"}},
		{name: "with a space", headers: []string{"Cookie: " + host + `="a b"`}, want: "Bearer a b"}, // no token has one
		{name: "of a domain that is not set", headers: []string{"Cookie: " + secure + "=a"}},
		{name: "of the domain", domain: "example.com", headers: []string{"Cookie: " + secure + "=a"}, want: "Bearer a"},
		{name: "of a host, with a domain", domain: "example.com", headers: []string{"Cookie: " + host + "=a"}},
		{name: "a bearer token goes before", headers: []string{"Cookie: " + host + "=a", "Authorization: Bearer b"},
			want: "Bearer b"},
		{name: "in small letters", headers: []string{"Cookie: " + host + "=a", "Authorization: bearer b"}, want: "bearer b"},
		{name: "an empty bearer token", headers: []string{"Cookie: " + host + "=a", "Authorization: Bearer"},
			want: "Bearer"},
		{name: "two headers",
			headers: []string{"Cookie: " + host + "=a", "Authorization: Basic b", "Authorization: Bearer b"},
			want:    "Basic b,Bearer b"},
		{name: "a tool's own password", headers: []string{"Cookie: " + host + "=a", "Authorization: Basic b"},
			want: "Bearer a"},
		{name: "an empty header", headers: []string{"Cookie: " + host + "=a", "Authorization: "}, want: "Bearer a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request("GET", "/auth", "", tt.headers...)
			Config{On: true, Domain: tt.domain}.Authorize(r)
			if got := strings.Join(r.Header["Authorization"], ","); got != tt.want {
				t.Errorf("%.60q", got)
			}
		})
	}
	r := request("GET", "/auth", "", "Cookie: "+host+"=a")
	if (Config{}).Authorize(r); r.Header.Get("Authorization") != "" {
		t.Error("without a page the cookie counts")
	}
}

// TestPage is what a person sees, and where a login leads.
func TestPage(t *testing.T) {
	const jane, ann = "Cookie: __Host-simple_oauth2=jane1", "Cookie: __Host-simple_oauth2=ann1"
	const crossSite, http80 = "Sec-Fetch-Site: cross-site", "X-Forwarded-Proto: http"
	for _, tt := range []struct {
		name     string
		method   string // GET, if empty
		target   string
		body     string
		headers  []string
		domain   string
		err      error // of the store
		status   int
		location string
		says     []string
		not      []string
	}{
		{name: "the form", target: "/login", status: 200,
			says: []string{
				`<title>Log in</title>`, `autocomplete="username"`, `autocomplete="current-password"`, `action="login?to=%2F"`,
			}},
		{name: "it keeps where to go", target: "/login?to=/report?from=1&to=2", status: 200,
			says: []string{`action="login?to=%2Freport%3Ffrom%3D1%26to%3D2"`}},
		{name: "it leads nowhere else", target: "/login?to=//evil.example", status: 200,
			says: []string{`action="login?to=%2F"`, "not on this host"}, not: []string{"evil"}},
		{name: "it leads to no http", target: "/login?to=http://wiki.example.com/", domain: "example.com", status: 200,
			says: []string{`action="login?to=%2F"`, "nor at an https address of example.com"}},
		{name: "it says where it leads", target: "/login?to=https://wiki.example.com/a", domain: "example.com", status: 200,
			says: []string{"<strong>wiki.example.com</strong>"}},
		{name: "a password in the URL", target: "/login?username=jane&password=secret", status: 200,
			says: []string{`value=""`}, not: []string{"jane", "secret"}},
		{name: "a password in the URL of a POST", method: "POST", target: "/login?" + right, status: 422,
			not: []string{"jane", "secret"}},
		{name: "a live session", target: "/login?to=/a", headers: []string{jane}, status: 200,
			says: []string{"<strong>jane</strong>", `action="logout"`, `href="/a"`, "gateway"}, not: []string{"password"}},
		{name: "a disabled user's session", target: "/login?to=/a", headers: []string{ann}, status: 200,
			says: []string{"<strong>ann</strong> is disabled", `action="logout"`}, not: []string{`href="/a"`}},
		{name: "an ended session", target: "/login", headers: []string{"Cookie: __Host-simple_oauth2=old"}, status: 200,
			says: []string{`name="password"`}},
		{name: "two cookies", target: "/login", headers: []string{jane + "; __Host-simple_oauth2=ann1"}, status: 200,
			says: []string{`name="password"`}, not: []string{"jane", "ann"}},
		{name: "the store is down", target: "/login", headers: []string{jane}, err: errors.New("busy"), status: 503,
			says: []string{"Try again in 1 second.", `role="alert"`}},
		{name: "after a logout", target: "/login?out", status: 200, says: []string{"You are logged out."}},

		{name: "a login", method: "POST", target: "/login?to=/a?b=c&to=d", body: right, status: 303,
			location: "login?check=" + fingerprint("token-3") + "&to=%2Fa%3Fb%3Dc%26to%3Dd"},
		{name: "with spaces around the name", method: "POST", target: "/login",
			body: "username=+jane+&password=secret", status: 303,
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},
		{name: "beside somebody's session", method: "POST", target: "/login", body: right, headers: []string{ann},
			status:   303,
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},
		{name: "its cookie came back", headers: []string{jane},
			target: "/login?check=" + fingerprint("jane1") + "&to=%2Fa%3Fb%3Dc",
			status: 303, location: "/a?b=c"},
		{name: "another host of the domain",
			target:  "/login?check=" + fingerprint("jane1") + "&to=https%3A%2F%2Fwiki.example.com%2Fa",
			headers: []string{"Cookie: __Secure-simple_oauth2=jane1"}, domain: "example.com", status: 303,
			location: "https://wiki.example.com/a"},
		{name: "its cookie came back, and to is evil", target: "/login?check=" + fingerprint("jane1") + "&to=//evil.example",
			headers: []string{jane}, status: 303, location: "/"},
		{name: "its cookie came back, and the user is disabled", headers: []string{ann},
			target: "/login?check=" + fingerprint("ann1") + "&to=/a", status: 200, says: []string{"is disabled"}},
		{name: "another cookie came back", target: "/login?check=12345678&to=/a", headers: []string{jane}, status: 200,
			says: []string{"<strong>jane</strong>"}},
		{name: "no cookie came back", target: "/login?check=12345678&to=/a", status: 400,
			says: []string{"did not keep the login", "blocks cookies", "says https"}},
		{name: "no cookie came back by http", target: "/login?check=12345678&to=/a", headers: []string{http80}, status: 400,
			says: []string{"blocks cookies for this site"}},
		{name: "two came back", target: "/login?check=" + fingerprint("jane1") + "&to=/a", status: 400,
			headers: []string{jane + "; __Host-simple_oauth2=ann1"}, says: []string{"two cookies"}},
		{name: "a domain that takes none", target: "/login?check=12345678&to=/a", domain: "example.com", status: 400,
			says: []string{"everybody can get a name below example.com", "-login-domain"}},
		{name: "a host outside of the domain", target: "/login?check=12345678&to=/a", domain: "example.org", status: 400,
			says: []string{"for example.org, but this page is at tool.example.com", "proxy_set_header Host"}},

		{name: "a wrong password", method: "POST", target: "/login?to=/a", body: "username=jane&password=wrong", status: 400,
			says: []string{"Incorrect username or password", `value="jane"`, `role="alert"`, "<title>Error – Log in</title>",
				`name="password" type="password" autocomplete="current-password" required aria-describedby="message" autofocus>`,
				`action="login?to=%2Fa"`},
			not: []string{`value="wrong"`}},
		{name: "too many", method: "POST", target: "/login", body: "username=waits&password=p", status: 429,
			says: []string{"Try again in 40 seconds."}},
		{name: "a crowd", method: "POST", target: "/login", body: "username=busy&password=p", status: 503,
			says: []string{"Try again in 1 second.", "tell whoever runs it"}},
		{name: "an error", method: "POST", target: "/login", body: "username=broken&password=p", status: 500,
			says: []string{"Something is wrong with the service"}},
		{name: "a large form", method: "POST", target: "/login", body: "username=toolong&password=p", status: 413,
			says: []string{"Fill it in again"}},
		{name: "two usernames", method: "POST", target: "/login", body: right + "&username=ann", status: 422,
			says: []string{"Fill it in again"}, not: []string{"jane", "ann"}},
		{name: "no password", method: "POST", target: "/login", body: "username=jane&password=", status: 422,
			says: []string{"Enter your username and your password."}},
		{name: "no form", method: "POST", target: "/login", status: 422, says: []string{"Enter your username"}},
		{name: "a disabled user", method: "POST", target: "/login", body: "username=ann&password=secret", status: 403,
			says: []string{"The password is right, but this account is disabled"}},
		{name: "a disabled user, wrong password", method: "POST", target: "/login",
			body: "username=ann&password=wrong", status: 400,
			says: []string{"Incorrect username or password"}, not: []string{"disabled"}},
		{name: "a name in HTML", method: "POST", target: "/login",
			body:   "username=" + url.QueryEscape(`"><script>'&`) + "&password=wrong",
			status: 400, says: []string{`value="&#34;&gt;&lt;script&gt;&#39;&amp;"`}, not: []string{"<script"}},
		{name: "another site's name in HTML", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Origin: http://<script>.example", http80}, says: []string{"came from &lt;script&gt;.example"},
			not: []string{"<script"}},
		{name: "a name with placeholders", method: "POST", target: "/login",
			body:   "username=%7B%7Btitle%7D%7D%25s&password=wrong",
			status: 400, says: []string{`value="{{title}}%s"`}},

		{name: "of another site", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Origin: https://evil.example", crossSite}, says: []string{"came from another site"},
			not: []string{"jane"}},
		{name: "of a sibling", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Origin: https://wiki.example.com", "Sec-Fetch-Site: same-site"}, says: []string{"another site"}},
		{name: "of a sibling in the domain", method: "POST", target: "/login", body: right, status: 403,
			domain:  "example.com",
			headers: []string{"Origin: https://wiki.example.com", "Sec-Fetch-Site: same-site"}, says: []string{"another site"}},
		{name: "of a sandbox", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Origin: null"}},
		{name: "of a sandbox on https", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Origin: null", crossSite}},
		{name: "of its own", method: "POST", target: "/login", body: right, status: 303,
			headers:  []string{"Origin: https://tool.example.com", "Sec-Fetch-Site: same-origin"},
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},
		{name: "of its own, behind a proxy that hides the host", method: "POST", target: "/login", body: right, status: 303,
			headers:  []string{"Host: 127.0.0.1:8000", "Origin: https://tool.example.com", "Sec-Fetch-Site: same-origin"},
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},
		{name: "by http, without Sec-Fetch-Site", method: "POST", target: "/login", body: right, status: 303,
			headers:  []string{"Host: 192.168.1.5:8081", "Origin: http://192.168.1.5:8081", http80},
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},
		{name: "by http, the host hidden", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Host: 127.0.0.1:8000", "Origin: http://192.168.1.5:8081", http80},
			says: []string{
				"came from 192.168.1.5:8081, but this page is at 127.0.0.1:8000", "proxy_set_header Host $http_host;",
			}},
		{name: "by http, the host in X-Forwarded-Host", method: "POST", target: "/login", body: right, status: 303,
			headers: []string{"Host: 127.0.0.1:8000", "Origin: http://192.168.1.5:8081",
				"X-Forwarded-Host: 192.168.1.5:8081", http80},
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},
		{name: "of another site by http", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"Host: 192.168.1.5", "X-Forwarded-Host: 192.168.1.5", "Origin: http://evil.example", http80}},
		{name: "of another site, its host claimed", method: "POST", target: "/login", body: right, status: 403,
			headers: []string{"X-Forwarded-Host: evil.example", "Origin: https://evil.example", crossSite}},
		{name: "not of a browser", method: "POST", target: "/login", body: right, status: 303,
			location: "login?check=" + fingerprint("token-3") + "&to=%2F"},

		{name: "a logout", method: "POST", target: "/logout", headers: []string{jane}, status: 303, location: "login?out"},
		{name: "a logout without a session", method: "POST", target: "/logout", status: 303, location: "login?out"},
		{name: "a logout of another site", method: "POST", target: "/logout", headers: []string{jane, crossSite},
			status: 403,
			says:   []string{"Nothing was done"}},
		{name: "a logout while the store is down", method: "POST", target: "/logout", headers: []string{jane},
			err:    errors.New("busy"),
			status: 503, says: []string{"logged out in this browser", "when its time is over"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.err = tt.err
			w := f.page(Config{Domain: tt.domain}).serve(request(cmp.Or(tt.method, "GET"), tt.target, tt.body, tt.headers...))
			if w.Code != tt.status || w.Header().Get("Location") != tt.location {
				t.Errorf("%d, to %q, want %d, to %q", w.Code, w.Header().Get("Location"), tt.status, tt.location)
			}
			body := html.UnescapeString(w.Body.String())
			if strings.Contains(tt.name, "HTML") {
				body = w.Body.String()
			}
			for _, text := range tt.says {
				if !strings.Contains(body, text) {
					t.Errorf("it does not say %q:\n%s", text, body)
				}
			}
			_, body, _ = strings.Cut(body, "<main>")
			for _, text := range tt.not {
				if strings.Contains(body, text) {
					t.Errorf("it says %q:\n%s", text, body)
				}
			}
			header := w.Header()
			if (header.Get("Retry-After") != "") != (tt.status == 429 || tt.status == 503) {
				t.Errorf("Retry-After is %q", header.Get("Retry-After"))
			}
			if set := header["Set-Cookie"]; (set != nil) != (tt.method == "POST" && (tt.status == 303 || tt.err != nil)) {
				t.Errorf("it sets %q", set)
			}
			if header.Get("Referrer-Policy") != "same-origin" {
				t.Error("a referrer leaves")
			}
			if tt.location != "" {
				return
			}
			policy := regexp.MustCompile(`^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; img-src data:; ` +
				`base-uri 'none'; form-action 'self'( https://example\.(com|org):\* https://\*\.example\.(com|org):\*)?; ` +
				`frame-ancestors 'none'$`)
			got := header.Get("Content-Security-Policy")
			if !policy.MatchString(got) || strings.Contains(got, "example") != (tt.domain != "") {
				t.Errorf("the policy is %q", got)
			}
			if header.Get("X-Frame-Options") != "DENY" || header.Get("X-Content-Type-Options") != "nosniff" ||
				header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%v", header)
			}
			for _, never := range []string{"<script", "http://", "https://", "src=", "on" + "load"} {
				if strings.Contains(w.Body.String(), never) && !strings.Contains(tt.target, "https://") {
					t.Errorf("the page has %q", never)
				}
			}
		})
	}
}

// TestEnds checks that no token outlives what the page says.
func TestEnds(t *testing.T) {
	f := newFake()
	p := f.page(Config{})
	p.serve(request("POST", "/logout", "", "Cookie: __Host-simple_oauth2=jane1"))
	p.serve(request("POST", "/login", "username=ann&password=secret"))
	if got := strings.Join(f.ended, " "); got != "jane1 token-2" {
		t.Errorf("ended: %s", got)
	}
	p.serve(request("POST", "/logout", "", "Cookie: __Host-simple_oauth2=a; __Host-simple_oauth2=ann1"))
	p.serve(request("POST", "/logout", "", "Cookie: __Host-simple_oauth2=ann1", "Sec-Fetch-Site: cross-site"))
	if len(f.ended) != 2 {
		t.Errorf("ended: %q", f.ended)
	}
}

func TestReadable(t *testing.T) {
	for seconds, want := range map[string]string{
		"1": "in 1 second", "40": "in 40 seconds", "60": "in 1 minute", "90": "in 90 seconds", "7200": "in 2 hours",
		"86400": "in 1 day", "": "later", "soon": "later", "-1": "later",
	} {
		if got := later(seconds); got != "Try again "+want+"." {
			t.Errorf("%q: %s", seconds, got)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		name string
		args string
		want Config
		err  string // of the flags, or of Check
	}{
		{name: "none"},
		{name: "the page", args: "-login-page", want: Config{On: true}},
		{name: "no page", args: "-login-page=false"},
		{name: "empty", args: "-login-page= -login-domain="},
		{name: "neither", args: "-login-page=maybe", err: "it must be true or false"},
		{name: "a domain", args: "-login-page -login-domain example.com", want: Config{On: true, Domain: "example.com"}},
		{name: "a long one", args: "-login-page -login-domain=a-b.xn--p1ai.example", want: Config{On: true,
			Domain: "a-b.xn--p1ai.example"}},
		{name: "no page for a domain", args: "-login-domain example.com",
			err: "-login-domain is set, but -login-page is not"},
		{name: "a URL", args: "-login-domain https://example.com", err: "it must be a domain such as example.com"},
		{name: "a dot before", args: "-login-domain .example.com", err: "it must be a domain"},
		{name: "a dot behind", args: "-login-domain example.com.", err: "it must be a domain"},
		{name: "a port", args: "-login-domain example.com:443", err: "it must be a domain"},
		{name: "one label", args: "-login-domain localhost", err: "it must be a domain"},
		{name: "an address", args: "-login-domain 192.168.1.5", err: "it must be a domain"},
		{name: "capitals", args: "-login-domain Example.com", err: "in lower case"},
		{name: "a star", args: "-login-domain *.example.com", err: "it must be a domain"},
		{name: "two", args: "-login-domain example.com,example.org", err: "it must be a domain"},
		{name: "a policy", args: "-login-domain example.com;script-src", err: "it must be a domain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c Config
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			flags.SetOutput(io.Discard)
			c.Flags(flags)
			err := flags.Parse(strings.Fields(tt.args))
			if err == nil {
				err = c.Check()
			}
			switch {
			case tt.err == "" && (err != nil || c != tt.want):
				t.Errorf("%+v, %v", c, err)
			case tt.err != "" && !strings.Contains(fmt.Sprint(err), tt.err):
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
