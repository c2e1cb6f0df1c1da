// Package introspection writes the answer of RFC 7662 2.2: what a bearer token
// stands for. It assembles the JSON from parts: only the claims of a user have
// characters that need escaping, and they are encoded once.
package introspection

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"

	"simple-oauth2/internal/answer"
)

// Active answers that a token is active, whose it is and what it was granted.
// Claims keeps what the answer says about the user of that name. Each scope must be
// one by RFC 6749 3.3. Issued and expires are in Unix seconds.
func Active(w http.ResponseWriter, claims *answer.Once, username string, scopes []string, issued, expires int64) {
	who := claims.Get(func() []byte {
		return bytes.Trim(answer.Encode(struct {
			Username string `json:"username"`
			Subject  string `json:"sub"`
		}{username, username}), "{}")
	})
	buffer := buffers.Get().(*[]byte)
	body := append((*buffer)[:0], `{"active":true,`...)
	body = append(body, who...)
	body = append(body, `,"scope":"`...)
	for i, scope := range scopes {
		if i > 0 {
			body = append(body, ' ')
		}
		body = append(body, scope...)
	}
	body = append(body, `","token_type":"bearer","iat":`...)
	body = strconv.AppendInt(body, issued, 10)
	body = append(body, `,"exp":`...)
	body = strconv.AppendInt(body, expires, 10)
	body = append(body, '}')
	answer.Body(w, http.StatusOK, body)
	if *buffer = body; len(body) <= longest {
		buffers.Put(buffer)
	}
}

// buffers keeps the *[]byte of answers of up to longest bytes. HTTP/2 copies those; it
// may go on reading a longer one after the handler.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const longest = 4 << 10

// Inactive answers that a token is not active, and nothing else.
func Inactive(w http.ResponseWriter) { answer.Body(w, http.StatusOK, []byte(`{"active":false}`)) }
