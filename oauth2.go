package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"simple-oauth2/internal/admission"
	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/clientaddr"
	"simple-oauth2/internal/clientauth"
	"simple-oauth2/internal/form"
	"simple-oauth2/internal/gateway"
	"simple-oauth2/internal/loginpage"
	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/metrics"
	"simple-oauth2/internal/router"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/usersfile"
	"simple-oauth2/internal/watch"
)

// auth is the authorization server of RFC 6749, and guards the resources that
// need a token. tokenTTL, in whole seconds, is the lifetime of a token whose user has
// no other.
type auth struct {
	users     *users
	tokens    tokens.Store
	tokenTTL  time.Duration
	now       func() time.Time
	admission *admission.Admission
	addresses *clientaddr.Clients
	forms     *form.Reader
	files     *watch.Watcher
	clients   *clientauth.Clients[*storedUser]
	page      loginpage.Config
	log       *slog.Logger
	counts    metrics.Counts
}

// An endpoint answers a request. Its error, if it returns one, becomes the
// answer instead.
type endpoint func(http.ResponseWriter, *http.Request) error

// depends makes an endpoint of a dependency and a handler that takes the
// dependency's result, like FastAPI's Depends. The handler runs only if the
// dependency succeeds.
func depends[T any](dependency func(*http.Request) (T, error), handler func(http.ResponseWriter, *http.Request, T) error) endpoint {
	return func(w http.ResponseWriter, r *http.Request) error {
		value, err := dependency(r)
		if err != nil {
			return err
		}
		return handler(w, r, value)
	}
}

// # The chain: bearerToken → currentUser → currentActiveUser → scoped

// bearerToken returns the token in the Authorization header (RFC 6750 2.1). It
// looks nowhere else: a token in a URL ends up in logs.
func bearerToken(r *http.Request) (string, error) {
	header := r.Header["Authorization"]
	if len(header) != 1 {
		return "", errNotAuthenticated
	}
	scheme, token, _ := strings.Cut(header[0], " ")
	token = strings.TrimLeft(token, " ") // RFC 9110 11.4 allows more than one
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNotAuthenticated
	}
	return token, nil
}

// currentUser is the user that a request's token belongs to, and the scopes
// that the token was granted and the user may still hold.
type currentUser struct {
	User
	Scopes []string
}

// currentUser returns the user of the bearer token, looked up by name each time:
// a user who is removed or disabled loses access with the next request.
func (a *auth) currentUser(r *http.Request) (currentUser, error) {
	token, err := bearerToken(r)
	if err != nil {
		return currentUser{}, err
	}
	user, record, err := a.session(r.Context(), token)
	if err == nil && record == nil {
		err = errNotAuthenticated
	}
	return user, err
}

// session returns what a live token stands for: its user and its record. The
// record is nil if the token is not live, or was issued before the user's
// password hash was replaced, or before the user's not_before.
func (a *auth) session(ctx context.Context, token string) (currentUser, *tokens.Record, error) {
	record, err := a.tokens.Find(ctx, tokens.KeyOf(token))
	if record == nil {
		return currentUser{}, nil, err
	}
	stored, ok := a.users.find(record.Username.String())
	if !ok || !stored.terms.Allow(record) {
		return currentUser{}, nil, nil
	}
	return currentUser{stored.User, stored.allowed(record.Scope.String())}, record, nil
}

// currentActiveUser returns the current user, or an error if disabled.
func (a *auth) currentActiveUser(r *http.Request) (currentUser, error) {
	user, err := a.currentUser(r)
	if err != nil {
		return currentUser{}, err
	}
	if !user.active() {
		return currentUser{}, errInactiveUser
	}
	return user, nil
}

