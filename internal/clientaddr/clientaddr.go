// Package clientaddr finds the address that a request comes from, even behind
// trusted proxies.
package clientaddr

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
)

// Proxies are the addresses whose X-Forwarded-For is trusted.
type Proxies []netip.Prefix

// Set reads addresses and CIDR ranges separated by commas, as a [flag.Value]. An
// empty list trusts nobody. Its error names the malformed one.
func (p *Proxies) Set(list string) error {
	var read Proxies
	if list == "" {
		*p = nil
		return nil
	}
	for _, item := range strings.Split(list, ",") {
		item = strings.TrimSpace(item)
		if strings.ContainsAny(item, "; \t\r\n") {
			return fmt.Errorf("%q has a semicolon or white space: separate addresses with commas", item)
		}
		prefix, err := netip.ParsePrefix(item)
		if addr, notRange := netip.ParseAddr(item); notRange == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8", item)
		}
		if prefix != prefix.Masked() {
			return fmt.Errorf("%q has bits set after the prefix length, did you mean %s?", item, prefix.Masked())
		}
		if addr := prefix.Addr(); addr.Is4In6() { // IPv4 addresses are compared as IPv4
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		read = append(read, prefix)
	}
	*p = read
	return nil
}

// String is the list as Set takes it.
func (p *Proxies) String() string {
	var items []string
	for _, prefix := range *p {
		items = append(items, prefix.String())
	}
	return strings.Join(items, ",")
}

// Warn warns of ranges wider than 10.0.0.0/8 and fc00::/7, the widest private ones:
// strangers are among the proxies there.
func (p Proxies) Warn(log *slog.Logger) {
	for _, prefix := range p {
		widest := 8
		if prefix.Addr().Is6() {
			widest = 7
		}
		if prefix.Bits() < widest {
			log.Warn("anybody in this range of -trusted-proxies can claim any address; name only the proxies", "range", prefix)
		}
	}
}

func (p Proxies) trusts(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Of returns the address that r comes from: the peer's or, if the peer is one of
// the proxies, the right-most in X-Forwarded-For that is not. Anybody could have
// written what is to the left of that, or of something that is no address. An
// address may have a port and quotation marks (RFC 7239 6), and empty elements
// do not count (RFC 9110 5.6.1).
func (p Proxies) Of(r *http.Request) netip.Addr {
	client := parse(r.RemoteAddr)
	if !p.trusts(client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		element := strings.TrimSpace(hops[i])
		if element == "" {
			continue
		}
		hop := parse(unquote(element))
		if !hop.IsValid() {
			break
		}
		client = hop
		if !p.trusts(client) {
			break
		}
	}
	return client
}

// Clients finds the addresses of clients behind the proxies. It logs a warning for
// the first header that it ignores: the sender may be a forgotten proxy.
type Clients struct {
	Proxies
	Log *slog.Logger

	warned atomic.Bool
}

// Of is [Proxies.Of], with the warning.
func (c *Clients) Of(r *http.Request) netip.Addr {
	if r.Header["X-Forwarded-For"] != nil && !c.warned.Load() {
		if peer := parse(r.RemoteAddr); !c.trusts(peer) && !c.warned.Swap(true) {
			c.Log.Warn("ignoring X-Forwarded-For from an untrusted peer; if it is your proxy, add it to -trusted-proxies", "peer", peer)
		}
	}
	return c.Proxies.Of(r)
}

func unquote(text string) string {
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		return text[1 : len(text)-1]
	}
	return text
}

// parse reads an address, of IPv6 also in brackets, with or without a port. If text
// is something else, the result is not valid.
func parse(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		if strings.HasSuffix(text, "]") {
			text += ":0"
		}
		withPort, _ := netip.ParseAddrPort(text)
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone("")
}

// Networks returns the networks that an address is in, the widest first: a /24
// and a /32 of IPv4, a /32, a /48 and a /64 of IPv6. The last one is what a single
// customer gets, and the /32 of IPv6 is what a provider gets.
func Networks(client netip.Addr) (networks []netip.Prefix) {
	client = client.Unmap().WithZone("")
	sizes := []int{24, 32}
	if client.Is6() {
		sizes = []int{32, 48, 64}
	}
	for _, bits := range sizes {
		network, _ := client.Prefix(bits)
		networks = append(networks, network)
	}
	return networks
}
