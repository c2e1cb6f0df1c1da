package loginpage

import (
	"net/url"
	"strings"
	"testing"
)

// TestTarget is where a login leads. The page is at https://tool.example.com, and
// "/" stands for all that is refused.
func TestTarget(t *testing.T) {
	const domain = "example.com"
	for _, tt := range []struct {
		query  string
		domain string
		want   string
	}{
		// what gateways send
		{query: "", want: "/"},
		{query: "to=", want: "/"},
		{query: "to=/", want: "/"},
		{query: "to=/report", want: "/report"},
		{query: "to=/report?from=1&to=2&name=%C3%BC", want: "/report?from=1&to=2&name=%C3%BC"},
		{query: "to=/report?from=1&to=2&name=ü", want: "/report?from=1&to=2&name=%C3%BC"},
		{query: "to=%2Freport%3Ffrom%3D1%26to%3D2%26name%3D%C3%BC", want: "/report?from=1&to=2&name=%C3%BC"},
		{query: "to=%2freport%3fq%3d100%2525", want: "/report?q=100%25"},
		{query: "to=/report?q=100%25&r=a%26b", want: "/report?q=100%25&r=a%26b"},
		{query: "to=/search?q=a+b%20c", want: "/search?q=a+b%20c"},
		{query: "to=%2Fsearch%3Fq%3Da%2Bb%2520c", want: "/search?q=a+b%20c"},
		{query: "to=/a;b=c,d:e@f!g$h'(i)*", want: "/a;b=c,d:e@f!g$h'(i)*"},
		{query: "to=/a?b=c?d=e", want: "/a?b=c?d=e"},
		{query: "to=%2Fapp%23%2Froute", want: "/app#/route"},
		{query: "to=/report?back=https://evil.example/", want: "/report?back=https://evil.example/"},
		{query: `to=/file?path=C:\temp`, want: `/file?path=C:%5Ctemp`},
		{query: `to=/json?q={"a":"<b>"}`, want: "/json?q=%7B%22a%22:%22%3Cb%3E%22%7D"},
		{query: "check=1&to=/report?a=1", want: "/report?a=1"},
		{query: "username=a&password=b&to=/report", want: "/report"},
		{query: "auto=/evil&to=/report", want: "/report"},
		{query: "auto=/report", want: "/"},
		{query: "To=/report", want: "/"},
		{query: "to=report", want: "/"},
		{query: "to=?a=b", want: "/"},
		{query: "to=/%", want: "/%"},
		{query: "to=%2F%zz", want: "/"},
		{query: "to=/" + strings.Repeat("a", 4095), want: "/" + strings.Repeat("a", 4095)},
		{query: "to=/" + strings.Repeat("a", 4096), want: "/"},
		{query: "to=/" + strings.Repeat("ü", 1500), want: "/"},

		// other hosts
		{query: "to=//evil.example", want: "/"},
		{query: "to=///evil.example", want: "/"},
		{query: "to=%2F%2Fevil.example", want: "/"},
		{query: "to=%2f/evil.example", want: "/"},
		{query: "to=/%2Fevil.example", want: "/%2Fevil.example"}, // a path of this host
		{query: `to=/\evil.example`, want: "/"},
		{query: `to=\/evil.example`, want: "/"},
		{query: `to=\\evil.example`, want: "/"},
		{query: `to=/a\..\..\evil.example`, want: "/"},
		{query: "to=/%5Cevil.example", want: "/%5Cevil.example"}, // a path of this host
		{query: "to=%2F%5Cevil.example", want: "/"},
		{query: "to=%5C%5Cevil.example", want: "/"},
		{query: "to=%09//evil.example", want: "/"},
		{query: "to=%2F%09%2Fevil.example", want: "/"},
		{query: "to=%2F%0A%2Fevil.example", want: "/"},
		{query: "to=\t//evil.example", want: "/"},
		{query: "to=/\t/evil.example", want: "/"},
		{query: "to=/\r\nSet-Cookie: a=b", want: "/"},
		{query: "to=%2F%0D%0ASet-Cookie:%20a=b", want: "/"},
		{query: "to=/%0D%0ASet-Cookie:%20a=b", want: "/%0D%0ASet-Cookie:%20a=b"}, // stays encoded
		{query: "to=%2F%00", want: "/"},
		{query: "to=%2F%7F", want: "/"},
		{query: "to=%20//evil.example", want: "/"},
		{query: "to= //evil.example", want: "/"},
		{query: "to=%252F%252Fevil.example", want: "/"},
		{query: "to=https:evil.example", want: "/"},
		{query: "to=https:/evil.example", want: "/"},
		{query: "to=https:///evil.example", want: "/"},
		{query: `to=https:\\evil.example`, want: "/"},
		{query: "to=https%3Aevil.example", want: "/"},
		{query: "to=https://evil.example/", want: "/"},
		{query: "to=http://evil.example/", want: "/"},
		{query: "to=HTTPS://evil.example/", want: "/"},
		{query: "to=https%3A%2F%2Fevil.example%2F", want: "/"},
		{query: "to=javascript:alert(1)", want: "/"},
		{query: "to=javascript%3Aalert(1)", want: "/"},
		{query: "to=javascript://tool.example.com/%250aalert(1)", want: "/"},
		{query: "to=data:text/html,a", want: "/"},
		{query: "to=ftp://tool.example.com/", want: "/"},
		{query: "to=ws://tool.example.com/", want: "/"},
		{query: "to=@evil.example", want: "/"},
		{query: "to=.evil.example", want: "/"},

		// a whole URL of this host is its path: the host is left out
		{query: "to=https://tool.example.com/report?a=1&b=2", want: "/report?a=1&b=2"},
		{query: "to=https%3A%2F%2Ftool.example.com%2Freport%3Fa%3D1%26b%3D2", want: "/report?a=1&b=2"},
		{query: "to=http://TOOL.example.com", want: "/"},
		{query: "to=https://tool.example.com?a=b", want: "/?a=b"},
		{query: "to=https://tool.example.com//evil.example", want: "/"},
		{query: `to=https://tool.example.com/\evil.example`, want: "/"},
		{query: "to=https://tool.example.com:8443/", want: "/"},
		{query: "to=https://tool.example.com@evil.example/", want: "/"},
		{query: "to=https://evil.example/tool.example.com", want: "/"},
		{query: "to=https://wiki.example.com/", want: "/"},

		// with a login domain, also its https URLs
		{domain: domain, query: "to=https://wiki.example.com/a?b=c&to=d", want: "https://wiki.example.com/a?b=c&to=d"},
		{domain: domain, query: "to=https%3A%2F%2Fwiki.example.com%2Fa%3Fb%3Dc", want: "https://wiki.example.com/a?b=c"},
		{domain: domain, query: "to=HTTPS://Wiki.Example.COM", want: "https://wiki.example.com/"},
		{domain: domain, query: "to=https://wiki.example.com?a=b", want: "https://wiki.example.com/?a=b"},
		{domain: domain, query: "to=https://wiki.example.com:8443/a", want: "https://wiki.example.com:8443/a"},
		{domain: domain, query: "to=https://example.com/", want: "https://example.com/"},
		{domain: domain, query: "to=https://a.b.example.com/", want: "https://a.b.example.com/"},
		{domain: domain, query: "to=https://wiki.example.com//a", want: "https://wiki.example.com//a"},
		{domain: domain, query: "to=/report", want: "/report"},
		{domain: domain, query: "to=http://wiki.example.com/", want: "/"},
		{domain: domain, query: "to=//wiki.example.com/", want: "/"},
		{domain: domain, query: "to=https:wiki.example.com/", want: "/"},
		{domain: domain, query: "to=https://evilexample.com/", want: "/"},
		{domain: domain, query: "to=https://evil-example.com/", want: "/"},
		{domain: domain, query: "to=https://example.com.evil.example/", want: "/"},
		{domain: domain, query: "to=https://example.com./", want: "/"},
		{domain: domain, query: "to=https://example.co/", want: "/"},
		{domain: domain, query: "to=https://user@wiki.example.com/", want: "/"},
		{domain: domain, query: "to=https://user:pass@wiki.example.com/", want: "/"},
		{domain: domain, query: "to=https://wiki.example.com@evil.example/", want: "/"},
		{domain: domain, query: "to=https://wiki.example.com:8443@evil.example/", want: "/"},
		{domain: domain, query: "to=https://wiki.example.com:@evil.example/", want: "/"},
		{domain: domain, query: "to=https://wiki.example.com:abc/", want: "/"},
		{domain: domain, query: "to=https://wiki.example.com:999999/", want: "/"},
		{domain: domain, query: `to=https://evil.example\.example.com/`, want: "/"},
		{domain: domain, query: `to=https://evil.example\@wiki.example.com/`, want: "/"},
		{domain: domain, query: "to=https://evil.example%2Fexample.com/", want: "/"},
		{domain: domain, query: "to=https://evil.example%23.example.com/", want: "/"},
		{domain: domain, query: "to=https%3A%2F%2Fevil.example%23.example.com%2F", want: "/"},
		{domain: domain, query: "to=https%3A%2F%2Fevil.example%3F.example.com%2F", want: "/"},
		{domain: domain, query: "to=https://evil。example.com/", want: "/"},
		{domain: domain, query: "to=https://evil.example／.example.com/", want: "/"},
		{domain: domain, query: "to=https://[::1].example.com/", want: "/"},
		{domain: domain, query: "to=https://.example.com/", want: "/"},
		{domain: domain, query: "to=https://a..example.com/", want: "/"},
		{domain: domain, query: "to=javascript://wiki.example.com/%250aalert(1)", want: "/"},
	} {
		t.Run(tt.domain+" "+tt.query[:min(len(tt.query), 60)], func(t *testing.T) {
			got, refused := target(tt.query, "tool.example.com", tt.domain)
			if got != tt.want {
				t.Fatalf("%q", got)
			}
			if refused && got != "/" {
				t.Error("it is refused, and leads there")
			}
			// Whatever the page itself passes on comes back as it was.
			if again, _ := target("to="+url.QueryEscape(got), "tool.example.com", tt.domain); again != got {
				t.Errorf("%q on the way back", again)
			}
		})
	}
}

// FuzzTarget wants a browser to stay on the host or in the domain.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{
		"/a?b=c", "//evil", `/\evil`, "https://wiki.example.com/", "%2F%09%2Fevil", "https://example.com@evil",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, to string) {
		got, _ := target("to="+to, "tool.example.com", "example.com")
		base, _ := url.Parse("https://tool.example.com/login")
		u, err := base.Parse(got)
		if err != nil {
			return // such as a lone percent sign, which browsers keep
		}
		if u.Scheme != "https" || !strings.HasSuffix("."+u.Hostname(), ".example.com") || u.User != nil {
			t.Errorf("%q leads to %q", to, got)
		}
		for _, b := range []byte(got) {
			if b <= ' ' || b > '~' || b == '\\' {
				t.Errorf("%q has the byte %q", got, b)
			}
		}
	})
}