// scoped is currentActiveUser, with the errors of RFC 6750 3.1 for a token that is
// worthless or lacks a scope.
func (a *auth) scoped(scopes ...string) func(*http.Request) (currentUser, error) {
	return func(r *http.Request) (currentUser, error) {
		user, err := a.currentActiveUser(r)
		if _, none := bearerToken(r); err == errNotAuthenticated && none == nil {
			err = errInvalidToken
		}
		if err != nil {
			return currentUser{}, err
		}
		if slices.ContainsFunc(scopes, func(scope string) bool { return !slices.Contains(user.Scopes, scope) }) {
			return currentUser{}, errInsufficientScope(scopes...)
		}
		return user, nil
	}
}

// # GET /users/me

// readUsersMe answers GET /users/me.
func readUsersMe(w http.ResponseWriter, _ *http.Request, user currentUser) error {
	answer.JSON(w, http.StatusOK, user.User)
	return nil
}

// # /auth

// guarded returns the current active user, or an error if the token lacks a scope
// that the query names. The token may also be in the cookie of the login page.
func (a *auth) guarded(r *http.Request) (currentUser, error) {
	a.page.Authorize(r)
	scopes, err := gateway.Scopes(r.URL, guardPath)
	if err != nil {
		return currentUser{}, err
	}
	return a.scoped(scopes...)(r)
}

// tellGateway answers /auth: the request may pass, and this user sent it.
func tellGateway(w http.ResponseWriter, _ *http.Request, user currentUser) error {
	gateway.Tell(w, gateway.Identity{Username: user.Username, Name: user.FullName, Email: user.Email, Scopes: user.Scopes})
	return nil
}

// entrance is what the login page needs: a login as at /token, with all scopes that
// the user may hold, and a logout as at /revoke.
func (a *auth) entrance() loginpage.Service {
	return loginpage.Service{Forms: a.forms, LogOut: a.logOut, AnswerTo: a.answerTo, Log: a.log,
		LogIn: func(r *http.Request, username, password string) (token string, record *tokens.Record, err error) {
			all := strings.Join(a.users.scopes(), " ")
			return a.logIn(r, form.PasswordRequest{Username: username, Password: password, Scope: all})
		},
		User: func(r *http.Request, token string) (string, bool, error) {
			user, _, err := a.session(r.Context(), token)
			return user.Username, user.active(), err
		},
	}
}

// # POST /token

// login answers POST /token: a new bearer token, and those of the requested scopes
// that it got (RFC 6749 3.3, 5.1).
func (a *auth) login(w http.ResponseWriter, r *http.Request, request form.PasswordRequest) error {
	token, record, err := a.logIn(r, request)
	if err == nil {
		answer.Token(w, token, record.Lifetime(), record.Scope.String(), strings.TrimSpace(request.Scope) != "")
	}
	return err
}

// logIn returns a new token for the right password, even for a disabled user, as in
// the tutorial. It gets those of the requested scopes that the user may hold.
func (a *auth) logIn(r *http.Request, request form.PasswordRequest) (token string, record *tokens.Record, err error) {
	client := a.addresses.Of(r)
	var user *storedUser
	right, err := a.admission.Try(r.Context(), client, request.Username, func() (ok bool) {
		user, ok = a.users.authenticate(request.Username, request.Password)
		return ok
	})
	if err != nil {
		return "", nil, err
	}
	log := a.log.With("client", client, "username", logs.Cut(request.Username), logs.Request(r.Header))
	if request.ClientID != "" {
		log = log.With("client_id", logs.Cut(request.ClientID))
	}
	if !right {
		log.Warn("login failed", usersfile.WhyWrong(request.Username, request.Password))
		return "", nil, errInvalidGrant
	}
	scope := strings.Join(user.allowed(request.Scope), " ")
	if token, record, err = a.issue(r.Context(), user, scope); err != nil {
		a.counts.NotIssued.Add(1)
		log.Warn("login not stored")
		return "", nil, err
	}
	log.Info("login", "scope", scope)
	return token, record, nil
}

