// Package introspection writes the answer of RFC 7662 2.2: what a bearer token
// stands for.
package introspection

import (
	"net/http"
	"strings"

	"simple-oauth2/internal/answer"
)

// Active answers that a token is active, whose it is and what it was granted; there
// is no scope without scopes, since RFC 6749 3.3 has no empty one. Issued and
// expires are in Unix seconds.
func Active(w http.ResponseWriter, username string, scopes []string, issued, expires int64) {
	answer.JSON(w, http.StatusOK, struct {
		Active    bool   `json:"active"`
		Username  string `json:"username"`
		Subject   string `json:"sub"`
		Scope     string `json:"scope,omitempty"`
		TokenType string `json:"token_type"`
		Issued    int64  `json:"iat"`
		Expires   int64  `json:"exp"`
	}{true, username, username, strings.Join(scopes, " "), "bearer", issued, expires})
}

// Inactive answers that a token is not active, and nothing else.
func Inactive(w http.ResponseWriter) {
	answer.JSON(w, http.StatusOK, struct {
		Active bool `json:"active"`
	}{false})
}
