// Package gateway answers gateways that guard another service: nginx's
// auth_request, Caddy's forward_auth, HAProxy's auth-request, Traefik's
// ForwardAuth and Envoy's ext_authz. Such a gateway lets a request through on
// 200, refuses it on 401 and 403, fails on anything else, and copies headers of
// the answer to the request.
//
// The headers are Remote-User, Remote-Name, Remote-Email and Remote-Scope, named
// as in Authelia. Each answer has all four, and an unknown one is empty: if it
// were missing, a gateway that copies what it finds would let the client's own
// header through.
//
// In a value, "%", each byte that is not printable ASCII, and a space at either
// end, which would get lost, become %XX: percent-decoding restores the text, and
// two texts never become the same value.
package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

var (
	// ErrScope is the error for a query that does not say which scopes are needed.
	ErrScope = errors.New("The scope in the query is empty or malformed")
	// ErrParameter is the error for a query that has anything but scope.
	ErrParameter = errors.New("The query has a parameter other than scope")
)

// Scopes returns the scopes that a question at or below the path guard asks for:
// all those in its scope parameters, separated by spaces. The error is ErrScope if
// any part of the query is malformed, or if a scope is empty or has characters that
// RFC 6749 3.3 does not allow. At guard itself another parameter is ErrParameter:
// it may be scope, misspelled; so is a path that begins like a query, whose "?" was
// escaped. Below guard, a gateway adds the query of the request that it guards. So a
// mistake in a gateway's configuration keeps everybody out,
// rather than nobody.
func Scopes(question *url.URL, guard string) (scopes []string, err error) {
	rest := strings.TrimLeft(strings.TrimPrefix(question.Path, guard), "/")
	if strings.HasPrefix(rest, "?") || strings.HasPrefix(rest, "scope=") {
		return nil, ErrParameter
	}
	if question.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(question.RawQuery)
	if err != nil {
		return nil, ErrScope
	}
	for name := range values {
		if name != "scope" && question.Path == guard {
			return nil, ErrParameter
		}
	}
	for _, value := range values["scope"] {
		named := strings.Fields(value)
		if len(named) == 0 || strings.ContainsFunc(value, notInScope) {
			return nil, ErrScope
		}
		scopes = append(scopes, named...)
	}
	return scopes, nil
}

func notInScope(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }

// Identity says who sent the request that a gateway asks about. Name and Email
// are nil if unknown.
type Identity struct {
	Username    string
	Name, Email *string
	Scopes      []string
}

// Tell answers 200, with an empty body and the headers for an identity.
func Tell(w http.ResponseWriter, who Identity) {
	header := w.Header()
	header.Set("Remote-User", encode(who.Username))
	header.Set("Remote-Name", encodeKnown(who.Name))
	header.Set("Remote-Email", encodeKnown(who.Email))
	header.Set("Remote-Scope", encode(strings.Join(who.Scopes, " ")))
	w.WriteHeader(http.StatusOK)
}

func encodeKnown(text *string) string {
	if text == nil {
		return ""
	}
	return encode(*text)
}

func encode(text string) string {
	var value strings.Builder
	for i := range len(text) {
		b := text[i]
		atEnd := i == 0 || i == len(text)-1
		if b < ' ' || b > '~' || b == '%' || b == ' ' && atEnd {
			fmt.Fprintf(&value, "%%%02X", b)
		} else {
			value.WriteByte(b)
		}
	}
	return value.String()
}

// Handler adapts next to gateways. A 4xx status other than 401 becomes 403, since
// nginx turns any other into an error of its own.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(refuser{w}, r)
	})
}

type refuser struct{ http.ResponseWriter }

func (w refuser) WriteHeader(status int) {
	if status/100 == 4 && status != http.StatusUnauthorized {
		status = http.StatusForbidden
	}
	w.ResponseWriter.WriteHeader(status)
}
