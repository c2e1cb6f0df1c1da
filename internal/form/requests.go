package form

import (
	"net/http"
	"strings"
)

// Longest is how many bytes a form of OAuth 2.0 may have.
const Longest = 64 << 10

// Refusal is the error for a form that can be read, but is not the request that it
// should be. Code is the error code of RFC 6749 5.2.
type Refusal struct {
	Code   string
	Faults Faults
}

// Error is the errors of all faults, in one line.
func (e *Refusal) Error() string { return e.Faults.Error() }

// PasswordRequest is FastAPI's OAuth2PasswordRequestForm, the request of RFC 6749
// 4.3.2. The client's secret is accepted but not checked, so it is not kept.
type PasswordRequest struct{ Username, Password, Scope, ClientID string }

// PasswordRequest reads a PasswordRequest, only from the body. grant_type may be
// absent, as in FastAPI's form; the client may name itself in a Basic header
// instead (RFC 6749 2.3.1). Keyboards of phones put a space behind a username, so
// white space around it is left out. The error is a *Refusal, or one of Parse.
func (f *Reader) PasswordRequest(r *http.Request) (PasswordRequest, error) {
	sent, err := f.Parse(r, Longest, "grant_type", "username", "password", "scope", "client_id")
	if err != nil {
		return PasswordRequest{}, err
	}
	refusal := Refusal{Code: "invalid_request"}
	if grant := sent.Fields["grant_type"]; grant != "" && grant != "password" {
		refusal = Refusal{"unsupported_grant_type", Faults{Mismatch("grant_type", grant, "^password$")}}
	}
	refusal.Faults = append(refusal.Faults, sent.Missing("username", "password")...)
	if len(refusal.Faults) > 0 {
		return PasswordRequest{}, &refusal
	}
	request := PasswordRequest{
		Username: strings.TrimSpace(sent.Fields["username"]),
		Password: sent.Fields["password"],
		Scope:    sent.Fields["scope"],
		ClientID: sent.Fields["client_id"],
	}
	if basic, _, ok := r.BasicAuth(); ok && request.ClientID == "" {
		request.ClientID = basic
	}
	return request, nil
}

// TokenRequest is the request of RFC 7009 2.1 and RFC 7662 2.1. token_type_hint is not
// needed, as there is one type.
type TokenRequest struct{ Token, ClientID, ClientSecret string }

// TokenRequest reads a TokenRequest. White space around the token is left out. The
// error is a *Refusal, or one of Parse.
func (f *Reader) TokenRequest(r *http.Request) (TokenRequest, error) {
	sent, err := f.Parse(r, Longest, "token", "client_id", "client_secret")
	if err != nil {
		return TokenRequest{}, err
	}
	if faults := sent.Missing("token"); faults != nil {
		return TokenRequest{}, &Refusal{Code: "invalid_request", Faults: faults}
	}
	request := TokenRequest{
		Token:        strings.TrimSpace(sent.Fields["token"]),
		ClientID:     sent.Fields["client_id"],
		ClientSecret: sent.Fields["client_secret"],
	}
	return request, nil
}
