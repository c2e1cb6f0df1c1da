// Package clientaddr tells from which address a request comes, also behind
// proxies that are trusted to say so.
package clientaddr

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
)

// Proxies are the addresses whose X-Forwarded-For is believed.
type Proxies []netip.Prefix

// Set reads addresses and CIDR ranges separated by commas, as a [flag.Value]. Its
// error names the one that is malformed.
func (p *Proxies) Set(list string) error {
	var read Proxies
	for _, item := range strings.Split(list, ",") {
		item = strings.TrimSpace(item)
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
		if addr := prefix.Addr(); addr.Is4In6() { // an IPv4 address is compared as one
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

func (p Proxies) trusts(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Of is the address that r comes from: the peer's or, where the peer is one of
// the proxies, the right-most in X-Forwarded-For that is not. What stands left
// of that, or of something that is no address, anybody could have written.
func (p Proxies) Of(r *http.Request) netip.Addr {
	client := parse(r.RemoteAddr)
	if !p.trusts(client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := parse(strings.TrimSpace(hops[i]))
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

// Clients tells the addresses of clients, behind the proxies. The first header
// that is not believed is a warning: it may be a proxy's that was forgotten.
type Clients struct {
	Proxies
	Log *slog.Logger

	warned atomic.Bool
}

// Of is the address that r comes from, as [Proxies.Of] has it.
func (c *Clients) Of(r *http.Request) netip.Addr {
	if r.Header["X-Forwarded-For"] != nil && !c.warned.Load() {
		if peer := parse(r.RemoteAddr); !c.trusts(peer) && !c.warned.Swap(true) {
			c.Log.Warn("ignoring X-Forwarded-For from an untrusted peer; if it is your proxy, add it to -trusted-proxies", "peer", peer)
		}
	}
	return c.Proxies.Of(r)
}

// parse reads an address with or without a port; it is invalid if text is not.
func parse(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		withPort, _ := netip.ParseAddrPort(text)
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone("")
}
