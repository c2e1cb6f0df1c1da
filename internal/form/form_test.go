package form_test

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"simple-oauth2/internal/form"
)

const (
	urlencoded = "application/x-www-form-urlencoded"
	parts      = "multipart/form-data; boundary=B"
	part       = "--B\r\nContent-Disposition: form-data; name="
	jane       = part + "username\r\n\r\njane\r\n"
	end        = "--B--\r\n"
	limit      = 1024
	mark       = "body: The body must not begin with a byte order mark: save it as UTF-8 without one"
)

func request(kind, body string) *http.Request {
	r := httptest.NewRequest("POST", "/token?username=query", strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r
}

// outcome is the fields that Parse found, or its error, as text.
func outcome(sent form.Form, err error) string {
	if errors.As(err, new(*http.MaxBytesError)) {
		return "too large"
	}
	if err != nil {
		return err.Error()
	}
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(sent.Fields)) {
		fields = append(fields, name+"="+sent.Fields[name])
	}
	return strings.Join(fields, " ")
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, kind, body string
		want             string // the fields, or the error
	}{
		{
			name: "two fields",
			kind: urlencoded,
			body: "username=jane&password=secret",
			want: "password=secret username=jane",
		},
		{
			name: "a parameter of the type",
			kind: urlencoded + "; charset=utf-8",
			body: "username=jane",
			want: "username=jane",
		},
		{
			name: "a broken parameter of the type",
			kind: urlencoded + "; charset",
			body: "username=jane",
			want: "username=jane",
		},
		{
			name: "the type in capitals",
			kind: "Application/X-WWW-Form-URLEncoded",
			body: "username=jane",
			want: "username=jane",
		},
		{
			name: "plus and percent",
			kind: urlencoded,
			body: "username=jane+roe&password=%2B%26%3D%25",
			want: "password=+&=% username=jane roe",
		},
		{name: "escapes in a name", kind: urlencoded, body: "%75sername=jane", want: "username=jane"},
		{name: "no value", kind: urlencoded, body: "username&password=", want: "password= username="},
		{name: "an equals sign in the value", kind: urlencoded, body: "password=a=b", want: "password=a=b"},
		{name: "empty pairs", kind: urlencoded, body: "&&username=jane&", want: "username=jane"},
		{name: "bytes that are not UTF-8", kind: urlencoded, body: "username=%ff", want: "username=\xff"},
		{name: "a field that is not read", kind: urlencoded, body: "username=jane&foo=bar", want: "username=jane"},
		{name: "the same twice", kind: urlencoded, body: "username=jane&foo=a&foo=b", want: "username=jane"},
		{name: "its name begins like JSON", kind: urlencoded, body: "[0]=a&username=jane", want: "username=jane"},
		{name: "its name begins like a part", kind: urlencoded, body: "--form-data=a&username=jane", want: "username=jane"},
		{name: "the query does not count", kind: urlencoded, body: "", want: ""},
		{name: "no type", kind: "", body: "username=jane", want: ""},
		{name: "a broken type", kind: "a/b/c", body: "username=jane", want: ""},
		{name: "JSON", kind: "application/json", body: `{"username":"jane"}`, want: ""},
		{
			name: "at the limit",
			kind: urlencoded,
			body: "username=jane&x=" + strings.Repeat("x", limit-16),
			want: "username=jane",
		},
		{
			name: "over the limit",
			kind: urlencoded,
			body: "username=jane&x=" + strings.Repeat("x", limit-15),
			want: "too large",
		},
		{
			name: "twice",
			kind: urlencoded,
			body: "username=jane&username=jane",
			want: "body.username: Field must not be repeated",
		},
		{
			name: "twice, first without a value",
			kind: urlencoded,
			body: "username=&username=jane",
			want: "body.username: Field must not be repeated",
		},
		{
			name: "twice without a value",
			kind: urlencoded,
			body: "username&username",
			want: "body.username: Field must not be repeated",
		},
		{
			name: "twice, once escaped",
			kind: urlencoded,
			body: "username=jane&%75sername=jane",
			want: "body.username: Field must not be repeated",
		},
		{
			name: "a bare percent sign",
			kind: urlencoded,
			body: "username=jane&password=100%",
			want: "body: A percent sign must be sent as %25, unless two hexadecimal digits follow it",
		},
		{
			name: "a percent sign and other letters, in a field that is not read",
			kind: urlencoded,
			body: "username=jane&x=%zz",
			want: "body: A percent sign must be sent as %25, unless two hexadecimal digits follow it",
		},
		{
			name: "a percent sign in a name",
			kind: urlencoded,
			body: "%zz=x",
			want: "body: A percent sign must be sent as %25, unless two hexadecimal digits follow it",
		},
		{
			name: "a bare semicolon",
			kind: urlencoded,
			body: "username=jane&password=a;b",
			want: "body: A semicolon must be sent as %3B",
		},
		{
			name: "FormData that is labelled urlencoded",
			kind: urlencoded,
			body: jane + end,
			want: "body: The body is multipart/form-data, but its Content-Type is application/x-www-form-urlencoded",
		},
		{name: "after a byte order mark", kind: urlencoded, body: "\ufeffusername=jane&password=x", want: mark},
		{name: "an optional field after one", kind: urlencoded, body: "\ufeffscope=a&username=jane&password=x", want: mark},
		{name: "UTF-16 without its NULs, as curl sends it", kind: urlencoded, body: "\xff\xfeusername=jane", want: mark},
		{name: "UTF-16", kind: urlencoded, body: "\xfe\xff\x00u", want: mark},
		{name: "multipart after a byte order mark", kind: parts, body: "\ufeff" + jane + end, want: mark},
		{name: "a byte order mark that is escaped", kind: urlencoded, body: "x=%EF%BB%BF&username=jane",
			want: "username=jane"},
		{
			name: "JSON with a percent sign that is labelled urlencoded",
			kind: urlencoded,
			body: "\n" + `{"username": "jane", "password": "100%"}`,
			want: "body: The body must be a form, not JSON",
		},
		{
			name: "JSON that is labelled multipart",
			kind: parts,
			body: `{"username": "jane"}`,
			want: "body: The body must be a form, not JSON",
		},
		{
			name: "a long value",
			kind: urlencoded,
			body: "username=" + strings.Repeat("x", 600),
			want: "username=" + strings.Repeat("x", 600),
		},

		{
			name: "multipart",
			kind: parts,
			body: jane + part + "password\r\n\r\nsecret\r\n" + end,
			want: "password=secret username=jane",
		},
		{
			name: "multipart, quoted name",
			kind: parts,
			body: part + "\"username\"\r\n\r\njane\r\n" + end,
			want: "username=jane",
		},
		{
			name: "multipart, sent as it is whatever a part says of its encoding",
			kind: parts,
			body: part + "username\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=3Db\r\n" + end,
			want: "username=a=3Db",
		},
		{
			name: "multipart, a field that is not read, twice",
			kind: parts,
			body: jane + part + "x\r\n\r\ny\r\n" + part + "x\r\n\r\ny\r\n" + end,
			want: "username=jane",
		},
		{
			name: "multipart, text after the last boundary",
			kind: parts,
			body: jane + end + "bye",
			want: "username=jane",
		},
		{
			name: "multipart, too much after the last boundary",
			kind: parts,
			body: jane + end + strings.Repeat("x", limit),
			want: "too large",
		},
		{
			name: "multipart, too large",
			kind: parts,
			body: part + "username\r\n\r\n" + strings.Repeat("x", limit),
			want: "too large",
		},
		{
			name: "multipart, twice",
			kind: parts,
			body: jane + jane + end,
			want: "body.username: Field must not be repeated",
		},
		{
			name: "multipart, no last boundary",
			kind: parts,
			body: jane,
			want: "body: The body ends before its last boundary",
		},
		{
			name: "multipart, no last boundary and no end of line",
			kind: parts,
			body: strings.TrimSuffix(jane, "\r\n"),
			want: "body: The body ends before its last boundary",
		},
		{
			name: "multipart, ends within a part's header",
			kind: parts,
			body: jane + strings.TrimSuffix(part, " name="),
			want: "body: The body ends before its last boundary",
		},
		{
			name: "multipart, ends within a file that is not read",
			kind: parts,
			body: jane + part + "x; filename=p.txt\r\n\r\nsecret",
			want: "body: The body ends before its last boundary",
		},
		{
			name: "multipart, another boundary in the type",
			kind: "multipart/form-data; boundary=C",
			body: jane + end,
			want: "body: The boundary in the Content-Type is not in the body",
		},
		{
			name: "multipart, no field",
			kind: parts,
			body: end,
			want: "",
		},
		{
			name: "multipart, nothing in the body",
			kind: parts,
			body: "",
			want: "body: The boundary in the Content-Type is not in the body",
		},
		{
			name: "multipart, an urlencoded body",
			kind: parts,
			body: "username=jane",
			want: "body: The boundary in the Content-Type is not in the body",
		},
		{
			name: "multipart, no boundary in the type",
			kind: "multipart/form-data",
			body: jane + end,
			want: "body: The Content-Type has no boundary: leave that header to the library that makes the body",
		},
		{
			name: "multipart, an empty boundary in the type",
			kind: "multipart/form-data; boundary=",
			body: jane + end,
			want: "body: The Content-Type has no boundary: leave that header to the library that makes the body",
		},
		{
			name: "multipart, a part without a name",
			kind: parts,
			body: jane + "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + end,
			want: "body: A part of the body has no Content-Disposition: form-data with a name",
		},
		{
			name: "multipart, a part of no form",
			kind: parts,
			body: jane + "--B\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n" + end,
			want: "body: A part of the body has no Content-Disposition: form-data with a name",
		},
		{
			name: "multipart, a header that is none",
			kind: parts,
			body: "--B\r\nhunter2\r\n\r\njane\r\n" + end,
			want: "body: A part of the body is malformed",
		},
		{
			name: "multipart, text behind a boundary",
			kind: parts,
			body: jane + "--B hunter2\r\n" + end,
			want: "body: A part of the body is malformed",
		},
		{
			name: "multipart, a file",
			kind: parts,
			body: jane + part + "password; filename=p.txt\r\n\r\nsecret\r\n" + end,
			want: "body.password: Input should be a string, not a file",
		},
		{
			name: "multipart, a file without a name of its own",
			kind: parts,
			body: jane + part + "password; filename=\"\"\r\n\r\nsecret\r\n" + end,
			want: "body.password: Input should be a string, not a file",
		},
		{
			name: "multipart, a string and a file",
			kind: parts,
			body: jane + part + "username; filename=p.txt\r\n\r\nsecret\r\n" + end,
			want: "body.username: Input should be a string, not a file",
		},
		{
			name: "multipart, a file that is not read",
			kind: parts,
			body: jane + part + "x; filename=p.txt\r\n\r\nsecret\r\n" + end,
			want: "username=jane",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := outcome(form.NewReader().Parse(request(tt.kind, tt.body), limit, "username", "password"))
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	const lacks = "body.username: Field required; body.password: Field required"
	const (
		inURL = "; body: The body must have the fields: those in the URL do not count"
		basic = "; body: The body must have username and password: HTTP Basic names a client"
	)
	for _, tt := range []struct{ name, query, basic, kind, encoding, body, want string }{
		{name: "one empty", kind: urlencoded, body: "username=jane&password=", want: "body.password: Field required"},
		{name: "none sent", kind: urlencoded, body: "", want: lacks},
		{
			name: "JSON",
			kind: "application/json",
			body: "{}",
			want: lacks + "; body: The body must be a form, with Content-Type application/x-www-form-urlencoded",
		},
		{
			name: "no type",
			body: "username=jane&password=secret",
			want: lacks + "; body: The body must be a form, with Content-Type application/x-www-form-urlencoded",
		},
		{
			name: "JSON that is labelled urlencoded",
			kind: urlencoded,
			body: `{"username":"jane","password":"secret"}`,
			want: lacks + "; body: The body must be a form, not JSON",
		},
		{
			name:     "compressed",
			kind:     urlencoded,
			encoding: "gzip",
			body:     "\x1f\x8b\x08\x00",
			want:     lacks + "; body: The body must not be compressed: Content-Encoding is not supported",
		},
		{name: "not compressed", kind: urlencoded, encoding: "Identity", body: "", want: lacks},
		{name: "in the URL", query: "username=jane&password=hunter2", want: lacks + inURL},
		{name: "in the URL, with a type", query: "username=jane&password=hunter2", kind: urlencoded, want: lacks + inURL},
		{name: "one in the URL", query: "password=hunter2", kind: urlencoded, body: "username=jane",
			want: "body.password: Field required" + inURL},
		{name: "something else in the URL", query: "a=b", kind: urlencoded, want: lacks},
		{name: "in Basic", basic: "jane:hunter2", want: lacks + basic},
		{name: "in Basic, with a form", basic: "jane:hunter2", kind: urlencoded, body: "grant_type=password",
			want: lacks + basic},
		{name: "in Basic, and JSON", basic: "jane:hunter2", kind: "application/json", body: "{}",
			want: lacks + "; body: The body must be a form, with Content-Type application/x-www-form-urlencoded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request(tt.kind, tt.body)
			r.URL.RawQuery = tt.query
			if name, secret, sent := strings.Cut(tt.basic, ":"); sent {
				r.SetBasicAuth(name, secret)
			}
			r.Header.Set("Content-Encoding", tt.encoding)
			sent, err := form.NewReader().Parse(r, limit, "username", "password")
			if got := form.Faults(sent.Missing("username", "password")).Error(); got != tt.want || err != nil {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// TestElsewhere sends a form for which Basic is the right place.
func TestElsewhere(t *testing.T) {
	r := request(urlencoded, "")
	r.URL.RawQuery = ""
	r.SetBasicAuth("gate", "hunter2")
	sent, _ := form.NewReader().Parse(r, limit, "token")
	if got := form.Faults(sent.Missing("token")).Error(); got != "body.token: Field required" {
		t.Error(got)
	}
}

// TestEncoded sends bodies with a Content-Encoding: a form that is one is read, as
// some clients send a Content-Encoding that means nothing.
func TestEncoded(t *testing.T) {
	const compressed = "body: The body must not be compressed: Content-Encoding is not supported"
	for _, tt := range []struct{ name, kind, encoding, body, want string }{
		{name: "a form", kind: urlencoded, encoding: "UTF-8", body: "username=jane", want: "username=jane"},
		{name: "a sign that is in no form", kind: urlencoded, encoding: "gzip", body: "\x1f\x8b\x08;%", want: compressed},
		{name: "multipart", kind: parts, encoding: "br", body: "\x1f\x8b\x08", want: compressed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request(tt.kind, tt.body)
			r.Header.Set("Content-Encoding", tt.encoding)
			if got := outcome(form.NewReader().Parse(r, limit, "username")); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestBody sends bodies of an unknown or wrong length, and two types.
func TestBody(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   string
		length int64 // that the request has
		types  []string
		want   string
	}{
		{name: "of unknown length", body: "a=1", length: -1, types: []string{urlencoded}, want: "a=1"},
		{
			name:   "cut short",
			body:   "a=1",
			length: 10,
			types:  []string{urlencoded},
			want:   "body: The body was cut short, or did not arrive in time",
		},
		{
			name:   "nothing arrives",
			body:   "",
			length: 10,
			types:  []string{urlencoded},
			want:   "body: The body was cut short, or did not arrive in time",
		},
		{
			name:   "two types, of which the first counts",
			body:   "a=1",
			length: 3,
			types:  []string{urlencoded, "application/json"},
			want:   "a=1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request("", tt.body)
			r.ContentLength, r.Header["Content-Type"] = tt.length, tt.types
			if got := outcome(form.NewReader().Parse(r, limit, "a")); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestMostFields sends 1000 fields and one more.
func TestMostFields(t *testing.T) {
	for _, tt := range []struct{ name, kind, first, another, end string }{
		{name: "urlencoded", kind: urlencoded, first: "a=1", another: "&x=1"},
		{name: "multipart", kind: parts, first: part + "a\r\n\r\n1\r\n", another: part + "x\r\n\r\n1\r\n", end: end},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for others, want := range map[int]string{
				999:  "a=1",
				1000: "body: A form must not have more than 1000 fields",
			} {
				body := tt.first + strings.Repeat(tt.another, others) + tt.end
				if got := outcome(form.NewReader().Parse(request(tt.kind, body), 64<<10, "a")); got != want {
					t.Errorf("of %d other fields: %q, want %q", others, got, want)
				}
			}
		})
	}
}

// TestKept checks that a login that waits for its turn does not hold its whole body.
func TestKept(t *testing.T) {
	heap := func() int {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	reader, body := form.NewReader(), "username=jane&x="+strings.Repeat("x", 60<<10)
	kept := make([]form.Form, 500)
	if _, err := reader.Parse(request(urlencoded, body), 64<<10, "username"); err != nil { // fills its place
		t.Fatal(err)
	}
	before := heap()
	for i := range kept {
		kept[i], _ = reader.Parse(request(urlencoded, body), 64<<10, "username")
	}
	if each := (heap() - before) / len(kept); each > 8<<10 || kept[0].Fields["username"] != "jane" {
		t.Errorf("%d bytes for each form of 60 KiB", each)
	}
	runtime.KeepAlive(kept)
}

// TestHangUp checks that the request of a client that hangs up after its form ends:
// net/http notices that only once the body has been read to its end.
func TestHangUp(t *testing.T) {
	for _, body := range []string{"a=1", "a=" + strings.Repeat("1", 1000)} {
		ended := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if _, err := form.NewReader().Parse(r, 1<<20, "a"); err != nil {
				t.Error(err)
			}
			<-r.Context().Done()
			close(ended)
		}))
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: "+urlencoded+
			"\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		conn.Close()
		<-ended
		server.Close()
	}
}

// FuzzURLEncoded checks that every form is read as net/url reads it, or refused.
func FuzzURLEncoded(f *testing.F) {
	for _, seed := range []string{
		"a=1&b=2", "a=%zz", "a;b", "&&=&a", "a=1&a=2", "a=&a=1", "a&a", "a=+%2B%", "b=\x00&%61=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		sent, err := form.NewReader().Parse(request(urlencoded, body), 1<<20, "a", "b")
		values, wrong := url.ParseQuery(body)
		twice := len(values["a"]) > 1 || len(values["b"]) > 1
		many := strings.Count(body, "&") >= 1000 || len(values.Get("a")+values.Get("b")) > 8<<10
		if refused := wrong != nil || twice || many; refused != (err != nil) {
			t.Fatalf("%q: %v; net/url says %v", body, err, wrong)
		}
		if err == nil && (sent.Fields["a"] != values.Get("a") || sent.Fields["b"] != values.Get("b")) {
			t.Errorf("%q: %v, want %q", body, sent.Fields, values)
		}
		if fault := (form.Fault{}); err != nil && !errors.As(err, &fault) {
			t.Errorf("%q: %v", body, err)
		}
	})
}

// FuzzParse checks that no form is read differently than by a laxer reader, and
// that no error contains text from the client.
func FuzzParse(f *testing.F) {
	for _, seed := range []struct{ kind, body string }{
		{kind: urlencoded, body: "username=johndoe&password=secret"},
		{kind: urlencoded, body: "username=johndoe&password=secret&password=secret"},
		{kind: urlencoded, body: "username=johndoe&password=secret;scope=%zz"},
		{kind: urlencoded + "; charset", body: "grant_type=x&&=&username"},
		{kind: parts, body: part + "username\r\n\r\njohndoe\r\n" + end},
		{kind: parts, body: part + "password; filename=x\r\n\r\nsecret\r\n--B\r\n"},
		{kind: "multipart/form-data; boundary=\"", body: "--"},
		{kind: "application/json", body: "{}"},
		{kind: "", body: "\x00"},
	} {
		f.Add(seed.kind, seed.body)
	}
	sound := []string{
		"A form must not have more than 1000 fields",
		"A part of the body has no Content-Disposition: form-data with a name",
		"A part of the body is malformed",
		"A percent sign must be sent as %25, unless two hexadecimal digits follow it",
		"A semicolon must be sent as %3B",
		"Field must not be repeated",
		"Input should be a string, not a file",
		"The Content-Type has no boundary: leave that header to the library that makes the body",
		"The body ends before its last boundary",
		"The body is multipart/form-data, but its Content-Type is application/x-www-form-urlencoded",
		"The body must be a form, not JSON",
		"The boundary in the Content-Type is not in the body",
	}
	f.Fuzz(func(t *testing.T, kind, body string) {
		sent, err := form.NewReader().Parse(request(kind, body), limit, "username", "password")
		if fault := (form.Fault{}); errors.As(err, &fault) {
			if !slices.Contains(sound, fault.Msg) || fault.Input != nil {
				t.Errorf("fault %+v", fault)
			}
		}
		lax := request(kind, body)
		lax.ParseMultipartForm(1 << 20)
		for _, name := range []string{"username", "password"} {
			value := sent.Fields[name]
			if values := lax.PostForm[name]; value != "" && (len(values) != 1 || values[0] != value) {
				t.Errorf("%s is %q, and %q for net/http", name, value, values)
			}
		}
	})
}
