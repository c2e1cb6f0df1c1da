// Package answer writes JSON bodies as FastAPI writes them: compact, without a
// newline at the end, and with "<" unescaped rather than as \u003c. It has the
// errors that FastAPI has, too.
package answer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"
)

// JSON answers with a status, and v in JSON. It panics if v cannot be encoded.
func JSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err)
	}
	w.Header()["Content-Type"] = contentType
	w.WriteHeader(status)
	w.Write(bytes.TrimSuffix(body.Bytes(), []byte("\n")))
}

// Token answers with a new bearer token (RFC 6749 5.1) that lives for ttl. It lists
// the scopes, separated by spaces and perhaps none, if withScope is true.
func Token(w http.ResponseWriter, token string, ttl time.Duration, scope string, withScope bool) {
	granted := struct {
		AccessToken string  `json:"access_token"`
		TokenType   string  `json:"token_type"`
		ExpiresIn   int64   `json:"expires_in"`
		Scope       *string `json:"scope,omitempty"`
	}{token, "bearer", int64(ttl / time.Second), nil}
	if withScope {
		granted.Scope = &scope
	}
	JSON(w, http.StatusOK, granted)
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

// An HTTPException is any answer except success: FastAPI's exception of that name,
// and its RequestValidationError. Detail is a sentence or, with status 422, a list.
// Code is the error code of RFC 6749 or 6750.
type HTTPException struct {
	Status int
	Detail any
	Code   string
	Header http.Header
}

// Error is the error_description of RFC 6749 5.2: the detail as text.
func (e *HTTPException) Error() string { return fmt.Sprint(e.Detail) }

// Refusal returns an HTTPException without headers.
func Refusal(status int, detail any, code string) *HTTPException {
	return &HTTPException{Status: status, Detail: detail, Code: code, Header: make(http.Header)}
}

// Unauthorized returns a 401 with a challenge for each way to authenticate (RFC 9110
// 11.6.1).
func Unauthorized(detail, code string, challenges ...string) *HTTPException {
	e := Refusal(http.StatusUnauthorized, detail, code)
	e.Header["Www-Authenticate"] = challenges
	return e
}

// TryLater returns a temporary refusal that tells the client when to come again, in
// whole seconds (RFC 9110 10.2.3).
func TryLater(status int, detail string, after time.Duration) *HTTPException {
	e := Refusal(status, detail, "temporarily_unavailable")
	e.Header.Set("Retry-After", fmt.Sprint(int64(after/time.Second)))
	return e
}

// Write answers with the detail and, if the endpoint is one of OAuth 2.0 itself,
// also with error and error_description (RFC 6749 5.2).
func (e *HTTPException) Write(w http.ResponseWriter, protocol bool) {
	maps.Copy(w.Header(), e.Header)
	body := struct {
		Detail      any    `json:"detail"`
		Code        string `json:"error,omitempty"`
		Description string `json:"error_description,omitempty"`
	}{Detail: e.Detail}
	if protocol {
		body.Code, body.Description = e.Code, e.Error()
	}
	JSON(w, e.Status, body)
}