// issue makes a token. Only its hash is stored.
func (a *auth) issue(ctx context.Context, user *storedUser, scope string) (string, *tokens.Record, error) {
	token, now := tokens.New(), a.now()
	record := &tokens.Record{
		Username:   tokens.Share(user.Username),
		Scope:      tokens.Share(scope),
		Issued:     now.Unix(),
		Expires:    now.Add(user.terms.Lifetime(a.tokenTTL)).Unix(),
		Since:      user.terms.Since(now),
		Credential: user.terms.Credential,
	}
	return token, record, a.tokens.Put(ctx, tokens.KeyOf(token), record)
}

// # POST /revoke and POST /introspect

// revoke answers POST /revoke: from now on the token is worthless. Anyone who holds
// a token may revoke it; the answer does not say whether it was live (RFC 7009 2.2).
func (a *auth) revoke(w http.ResponseWriter, r *http.Request, request form.TokenRequest) error {
	if !tokens.IsPlausible(request.Token) { // or somebody would believe to be logged out
		return form.Invalid("token", "Not a token: send the access_token alone")
	}
	err := a.logOut(r, request.Token)
	if err == nil {
		answer.JSON(w, http.StatusOK, struct{}{})
	}
	return err
}

// logOut ends a token, if it is live.
func (a *auth) logOut(r *http.Request, token string) error {
	key := tokens.KeyOf(token)
	record, err := a.tokens.Find(r.Context(), key)
	if record == nil {
		return err
	}
	log := a.log.With("client", a.addresses.Of(r), "username", logs.Cut(record.Username.String()), logs.Request(r.Header))
	if err := a.tokens.Delete(r.Context(), key); err != nil {
		a.counts.NotRevoked.Add(1)
		log.Warn("revocation not stored")
		return err
	}
	a.counts.Revoked.Add(1)
	log.Info("token revoked")
	return nil
}

// tokenInQuestion returns the token in the form, if the caller may know what it
// is: with client credentials of a user who may hold the scope introspect, with a
// bearer token that has the scope, or with the token itself as the bearer token.
func (a *auth) tokenInQuestion(r *http.Request) (string, error) {
	request, err := a.forms.TokenRequest(r)
	if err != nil {
		return "", err
	}
	credentials, err := clientauth.Read(r.Header["Authorization"], request.ClientID, request.ClientSecret)
	switch bearer, _ := bearerToken(r); {
	case err != nil:
	case credentials != nil:
		err = a.clients.Authenticate(r, a.addresses.Of(r), credentials)
	case bearer == "":
		err = errNoCredentials
	case bearer == request.Token:
		_, err = a.scoped()(r)
	default:
		_, err = a.scoped("introspect")(r)
	}
	return request.Token, err
}

// introspection is the answer of RFC 7662 2.2; the times are in Unix seconds. Of a token
// that is not active it says nothing else. There is no scope without scopes, since
// RFC 6749 3.3 has no empty one.
type introspection struct {
	Active    bool   `json:"active"`
	Username  string `json:"username,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Scope     string `json:"scope,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Issued    int64  `json:"iat,omitempty"`
	Expires   int64  `json:"exp,omitempty"`
}

// introspect answers POST /introspect: what the token in the form stands for. A token
// of a removed or disabled user is not active.
func (a *auth) introspect(w http.ResponseWriter, r *http.Request, token string) error {
	user, record, err := a.session(r.Context(), token)
	if err != nil {
		return err
	}
	if record == nil || !user.active() {
		a.counts.Inactive.Add(1)
		answer.JSON(w, http.StatusOK, introspection{})
		return nil
	}
	a.counts.Active.Add(1)
	answer.JSON(w, http.StatusOK, introspection{
		Active: true, Username: user.Username, Subject: user.Username, Scope: strings.Join(user.Scopes, " "),
		TokenType: "bearer", Issued: record.Issued, Expires: record.Expires,
	})
	return nil
}

// # Errors

const basicChallenge = `Basic realm="simple-oauth2", charset="UTF-8"`

