package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/usersfile"
)

// User is what may be shown of a user, in the tutorial's order; an unknown
// field is null.
type User struct {
	Username string  `json:"username"`
	Email    *string `json:"email"`
	FullName *string `json:"full_name"`
	Disabled *bool   `json:"disabled"`
}

func (u User) active() bool { return u.Disabled == nil || !*u.Disabled }

// storedUser is a User with what is never shown. It is a type of its own, the
// tutorial's UserInDB, so that code that writes a User cannot write the hash.
type storedUser struct {
	User
	hash   []byte
	terms  tokens.Terms // of the user's tokens
	scopes []string
}

// allowed returns those of the scopes in a list, separated by white space, that the
// user may hold, each once.
func (u *storedUser) allowed(list string) (held []string) {
	for scope := range strings.FieldsSeq(list) {
		if slices.Contains(u.scopes, scope) && !slices.Contains(held, scope) {
			held = append(held, scope)
		}
	}
	return held
}

// client returns the stored hash, and whether the user may act as a client.
func (u *storedUser) client() (hash []byte, may bool) {
	return u.hash, u.active() && slices.Contains(u.scopes, "introspect")
}

// users are the people who may log in, read from file or, if that is empty, the
// tutorial's two. They may be reloaded while requests are served.
type users struct {
	file   string
	log    *slog.Logger
	loaded atomic.Pointer[userMap]
}

// userMap is one reading of a users file: the users by name, the scopes that
// any of them may hold, and a hash that no password matches, as costly as the
// costliest of theirs.
type userMap struct {
	byName map[string]*storedUser
	scopes []string
	noOne  []byte
}

// load reads the users. If that fails, the error names the file, the user and
// the fault, and the previous users stay.
func (u *users) load() error {
	text, source := []byte(usersfile.Demonstration), "demonstration"
	if u.file != "" {
		var err error
		if text, err = os.ReadFile(u.file); err != nil {
			return err
		}
		source = u.file
	}
	read := &userMap{byName: make(map[string]*storedUser, usersfile.Guess(text))}
	all, err := usersfile.Parse(text, func(name string, record usersfile.Record) {
		user := User{name, record.Email, record.FullName, record.Disabled}
		terms := tokens.TermsOf(record.Hash, record.NotBefore, record.TokenTTL)
		read.byName[name] = &storedUser{User: user, hash: record.Hash, terms: terms, scopes: record.Scopes}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	read.scopes, read.noOne = all.Scopes, fmt.Appendf(nil, "$2a$%02d$%s", all.Costliest, strings.Repeat(".", 53))
	all.WarnOfWeak(u.log)
	if u.file == "" {
		u.log.Warn("serving the tutorial's demo users, whose passwords are public; use -users to serve your own")
	}
	if all.Users == 0 {
		u.log.Warn("there are no users: nobody can log in", "source", source)
	}
	u.loaded.Store(read)
	// Parsing leaves garbage behind. With 200,000 users and five reloads the process
	// has 82 MB resident with this, and 230 MB without.
	defer debug.FreeOSMemory()
	u.log.Info("users loaded", "users", len(read.byName), "source", source)
	return nil
}

// scopes returns those that any user may hold.
func (u *users) scopes() []string { return u.loaded.Load().scopes }

// find returns the user with that name.
func (u *users) find(username string) (*storedUser, bool) {
	user, ok := u.loaded.Load().byName[username]
	return user, ok
}

// authenticate returns the user with that name, if the password is right. A wrong
// password, one too long for bcrypt and an unknown name take the same time.
func (u *users) authenticate(username, password string) (*storedUser, bool) {
	loaded := u.loaded.Load()
	user, known := loaded.byName[username]
	hash := loaded.noOne
	if known {
		hash = user.hash
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password[:min(len(password), usersfile.LongestPassword)]))
	if !known || err != nil || len(password) > usersfile.LongestPassword {
		return nil, false
	}
	return user, true
}
