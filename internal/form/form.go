// Package form reads the form in the body of a request, and nowhere else. It is
// stricter than net/http: a form that is in any way broken, or that repeats a
// requested field, is refused as a whole, so that nobody is ever logged in by half
// a form. Other fields are ignored (RFC 6749 3.2), but must be well-formed too.
//
// Each fault has a sentence of its own. None quotes what was sent: a fault names a
// field only if the caller did, since any other name is text from the client.
//
// The memory that forms take is bounded, whatever is sent. A form of up to 4 KiB
// is read at once. Larger ones share 32 places, and wait up to 5 seconds for one;
// a slow sender of a large form delays only large forms. Of a body, only the
// requested fields are kept, up to 8 KiB together.
package form

import (
	"bytes"
	"cmp"
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

	why string // the field may be missing, if known
}

// Error makes a Fault an error. It contains nothing that the client sent.
func (f Fault) Error() string { return strings.Join(f.Loc, ".") + ": " + f.Msg }

// Faults is everything that is wrong with a form.
type Faults []Fault

// Error is the errors of all faults, in one line, and the reason if fields are
// missing because they are elsewhere, or the body is not the form that it should be.
func (f Faults) Error() string {
	var sentences []string
	for _, fault := range f {
		sentences = append(sentences, fault.Error())
	}
	if i := slices.IndexFunc(f, func(fault Fault) bool { return fault.why != "" }); i >= 0 {
		sentences = append(sentences, broken(f[i].why).Error())
	}
	return strings.Join(sentences, "; ")
}

// A Form has the requested fields that were sent, by name.
type Form struct {
	Fields map[string]string

	why string // fields may be missing, if known
}

// Missing returns a Fault for each of the named fields that was not sent or is empty.
func (f Form) Missing(names ...string) (faults []Fault) {
	for _, name := range names {
		if f.Fields[name] == "" {
			fault := Fault{Type: "missing", Loc: []string{"body", name}, Msg: "Field required", why: f.why}
			faults = append(faults, fault)
		}
	}
	return faults
}

// Mismatch returns a Fault for a field, no secret, that does not match a pattern.
func Mismatch(name, value, pattern string) Fault {
	return Fault{
		Type:  "string_pattern_mismatch",
		Loc:   []string{"body", name},
		Msg:   "String should match pattern '" + pattern + "'",
		Input: value,
		Ctx:   map[string]string{"pattern": pattern},
	}
}

const (
	urlencoded = "application/x-www-form-urlencoded"
	formData   = "multipart/form-data"

	mostFields = 1000    // in a form, requested or not
	longest    = 8 << 10 // bytes of all fields that are kept
)

// Parse reads the named fields from the form in r's body, which may be
// application/x-www-form-urlencoded or multipart/form-data. With any other type of
// body, or none, no field was sent.
//
// The error is a Fault if the form is malformed or has more than 1000 fields, or if
// a named field is repeated, too long or a file; an *http.MaxBytesError for a body
// of more than limit bytes; or ErrBusy. There are no fields then.
func (f *Reader) Parse(r *http.Request, limit int64, names ...string) (Form, error) {
	mediaType, boundary := kind(r.Header.Get("Content-Type"))
	if mediaType != urlencoded && mediaType != formData {
		Drain(r)
		why := "The body must be a form, with Content-Type " + urlencoded
		if r.ContentLength == 0 {
			why = cmp.Or(elsewhere(r, names), why)
		}
		return Form{why: why}, nil
	}
	text, done, err := f.read(r, limit)
	defer done()
	if err != nil {
		Drain(r)
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); err != nil && !tooLarge && err != ErrBusy {
		err = broken("The body was cut short, or did not arrive in time")
	}
	if err == nil && slices.ContainsFunc(marks, func(mark string) bool { return bytes.HasPrefix(text, []byte(mark)) }) {
		err = broken("The body must not begin with a byte order mark: save it as UTF-8 without one")
	}
	if err != nil {
		return Form{}, err
	}
	why := misfit(r.Header.Get("Content-Encoding"), mediaType, text)
	var values url.Values
	var files map[string]bool
	if mediaType == urlencoded {
		values, err = parseURLEncoded(text)
	} else {
		values, files, err = parseMultipart(text, boundary)
	}
	if err != nil && why != "" {
		err = broken(why)
	}
	if err != nil {
		return Form{}, err
	}
	fields, length := make(map[string]string, len(names)), 0
	for _, name := range names {
		switch sent := values[name]; {
		case files[name]:
			return Form{}, Invalid(name, "Input should be a string, not a file")
		case len(sent) > 1:
			return Form{}, Invalid(name, "Field must not be repeated")
		case len(sent) == 1:
			if length += len(sent[0]); length > longest {
				return Form{}, Invalid(name, "Fields must not be longer than 8192 bytes together")
			}
			fields[name] = strings.Clone(sent[0]) // it may be a part of the whole body
		}
	}
	return Form{Fields: fields, why: cmp.Or(why, elsewhere(r, names))}, nil
}

