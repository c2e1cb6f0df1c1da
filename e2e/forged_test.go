package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forgery is a request that says who sent it.
type forgery struct {
	name    string
	headers []string
	body    string // in chunks; then the request is a POST

	malformed bool // a gateway may refuse it instead
}

// forgeries say admin in every way that some server may take for Remote-User and
// its like. CGI writes _ for the hyphen, and so do many servers for each byte that
// is neither a letter nor a digit. The first one says nothing.
func forgeries() []forgery {
	all := []forgery{{name: "nothing"}}
	names := []string{"Remote-User", "Remote-Name", "Remote-Email", "Remote-Scope", "Remote-Groups"}
	spell := func(hyphen string, value string) (lines []string) {
		for _, name := range names {
			name = strings.Replace(name, "-", hyphen, 1)
			for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
				lines = append(lines, spelling+": "+value)
			}
		}
		return lines
	}
	plain := spell("-", "x")
	for b := range 256 {
		if '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z' {
			continue
		}
		hyphen := string([]byte{byte(b)})
		lines := spell(hyphen, "admin")
		if !strings.ContainsRune("-_.!#$%&'*+^`|~", rune(b)) { // RFC 9110 5.6.2 has it in no name
			all = append(all, forgery{name: fmt.Sprintf("%q", hyphen), headers: lines, malformed: true})
			continue
		}
		empty := spell(hyphen, "")
		all = append(all,
			forgery{name: fmt.Sprintf("%q", hyphen), headers: lines},
			forgery{name: fmt.Sprintf("%q behind an empty one", hyphen), headers: slices.Concat(empty, lines)},
			forgery{name: fmt.Sprintf("%q behind the plain ones", hyphen), headers: slices.Concat(plain, lines)},
			forgery{name: fmt.Sprintf("%q before the plain ones", hyphen), headers: slices.Concat(lines, plain)},
			forgery{name: fmt.Sprintf("%q in a trailer", hyphen),
				headers: []string{"Transfer-Encoding: chunked", "Trailer: Remote-User, Remote_User"},
				body:    "3\r\na=b\r\n0\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"})
	}
	return append(all, forgery{name: "in a folded line", malformed: true,
		headers: []string{"X: y", " Remote-User: admin", "\tRemote_User: admin"}})
}

// TestForgedHeaders runs each gateway before PHP in lighttpd. PHP learns from the
// gateway who sent a request, whatever the client says.
func TestForgedHeaders(t *testing.T) {
	php := startPHP(t)
	for _, g := range slices.Concat(gateways, []gateway{site}, loginGateways) {
		t.Run(filepath.Base(g.name), func(t *testing.T) {
			t.Parallel()
			s := g.before(t, php)
			jane, _ := g.known()
			for _, f := range forgeries() {
				s.checkForgery(g.guarded(), s.bearer("jane"), f, jane)
				s.checkForgery(g.guarded(), "X: y", f, nil)
				if !g.closed {
					s.checkForgery("/", "X: y", f, map[string]string{})
				}
			}
			_, zoe := g.known()
			if zoe["remote-name"] != "" {
				zoe["remote-name"], _ = url.PathUnescape(zoe["remote-name"])
			}
			s.checkForgery(g.guarded(), s.bearer("zoe"), forgery{name: "nothing"}, zoe)
		})
	}
}

// checkForgery sends a forgery, and compares what PHP says with want. If that is
// nil, the request must be refused.
func (s *stage) checkForgery(path, authorization string, f forgery, want map[string]string) {
	s.t.Helper()
	method := "GET"
	if f.body != "" {
		method = "POST"
	}
	headers := append([]string{authorization, "Connection: close"}, f.headers...)
	status, _, body := s.send(method, path, headers, f.body)
	if refused := status == 400 || status == 401 || status == 403; refused && (f.malformed || want == nil) {
		return
	}
	var said map[string]string
	err := json.Unmarshal([]byte(body), &said)
	if status != 200 || err != nil || want == nil || !maps.Equal(said, want) {
		s.t.Errorf("%s with %s: %d, and PHP reads %.200s, want %v", path, f.name, status, body, want)
	}
}

// startPHP runs lighttpd with PHP, as a backend, and returns its address.
func startPHP(t *testing.T) (addr string) {
	t.Helper()
	s := &stage{t: t, dir: t.TempDir(), addr: freeAddrs(t, 1)[0]}
	s.copyExample("testdata/php", "", "")
	s.run("lighttpd", "-D", "-f", filepath.Join(s.dir, "lighttpd.conf"))
	return s.addr
}
