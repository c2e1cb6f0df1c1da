package form_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	end        = "--B--\r\n"
	limit      = 1024
)

func parse(kind, body string) (form.Fields, error) {
	r := httptest.NewRequest("POST", "/token?username=query", strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	fields := form.Fields{{Name: "username"}, {Name: "password"}}
	return fields, form.NewReader().Parse(r, limit, fields)
}

func TestParse(t *testing.T) {
	jane := part + "username\r\n\r\njane\r\n"
	for _, tt := range []struct {
		name, kind, body string
		want             string // the fields, or the error
	}{
		{"two fields", urlencoded, "username=jane&password=secret", "password=secret username=jane"},
		{"a parameter of the type", urlencoded + "; charset=utf-8", "username=jane", "username=jane"},
		{"a broken parameter of the type", urlencoded + "; charset", "username=jane", "username=jane"},
		{"the type in capitals", "Application/X-WWW-Form-URLEncoded", "username=jane", "username=jane"},
		{"plus and percent", urlencoded, "username=jane+roe&password=%2B%26%3D%25", "password=+&=% username=jane roe"},
		{"escapes in a name", urlencoded, "%75sername=jane", "username=jane"},
		{"no value", urlencoded, "username&password=", ""},
		{"an equals sign in the value", urlencoded, "password=a=b", "password=a=b"},
		{"empty pairs", urlencoded, "&&username=jane&", "username=jane"},
		{"bytes that are not UTF-8", urlencoded, "username=%ff", "username=\xff"},
		{"an unknown field", urlencoded, "username=jane&foo=bar", "username=jane"},
		{"the query does not count", urlencoded, "", ""},
		{"no type", "", "username=jane", ""},
		{"a broken type", "a/b/c", "username=jane", ""},
		{"JSON", "application/json", `{"username":"jane"}`, ""},
		{"at the limit", urlencoded, "username=jane&x=" + strings.Repeat("x", limit-16), "username=jane"},
		{"over the limit", urlencoded, "username=jane&x=" + strings.Repeat("x", limit-15), "too large"},
		{"twice", urlencoded, "username=jane&username=jane", "body.username: Field must not be repeated"},
		{"twice, first without a value", urlencoded, "username=&username=jane", "body.username: Field must not be repeated"},
		{"twice without a value", urlencoded, "username&username", "body.username: Field must not be repeated"},
		{"twice, once escaped", urlencoded, "username=jane&%75sername=jane", "body.username: Field must not be repeated"},
		{"an unknown field twice", urlencoded, "hunter2=&hunter2=", "body: Field must not be repeated"},
		{"a bad escape", urlencoded, "x=%zz", "body: Malformed form"},
		{"a bad escape in a name", urlencoded, "%zz=x", "body: Malformed form"},
		{"a cut escape", urlencoded, "password=secret%2", "body: Malformed form"},
		{"a semicolon", urlencoded, "password=secret;x=y", "body: Malformed form"},
		{"a repeated field before a bad escape", urlencoded, "username=a&username=b&x=%zz", "body.username: Field must not be repeated"},
		{"a long value", urlencoded, "username=" + strings.Repeat("x", 600), "username=" + strings.Repeat("x", 600)},

		{"multipart", parts, jane + part + "password\r\n\r\nsecret\r\n" + end, "password=secret username=jane"},
		{"multipart, quoted name", parts, part + "\"username\"\r\n\r\njane\r\n" + end, "username=jane"},
		{"multipart, an unknown field", parts, jane + part + "x\r\n\r\ny\r\n" + end, "username=jane"},
		{"multipart, text after the last boundary", parts, jane + end + "bye", "username=jane"},
		{"multipart, too much after the last boundary", parts, jane + end + strings.Repeat("x", limit), "too large"},
		{"multipart, too large", parts, part + "username\r\n\r\n" + strings.Repeat("x", limit), "too large"},
		{"multipart, twice", parts, jane + jane + end, "body.username: Field must not be repeated"},
		{"multipart, no last boundary", parts, jane, "body: Malformed form"},
		{"multipart, no last boundary and no end of line", parts, strings.TrimSuffix(jane, "\r\n"), "body: Malformed form"},
		{"multipart, no boundary in the body", parts, "username=jane", "body: Malformed form"},
		{"multipart, no boundary in the type", "multipart/form-data", jane + end, "body: Malformed form"},
		{"multipart, a part without a name", parts, "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + end, "body: Malformed form"},
		{"multipart, a part of no form", parts, "--B\r\nContent-Disposition: attachment; name=username\r\n\r\nx\r\n" + end, "body: Malformed form"},
		{"multipart, a file", parts, part + "password; filename=p.txt\r\n\r\nsecret\r\n" + end, "body.password: Input should be a string, not a file"},
		{"multipart, a file without a name of its own", parts, part + "password; filename=\"\"\r\n\r\nsecret\r\n" + end, "body.password: Input should be a string, not a file"},
		{"multipart, an unknown file", parts, part + "x; filename=p.txt\r\n\r\nsecret\r\n" + end, "body: Input should be a string, not a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fields, err := parse(tt.kind, tt.body)
			var got []string
			for _, name := range []string{"password", "username"} {
				if value := fields.Get(name); value != "" {
					got = append(got, name+"="+value)
				}
			}
			text := strings.Join(got, " ")
			if fault := (form.Fault{}); errors.As(err, &fault) {
				text += fault.Error()
			} else if errors.As(err, new(*http.MaxBytesError)) {
				text += "too large"
			} else if err != nil {
				t.Fatal(err)
			}
			if text != tt.want {
				t.Errorf("%q, want %q", text, tt.want)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct{ kind, body, want string }{
		{urlencoded, "username=jane&password=", "body.password: Field required; body.scope: Field required"},
		{urlencoded, "", "body.username: Field required; body.password: Field required; body.scope: Field required"},
		{"application/json", "{}", "body.username: Field required; body.password: Field required; body.scope: Field required; " +
			"the body must be a form, with Content-Type application/x-www-form-urlencoded"},
	} {
		fields, _ := parse(tt.kind, tt.body)
		if got := form.Faults(form.Missing(append(fields, form.Field{Name: "scope"}), "username", "password", "scope")).Error(); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.kind, tt.body, got, tt.want)
		}
	}
}

// TestBody sends bodies with an unknown or wrong length, or with many fields.
func TestBody(t *testing.T) {
	request := func(body io.Reader) *http.Request {
		r := httptest.NewRequest("POST", "/", body)
		r.Header.Set("Content-Type", urlencoded)
		return r
	}
	r := request(io.MultiReader(strings.NewReader("a="), strings.NewReader("1")))
	a := form.Fields{{Name: "a"}}
	if err := form.NewReader().Parse(r, limit, a); r.ContentLength >= 0 || a.Get("a") != "1" || err != nil {
		t.Errorf("of unknown length: %v, %v", a, err)
	}
	r = request(strings.NewReader("a=1"))
	r.ContentLength = 10
	if err := form.NewReader().Parse(r, limit, a); a.Get("a") != "" || !errors.As(err, new(form.Fault)) {
		t.Errorf("cut short: %v, %v", a, err)
	}
	r = request(strings.NewReader("a=1"))
	r.Header["Content-Type"] = []string{urlencoded, "application/json"}
	if err := form.NewReader().Parse(r, limit, a); a.Get("a") != "1" || err != nil {
		t.Errorf("two types, of which the first counts: %v, %v", a, err)
	}
	for n, want := range map[int]error{1000: nil, 1001: form.Fault{Type: "value_error", Loc: []string{"body"}, Msg: "Malformed form"}} {
		body := "a=1"
		for i := range n {
			body += "&x" + strconv.Itoa(i)
		}
		if err := form.NewReader().Parse(request(strings.NewReader(body)), 64<<10, form.Fields{{Name: "a"}}); fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("of %d fields that are not asked for: %v, want %v", n, err, want)
		}
	}
}

// TestHangUp wants the request of a client that hangs up after its form to end:
// net/http notices that only once the body has been read to its end.
func TestHangUp(t *testing.T) {
	for _, body := range []string{"a=1", "a=" + strings.Repeat("1", 1000)} {
		ended := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if err := form.NewReader().Parse(r, 1<<20, form.Fields{{Name: "a"}}); err != nil {
				t.Error(err)
			}
			<-r.Context().Done()
			close(ended)
		}))
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: "+urlencoded+"\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		conn.Close()
		<-ended
		server.Close()
	}
}

