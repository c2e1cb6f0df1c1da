package clientaddr

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for _, tt := range []struct {
		name, proxies, peer string
		forwarded           []string
		want                string
	}{
		{"no proxy", "", "1.2.3.4:5", nil, "1.2.3.4"},
		{"header from a stranger", "10.0.0.0/8", "1.2.3.4:5", []string{"6.6.6.6"}, "1.2.3.4"},
		{"header without proxies", "", "10.0.0.1:5", []string{"6.6.6.6"}, "10.0.0.1"},
		{"one proxy", "10.0.0.1", "10.0.0.1:5", []string{"1.2.3.4"}, "1.2.3.4"},
		{"the client's own entry is to the left of it", "10.0.0.1", "10.0.0.1:5", []string{"6.6.6.6, 1.2.3.4"}, "1.2.3.4"},
		{"two proxies", "10.0.0.0/8,192.168.1.1", "10.0.0.1:5", []string{"6.6.6.6,1.2.3.4, 192.168.1.1"}, "1.2.3.4"},
		{"a header for each", "10.0.0.0/8", "10.0.0.1:5", []string{"6.6.6.6", "1.2.3.4", "10.0.0.2"}, "1.2.3.4"},
		{"all trusted", "10.0.0.0/8", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"proxy without the header", "10.0.0.0/8", "10.0.0.1:5", nil, "10.0.0.1"},
		{"trust ends at nonsense", "10.0.0.0/8", "10.0.0.1:5", []string{"1.2.3.4, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"with ports", "10.0.0.0/8", "10.0.0.1:5", []string{"1.2.3.4:567"}, "1.2.3.4"},
		{"IPv6", "fd00::/8", "[fd00::1]:5", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 with a port", "fd00::/8", "[fd00::1]:5", []string{"[2001:db8::1]:567"}, "2001:db8::1"},
		{"IPv4 in IPv6", "10.0.0.0/8", "[::ffff:10.0.0.1]:5", []string{"::ffff:1.2.3.4"}, "1.2.3.4"},
		{
			name:      "IPv6 in brackets",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`[2001:db8::1]`},
			want:      "2001:db8::1",
		},
		{
			name:      "quoted",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`"1.2.3.4"`},
			want:      "1.2.3.4",
		},
		{
			name:      "quoted, with a port",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`"1.2.3.4:567"`},
			want:      "1.2.3.4",
		},
		{
			name:      "quoted IPv6 as in RFC 7239",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`"[2001:db8:cafe::17]:4711"`},
			want:      "2001:db8:cafe::17",
		},
		{
			name:      "quoted IPv6 in brackets",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`6.6.6.6, "[2001:db8::1]", 10.0.0.2`},
			want:      "2001:db8::1",
		},
		{
			name:      "an empty element at the end",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`6.6.6.6, 1.2.3.4, `},
			want:      "1.2.3.4",
		},
		{
			name:      "empty elements elsewhere",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{"6.6.6.6,,1.2.3.4 ,\t,10.0.0.2"},
			want:      "1.2.3.4",
		},
		{
			name:      "an empty header for the last proxy",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4`, ``},
			want:      "1.2.3.4",
		},
		{
			name:      "nothing but empty elements",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{` , `},
			want:      "10.0.0.1",
		},
		{
			name:      "trust ends at an empty quotation",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4, "", 10.0.0.2`},
			want:      "10.0.0.2",
		},
		{
			name:      "trust ends at an open quotation",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4, "10.0.0.3, 10.0.0.2`},
			want:      "10.0.0.2",
		},
		{
			name:      "a quotation does not hide the proxy's entry",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`"6.6.6.6, 1.2.3.4`},
			want:      "1.2.3.4",
		},
		{
			name:      "trust ends at an open bracket",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4, [2001:db8::1`},
			want:      "10.0.0.1",
		},
		{
			name:      "trust ends at IPv4 in brackets",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4, [10.0.0.2]`},
			want:      "10.0.0.1",
		},
		{
			name:      "trust ends at a hidden name of RFC 7239",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4, "_gazonk"`},
			want:      "10.0.0.1",
		},
		{
			name:      "trust ends at a socket of nginx",
			proxies:   "10.0.0.0/8",
			peer:      "10.0.0.1:5",
			forwarded: []string{`1.2.3.4, unix:`},
			want:      "10.0.0.1",
		},
		{"zone", "fe80::/10", "[fe80::1%eth0]:5", []string{"1.2.3.4"}, "1.2.3.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var proxies Proxies
			if tt.proxies != "" {
				if err := proxies.Set(tt.proxies); err != nil {
					t.Fatal(err)
				}
			}
			r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{"X-Forwarded-For": tt.forwarded}}
			if got := proxies.Of(r).String(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestSet(t *testing.T) {
	for _, tt := range []struct{ list, want, err string }{
		{"10.0.0.1, 10.0.0.0/8 ,::1,fd00::/8", "10.0.0.1/32,10.0.0.0/8,::1/128,fd00::/8", ""},
		{"10.0.0.0/33", "", `"10.0.0.0/33" is neither an address nor a range such as 10.0.0.0/8`},
		{"proxy", "", `"proxy" is neither an address nor a range such as 10.0.0.0/8`},
		{"10.0.0.1,", "", `"" is neither an address nor a range such as 10.0.0.0/8`},
		{"10.0.0.1;10.0.0.2", "", `"10.0.0.1;10.0.0.2" has a semicolon or white space: separate addresses with commas`},
		{"10.0.0.1 10.0.0.2", "", `"10.0.0.1 10.0.0.2" has a semicolon or white space: separate addresses with commas`},
		{"::1,10.0.0.0/8\nfd00::/8", "",
			`"10.0.0.0/8\nfd00::/8" has a semicolon or white space: separate addresses with commas`},
		{"fe80::1%eth0", "", `"fe80::1%eth0" is neither an address nor a range such as 10.0.0.0/8`},
		{"::ffff:10.0.0.1", "10.0.0.1/32", ""},
		{"::ffff:10.0.0.0/104,::ffff:0:0/96", "10.0.0.0/8,0.0.0.0/0", ""},
		{"::ffff:10.0.0.1/104", "", `"::ffff:10.0.0.1/104" has bits set after the prefix length, did you mean ::ffff:10.0.0.0/104?`},
		{"::ffff:0:0/90", "", `"::ffff:0:0/90" has bits set after the prefix length, did you mean ::ffc0:0:0/90?`},
		{"10.0.0.1/8", "", `"10.0.0.1/8" has bits set after the prefix length, did you mean 10.0.0.0/8?`},
	} {
		var proxies Proxies
		err := proxies.Set(tt.list)
		if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err || proxies.String() != tt.want {
			t.Errorf("%q: %s, %v", tt.list, proxies.String(), err)
		}
	}
}

func TestWarning(t *testing.T) {
	var log strings.Builder
	clients := &Clients{Log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := clients.Set("10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		warnings   int // so far
	}{
		{"trusted", "10.0.0.1:5", []string{"1.2.3.4"}, 0},
		{"without the header", "10.0.0.2:5", nil, 0},
		{"a stranger", "10.0.0.2:5", []string{"1.2.3.4"}, 1},
		{"another one", "10.0.0.3:5", []string{"1.2.3.4"}, 1},
	} {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
		if tt.forwarded != nil {
			r.Header["X-Forwarded-For"] = tt.forwarded
		}
		clients.Of(r)
		if n := strings.Count(log.String(), "level=WARN"); n != tt.warnings {
			t.Errorf("%s: %d warnings, want %d", tt.name, n, tt.warnings)
		}
	}
	if !strings.Contains(log.String(), "peer=10.0.0.2\n") {
		t.Errorf("logged %s", &log)
	}
}

// TestWide checks that ranges wider than a private one get a warning at the start.
func TestWide(t *testing.T) {
	for _, tt := range []struct{ list, ranges string }{
		{"", ""},
		{"10.0.0.0/8,127.0.0.1", ""},
		{"fc00::/7,fe80::/10,2400:cb00::/32,::1", ""},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"::/0", "::/0"},
		{"127.0.0.1,0.0.0.0/0,::/0", "0.0.0.0/0 ::/0"},
		{"0.0.0.0/1,128.0.0.0/1", "0.0.0.0/1 128.0.0.0/1"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"2000::/3", "2000::/3"},
	} {
		var proxies Proxies
		if err := proxies.Set(tt.list); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		proxies.Warn(slog.New(slog.NewTextHandler(&log, nil)))
		var warned []string
		for line := range strings.Lines(log.String()) {
			_, wide, _ := strings.Cut(strings.TrimSpace(line),
				"level=WARN msg=\"anybody in this range of -trusted-proxies can claim any"+
					" address; name only the proxies\" range=")
			warned = append(warned, wide)
		}
		if got := strings.Join(warned, " "); got != tt.ranges {
			t.Errorf("%s: warned of %q, want %q", tt.list, got, tt.ranges)
		}
	}
}

func TestNetworks(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1":            "[192.0.2.0/24 192.0.2.1/32]",
		"::ffff:192.0.2.1":     "[192.0.2.0/24 192.0.2.1/32]",
		"2001:db8:1:2:3:4:5:6": "[2001:db8::/32 2001:db8:1::/48 2001:db8:1:2::/64]",
		"fe80::1%eth0":         "[fe80::/32 fe80::/48 fe80::/64]",
	} {
		if got := fmt.Sprint(Networks(netip.MustParseAddr(address))); got != want {
			t.Errorf("%s is in %s, want %s", address, got, want)
		}
	}
}
