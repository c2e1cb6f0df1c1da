// Package usersfile reads the file that says who may log in: a JSON object
// keyed by username, each with a record of the tutorial's fields and some more.
package usersfile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/tokens"
)

// MaxCost is the highest cost that a hash may have. Each step doubles the time of
// a login; above it, every guess would burn seconds.
const MaxCost = 16

// LeastCost is the cost below which a stolen hash can be cracked too fast.
const LeastCost = 10

// Demonstration is the tutorial's fake_users_db: johndoe, whose password is
// secret, and alice, whose password is secret2 and who is disabled.
const Demonstration = `{
	"johndoe": {
		"full_name": "John Doe",
		"email": "johndoe@example.com",
		"hashed_password": "$2y$10$Ia83onAwzmB9zdKdCWDso.WReDLckaABJCs2pG8DwQ9h6IDZtaltK",
		"disabled": false
	},
	"alice": {
		"full_name": "Alice Wonderson",
		"email": "alice@example.com",
		"hashed_password": "$2y$10$vjetWsiPXsHBHYT.Pl6lJOYrR31BMOIKho7Kfo0pDmTscMu66rUjC",
		"disabled": true
	}
}`

// Record is what the file says about a user; a missing field is nil. Disabled and
// Scopes may be shared by many users, and must not be changed.
type Record struct {
	Email     *string
	FullName  *string
	Disabled  *bool
	Scopes    []string  // that the user may hold
	Hash      []byte    // bcrypt's, $2a$, $2b$ or $2y$
	Cost      int       // of the hash, from bcrypt.MinCost to MaxCost
	NotBefore time.Time // tokens issued earlier are worthless
	TokenTTL  time.Duration
}

// Summary is what there is to know about all users of a file.
type Summary struct {
	Users     int
	Scopes    []string // that any of them may hold, sorted, each once
	Costliest int      // the cost of the costliest hash, bcrypt.MinCost at least
	weak      []string // the names of those whose hash costs less than LeastCost
}

// Parse reads the users and calls add with each of them, in the order of the file.
// Its error is one line that names the user and the fault, and shows no string of the
// file but names, and none that looks like a hash.
func Parse(text []byte, add func(name string, record Record)) (Summary, error) {
	summary := Summary{Costliest: bcrypt.MinCost}
	lists := make(scopeLists)
	err := visitObject(text, func(key, value []byte) error {
		name := string(key)
		record, err := parseRecord(name, value, lists)
		if err != nil {
			return fmt.Errorf("user %s: %w", Quote(key), err)
		}
		add(name, record)
		summary.Users++
		summary.Costliest = max(summary.Costliest, record.Cost)
		if record.Cost < LeastCost {
			summary.weak = append(summary.weak, name)
		}
		return nil
	})
	for _, list := range lists {
		summary.Scopes = append(summary.Scopes, list...)
	}
	slices.Sort(summary.Scopes)
	summary.Scopes = slices.Compact(summary.Scopes)
	return summary, err
}

// Guess returns about how many users there are in a text, to make room for them.
func Guess(text []byte) int { return bytes.Count(text, []byte(`"hashed_password"`)) }

// WarnOfWeak logs how many users have a hash with a cost below LeastCost, and the
// names of the first few.
func (s Summary) WarnOfWeak(log *slog.Logger) {
	const named = 5
	if len(s.weak) == 0 {
		return
	}
	slices.Sort(s.weak)
	some := slices.Clone(s.weak[:min(len(s.weak), named)])
	for i, name := range some {
		some[i] = logs.Cut(name)
	}
	log.Warn("some users have weak hashes, hash their passwords again", "users", len(s.weak), "among_them", some, "least_cost", LeastCost)
}

// text reads a JSON value that is a string or null.
func text(value []byte) (text *string, err error) {
	if plain, ok := stringOf(value); ok {
		text := string(plain)
		return &text, nil
	}
	err = json.Unmarshal(value, &text)
	return text, err
}

// moment reads a JSON value that is a time (RFC 3339) or null.
func moment(value []byte) (moment time.Time, err error) {
	written, err := text(value)
	if err != nil || written == nil {
		return time.Time{}, err
	}
	if err := moment.UnmarshalText([]byte(*written)); err != nil {
		return time.Time{}, errors.New(`not_before is not a time such as "2026-01-31T09:00:00Z" (RFC 3339)`)
	}
	return moment, nil
}