var (
	errNotAuthenticated = answer.Unauthorized("Not authenticated", "invalid_token", "Bearer")
	errInvalidToken     = answer.Unauthorized("Not authenticated", "invalid_token", `Bearer error="invalid_token"`)
	errNoCredentials    = answer.Unauthorized("Not authenticated", "invalid_token", basicChallenge, "Bearer")
	errInactiveUser     = answer.Refusal(http.StatusBadRequest, "Inactive user", "invalid_token")
	errInvalidGrant     = answer.Refusal(http.StatusBadRequest, "Incorrect username or password", "invalid_grant")
	errNotFound         = answer.Refusal(http.StatusNotFound, "Not Found", "")
	errMethodNotAllowed = answer.Refusal(http.StatusMethodNotAllowed, "Method Not Allowed", "invalid_request")
)

// errInsufficientScope is the insufficient_scope of RFC 6750 3.1.
func errInsufficientScope(scopes ...string) *answer.HTTPException {
	e := answer.Refusal(http.StatusForbidden, "Not enough permissions", "insufficient_scope")
	e.Header.Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+strings.Join(scopes, " ")+`"`)
	return e
}

// answerTo is the one place where an error becomes an answer. The errors above are
// answers already; the others are those of the rooms.
func (a *auth) answerTo(err error) *answer.HTTPException {
	if e, ok := errors.AsType[*answer.HTTPException](err); ok {
		return e
	}
	if fault, ok := errors.AsType[form.Fault](err); ok {
		err = &form.Refusal{Code: "invalid_request", Faults: form.Faults{fault}}
	}
	if refusal, ok := errors.AsType[*form.Refusal](err); ok {
		return answer.Refusal(http.StatusUnprocessableEntity, refusal.Faults, refusal.Code)
	}
	if refused, ok := errors.AsType[*admission.Refused](err); ok && refused.Reason == admission.Guessing {
		return answer.TryLater(http.StatusTooManyRequests, refused.Error(), refused.RetryAfter)
	} else if ok {
		return answer.TryLater(http.StatusServiceUnavailable, refused.Error(), refused.RetryAfter)
	}
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return answer.Refusal(http.StatusRequestEntityTooLarge, "Request body larger than 64 KiB", "invalid_request")
	case errors.Is(err, form.ErrBusy):
		return answer.TryLater(http.StatusServiceUnavailable, err.Error(), time.Second)
	case errors.Is(err, tokens.ErrUnavailable):
		return answer.TryLater(http.StatusServiceUnavailable, "The tokens cannot be reached, try again later", time.Second)
	case errors.Is(err, clientauth.ErrWrong):
		return answer.Unauthorized(err.Error(), "invalid_client", basicChallenge)
	case errors.Is(err, clientauth.ErrTwoWays), errors.Is(err, gateway.ErrScope), errors.Is(err, gateway.ErrParameter):
		return answer.Refusal(http.StatusBadRequest, err.Error(), "invalid_request")
	}
	a.log.Error("unexpected error", "error", err)
	return answer.Refusal(http.StatusInternalServerError, "Internal Server Error", "server_error")
}

// resource is a route whose errors have only FastAPI's detail.
func (a *auth) resource(method, path string, e endpoint) router.Route {
	return router.Route{Method: method, Path: path, Handler: a.handler(e, false),
		NotAllowed: a.handler(refuse(errMethodNotAllowed), false)}
}

// protocol is a route of OAuth 2.0 itself: its answers have Pragma (RFC 6749 5.1),
// and its errors have error and error_description (5.2) as well as FastAPI's
// detail, since client libraries need them.
func (a *auth) protocol(method, path string, e endpoint) router.Route {
	return router.Route{Method: method, Path: path, Handler: a.handler(e, true),
		NotAllowed: a.handler(refuse(errMethodNotAllowed), true)}
}

// handler runs an endpoint, and writes the answer to its error. No answer may be
// stored unless the endpoint says so, since most depend on who asks.
func (a *auth) handler(e endpoint, protocol bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer.NoStore(w.Header(), protocol)
		if err := e(w, r); err != nil {
			a.answerTo(err).Write(w, protocol)
		}
	})
}

// refuse is an endpoint that answers with an error.
func refuse(e error) endpoint { return func(http.ResponseWriter, *http.Request) error { return e } }
