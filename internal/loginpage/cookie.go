package loginpage

import (
	"net/http"
	"strings"
	"time"
)

// plainName is the cookie's name on http. On https it has a prefix that binds it
// (draft-ietf-httpbis-rfc6265bis 4.1.3).
const plainName = "simple_oauth2"

func (c Config) secureName() string {
	if c.Domain != "" {
		return "__Secure-" + plainName // __Host- allows no Domain
	}
	return "__Host-" + plainName
}

// cookie returns the token in the cookie of a request. It is empty if there is none,
// or if there are several of one name. The plain name is looked at only on request.
func (c Config) cookie(r *http.Request, plain bool) (token string, several bool) {
	names := []string{c.secureName()}
	if plain {
		names = append(names, plainName)
	}
	for _, name := range names {
		if isSpacedOut(r, name) {
			return "", false
		}
		switch sent := r.CookiesNamed(name); len(sent) {
		case 0:
		case 1:
			return sent[0].Value, false
		default:
			return "", true
		}
	}
	return "", false
}

// isSpacedOut says whether a request has the cookie with white space behind its name.
// No browser sends that, but net/http reads it, and gateways that keep the cookie from
// the tool do not know it.
func isSpacedOut(r *http.Request, name string) bool {
	for _, header := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(header, ";") {
			key, _, _ := strings.Cut(strings.TrimLeft(pair, " \t"), "=")
			if key != name && strings.TrimSpace(key) == name {
				return true
			}
		}
	}
	return false
}

// setCookie sets the cookie of a login, for as long as its token lives, and removes the one of the other scheme.
func (p *Page) setCookie(w http.ResponseWriter, token string, ttl time.Duration, https bool) {
	for _, secure := range []bool{true, false} {
		c := p.emptyCookie(secure)
		if secure == https {
			c.Value, c.MaxAge = token, int(ttl/time.Second)
		}
		http.SetCookie(w, c)
	}
}

func (c Config) clearCookies(w http.ResponseWriter) {
	http.SetCookie(w, c.emptyCookie(true))
	http.SetCookie(w, c.emptyCookie(false))
}

// emptyCookie returns a cookie that removes the one of its name.
func (c Config) emptyCookie(secure bool) *http.Cookie {
	empty := &http.Cookie{
		Name: plainName, Path: "/", Domain: c.Domain, MaxAge: -1,
		Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if secure {
		empty.Name = c.secureName()
	}
	return empty
}

// isHTTPS says whether the browser came by https. It says so itself in the Origin of
// a form. Otherwise a proxy does, or there is none. It need not be a trusted one:
// whoever claims https without reason gets a cookie that no browser keeps on http.
func isHTTPS(r *http.Request) bool {
	scheme, _, found := strings.Cut(r.Header.Get("Origin"), "://")
	if found {
		return scheme == "https"
	}
	if by := r.Header["X-Forwarded-Proto"]; by != nil {
		return strings.Contains(strings.ToLower(strings.Join(by, ",")), "https")
	}
	return r.TLS != nil
}