// lifetime reads a JSON value that is the lifetime of a token, such as "8h", or null.
func lifetime(value []byte) (time.Duration, error) {
	written, err := text(value)
	if err != nil || written == nil {
		return 0, err
	}
	ttl, err := tokens.ParseTTL(*written)
	if err != nil {
		return 0, fmt.Errorf("token_ttl %w", err)
	}
	return ttl, nil
}

var yes, no = true, false

// boolean reads a JSON value that is true, false or null.
func boolean(value []byte) (boolean *bool, err error) {
	switch string(value) {
	case "true":
		return &yes, nil
	case "false":
		return &no, nil
	}
	err = json.Unmarshal(value, &boolean)
	return boolean, err
}

// scopeLists are the lists of scopes in a file, keyed by the JSON that they were
// read from. Users who may hold the same scopes share a list.
type scopeLists map[string][]string

var (
	scopeToken = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`) // RFC 6749 3.3
	hashForm   = regexp.MustCompile(`^\$[0-9a-z-]+\$.`)            // of crypt's form: $2b$…, $argon2id$…
)

// isHash says whether a text is a hash of crypt's form. It looks at the first byte
// before it matches, since nearly no text is one.
func isHash(text string) bool { return strings.HasPrefix(text, "$") && hashForm.MatchString(text) }

func (l scopeLists) read(value []byte) ([]string, error) {
	if list, known := l[string(value)]; known {
		return list, nil
	}
	var list []string
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, err
	}
	for i, scope := range list {
		if !scopeToken.MatchString(scope) {
			return nil, fmt.Errorf("entry %d of scopes is not a scope: one is printable ASCII without spaces, \" and \\", i+1)
		}
		if isHash(scope) { // /docs would show it to everybody
			return nil, fmt.Errorf("entry %d of scopes is a hash", i+1)
		}
	}
	l[string(value)] = list
	return list, nil
}

// checkName returns an error for a name that nobody can type at a login: white
// space at the ends of what is typed there is left out.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the username is empty")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the username contains a control character")
	case isHash(name): // the log would show it
		return errors.New("the username is a hash")
	case strings.TrimSpace(name) != name:
		return errors.New("the username begins or ends with white space")
	case strings.ContainsFunc(name, isUnseen):
		return errors.New("the username contains a character that cannot be seen")
	}
	return nil
}

func parseRecord(name string, value []byte, lists scopeLists) (record Record, err error) {
	var username *string
	err = visitValid(value, func(field, value []byte) error {
		var err error
		switch string(field) {
		case "username":
			username, err = text(value)
		case "email":
			record.Email, err = text(value)
		case "full_name":
			record.FullName, err = text(value)
		case "disabled":
			record.Disabled, err = boolean(value)
		case "hashed_password":
			var hash *string
			if plain, ok := stringOf(value); ok {
				record.Hash = bytes.Clone(plain)
			} else if hash, err = text(value); hash != nil {
				record.Hash = []byte(*hash)
			}
		case "scopes":
			record.Scopes, err = lists.read(value)
		case "not_before":
			record.NotBefore, err = moment(value)
		case "token_ttl":
			record.TokenTTL, err = lifetime(value)
		default:
			return fmt.Errorf("unknown field %s", Quote(field))
		}
		if err == nil {
			return nil
		}
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
			wants := map[string]string{"bool": "true or false", "[]string": "a list of strings"}
			return fmt.Errorf("field %q is a %s, want %s", field, wrong.Value, cmp.Or(wants[wrong.Type.String()], wrong.Type.String()))
		}
		return err
	})
	if err != nil {
		return Record{}, err
	}
	if err := checkName(name); err != nil {
		return Record{}, err
	}
	for _, field := range [...]struct {
		name  string
		value *string
	}{{"email", record.Email}, {"full_name", record.FullName}} {
		if field.value != nil && isHash(*field.value) { // whoever asks for the user would see it
			return Record{}, fmt.Errorf("%s is a hash", field.name)
		}
	}
	if username != nil && *username != name {
		return Record{}, errors.New(`the field "username" differs from the key`)
	}
	if len(record.Hash) == 0 {
		return Record{}, errors.New("no hashed_password")
	}
	cost, err := costOf(record.Hash)
	if err == nil && (cost < bcrypt.MinCost || cost > MaxCost) {
		err = fmt.Errorf("hashed_password has cost %d: it must be from %d to %d", cost, bcrypt.MinCost, MaxCost)
	}
	if err != nil {
		return Record{}, err
	}
	record.Cost = cost
	return record, nil
}
