// Package usersfile reads the file that says who may log in: a JSON object
// keyed by username, each with a record of the tutorial's fields.
package usersfile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/logs"
	"simple-oauth2/internal/strictjson"
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

// Record is what the file says about a user; a missing field is nil.
type Record struct {
	Email    *string
	FullName *string
	Disabled *bool
	Scopes   []string // that the user may hold
	Hash     []byte   // bcrypt's, $2a$, $2b$ or $2y$
	Cost     int      // of the hash, from bcrypt.MinCost to MaxCost
}

// Parse reads the records, by username. Its error is one line that names the user
// and the fault, and shows no hash. It is ctx's error if ctx ends first, so that a
// long file does not hold up a stop.
func Parse(ctx context.Context, text []byte) (map[string]Record, error) {
	records := make(map[string]Record)
	err := strictjson.Object(text, func(name string, value []byte) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := parseRecord(name, value)
		if err != nil {
			return fmt.Errorf("user %q: %w", name, err)
		}
		records[name] = record
		return nil
	})
	return records, err
}

// Scopes returns all scopes that any of the users may hold, sorted, each once.
func Scopes(records map[string]Record) (scopes []string) {
	for _, record := range records {
		scopes = append(scopes, record.Scopes...)
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

// WarnOfWeak logs how many users have a hash with a cost below LeastCost, and the
// names of the first few.
func WarnOfWeak(records map[string]Record, log *slog.Logger) {
	const named = 5
	var weak []string
	for name, record := range records {
		if record.Cost < LeastCost {
			weak = append(weak, name)
		}
	}
	if len(weak) == 0 {
		return
	}
	slices.Sort(weak)
	some := weak[:min(len(weak), named)]
	for i, name := range some {
		some[i] = logs.Cut(name)
	}
	log.Warn("some users have weak hashes, hash their passwords again", "users", len(weak), "among_them", some, "least_cost", LeastCost)
}

var (
	bcryptHash = regexp.MustCompile(`^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$`)
	scopeToken = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`) // RFC 6749 3.3
)

// text reads a JSON value that is a string or null.
func text(value []byte) (text *string, err error) {
	if plain, ok := strictjson.String(value); ok {
		return &plain, nil
	}
	err = json.Unmarshal(value, &text)
	return text, err
}

func parseRecord(name string, value []byte) (record Record, err error) {
	var username *string
	var hash string
	err = strictjson.Valid(value, func(field string, value []byte) error {
		var err error
		switch field {
		case "username":
			username, err = text(value)
		case "email":
			record.Email, err = text(value)
		case "full_name":
			record.FullName, err = text(value)
		case "disabled":
			err = json.Unmarshal(value, &record.Disabled)
		case "hashed_password":
			var hashed *string
			if hashed, err = text(value); hashed != nil {
				hash = *hashed
			}
		case "scopes":
			err = json.Unmarshal(value, &record.Scopes)
		default:
			return fmt.Errorf("unknown field %q", field)
		}
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) { // the only possible error, as the value is valid JSON
			wants := map[string]string{"bool": "true or false", "[]string": "a list of strings"}
			return fmt.Errorf("field %q is a %s, want %s", field, wrong.Value, cmp.Or(wants[wrong.Type.String()], wrong.Type.String()))
		}
		return nil
	})
	if err != nil {
		return Record{}, err
	}
	parts := bcryptHash.FindStringSubmatch(hash)
	switch {
	case name == "":
		return Record{}, errors.New("the username is empty")
	case strings.ContainsFunc(name, unicode.IsControl):
		return Record{}, errors.New("the username contains a control character")
	case username != nil && *username != name:
		return Record{}, fmt.Errorf("the username %q differs from its key", *username)
	case hash == "":
		return Record{}, errors.New("no hashed_password")
	case parts == nil:
		return Record{}, errors.New("hashed_password is not a bcrypt hash: simple-oauth2 hash makes one")
	}
	record.Hash = []byte(hash)
	record.Cost, _ = strconv.Atoi(parts[1])
	if record.Cost < bcrypt.MinCost || record.Cost > MaxCost {
		return Record{}, fmt.Errorf("hashed_password has cost %d: it must be from %d to %d", record.Cost, bcrypt.MinCost, MaxCost)
	}
	for _, scope := range record.Scopes {
		if !scopeToken.MatchString(scope) {
			return Record{}, fmt.Errorf("%q is not a scope: one is printable ASCII without spaces, \" and \\", scope)
		}
	}
	return record, nil
}