// marks are the byte order marks of UTF-8 and UTF-16. The name of the first field
// would begin with it, and nobody would miss an optional one.
var marks = []string{"\ufeff", "\xff\xfe", "\xfe\xff"}

// elsewhere returns where the named fields may be instead of the body, or "". In a
// login, HTTP Basic has the client's name and secret (RFC 6749 2.3.1).
func elsewhere(r *http.Request, names []string) string {
	if slices.ContainsFunc(names, r.URL.Query().Has) {
		return "The body must have the fields: those in the URL do not count"
	}
	if slices.Contains(names, "password") {
		if _, _, basic := r.BasicAuth(); basic {
			return "The body must have username and password: HTTP Basic names a client"
		}
	}
	return ""
}

// kind returns a Content-Type's media type and, if it has one, its boundary.
func kind(contentType string) (mediaType, boundary string) {
	if contentType == urlencoded { // nearly always
		return urlencoded, ""
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return "", ""
	}
	return mediaType, params["boundary"]
}

// misfit returns why a body may not be a form of the media type, or "". That need
// not be so: a field's name may begin like JSON, and some clients send a
// Content-Encoding that means nothing.
func misfit(encoding, mediaType string, text []byte) string {
	start := bytes.TrimLeft(text, " \t\r\n")
	switch {
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return "The body must not be compressed: Content-Encoding is not supported"
	case bytes.HasPrefix(start, []byte("{")) || bytes.HasPrefix(start, []byte("[")):
		return "The body must be a form, not JSON"
	case mediaType == urlencoded && bytes.HasPrefix(start, []byte("--")) && bytes.Contains(text, []byte("form-data")):
		return "The body is " + formData + ", but its Content-Type is " + urlencoded
	}
	return ""
}

func parseURLEncoded(text []byte) (url.Values, error) {
	if bytes.Count(text, []byte("&")) >= mostFields {
		return nil, tooMany
	}
	values, err := url.ParseQuery(string(text))
	switch _, escape := errors.AsType[url.EscapeError](err); {
	case escape:
		return nil, broken("A percent sign must be sent as %25, unless two hexadecimal digits follow it")
	case err != nil:
		return nil, broken("A semicolon must be sent as %3B")
	}
	return values, nil
}

// parseMultipart also returns the names of the files, whose content it skips.
func parseMultipart(text []byte, boundary string) (values url.Values, files map[string]bool, err error) {
	if boundary == "" {
		return nil, nil, broken("The Content-Type has no boundary: leave that header to the library that makes the body")
	}
	delimiter := []byte("--" + boundary)
	if !bytes.Contains(text, delimiter) {
		return nil, nil, broken("The boundary in the Content-Type is not in the body")
	}
	// The parser takes a body that ends within the header of a part for a whole one.
	last := append(delimiter, "--"...)
	if !bytes.HasPrefix(text, last) && !bytes.Contains(text, append([]byte("\n"), last...)) {
		return nil, nil, cutShort
	}
	values, files = make(url.Values), make(map[string]bool)
	parts := multipart.NewReader(bytes.NewReader(text), boundary)
	for count := 0; ; count++ {
		part, err := parts.NextRawPart()
		if err == io.EOF { // not errors.Is: a wrapped EOF comes before the last boundary
			return values, files, nil
		}
		if err != nil {
			return nil, nil, brokenPart(err)
		}
		if count == mostFields {
			return nil, nil, tooMany
		}
		disposition, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name, named := params["name"]
		if err != nil || disposition != "form-data" || !named {
			return nil, nil, broken("A part of the body has no Content-Disposition: form-data with a name")
		}
		if _, file := params["filename"]; file {
			files[name] = true
			continue
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, brokenPart(err)
		}
		values.Add(name, string(value))
	}
}

// brokenPart drops the parser's own text, which quotes the body.
func brokenPart(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return cutShort
	}
	return broken("A part of the body is malformed")
}

// Invalid returns a Fault for a field whose value cannot be right. It shows nothing of
// it.
func Invalid(name, msg string) Fault {
	return Fault{Type: "value_error", Loc: []string{"body", name}, Msg: msg}
}

func broken(msg string) Fault { return Fault{Type: "value_error", Loc: []string{"body"}, Msg: msg} }

var (
	tooMany  = broken("A form must not have more than 1000 fields")
	cutShort = broken("The body ends before its last boundary")
)
