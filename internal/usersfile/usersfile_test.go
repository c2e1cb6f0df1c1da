package usersfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/usersfile"
)

// hash is the hash of a password that no test needs.
var hash = func() string {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(hash)
}()

// parse reads a file, and wants each user once.
func parse(ctx context.Context, text string) (map[string]usersfile.Record, usersfile.Summary, error) {
	records := make(map[string]usersfile.Record)
	summary, err := usersfile.Parse(ctx, []byte(text), func(name string, record usersfile.Record) { records[name] = record })
	if err == nil && summary.Users != len(records) {
		err = fmt.Errorf("%d users, of %d names", summary.Users, len(records))
	}
	return records, summary, err
}

// TestParse reads a file, and wants it to be accepted, or refused in one line.
func TestParse(t *testing.T) {
	record := func(fields string) string { return `{"johndoe": {` + fields + `}}` }
	good := `"hashed_password": "` + hash + `"`
	for _, tt := range []struct {
		name, text string
		err        string // "" for a good file
	}{
		{"least", record(good), ""},
		{"everything", record(good + `, "username": "johndoe", "full_name": "J", "email": "j@x", "disabled": false, "scopes": ["a", "b:c/d"]`), ""},
		{"nulls", record(good + `, "username": null, "full_name": null, "email": null, "disabled": null, "scopes": null`), ""},
		{"$2b$", record(`"hashed_password": "` + strings.Replace(hash, "$2a$", "$2b$", 1) + `"`), ""},
		{"$2y$", record(`"hashed_password": "` + strings.Replace(hash, "$2a$", "$2y$", 1) + `"`), ""},
		{"cost 16", record(`"hashed_password": "$2b$16$` + strings.Repeat("a", 53) + `"`), ""},
		{"nobody", `{}`, ""},

		{"empty", ``, `not JSON: unexpected end`},
		{"not JSON", `users:`, `not JSON, line 1: invalid character 'u' looking for beginning of value`},
		{"not an object", `[]`, `not a JSON object`},
		{"text after", record(good) + "x", `text after the JSON object, line 1`},
		{"a name twice", `{"johndoe": {` + good + `}, "johndoe": {` + good + `}}`, `"johndoe" appears twice`},
		{"user not an object", `{"johndoe": null}`, `user "johndoe": not a JSON object`},
		{"unknown field", record(good + `, "admin": true`), `user "johndoe": unknown field "admin"`},
		{"field in capitals", record(`"Hashed_Password": "` + hash + `"`), `user "johndoe": unknown field "Hashed_Password"`},
		{"field twice", record(good + `, ` + good), `user "johndoe": "hashed_password" appears twice`},
		{"other username", record(good + `, "username": "jane"`), `user "johndoe": the username "jane" differs from its key`},
		{"empty username", `{"": {` + good + `}}`, `user "": the username is empty`},
		{"newline in the name", `{"a\nb": {}}`, `user "a\nb": the username contains a control character`},
		{"DEL in the name", `{"a\u007f": {` + good + `}}`, `user "a\x7f": the username contains a control character`},
		{"a control character beyond ASCII in the name", `{"a\u0085": {` + good + `}}`, `user "a\u0085": the username contains a control character`},
		{"no hash", record(`"disabled": false`), `user "johndoe": no hashed_password`},
		{"hash null", record(`"hashed_password": null`), `user "johndoe": no hashed_password`},
		{"password in the clear", record(`"hashed_password": "secret"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"hash cut short", record(`"hashed_password": "` + hash[:59] + `"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"hash with a bad letter", record(`"hashed_password": "` + hash[:59] + `!"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"$2x$", record(`"hashed_password": "` + strings.Replace(hash, "$2a$", "$2x$", 1) + `"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"cost 17", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$17$", 1) + `"`), `user "johndoe": hashed_password has cost 17: it must be from 4 to 16`},
		{"cost of a letter", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$1a$", 1) + `"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"cost of a sign", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$1-$", 1) + `"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"cost of three digits", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$010$", 1)[:60] + `"`), `user "johndoe": hashed_password is not a bcrypt hash: simple-oauth2 hash makes one`},
		{"hash with an escape", record(`"hashed_password": "\u0024` + hash[1:] + `"`), ""},
		{"cost 3", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$03$", 1) + `"`), `user "johndoe": hashed_password has cost 3: it must be from 4 to 16`},
		{"disabled not a bool", record(good + `, "disabled": "no"`), `user "johndoe": field "disabled" is a string, want true or false`},
		{"hash not a string", record(`"hashed_password": 1`), `user "johndoe": field "hashed_password" is a number, want string`},
		{"scopes not a list", record(good + `, "scopes": "a b"`), `user "johndoe": field "scopes" is a string, want a list of strings`},
		{"scope with a space", record(good + `, "scopes": ["a b"]`), `user "johndoe": "a b" is not a scope: one is printable ASCII without spaces, " and \`},
		{"scope not a string", record(good + `, "scopes": ["a", 1]`), `user "johndoe": field "scopes" is a number, want string`},
		{"a bad scope for the second time", `{"jane": {` + good + `, "scopes": ["a"]}, "johndoe": {` + good + `, "scopes": ["ü"]}, "joan": {` + good + `, "scopes": ["ü"]}}`, `user "johndoe": "ü" is not a scope: one is printable ASCII without spaces, " and \`},
		{"disabled a number", record(good + `, "disabled": 0`), `user "johndoe": field "disabled" is a number, want true or false`},
		{"scope null", record(good + `, "scopes": [null]`), `user "johndoe": "" is not a scope: one is printable ASCII without spaces, " and \`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			records, _, err := parse(t.Context(), tt.text)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
			if record, ok := records["johndoe"]; tt.err == "" && ok && len(record.Hash) != 60 {
				t.Errorf("%+v", record)
			}
		})
	}
}

func TestEverything(t *testing.T) {
	records, _, err := parse(t.Context(), `{"jane": {"hashed_password": "`+hash+`", "full_name": "Jane Roe", "email": "jane@example.com", "disabled": true, "scopes": ["a", "b"]}, "gate": {"hashed_password": "`+hash+`"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(records)); !slices.Equal(names, []string{"gate", "jane"}) {
		t.Errorf("users %q", names)
	}
	jane, gate := records["jane"], records["gate"]
	if *jane.FullName != "Jane Roe" || *jane.Email != "jane@example.com" || !*jane.Disabled || !slices.Equal(jane.Scopes, []string{"a", "b"}) || string(jane.Hash) != hash || jane.Cost != bcrypt.MinCost {
		t.Errorf("jane is %+v", jane)
	}
	if gate.FullName != nil || gate.Email != nil || gate.Disabled != nil || gate.Scopes != nil {
		t.Errorf("gate is %+v", gate)
	}
}

func TestSummary(t *testing.T) {
	costly := strings.Replace(hash, "$04$", "$12$", 1)
	for _, tt := range []struct {
		name, text string
		users      int
		scopes     []string
		costliest  int
	}{
		{"nobody", `{}`, 0, nil, bcrypt.MinCost},
		{"no scopes", `{"a": {"hashed_password": "` + costly + `"}}`, 1, nil, 12},
		{"scopes of each", `{
			"jane": {"hashed_password": "` + hash + `", "scopes": ["items:write", "items:read", "items:read"]},
			"joan": {"hashed_password": "` + costly + `", "scopes": ["items:write", "items:read", "items:read"]},
			"gate": {"hashed_password": "` + hash + `", "scopes": ["introspect", "items:read"]},
			"none": {"hashed_password": "` + hash + `", "scopes": null}
		}`, 4, []string{"introspect", "items:read", "items:write"}, 12},
	} {
		t.Run(tt.name, func(t *testing.T) {
			records, got, err := parse(t.Context(), tt.text)
			if err != nil || got.Users != tt.users || !slices.Equal(got.Scopes, tt.scopes) || got.Costliest != tt.costliest {
				t.Errorf("%+v, %v", got, err)
			}
			if n := usersfile.Guess([]byte(tt.text)); n != tt.users {
				t.Errorf("a guess of %d users", n)
			}
			if jane := records["jane"].Scopes; jane != nil && !slices.Equal(jane, []string{"items:write", "items:read", "items:read"}) {
				t.Errorf("jane's scopes are %q", jane)
			} else if jane != nil && &jane[0] != &records["joan"].Scopes[0] {
				t.Error("Jane and Joan share no list")
			}
		})
	}
}

func TestHashCommand(t *testing.T) {
	const limits = "it must be from 4 to 16"
	for _, tt := range []struct {
		name, args, stdin string
		password          string // what the hash is of
		err               string
	}{
		{"plain", "-cost 4", "secret", "secret", ""},
		{"a line", "-cost 4", "secret\n", "secret", ""},
		{"a line of Windows", "-cost 4", "secret\r\n", "secret", ""},
		{"spaces count", "-cost 4", " secret \n", " secret ", ""},
		{"72 bytes", "-cost 4", strings.Repeat("é", 36), strings.Repeat("é", 36), ""},
		{"73 bytes", "-cost 4", strings.Repeat("é", 36) + "x", "", "bcrypt: password length exceeds 72 bytes"},
		{"empty", "", "", "", "the password is empty"},
		{"an empty line", "", "\n", "", "the password is empty"},
		{"two lines", "", "a\nb\n", "", "the password has more than one line"},
		{"cost too great", "-cost 17", "secret", "", "-cost 17: " + limits},
		{"cost too small", "-cost 3", "secret", "", "-cost 3: " + limits},
		{"cost no number", "-cost x", "secret", "", `invalid value "x" for flag -cost: parse error`},
		{"password as an argument", "secret", "", "", "unexpected argument: the password is read from standard input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout bytes.Buffer
			err := usersfile.Hash(strings.Fields(tt.args), strings.NewReader(tt.stdin), &stdout, nil)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err || stdout.Len() > 0 {
					t.Errorf("error %v, want %s; printed %q", err, tt.err, &stdout)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := bcrypt.CompareHashAndPassword(bytes.TrimSuffix(stdout.Bytes(), []byte("\n")), []byte(tt.password)); err != nil {
				t.Errorf("%q: %v", stdout.String(), err)
			}
		})
	}
}

// FuzzParse wants a users file to be read, or refused in one line, and each user
// in it to have a name and a hash that bcrypt can compare.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		usersfile.Demonstration, `{}`, `{"a":{}}`, `{"a":{"hashed_password":"` + hash + `"}}x`, `{"a":null}`, `[`, `{"a":{"scopes":[1]}}`,
		`{"a":{"hashed_password":"` + hash + `"},"a":{"hashed_password":"` + hash + `"}}`, "{\"\xff\":{}}", `{"a\n":{"b\n":1}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		records, _, err := parse(context.Background(), text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has more than one line: %q", err)
			}
			return
		}
		for name, record := range records {
			cost, err := bcrypt.Cost(record.Hash)
			if name == "" || err != nil || cost != record.Cost || cost > usersfile.MaxCost {
				t.Errorf("user %q: %+v, cost %d, %v", name, record, cost, err)
			}
		}
	})
}

func TestWarnOfWeak(t *testing.T) {
	for _, tt := range []struct {
		weak int
		want string
	}{
		{0, ""},
		{1, `users=1 among_them=[weak0] least_cost=10`},
		{7, `users=7 among_them="[weak0 weak1 weak2 weak3 weak4]" least_cost=10`},
	} {
		users := []string{`"strong": {"hashed_password": "` + strings.Replace(hash, "$04$", "$10$", 1) + `"}`}
		for i := range tt.weak {
			users = append(users, fmt.Sprintf(`"weak%d": {"hashed_password": "%s"}`, tt.weak-1-i, strings.Replace(hash, "$04$", "$09$", 1)))
		}
		_, summary, err := parse(t.Context(), "{"+strings.Join(users, ",")+"}")
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		summary.WarnOfWeak(slog.New(slog.NewTextHandler(&log, nil)))
		if got := log.String(); strings.Count(got, "\n") != min(tt.weak, 1) || !strings.Contains(got, tt.want) {
			t.Errorf("%d: %q, want %s", tt.weak, got, tt.want)
		}
	}
}

func TestParseStops(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, _, err := parse(ctx, `{"jane": {"hashed_password": "`+hash+`"}}`); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
