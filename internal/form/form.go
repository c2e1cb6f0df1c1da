// Package form reads the form in the body of a request, and nowhere else. It is
// stricter than net/http: a form that is in any way broken, or that repeats a
// field, is refused as a whole, so that nobody is ever logged in by half a form.
//
// The memory that forms take is bounded, whatever is sent. A form of up to 4 KiB
// is read at once. Larger ones share 32 places, and wait up to 5 seconds for one;
// a slow sender of a large form delays only large forms. Of a body, only the
// requested fields are kept, up to 8 KiB together.
package form

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Fault is one thing that is wrong with a form: an entry of the list that
// FastAPI sends with status 422. Loc is "body" and the field's name. Input is
// null unless the caller knows that what was sent is no secret.
type Fault struct {
	Type  string            `json:"type"`
	Loc   []string          `json:"loc"`
	Msg   string            `json:"msg"`
	Input any               `json:"input"`
	Ctx   map[string]string `json:"ctx,omitempty"`

	noForm bool // the field is missing because there was no form
}

// Error makes a Fault an error. It contains nothing that the client sent.
func (f Fault) Error() string { return strings.Join(f.Loc, ".") + ": " + f.Msg }

// Faults is everything that is wrong with a form.
type Faults []Fault

// Error is the errors of all faults, in one line. If there was no form, it says
// what a form is.
func (f Faults) Error() string {
	var sentences []string
	for _, fault := range f {
		sentences = append(sentences, fault.Error())
	}
	if slices.ContainsFunc(f, func(fault Fault) bool { return fault.noForm }) {
		sentences = append(sentences, "the body must be a form, with Content-Type "+urlencoded)
	}
	return strings.Join(sentences, "; ")
}

// Fields are the requested fields that were sent.
type Fields []field

type field struct{ name, value string }

// Get returns the value of a field, or "" if it was not sent.
func (f Fields) Get(name string) string {
	for _, field := range f {
		if field.name == name {
			return field.value
		}
	}
	return ""
}

const urlencoded = "application/x-www-form-urlencoded"

// maxOthers is how many fields may be sent that were not requested.
const maxOthers = 1000

// Parse returns those of the named fields that are in the form in r's body,
// which may be application/x-www-form-urlencoded or multipart/form-data. With any
// other type of body, or none, there are no fields. Other fields are ignored
// (RFC 6749 3.2), but must be well-formed too.
//
// The error is a Fault for a malformed form, a repeated field, fields that are
// too long, or a file; an *http.MaxBytesError for a body of more than limit
// bytes; or ErrBusy. The fault names a field only if the caller did: any other
// name is text from the client.
func (f *Reader) Parse(r *http.Request, limit int64, names ...string) (Fields, error) {
	mediaType, params := r.Header.Get("Content-Type"), map[string]string(nil)
	if mediaType != urlencoded {
		var err error
		mediaType, params, err = mime.ParseMediaType(mediaType)
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
			return nil, nil
		}
	}
	if mediaType != urlencoded && mediaType != "multipart/form-data" {
		return nil, nil
	}
	text, done, err := f.read(r, limit)
	defer done()
	if err != nil {
		return nil, broken(err)
	}
	form := collector{names: names, fields: make(Fields, 0, len(names))}
	if mediaType == urlencoded {
		err = form.parseURLEncoded(text)
	} else {
		err = form.parseMultipart(multipart.NewReader(bytes.NewReader(text), params["boundary"]))
	}
	if err != nil {
		return nil, err
	}
	return form.fields, nil
}

// Missing returns a Fault for each of the names that was not sent or is empty.
func Missing(fields Fields, names ...string) (faults []Fault) {
	for _, name := range names {
		if fields.Get(name) == "" {
			faults = append(faults, Fault{Type: "missing", Loc: []string{"body", name}, Msg: "Field required", noForm: fields == nil})
		}
	}
	return faults
}

// Mismatch returns a Fault for a field, no secret, that does not match a pattern.
func Mismatch(name, value, pattern string) Fault {
	return Fault{Type: "string_pattern_mismatch", Loc: []string{"body", name}, Msg: "String should match pattern '" + pattern + "'",
		Input: value, Ctx: map[string]string{"pattern": pattern}}
}

// longest is the length in bytes of all fields that are kept.
const longest = 8 << 10

type collector struct {
	names  []string
	fields Fields
	length int             // of the fields
	others map[string]bool // sent but not requested
}

// parseURLEncoded accepts what url.ParseQuery accepts. Of the body it copies only
// the fields that were asked for, and the names of the others.
func (c *collector) parseURLEncoded(text []byte) error {
	for len(text) > 0 {
		var pair []byte
		if pair, text, _ = bytes.Cut(text, []byte("&")); len(pair) == 0 {
			continue
		}
		escaped, value, _ := bytes.Cut(pair, []byte("="))
		name, err := c.name(escaped)
		if err != nil || !wellEscaped(value) || bytes.IndexByte(pair, ';') >= 0 {
			return malformed
		}
		kept := ""
		if slices.Contains(c.names, name) {
			if len(value) > 3*longest { // it is too long even if each byte is escaped
				return c.tooLong(name)
			}
			kept, _ = url.QueryUnescape(string(value))
		}
		if err := c.add(name, kept); err != nil {
			return err
		}
	}
	return nil
}

// name returns a field's name, without a copy if it was asked for.
func (c *collector) name(escaped []byte) (string, error) {
	for _, name := range c.names {
		if name == string(escaped) {
			return name, nil
		}
	}
	return url.QueryUnescape(string(escaped))
}

// wellEscaped says whether url.QueryUnescape takes a text.
func wellEscaped(text []byte) bool {
	hex := func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
	for i, c := range text {
		if c == '%' && (i+2 >= len(text) || !hex(text[i+1]) || !hex(text[i+2])) {
			return false
		}
	}
	return true
}

func (c *collector) parseMultipart(parts *multipart.Reader) error {
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF { // not errors.Is: a wrapped EOF means that the last boundary is missing
			return nil
		}
		if err != nil {
			return broken(err)
		}
		disposition, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name, named := params["name"]
		if err != nil || disposition != "form-data" || !named {
			return broken(errors.New("a part without a name"))
		}
		if _, file := params["filename"]; file {
			return c.fault(name, "Input should be a string, not a file")
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return broken(err)
		}
		if err := c.add(name, string(value)); err != nil {
			return err
		}
	}
}

func (c *collector) add(name, value string) error {
	if c.others[name] || slices.ContainsFunc(c.fields, func(f field) bool { return f.name == name }) {
		return c.fault(name, "Field must not be repeated")
	}
	if i := slices.Index(c.names, name); i >= 0 {
		if c.length += len(value); c.length > longest {
			return c.tooLong(name)
		}
		c.fields = append(c.fields, field{c.names[i], value})
		return nil
	}
	if len(c.others) == maxOthers {
		return malformed
	}
	if c.others == nil {
		c.others = make(map[string]bool)
	}
	c.others[name] = true
	return nil
}

func (c *collector) tooLong(name string) error {
	return c.fault(name, "Fields must not be longer than 8192 bytes together")
}

func (c *collector) fault(name, msg string) error {
	loc := []string{"body"}
	if slices.Contains(c.names, name) {
		loc = append(loc, name)
	}
	return Fault{Type: "value_error", Loc: loc, Msg: msg}
}

var malformed = Fault{Type: "value_error", Loc: []string{"body"}, Msg: "Malformed form"}

// broken drops the parser's own text, which quotes the body.
func broken(err error) error {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return tooLarge
	}
	if errors.Is(err, ErrBusy) {
		return ErrBusy
	}
	return malformed
}
