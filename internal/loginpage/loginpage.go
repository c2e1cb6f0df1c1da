// Package loginpage lets a person log in with a browser: a page with a form, and a
// cookie that holds a token like any other. What ends the token ends the session.
//
// Only the page itself and [Config.Authorize], for /auth, read the cookie. Nothing
// else does, so nothing else can be done by a request that another site makes the
// browser send.
//
// On https the cookie's name begins with __Host-, and browsers then take it from no
// other host and never from http. With a login domain it begins with __Secure-, and
// each host of the domain can set it. On http the name is plain. A plain one is
// ignored where the gateway does not say that the browser came by http. Where a
// browser sends two of one name, one of them is a stranger's, and neither counts.
//
// A login leads back to the page itself, which looks whether the cookie came with
// it, and only then to where the person was going. So a browser that does not keep
// the cookie is not sent around in circles, but told why.
//
// A form that another site sends is refused, see [http.CrossOriginProtection]. A
// login always sets a new token, whatever cookie came with it. The page runs no
// script, loads nothing, is not stored and not framed, and tells no other site
// where it leads.
package loginpage

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/form"
	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/tokens"
)

const (
	Path       = "/login"
	LogoutPath = "/logout"
)

// Config says whether there is a page, and for which domain it logs in. Without a
// domain that is the host of the page alone.
type Config struct {
	On     bool
	Domain string
}

// Flags adds the flags, which are read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	about := "serve /login, a page for browsers, and let /auth take its cookie (default false)"
	flags.BoolFunc("login-page", about, func(s string) (err error) {
		if c.On, err = strconv.ParseBool(s); err != nil && s != "" {
			return errors.New("it must be true or false")
		}
		return nil
	})
	about = "`domain` for all of whose hosts /login logs in (default the page's host alone)"
	flags.Func("login-domain", about, func(s string) error {
		if s != "" && !domainName.MatchString(s) {
			return errors.New("it must be a domain such as example.com, in lower case")
		}
		c.Domain = s
		return nil
	})
}

