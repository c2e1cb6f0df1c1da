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

// Fields are the fields that a caller asks for, and the only ones that are kept.
type Fields []Field

// A Field has a name. Parse sets the rest.
type Field struct {
	Name  string
	value string

	sent   bool
	noForm bool // there was no form that it could be in
}

// Get returns the value of a field, or "" if it was not sent.
func (f Fields) Get(name string) string {
	if field := f.named(name); field != nil {
		return field.value
	}
	return ""
}

// named returns the field of that name, or nil if nobody asked for it.
func (f Fields) named(name string) *Field {
	for i := range f {
		if f[i].Name == name {
			return &f[i]
		}
	}
	return nil
}

const (
	urlencoded = "application/x-www-form-urlencoded"
	formData   = "multipart/form-data"
)

// maxOthers is how many fields may be sent that were not requested.
const maxOthers = 1000

// Parse sets those of the fields that are in the form in r's body, which may be
// application/x-www-form-urlencoded or multipart/form-data. With any other type of
// body, or none, no field was sent. Other fields are ignored (RFC 6749 3.2), but must
// be well-formed too.
//
// If there is an error, no field is set. The error is a Fault for a malformed form,
// a repeated field, fields that are too long, or a file; an *http.MaxBytesError for
// a body of more than limit bytes; or ErrBusy. The fault names a field only if the
// caller did: any other name is text from the client.
func (f *Reader) Parse(r *http.Request, limit int64, fields Fields) error {
	mediaType, boundary := kind(r)
	noForm := mediaType != urlencoded && mediaType != formData
	fields.reset(noForm)
	if noForm {
		return nil
	}
	text, done, err := f.read(r, limit)
	defer done()
	if err != nil {
		return broken(err)
	}
	form := collector{fields: fields}
	if mediaType == urlencoded {
		err = form.parseURLEncoded(text)
	} else {
		err = form.parseMultipart(multipart.NewReader(bytes.NewReader(text), boundary))
	}
	if err != nil { // nobody may use half a form
		fields.reset(false)
	}
	return err
}

func (f Fields) reset(noForm bool) {
	for i := range f {
		f[i] = Field{Name: f[i].Name, noForm: noForm}
	}
}

// kind returns the media type of the body and the boundary of its parts, if it has any.
func kind(r *http.Request) (mediaType, boundary string) {
	header := r.Header["Content-Type"]
	if len(header) == 0 {
		return "", ""
	}
	if header[0] == urlencoded {
		return urlencoded, ""
	}
	mediaType, params, err := mime.ParseMediaType(header[0])
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return "", ""
	}
	return mediaType, params["boundary"]
}

// Missing returns a Fault for each of the named fields that was not sent or is empty.
func Missing(fields Fields, names ...string) (faults []Fault) {
	for _, field := range fields {
		if field.value == "" && slices.Contains(names, field.Name) {
			faults = append(faults, Fault{Type: "missing", Loc: []string{"body", field.Name}, Msg: "Field required", noForm: field.noForm})
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
		if c.fields.named(name) != nil {
			if len(value) > 3*longest { // it is too long even if each byte is escaped
				return c.tooLong(name)
			}
			kept = string(value)
			if strings.IndexByte(kept, '%') >= 0 || strings.IndexByte(kept, '+') >= 0 { // seldom, and slow
				kept, _ = url.QueryUnescape(kept)
			}
		}
		if err := c.add(name, kept); err != nil {
			return err
		}
	}
	return nil
}

// name returns a field's name, without a copy if it was asked for.
func (c *collector) name(escaped []byte) (string, error) {
	if field := c.fields.named(string(escaped)); field != nil {
		return field.Name, nil
	}
	return url.QueryUnescape(string(escaped))
}

// wellEscaped says whether url.QueryUnescape takes a text.
func wellEscaped(text []byte) bool {
	hex := func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
	for {
		i := bytes.IndexByte(text, '%')
		if i < 0 {
			return true
		}
		if text = text[i+1:]; len(text) < 2 || !hex(text[0]) || !hex(text[1]) {
			return false
		}
	}
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
	field := c.fields.named(name)
	switch {
	case c.others[name] || field != nil && field.sent:
		return c.fault(name, "Field must not be repeated")
	case field != nil:
		if c.length += len(value); c.length > longest {
			return c.tooLong(name)
		}
		field.value, field.sent = value, true
	case len(c.others) == maxOthers:
		return malformed
	default:
		if c.others == nil {
			c.others = make(map[string]bool)
		}
		c.others[name] = true
	}
	return nil
}

func (c *collector) tooLong(name string) error {
	return c.fault(name, "Fields must not be longer than 8192 bytes together")
}

func (c *collector) fault(name, msg string) error {
	loc := []string{"body"}
	if c.fields.named(name) != nil {
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