// FuzzURLEncoded wants every form read as net/url reads it, or refused.
func FuzzURLEncoded(f *testing.F) {
	for _, seed := range []string{"a=1&b=2", "a=%zz", "a;b", "&&=&a", "a=1&a=2", "a=&a=1", "a&a", "a=+%2B%", "b=\x00&%61="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", urlencoded)
		fields := form.Fields{{Name: "a"}, {Name: "b"}}
		err := form.NewReader().Parse(r, 1<<20, fields)
		values, wrong := url.ParseQuery(body)
		twice, others := false, 0
		for name, list := range values {
			twice = twice || len(list) > 1
			if name != "a" && name != "b" {
				others++
			}
		}
		if refused := wrong != nil || twice || others > 1000; refused != (err != nil) {
			t.Fatalf("%q: %v; net/url says %v", body, err, wrong)
		}
		if err == nil && (fields.Get("a") != values.Get("a") || fields.Get("b") != values.Get("b")) {
			t.Errorf("%q: %v, want %q", body, fields, values)
		}
		if fault := (form.Fault{}); err != nil && !errors.As(err, &fault) {
			t.Errorf("%q: %v", body, err)
		}
	})
}

// FuzzParse wants no form to be read differently than by a laxer reader, and no
// error to contain text from the client.
func FuzzParse(f *testing.F) {
	for _, seed := range []struct{ kind, body string }{
		{urlencoded, "username=johndoe&password=secret"},
		{urlencoded, "username=johndoe&password=secret&password=secret"},
		{urlencoded, "username=johndoe&password=secret;scope=%zz"},
		{urlencoded + "; charset", "grant_type=x&&=&username"},
		{parts, part + "username\r\n\r\njohndoe\r\n" + end},
		{parts, part + "password; filename=x\r\n\r\nsecret\r\n--B\r\n"},
		{"multipart/form-data; boundary=\"", "--"},
		{"application/json", "{}"},
		{"", "\x00"},
	} {
		f.Add(seed.kind, seed.body)
	}
	sound := []string{"too large", "Malformed form", "Field must not be repeated", "Input should be a string, not a file"}
	f.Fuzz(func(t *testing.T, kind, body string) {
		fields, err := parse(kind, body)
		if fault := (form.Fault{}); errors.As(err, &fault) {
			if !slices.Contains(sound, fault.Msg) || fault.Input != nil {
				t.Errorf("fault %+v", fault)
			}
		}
		lax := httptest.NewRequest("POST", "/token", strings.NewReader(body))
		lax.Header.Set("Content-Type", kind)
		lax.ParseMultipartForm(1 << 20)
		for _, name := range []string{"username", "password"} {
			value := fields.Get(name)
			if values := lax.PostForm[name]; value != "" && (len(values) != 1 || values[0] != value) {
				t.Errorf("%s is %q, and %q for net/http", name, value, values)
			}
		}
	})
}
