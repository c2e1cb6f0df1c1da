// Package cors lets pages of other origins read a service's answers, by the
// CORS protocol of https://fetch.spec.whatwg.org/#http-cors-protocol.
package cors

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/router"
)

// Origins are the origins of the pages that may read the answers; a single "*"
// is any origin, but without credentials.
type Origins []string

// Set reads origins separated by commas, as a [flag.Value]. Each must be written
// as a browser sends it, since origins are compared byte by byte. The error names
// the one that is not.
func (o *Origins) Set(list string) error {
	var read Origins
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
			if origin != "" && readsAcross(r) && !warned.Swap(true) {
				log.Warn("a page of another origin may not read the answer; if it is yours, add it to -cors-origins", "origin", logs.Cut(origin))
			}
			next.ServeHTTP(w, r)
			return
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && !router.IsBelow(r.URL.Path, guard) {
			header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
			header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			header.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After")
		next.ServeHTTP(w, r)
	})
}

// readsAcross says whether a script of another origin wants to read the answer,
// according to the browser (https://www.w3.org/TR/fetch-metadata/). Origin alone
// does not show it: a page's own requests, links and forms also send it.
func readsAcross(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "cors" && r.Header.Get("Sec-Fetch-Site") != "same-origin"
}