// domainName matches a name of two labels or more that is no address of IPv4.
var domainName = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z](?:[a-z0-9-]*[a-z0-9])?$`)

// Check returns an error if there is a domain and no page.
func (c *Config) Check() error {
	if c.Domain != "" && !c.On {
		return errors.New("-login-domain is set, but -login-page is not")
	}
	return nil
}

// Service is what the page needs of the service behind it.
type Service struct {
	Forms *form.Reader
	// LogIn returns a new token with all scopes of the user, and its record.
	LogIn func(r *http.Request, username, password string) (token string, record *tokens.Record, err error)
	// User returns whose token it is, and whether the user is active. The name is
	// empty if the token is not live.
	User func(r *http.Request, token string) (username string, active bool, err error)
	// LogOut ends a token.
	LogOut func(r *http.Request, token string) error
	// AnswerTo returns what the service answers to an error of Forms and of the
	// functions above.
	AnswerTo func(error) *answer.HTTPException

	Log *slog.Logger
}

// Page is the page. Make one with New.
type Page struct {
	Service
	Config

	warnedOfHTTP, warnedOfOrigin atomic.Bool
}

// New returns the page of a service.
func (c Config) New(s Service) *Page { return &Page{Service: s, Config: c} }

// Authorize lets the cookie of a request stand for a bearer token, in its header
// Authorization. A bearer token that is already there goes before it. If there is no
// page, nothing is done.
func (c Config) Authorize(r *http.Request) {
	if !c.On {
		return
	}
	sent := strings.Join(r.Header["Authorization"], ",")
	if scheme, _, _ := strings.Cut(sent, " "); strings.EqualFold(scheme, "Bearer") || strings.Contains(sent, ",") {
		return
	}
	byHTTP := strings.EqualFold(strings.Join(r.Header["X-Forwarded-Proto"], ","), "http")
	if token, _ := c.cookie(r, byHTTP); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
}

// Show answers GET /login with the form or, if the session is live, with who is
// logged in. After a login it leads on. Like the other handlers it returns no error,
// and is made for a router whose handlers may.
func (p *Page) Show(w http.ResponseWriter, r *http.Request) error {
	v := p.view(r)
	before, _, _ := strings.Cut("&"+r.URL.RawQuery, "&to=")
	query, _ := url.ParseQuery(strings.TrimPrefix(before, "&"))
	token, several := p.cookie(r, !isHTTPS(r))
	username, active, err := "", false, error(nil)
	if token != "" {
		username, active, err = p.User(r, token)
	}
	switch check := query.Get("check"); {
	case err != nil:
		v.fail(p.AnswerTo(err))
	case username == "" && check != "":
		v.status, v.wrong = http.StatusBadRequest, p.notKept(r, several)
	case username == "":
		if query.Has("out") {
			v.notice = "You are logged out."
		} else if v.refused {
			v.notice = "The login does not lead back to the page that you came from: it is not on this host."
			if p.Domain != "" {
				v.notice = "The login does not lead back to the page that you came from: it is neither on this host, " +
					"nor at an https address of " + p.Domain + "."
			}
		}
	case active && check == fingerprint(token):
		return redirect(w, v.to)
	default:
		v.loggedIn, v.disabled = username, !active
	}
	return v.write(w)
}

// Enter answers POST /login: a new session and the way back, or the form again.
func (p *Page) Enter(w http.ResponseWriter, r *http.Request) error {
	v := p.view(r)
	if v.wrong = p.foreign(r); v.wrong != "" {
		form.Drain(r)
		v.status = http.StatusForbidden
		return v.write(w)
	}
	sent, err := p.Forms.Parse(r, form.Longest, "username", "password")
	password := sent.Fields["password"]
	v.username = strings.TrimSpace(sent.Fields["username"]) // as at /token
	if err == nil && (v.username == "" || password == "") {
		v.status, v.wrong = http.StatusUnprocessableEntity, "Enter your username and your password."
		return v.write(w)
	}
	token, active, record := "", true, (*tokens.Record)(nil)
	if err == nil {
		token, record, err = p.LogIn(r, v.username, password)
	}
	if err == nil {
		_, active, err = p.User(r, token)
	}
	switch {
	case err != nil:
		v.fail(p.AnswerTo(err))
	case !active:
		v.status = http.StatusForbidden
		v.wrong = "The password is right, but this account is disabled. Ask whoever runs this service."
		if err := p.LogOut(r, token); err != nil {
			v.fail(p.AnswerTo(err))
		}
	default:
		https := isHTTPS(r)
		if !https && !p.warnedOfHTTP.Swap(true) {
			p.Log.Warn("a login came by http: anybody in between can read its password and its cookie")
		}
		p.setCookie(w, token, record.Lifetime(), https)
		return redirect(w, "login?check="+fingerprint(token)+"&to="+url.QueryEscape(v.to))
	}
	return v.write(w)
}

// Leave answers POST /logout: it ends the session.
func (p *Page) Leave(w http.ResponseWriter, r *http.Request) error {
	form.Drain(r)
	v := p.view(r)
	if v.wrong = p.foreign(r); v.wrong != "" {
		v.status = http.StatusForbidden
		return v.write(w)
	}
	token, _ := p.cookie(r, !isHTTPS(r))
	p.clearCookies(w)
	if token != "" {
		if err := p.LogOut(r, token); err != nil {
			v.fail(p.AnswerTo(err))
			v.wrong = "You are logged out in this browser, but the service could not end the session itself. " +
				"It ends by itself when its time is over."
			return v.write(w)
		}
	}
	return redirect(w, "login?out")
}

// redirect leads to a URL with GET, and returns nil. The URLs of the page itself are
// relative, and so right behind a proxy that strips a prefix from the path.
func redirect(w http.ResponseWriter, to string) error {
	w.Header().Set("Location", to)
	w.Header().Set("Referrer-Policy", referrers)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// fingerprint is what a login leaves in the URL, so that the page knows its own
// cookie when it comes back.
func fingerprint(token string) string {
	key := tokens.KeyOf(token)
	return hex.EncodeToString(key[:4])
}

// protection refuses requests of other sites.
var protection = http.NewCrossOriginProtection()

// foreign returns why a form is refused: another site sent it, or it looks so. It
// returns "" if the page sent it.
func (p *Page) foreign(r *http.Request) string {
	origin := r.Header.Get("Origin")
	_, from, _ := strings.Cut(origin, "://")
	// Without https, browsers send no Sec-Fetch-Site, and the Host may be a proxy's. No
	// site can make a browser send this header to another one.
	if r.Header["Sec-Fetch-Site"] == nil && from != "" && from == r.Header.Get("X-Forwarded-Host") {
		return ""
	}
	if protection.Check(r) == nil {
		return ""
	}
	if !p.warnedOfOrigin.Swap(true) {
		p.Log.Warn("a login or logout of another origin is refused; if the origin is yours, let the proxy pass Host on",
			"origin", logs.Cut(origin), "host", logs.Cut(r.Host))
	}
	if r.Header["Sec-Fetch-Site"] == nil && from != "" {
		return "Nothing was done: the form came from " + from + ", but this page is at " + r.Host + ". " +
			"If these are the same, the proxy between them must pass the host on (nginx: proxy_set_header Host $http_host;)."
	}
	return "Nothing was done: the form came from another site. If you want to log in, do it here."
}

// notKept returns why a login did not last, as far as one can know.
func (p *Page) notKept(r *http.Request, several bool) string {
	host := hostname(r)
	switch {
	case several:
		return "Your browser sends two cookies for this login, and one of them is another host's. " +
			"Delete the cookies of this site, then log in again."
	case p.Domain != "" && !isIn(host, p.Domain):
		return "Your browser did not keep the login: it is for " + p.Domain + ", but this page is at " + host +
			". If the address above says otherwise, the proxy must pass the host on (nginx: proxy_set_header Host $http_host;)."
	case p.Domain != "":
		return "Your browser did not keep the login. Either it blocks cookies, or everybody can get a name below " +
			p.Domain + ", so that browsers accept no cookie for all of it: " +
			"then -login-domain must be a name of your own below it."
	case isHTTPS(r):
		return "Your browser did not keep the login. Either it blocks cookies, or the address above begins with http, " +
			"while the proxy says https (nginx: proxy_set_header X-Forwarded-Proto $scheme;)."
	default:
		return "Your browser did not keep the login: it blocks cookies for this site."
	}
}

// hostname returns the host of a request, without its port.
func hostname(r *http.Request) string {
	return strings.ToLower((&url.URL{Host: r.Host}).Hostname())
}

// readable returns a duration in words, in the largest unit that fits.
func readable(d time.Duration) string {
	n, unit := int64(d/time.Second), "second"
	for _, larger := range []struct {
		size int64
		name string
	}{{60, "minute"}, {60, "hour"}, {24, "day"}} {
		if n%larger.size != 0 || n < larger.size {
			break
		}
		n, unit = n/larger.size, larger.name
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// later returns when to try again, from a Retry-After in seconds.
func later(retryAfter string) string {
	seconds, err := strconv.Atoi(retryAfter)
	if err != nil || seconds < 1 {
		return "Try again later."
	}
	return "Try again in " + readable(time.Duration(seconds)*time.Second) + "."
}
