package usersfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestVisitObject(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		want       string // what visit saw
		err        string
	}{
		{"empty", `{}`, "", ""},
		{"values in order", `{"b": [1, 2], "a": {"x": null}}`, `b=[1, 2];a={"x": null};`, ""},
		{"names that differ in case are two", `{"a":1,"A":2}`, "a=1;A=2;", ""},
		{"white space around", " \n{\"a\":1}\n ", "a=1;", ""},
		{"a name twice", `{"a":1,"b":2,"a":3}`, "a=1;b=2;", `"a" appears twice`},
		{"a name twice, far apart", manyNames(40, `,"n3":0`), manySeen(40), `"n3" appears twice`},
		{"a name twice, once escaped", `{"a":1,"\u0061":3}`, "a=1;", `"a" appears twice`},
		{"a hash twice", `{"$2a$04$a":1,"$2a$04$a":2}`, "$2a$04$a=1;", `"…" (not shown, it may be a hash) appears twice`},
		{"quotes and braces in strings", `{"a":"}\",","b\\":"\\","c":["]\\\"","}"],"d":{"\\\\":"{"}}`, `a="}\",";b\="\\";c=["]\\\"","}"];d={"\\\\":"{"};`, ""},
		{"many names, the first twice", `{` + strings.Join(names(40), ":1,") + `:1,"n0":2}`, strings.ReplaceAll(strings.Join(names(40), "=1;"), `"`, "") + "=1;", `"n0" appears twice`},
		{"many names, the last twice", `{` + strings.Join(names(40), ":1,") + `:1,"n39":2}`, strings.ReplaceAll(strings.Join(names(40), "=1;"), `"`, "") + "=1;", `"n39" appears twice`},
		{"text after", "{}\n{}", "", "text after the JSON object, line 2"},
		{"a stray brace after", `{}}`, "", "text after the JSON object, line 1"},
		{"no object", `[]`, "", "not a JSON object"},
		{"null", `null`, "", "not a JSON object"},
		{"nothing", ``, "", "not JSON: unexpected end"},
		{"cut short", `{"a":`, "", "not JSON: unexpected end"},
		{"cut short after a value", `{"a":1`, "", "not JSON: unexpected end"},
		{"cut short after a comma", `{"a":1,`, "", "not JSON: unexpected end"},
		{"a trailing comma", "{\"a\":1\n,}", "", "not JSON, line 2: "},
		{"no quotes", "{\n\na:1}", "", "not JSON, line 3: "},
		{"a number for a name", `{1:1}`, "", "not JSON, line 1: "},
		{"a byte order mark", "\ufeff{}", "", "not JSON: it begins with a byte order mark"},
		{"curly quotes", "{\n“a”: 1}", "",
			"not JSON, line 2: invalid character '“' looking for beginning of object key string"},
		{"a curly quote behind a name", `{"a”: 1, "b": 2}`, "", "not JSON, line 1: invalid character 'b' after object key"},
		{"a no-break space", "{\u00a0\"a\": 1}", "", `not JSON, line 1: invalid character '\u00a0' looking`},
		{"a wide colon", `{"a"：1}`, "", "not JSON, line 1: invalid character '：' after object key"},
		{"a wide colon far behind", manyNames(1000, `,"a"：1`), "",
			"not JSON, line 1: invalid character '：' after object key"},
		{"of more than 16 bits", `{"a": 😀}`, "",
			"not JSON, line 1: invalid character '😀' looking for beginning of value"},
		{"the quote itself", `{"a": '1'}`, "", `not JSON, line 1: invalid character '\'' looking for beginning of value`},
		{"not UTF-8", "{\"\xff\":1}", "", "not JSON: not UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var saw strings.Builder
			err := visitObject([]byte(tt.data), func(name, value []byte) error {
				saw.WriteString(string(name) + "=" + string(value) + ";")
				return nil
			})
			if saw.String() != tt.want {
				t.Errorf("saw %q, want %q", saw.String(), tt.want)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// manyNames is an object with n names and more after them, and manySeen is what
// visit sees of the n.
func manyNames(n int, more string) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `,"n%d":0`, i)
	}
	return "{" + text.String()[1:] + more + "}"
}

func manySeen(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "n%d=0;", i)
	}
	return text.String()
}

func TestVisitObjectStopsAtTheVisitorsError(t *testing.T) {
	no := errors.New("no")
	if err := visitObject([]byte(`{"a":1,"b":2}`), func(_, _ []byte) error { return no }); err != no {
		t.Errorf("error %v, want the visitor's", err)
	}
}

// names are n different names.
func names(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf(`"n%d"`, i))
	}
	return names
}
