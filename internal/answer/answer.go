// Package answer writes JSON bodies as FastAPI writes them: compact, without a
// newline at the end, and with "<" unescaped rather than as \u003c.
package answer

import (
	"bytes"
	"encoding/json"
	"net/http"
	"sync/atomic"
)

// Encode returns v in JSON. It panics if v cannot be encoded.
func Encode(v any) []byte {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(body.Bytes(), []byte("\n"))
}

// Once is JSON that is encoded when it is first needed. The zero value is ready to
// use.
type Once struct{ made atomic.Pointer[[]byte] }

// Get returns what encode returned, now or earlier. Several that ask first at the
// same time may each call it.
func (o *Once) Get(encode func() []byte) []byte {
	if made := o.made.Load(); made != nil {
		return *made
	}
	made := encode()
	o.made.Store(&made)
	return made
}

// JSON answers with a status, and v in JSON.
func JSON(w http.ResponseWriter, status int, v any) { Body(w, status, Encode(v)) }

// Body answers with a status, and a body that is already JSON.
func Body(w http.ResponseWriter, status int, body []byte) {
	w.Header()["Content-Type"] = contentType
	w.WriteHeader(status)
	w.Write(body)
}

// NoStore sets the header that forbids storing the answer (RFC 9111 5.2.2.5) and, for
// the answers of RFC 6749 5.1, Pragma as well.
func NoStore(header http.Header, pragma bool) {
	header["Cache-Control"] = noStore
	if pragma {
		header["Pragma"] = noCache
	}
}

// All answers share these; net/http does not change them.
var (
	contentType = []string{"application/json"}
	noStore     = []string{"no-store"}
	noCache     = []string{"no-cache"}
)
