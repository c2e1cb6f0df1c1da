// Package cors lets pages of other origins read a service's answers, by the
// CORS protocol of https://fetch.spec.whatwg.org/#http-cors-protocol.
package cors

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/router"
)

// Origins are the origins of the pages that may read the answers; a single "*"
// is any origin, but without credentials.
type Origins []string

// Set reads origins separated by commas, as a [flag.Value]. An empty list allows
// none. Each must be written as a browser sends it, since origins are compared byte
// by byte. The error names the one that is not.
func (o *Origins) Set(list string) error {
	var read Origins
	if list == "" {
		*o = nil
		return nil
	}
	for _, origin := range strings.Split(list, ",") {
		origin = strings.TrimSpace(origin)
		if origin != "*" {
			if err := check(origin); err != nil {
				return err
			}
		}
		read = append(read, origin)
	}
	if len(read) > 1 && slices.Contains(read, "*") {
		return fmt.Errorf("* means any origin and must be the only one")
	}
	*o = read
	return nil
}

// String is the list as Set takes it.
func (o *Origins) String() string { return strings.Join(*o, ",") }

func check(origin string) error {
	if strings.ContainsAny(origin, "; \t\r\n") {
		return fmt.Errorf("%q has a semicolon or white space: separate origins with commas", origin)
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || strings.Contains(u.Host, "*") || u.User != nil {
		return fmt.Errorf("%q is not an origin such as https://app.example.com", origin)
	}
	for _, r := range u.Host {
		if r > '~' {
			return fmt.Errorf("%q: a browser sends the host in ASCII (xn--…)", origin)
		}
	}
	as := u.Scheme + "://" + strings.ToLower(u.Host)
	if port := u.Port(); port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		as = strings.TrimSuffix(as, ":"+port)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.Is6() {
		as = strings.Replace(as, strings.ToLower(u.Hostname()), ip.String(), 1)
	}
	if as != origin {
		return fmt.Errorf("%q is not an origin as browsers send it, did you mean %s?", origin, as)
	}
	return nil
}

// Handler opens next to these origins. It answers their preflights itself, and
// marks every other answer, errors included, before next writes it: to a page
// that may not read a 401, it looks like a network failure.
//
// At the path guard and below it, gateways ask whether a request may pass. There
// next answers a preflight: a gateway would take 204 for a yes.
//
// A preflight allows the headers that it asks for. Libraries add their own to
// what a page sends, such as traceparent, and the service reads what it knows.
//
// The first page of another origin that may not read its answer is logged as a
// warning: all that the page sees is a network failure.
func (o Origins) Handler(next http.Handler, guard string, log *slog.Logger) http.Handler {
	anyOrigin := slices.Equal(o, Origins{"*"})
	var warned atomic.Bool
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if len(o) > 0 {
			header.Add("Vary", "Origin")
		}
		var origin string
		if sent := r.Header["Origin"]; len(sent) > 0 {
			origin = sent[0]
		}
		switch {
		case origin != "" && anyOrigin:
			header.Set("Access-Control-Allow-Origin", "*")
		case slices.Contains(o, origin):
			header.Set("Access-Control-Allow-Origin", origin)
			header.Set("Access-Control-Allow-Credentials", "true")
		default:
			if origin != "" && readsAcross(r, origin) && !warned.Swap(true) {
				advice := "if it is yours, add it to -cors-origins"
				if origin == "null" { // of files and of sandboxed frames, so nobody's in particular
					advice = "if it is yours, serve it from a web server, not from a file"
				}
				log.Warn("a page of another origin may not read the answer; "+advice, "origin", logs.Cut(origin))
			}
			next.ServeHTTP(w, r)
			return
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && !router.IsBelow(r.URL.Path, guard) {
			header.Add("Vary", "Access-Control-Request-Headers")
			header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
			if names := requested(r); len(names) > 0 {
				header.Set("Access-Control-Allow-Headers", strings.Join(names, ", "))
			}
			header.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After")
		next.ServeHTTP(w, r)
	})
}

// fieldName is a header's name (RFC 9110 5.1).
var fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// requested returns the names of the headers that a preflight asks for.
func requested(r *http.Request) []string {
	var names []string
	for _, list := range r.Header.Values("Access-Control-Request-Headers") {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.Trim(name, " \t"); fieldName.MatchString(name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// readsAcross says whether a script of another origin wants to read the answer.
// Origin alone does not show it: a page's own requests, links and forms also send
// it. The browser says it in Sec-Fetch-Mode (https://www.w3.org/TR/fetch-metadata/),
// but only to https and to localhost. Elsewhere the page is the service's own if it
// is of the host that the request is sent to, and forms count as scripts.
func readsAcross(r *http.Request, origin string) bool {
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "cors":
		return r.Header.Get("Sec-Fetch-Site") != "same-origin"
	case "":
		_, host, _ := strings.Cut(origin, "://")
		return host != r.Host
	}
	return false
}
