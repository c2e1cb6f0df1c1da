package loginpage

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// longestTarget is the number of bytes of a target. Encoded, it fits into the
// request line three times over.
const longestTarget = 4 << 10

// absolute matches a URL with a host: its scheme, host, port, and the rest.
var absolute = regexp.MustCompile(`^(?i:(https?)://((?:[a-z0-9-]+\.)*[a-z0-9-]+)(:[0-9]{1,5})?)([/?#].*)?$`)

// target returns where a login leads: to what follows the first "to=" of a query,
// to its very end, since a gateway may have put a path with a query of its own there.
// It may be plain or, as a whole, percent-encoded.
//
// That is a path of the same host or, with a domain, an https URL of a host in it.
// Anything else is refused, and leads to "/". Browsers drop tabs and line ends, and
// take "\" for "/", so neither is passed on. What is passed on is printable ASCII.
func target(query, host, domain string) (to string, refused bool) {
	to, given := strings.CutPrefix(query, "to=")
	if !given {
		_, to, given = strings.Cut(query, "&to=")
	}
	if !given || to == "" {
		return "/", false
	}
	if !strings.HasPrefix(to, "/") && !absolute.MatchString(to) {
		var err error
		if to, err = url.PathUnescape(to); err != nil {
			return "/", true
		}
	}
	origin, path := "", to
	if parts := absolute.FindStringSubmatch(to); parts != nil {
		name := strings.ToLower(parts[2])
		path = parts[4]
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		switch isHTTPS := strings.EqualFold(parts[1], "https"); {
		case strings.EqualFold(name+parts[3], host): // without its scheme, which a proxy may not know
		case isHTTPS && isIn(name, domain):
			origin = "https://" + name + parts[3]
		default:
			return "/", true
		}
	}
	before, _, _ := strings.Cut(path, "?")
	elsewhere := !strings.HasPrefix(path, "/") || origin == "" && strings.HasPrefix(path, "//")
	if elsewhere || strings.Contains(before, `\`) || strings.ContainsFunc(path, isControl) {
		return "/", true
	}
	if to = origin + printable(path); len(to) > longestTarget {
		return "/", true
	}
	return to, false
}

// isIn says whether a host is the domain or below it.
func isIn(host, domain string) bool {
	return domain != "" && (host == domain || strings.HasSuffix(host, "."+domain))
}

func isControl(r rune) bool { return r < ' ' || r == 0x7F }

// printable percent-encodes what browsers encode in a query, and "\".
func printable(text string) string {
	var encoded strings.Builder
	for i := range len(text) {
		if b := text[i]; b <= ' ' || b > '~' || strings.IndexByte("\"<>\\^`{|}", b) >= 0 {
			fmt.Fprintf(&encoded, "%%%02X", b)
		} else {
			encoded.WriteByte(b)
		}
	}
	return encoded.String()
}
