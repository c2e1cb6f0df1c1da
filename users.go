package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/strictjson"
)

// User is what may be shown of a user, in the tutorial's order; what is not
// known is null.
type User struct {
	Username string  `json:"username"`
	Email    *string `json:"email"`
	FullName *string `json:"full_name"`
	Disabled *bool   `json:"disabled"`
}

func (u User) active() bool { return u.Disabled == nil || !*u.Disabled }

// storedUser is a User with what is never shown. It is a type of its own, the
// tutorial's UserInDB, so that nothing that writes a User can write the hash.
type storedUser struct {
	User
	hash   []byte
	scopes []string
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

// readUsersMe answers GET /users/me.
func readUsersMe(w http.ResponseWriter, _ *http.Request, user CurrentUser) error {
	writeJSON(w, http.StatusOK, user.User)
	return nil
}

// demonstration is the tutorial's fake_users_db: johndoe, whose password is
// secret, and alice, whose password is secret2 and who is disabled.
const demonstration = `{
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

// The costs of a bcrypt hash, each step doubling the time of a login. Below
// the least a stolen hash is guessed too fast; above the greatest every guess
// at the service would burn seconds.
const (
	leastCost    = 10
	greatestCost = 16
)

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

// userMap is one reading of a users file: the users by name, and a hash that
// no password has, as costly as the costliest of theirs.
type userMap struct {
	byName map[string]*storedUser
	noOne  []byte
}

// load reads the users. Its error names the file, the user and the fault, and
// leaves the users that were there.
func (u *users) load() error {
	text, source := []byte(demonstration), "demonstration"
	if u.file != "" {
		var err error
		if text, err = os.ReadFile(u.file); err != nil {
			return err
		}
		source = u.file
	}
	read, err := parseUsers(text)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	for name, user := range read.byName {
		if cost, _ := bcrypt.Cost(user.hash); cost < leastCost {
			u.log.Warn("the hash of a user is weak, make a new one", "username", cut(name), "cost", cost, "least", leastCost)
		}
	}
	if u.file == "" {
		u.log.Warn("these are the tutorial's demonstration users, whose passwords everybody knows: give your own with -users")
	}
	u.loaded.Store(read)
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

// parseUsers reads a JSON object of users keyed by username.
func parseUsers(text []byte) (*userMap, error) {
	read, costliest := &userMap{byName: make(map[string]*storedUser)}, leastCost
	err := strictjson.Object(text, func(name string, record []byte) error {
		user, err := parseUser(name, record)
		if err != nil {
			return fmt.Errorf("user %q: %w", name, err)
		}
		read.byName[name] = user
		cost, err := bcrypt.Cost(user.hash)
		costliest = max(costliest, cost)
		return err
	})
	read.noOne = fmt.Appendf(nil, "$2a$%02d$%s", costliest, strings.Repeat(".", 53))
	return read, err
}

var bcryptHash = regexp.MustCompile(`^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$`)

// scopeToken is RFC 6749 3.3's.
var scopeToken = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`)

func parseUser(name string, record []byte) (*storedUser, error) {
	var user storedUser
	var username *string
	var hash string
	fields := map[string]any{"username": &username, "email": &user.Email, "full_name": &user.FullName,
		"disabled": &user.Disabled, "hashed_password": &hash, "scopes": &user.scopes}
	err := strictjson.Object(record, func(field string, value []byte) error {
		target, known := fields[field]
		if !known {
			return fmt.Errorf("unknown field %q", field)
		}
		if err := json.Unmarshal(value, target); err != nil {
			wrong := new(json.UnmarshalTypeError) // the value is valid JSON, so it can be nothing else
			errors.As(err, &wrong)
			return fmt.Errorf("field %q: a %s where %s belongs", field, wrong.Value, wrong.Type)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	user.Username, user.hash = name, []byte(hash)
	switch cost := bcryptHash.FindStringSubmatch(hash); {
	case name == "":
		return nil, errors.New("the username is empty")
	case username != nil && *username != name:
		return nil, fmt.Errorf("the username %q differs from its key", *username)
	case hash == "":
		return nil, errors.New("no hashed_password")
	case cost == nil:
		return nil, errors.New("hashed_password is not a bcrypt hash")
	default:
		if n, _ := strconv.Atoi(cost[1]); n < bcrypt.MinCost || n > greatestCost {
			return nil, fmt.Errorf("hashed_password has cost %d: it must be from %d to %d", n, bcrypt.MinCost, greatestCost)
		}
	}
	for _, scope := range user.scopes {
		if !scopeToken.MatchString(scope) {
			return nil, fmt.Errorf("%q is not a scope", scope)
		}
	}
	return &user, nil
}

// hashPassword is the command simple-oauth2 hash: it reads a password, with or
// without a line's end, and prints the hash that a users file takes.
func hashPassword(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("hash", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	cost := flags.Int("cost", 12, "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, err = fmt.Fprintln(stdout, "usage: simple-oauth2 hash [-cost N] <password.txt")
		return err
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("unexpected argument: the password is read from standard input")
	}
	if *cost < bcrypt.MinCost || *cost > greatestCost {
		return fmt.Errorf("-cost %d: it must be from %d to %d", *cost, bcrypt.MinCost, greatestCost)
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case password == "":
		return errors.New("the password is empty")
	case strings.ContainsAny(password, "\r\n"):
		return errors.New("the password has more than one line")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), *cost)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", hash)
	return err
}
