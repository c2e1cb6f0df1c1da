package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/answer"
	"simple-oauth2/internal/introspection"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/usersfile"
)

// User is what may be shown of a user, in the tutorial's order; what is not
// known is null.
type User struct {
	Username string  `json:"username"`
	Email    *string `json:"email"`
	FullName *string `json:"full_name"`
	Disabled *bool   `json:"disabled"`

	body   []byte               // the JSON of it all, made once when the user is loaded
	claims introspection.Claims // so is what /introspect says of the user
}

func (u User) active() bool { return u.Disabled == nil || !*u.Disabled }

// storedUser is a User with what is never shown. It is a type of its own, the
// tutorial's UserInDB, so that nothing that writes a User can write the hash.
type storedUser struct {
	User
	hash       []byte
	credential tokens.Credential // the hash, as a token's record names it
	scopes     []string
}

// allowed is those of the scopes that the user may hold, each once.
func (u *storedUser) allowed(scopes []string) (held []string) {
	for _, scope := range scopes {
		if slices.Contains(u.scopes, scope) && !slices.Contains(held, scope) {
			held = append(held, scope)
		}
	}
	return held
}

// client is the stored hash, and whether the user may authenticate as a client.
func (u *storedUser) client() (hash []byte, may bool) {
	return u.hash, u.active() && slices.Contains(u.scopes, "introspect")
}

// longestPassword is the number of bytes that bcrypt looks at; what is longer
// would match anything that begins alike.
const longestPassword = 72

// users are the people who may log in, read from file or, where that is empty,
// the demonstration. They may be loaded again while requests are served.
type users struct {
	file   string
	log    *slog.Logger
	loaded atomic.Pointer[userMap]
}

// userMap is one reading of a users file: the users by name, the scopes that
// any of them may hold, and a hash that no password has, as costly as the
// costliest of theirs.
type userMap struct {
	byName map[string]*storedUser
	scopes []string
	noOne  []byte
}

// load reads the users. Its error names the file, the user and the fault, and
// leaves the users that were there. It is ctx's if that ends first.
func (u *users) load(ctx context.Context) error {
	text, source := []byte(usersfile.Demonstration), "demonstration"
	if u.file != "" {
		var err error
		if text, err = os.ReadFile(u.file); err != nil {
			return err
		}
		source = u.file
	}
	records, err := usersfile.Parse(ctx, text)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	read, costliest := &userMap{byName: make(map[string]*storedUser), scopes: usersfile.Scopes(records)}, bcrypt.MinCost
	for name, record := range records {
		user := User{Username: name, Email: record.Email, FullName: record.FullName, Disabled: record.Disabled}
		user.body, user.claims = answer.Encode(user), introspection.ClaimsOf(name)
		read.byName[name] = &storedUser{User: user, hash: record.Hash, credential: tokens.CredentialOf(record.Hash), scopes: record.Scopes}
		costliest = max(costliest, record.Cost)
	}
	usersfile.WarnOfWeak(records, u.log)
	read.noOne = fmt.Appendf(nil, "$2a$%02d$%s", costliest, strings.Repeat(".", 53))
	if u.file == "" {
		u.log.Warn("serving the tutorial's demo users, whose passwords are public; use -users to serve your own")
	}
	if len(records) == 0 {
		u.log.Warn("there are no users: nobody can log in", "source", source)
	}
	u.loaded.Store(read)
	defer debug.FreeOSMemory() // a large file leaves twice its users' memory behind
	u.log.Info("users loaded", "users", len(read.byName), "source", source)
	return nil
}

// find is the user of that name.
func (u *users) find(username string) (*storedUser, bool) {
	user, ok := u.loaded.Load().byName[username]
	return user, ok
}

// authenticate is the user of that name, if the password is theirs. A wrong
// password, one too long for bcrypt and an unknown name take the same time.
func (u *users) authenticate(username, password string) (*storedUser, bool) {
	loaded := u.loaded.Load()
	user, known := loaded.byName[username]
	hash := loaded.noOne
	if known {
		hash = user.hash
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password[:min(len(password), longestPassword)]))
	if !known || err != nil || len(password) > longestPassword {
		return nil, false
	}
	return user, true
}
