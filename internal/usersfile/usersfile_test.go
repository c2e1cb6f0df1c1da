package usersfile_test

import (
	"bytes"
	"cmp"
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
func parse(text string) (map[string]usersfile.Record, usersfile.Summary, error) {
	records := make(map[string]usersfile.Record)
	summary, err := usersfile.Parse([]byte(text), func(name string, record usersfile.Record) { records[name] = record })
	if err == nil && summary.Users != len(records) {
		err = fmt.Errorf("%d users, of %d names", summary.Users, len(records))
	}
	return records, summary, err
}

// TestParse reads a file, and wants it to be accepted, or refused in one line.
func TestParse(t *testing.T) {
	record := func(fields string) string { return `{"johndoe": {` + fields + `}}` }
	good := `"hashed_password": "` + hash + `"`
	const (
		otherName = `user "johndoe": the field "username" differs from the key`
		noTime    = `user "johndoe": not_before is not a time such as "2026-01-31T09:00:00Z" (RFC 3339)`

		noLifetime = `user "johndoe": token_ttl must be a duration such as 30m or 8h, in whole seconds, ` +
			`from 1s to 87600h (ten years)`

		noScope = `user "johndoe": entry 1 of scopes is not a scope: one is printable ASCII without spaces, " and \`
	)
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
		{"other username", record(good + `, "username": "jane"`), otherName},
		{"empty username", `{"": {` + good + `}}`, `user "": the username is empty`},
		{"newline in the name", `{"a\nb": {}}`, `user "a\nb": the username contains a control character`},
		{"DEL in the name", `{"a\u007f": {` + good + `}}`, `user "a\x7f": the username contains a control character`},
		{"a control character beyond ASCII in the name", `{"a\u0085": {` + good + `}}`, `user "a\u0085": the username contains a control character`},
		{"white space before the name", `{" bob": {` + good + `}}`,
			`user " bob": the username begins or ends with white space`},
		{"white space behind the name", `{"jane ": {` + good + `}}`,
			`user "jane ": the username begins or ends with white space`},
		{"a space of Unicode behind the name", `{"jane\u00a0": {` + good + `}}`,
			`user "jane\u00a0": the username begins or ends with white space`},
		{"white space in the name", `{"items service": {` + good + `}}`, ""},
		{"a space without width in the name", `{"jane\u200b": {` + good + `}}`,
			`user "jane\u200b": the username contains a character that cannot be seen`},
		{"a byte order mark in the name", `{"\ufeffjane": {` + good + `}}`,
			`user "\ufeffjane": the username contains a character that cannot be seen`},
		{"a mark of direction in the name", `{"ja\u202ene": {` + good + `}}`,
			`user "ja\u202ene": the username contains a character that cannot be seen`},
		{"a soft hyphen in the name", `{"ja\u00adne": {` + good + `}}`,
			`user "ja\u00adne": the username contains a character that cannot be seen`},
		{"a separator of lines in the name", `{"ja\u2028ne": {` + good + `}}`,
			`user "ja\u2028ne": the username contains a character that cannot be seen`},
		{"other scripts in the name", `{"zoë": {` + good + `}, "李雷": {` + good + `}, "Ωμέγα": {` + good + `}}`, ""},
		{"no hash", record(`"disabled": false`), `user "johndoe": no hashed_password`},
		{"hash null", record(`"hashed_password": null`), `user "johndoe": no hashed_password`},
		{"cost 17", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$17$", 1) + `"`), `user "johndoe": hashed_password has cost 17: it must be from 4 to 16`},
		{"hash with an escape", record(`"hashed_password": "\u0024` + hash[1:] + `"`), ""},
		{"cost 3", record(`"hashed_password": "` + strings.Replace(hash, "$04$", "$03$", 1) + `"`), `user "johndoe": hashed_password has cost 3: it must be from 4 to 16`},
		{"disabled not a bool", record(good + `, "disabled": "no"`), `user "johndoe": field "disabled" is a string, want true or false`},
		{"hash not a string", record(`"hashed_password": 1`), `user "johndoe": field "hashed_password" is a number, want string`},
		{"scopes not a list", record(good + `, "scopes": "a b"`), `user "johndoe": field "scopes" is a string, want a list of strings`},
		{"scope with a space", record(good + `, "scopes": ["a b"]`), noScope},
		{"scope not a string", record(good + `, "scopes": ["a", 1]`), `user "johndoe": field "scopes" is a number, want string`},
		{"a bad scope for the second time", `{"jane": {` + good + `, "scopes": ["a"]}, ` +
			`"johndoe": {` + good + `, "scopes": ["ü"]}, "joan": {` + good + `, "scopes": ["ü"]}}`, noScope},
		{"disabled a number", record(good + `, "disabled": 0`), `user "johndoe": field "disabled" is a number, want true or false`},
		{"not_before", record(good + `, "not_before": "2026-01-31T09:00:00.123+01:00"`), ""},
		{"not_before null", record(good + `, "not_before": null`), ""},
		{"not_before without a zone", record(good + `, "not_before": "2026-01-31T09:00:00"`), noTime},
		{"not_before a date", record(good + `, "not_before": "2026-01-31"`), noTime},
		{"not_before empty", record(good + `, "not_before": ""`), noTime},
		{"not_before a number", record(good + `, "not_before": 1700000000`),
			`user "johndoe": field "not_before" is a number, want string`},
		{"token_ttl", record(good + `, "token_ttl": "168h"`), ""},
		{"the longest token_ttl", record(good + `, "token_ttl": "87600h"`), ""},
		{"token_ttl null", record(good + `, "token_ttl": null`), ""},
		{"token_ttl longer than the flag may be", record(good + `, "token_ttl": "87601h"`), noLifetime},
		{"token_ttl of zero", record(good + `, "token_ttl": "0s"`), noLifetime},
		{"token_ttl of half a second", record(good + `, "token_ttl": "500ms"`), noLifetime},
		{"token_ttl empty", record(good + `, "token_ttl": ""`), noLifetime},
		{"token_ttl in days", record(good + `, "token_ttl": "7d"`), noLifetime},
		{"token_ttl a number", record(good + `, "token_ttl": 3600`),
			`user "johndoe": field "token_ttl" is a number, want string`},
		{"scope null", record(good + `, "scopes": [null]`), noScope},
	} {
		t.Run(tt.name, func(t *testing.T) {
			records, _, err := parse(tt.text)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
			if record, ok := records["johndoe"]; tt.err == "" && ok && len(record.Hash) != 60 {
				t.Errorf("%+v", record)
			}
		})
	}
}

// TestNotBcrypt checks that the error says what stands in the place of a hash, and
// shows nothing of it.
func TestNotBcrypt(t *testing.T) {
	const salted = "Utorln/cnSyG7X5Csg1/euh9zgDiaOtYcCJ29h/Oe5tTNXN7pJwJS"
	const another = "is a hash of another kind than bcrypt's $2a$, $2b$ and $2y$"
	kind := func(kind string) string {
		return "is a hash of the kind " + kind + ": only bcrypt's $2a$, $2b$ and $2y$ work"
	}
	for _, tt := range []struct{ name, text, is string }{
		{"a password", "hunter2", "is no hash, but perhaps the password itself: simple-oauth2 hash makes one"},
		{"a long password", "correct horse battery staple",
			"is no hash, but perhaps the password itself: simple-oauth2 hash makes one"},
		{"a password that begins like a cut hash", "b4tman",
			"is no hash, but perhaps the password itself: simple-oauth2 hash makes one"},
		{"cut by sh", "a2/cnSyG7X5Csg1/euh9zgDiaOtYcCJ29h/Oe5tTNXN7pJwJS",
			"has lost its $2a$, which a shell replaces in double quotes: copy the whole hash"},
		{"cut by make", "a2torln/cnSyG7X5Csg1/euh9zgDiaOtYcCJ29h/Oe5tTNXN7pJwJS",
			"has lost its $2a$, which a shell replaces in double quotes: copy the whole hash"},
		{"cut by PowerShell", "/cnSyG7X5Csg1/euh9zgDiaOtYcCJ29h/Oe5tTNXN7pJwJS",
			"has lost its $2a$, which a shell replaces in double quotes: copy the whole hash"},
		{"cut to nothing", "b0", "has lost its $2a$, which a shell replaces in double quotes: copy the whole hash"},
		{"dollars doubled for compose", "$$2a$$12$$" + salted, "has $$ in the place of $"},
		{"a newline behind", "$2a$12$" + salted + "\n", "is a bcrypt hash with white space or a newline"},
		{"a space before", " $2a$12$" + salted, "is a bcrypt hash with white space or a newline"},
		{"a newline in it", "$2a$12$" + salted[:20] + "\r\n" + salted[20:], "is a bcrypt hash with white space or a newline"},
		{"a line of htpasswd", "jane:$2y$12$" + salted, "has something before the bcrypt hash"},
		{"quotes", "'$2a$12$" + salted + "'", "has something before the bcrypt hash"},
		{"Spring's prefix", "{bcrypt}$2a$12$" + salted, "has something before the bcrypt hash"},
		{"cut short", "$2a$12$" + salted[:52],
			"is a bcrypt hash of 59 characters, and not of 60: was it cut, or did it grow?"},
		{"cut after the kind", "$2b$", "is a bcrypt hash of 4 characters, and not of 60: was it cut, or did it grow?"},
		{"too long", "$2a$12$" + salted + "x",
			"is a bcrypt hash of 61 characters, and not of 60: was it cut, or did it grow?"},
		{"a cost of a letter", "$2a$1a$" + salted, "is a bcrypt hash whose cost is not of two digits"},
		{"a cost of a sign", "$2a$1-$" + salted, "is a bcrypt hash whose cost is not of two digits"},
		{"a cost of three digits", "$2a$012$" + salted[:52], "is a bcrypt hash whose cost is not of two digits"},
		{"a bad letter", "$2a$12$" + salted[:52] + "!", "is a bcrypt hash with a character that bcrypt does not use"},
		{"bcrypt of an old PHP", "$2x$12$" + salted, kind("$2x$")},
		{"argon2id", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b27hA", kind("$argon2id$")},
		{"htpasswd without -B", "$apr1$KyGFCzIn$sTk41zVCFmqwoe1yyRwWi1", kind("$apr1$")},
		{"/etc/shadow", "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2", kind("$6$")},
		{"/etc/shadow of Debian", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317", kind("$y$")},
		{"Django", "pbkdf2_sha256$870000$salt$hash", kind("pbkdf2_sha256$")},
		{"Django's bcrypt of a SHA-256", "bcrypt_sha256$$2b$12$" + salted, kind("bcrypt_sha256$")},
		{"Werkzeug", "scrypt:32768:8:1$salt$hash", kind("scrypt:")},
		{"LDAP", "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr", kind("{SSHA}")},
		{"some crypt", "$md5,rounds=904$salt$$hash", another},
		{"SHA-1", "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3", another},
		{"MD5", "5f4dcc3b5aa765d61d8327deb882cf99", another},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parse(fmt.Sprintf(`{"johndoe": {"hashed_password": %q}}`, tt.text))
			if want := `user "johndoe": hashed_password ` + tt.is; err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// TestErrorsShowNoSecrets puts a hash, or a password, wherever a person may put it by
// mistake. The file is refused, and the error shows nothing of it.
func TestErrorsShowNoSecrets(t *testing.T) {
	good := `"hashed_password": "` + hash + `"`
	hashes := map[string]string{
		"bcrypt":                 hash,
		"bcrypt, cut by a shell": hash[len("$2a$04$"):],
		"a password and bcrypt":  "secret:" + hash,
		"Argon2":                 "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
		"Django":                 "pbkdf2_sha256$870000$vKGKcNVHmfDMkRQDFzmJ2A$r1SsJOQm7sDNDUjLbX/Xf5qTNVMQ=",
		"SHA-256":                "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
	}
	for _, tt := range []struct {
		name, text string
		names      bool // the secret stands for a name, so an ordinary password is taken for one
	}{
		{name: "field", text: `{"jane": {"@": "x"}}`, names: true},
		{name: "field after the hash", text: `{"jane": {` + good + `, "@": "x"}}`, names: true},
		{name: "field twice", text: `{"jane": {"@": "x", "@": "x"}}`, names: true},
		{name: "field with an escape", text: `{"jane": {"@\u0020": "x"}}`, names: true},
		{name: "user without a record", text: `{"@": "jane"}`, names: true},
		{name: "user without a hash", text: `{"@": {"username": "jane"}}`, names: true},
		{name: "user twice", text: `{"@": {` + good + `}, "@": {` + good + `}}`, names: true},
		{name: "user with a control character", text: `{"@\n": {` + good + `}}`, names: true},
		{name: "user with an unknown field", text: `{"@": {"admin": true}}`, names: true},
		{name: "user with another username", text: `{"@": {` + good + `, "username": "jane"}}`, names: true},
		{name: "instead of a record", text: `{"jane": "@"}`},
		{name: "in a list instead of a record", text: `{"jane": ["@"]}`},
		{name: "username", text: `{"jane": {` + good + `, "username": "@"}}`},
		{name: "hash of two lines", text: `{"jane": {"hashed_password": "@\n@"}}`},
		{name: "list of hashes", text: `{"jane": {"hashed_password": ["@"]}}`},
		{name: "object of hashes", text: `{"jane": {"hashed_password": {"@": "@"}}}`},
		{name: "disabled", text: `{"jane": {` + good + `, "disabled": "@"}}`},
		{name: "e-mail", text: `{"jane": {` + good + `, "email": ["@"]}}`},
		{name: "not_before", text: `{"jane": {` + good + `, "not_before": "@"}}`},
		{name: "token_ttl", text: `{"jane": {` + good + `, "token_ttl": "@"}}`},
		{name: "full name", text: `{"jane": {` + good + `, "full_name": {"@": 1}}}`},
		{name: "scopes", text: `{"jane": {` + good + `, "scopes": "@"}}`},
		{name: "a scope in a list of lists", text: `{"jane": {` + good + `, "scopes": [["@"]]}}`},
		{name: "a scope with a space", text: `{"jane": {` + good + `, "scopes": ["items:read", "@ @"]}}`},
		{name: "no quotes", text: `{"jane": {"hashed_password": @}}`},
		{name: "one quote", text: `{"jane": {"hashed_password": "@}}`},
		{name: "no colon", text: `{"jane": {"hashed_password" "@"}}`},
		{name: "no field", text: `{"jane": {"@"}}`},
		{name: "no object", text: `"@"`},
		{name: "no JSON", text: `jane:@`},
		{name: "text after", text: `{} "@"`},
	} {
		secrets := maps.Clone(hashes)
		if !tt.names {
			secrets["password"] = "correct horse"
		}
		for kind, secret := range secrets {
			_, _, err := parse(strings.ReplaceAll(tt.text, "@", secret))
			if err == nil {
				t.Errorf("%s, %s: no error", tt.name, kind)
				continue
			}
			shown := strings.NewReplacer("$argon2id$", "", "pbkdf2_sha256$", "").Replace(err.Error()) // the kind may be named
			for n := range len(secret) - 7 {
				if piece := secret[n : n+8]; strings.Contains(shown, piece) {
					t.Errorf("%s, %s: the error shows %q: %v", tt.name, kind, piece, err)
					break
				}
			}
		}
	}
}

// TestHashesAreNoNames refuses hashes of crypt's form where they would be shown: in
// the log as a username, at /users/me as a name, at /docs as a scope.
func TestHashesAreNoNames(t *testing.T) {
	good := `"hashed_password": "` + hash + `"`
	for _, tt := range []struct{ name, text, err string }{
		{"username", `{"@": {` + good + `}}`, `user "…" (not shown, it may be a hash): the username is a hash`},
		{"full name", `{"jane": {` + good + `, "full_name": "@"}}`, `user "jane": full_name is a hash`},
		{"e-mail", `{"jane": {` + good + `, "email": "@"}}`, `user "jane": email is a hash`},
		{"scope", `{"jane": {` + good + `, "scopes": ["items:read", "@"]}}`, `user "jane": entry 2 of scopes is a hash`},
	} {
		argon2, apr1 := "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub", "$apr1$Ptnn2Yyy$gGR9Ai8PRZIuHm5JPHKGU."
		for _, hash := range []string{hash, argon2, apr1} {
			if _, _, err := parse(strings.ReplaceAll(tt.text, "@", hash)); err == nil || err.Error() != tt.err {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.err)
			}
		}
	}
	for _, name := range []string{"PC01$", "$ADMIN$", "US$", "$", "a$b$c", "$$"} {
		text := fmt.Sprintf(`{%q: {%s, "scopes": [%q]}}`, name, good, name)
		if records, _, err := parse(text); err != nil || len(records[name].Hash) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEverything(t *testing.T) {
	records, _, err := parse(`{"jane": {"hashed_password": "` + hash + `", ` +
		`"full_name": "Jane Roe", "email": "jane@example.com", "disabled": true, "scopes": ["a", "b"]}, ` +
		`"gate": {"hashed_password": "` + hash + `"}}`)
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
			records, got, err := parse(tt.text)
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
		warning           string
	}{
		{name: "plain", args: "-cost 4", stdin: "secret", password: "secret"},
		{name: "a line", args: "-cost 4", stdin: "secret\n", password: "secret"},
		{name: "a line of Windows", args: "-cost 4", stdin: "secret\r\n", password: "secret"},
		{name: "a byte order mark", args: "-cost 4", stdin: "\ufefftest\r\n", password: "test"},
		{name: "white space at both ends", args: "-cost 4", stdin: " secret \n", password: " secret ",
			warning: "the password begins or ends with white space, which counts"},
		{name: "white space before", args: "-cost 4", stdin: "\u00a0secret\n", password: "\u00a0secret",
			warning: "the password begins or ends with white space, which counts"},
		{name: "white space inside", args: "-cost 4", stdin: "correct horse\n", password: "correct horse"},
		{name: "a space without width", args: "-cost 4", stdin: "secret\u200b\n", password: "secret\u200b",
			warning: "the password has characters that cannot be seen, which count"},
		{name: "72 bytes", args: "-cost 4", stdin: strings.Repeat("é", 36), password: strings.Repeat("é", 36)},
		{name: "73 bytes", args: "-cost 4", stdin: strings.Repeat("é", 36) + "x",
			err: "bcrypt: password length exceeds 72 bytes"},
		{name: "nothing", err: "nothing came on standard input (docker run needs -i)"},
		{name: "an empty line", stdin: "\n", err: "the password is empty"},
		{name: "only a byte order mark", stdin: "\ufeff\r\n", err: "the password is empty"},
		{name: "two lines", stdin: "a\nb\n", err: "the password has more than one line"},
		{name: "Latin-1", stdin: "caf\xe9\n",
			err: "the password is not UTF-8: set the encoding of the shell or the file, or type it on a terminal"},
		{name: "what a conversion could not read", stdin: "caf\ufffd\n",
			err: "the password is not UTF-8: set the encoding of the shell or the file, or type it on a terminal"},
		{name: "UTF-16", stdin: "t\x00e\x00\r\x00\n\x00",
			err: "the password contains NUL bytes: it must be UTF-8, and not UTF-16"},
		{name: "UTF-16 with a byte order mark", stdin: "\xff\xfet\x00e\x00",
			err: "the password contains NUL bytes: it must be UTF-8, and not UTF-16"},
		{name: "pasted into a terminal", stdin: "\x1b[200~secret\x1b[201~\n",
			err: "the password contains the marks that a terminal puts around pasted text: type it instead"},
		{name: "a key of the terminal", stdin: "secret\x1b[D\n", err: "the password contains a control character"},
		{name: "a control character beyond ASCII", stdin: "secret\u0085\n", err: "the password contains a control character"},
		{name: "cost too great", args: "-cost 17", stdin: "secret", err: "-cost 17: " + limits},
		{name: "cost too small", args: "-cost 3", stdin: "secret", err: "-cost 3: " + limits},
		{name: "cost no number", args: "-cost x", stdin: "secret", err: `invalid value "x" for flag -cost: parse error`},
		{name: "cost cut short", args: "-c 12", stdin: "secret",
			err: "unknown flag -c, did you mean -cost? (-h lists the flags)"},
		{name: "cost misspelled", args: "--costs=12", stdin: "secret",
			err: "unknown flag -costs, did you mean -cost? (-h lists the flags)"},
		{name: "another flag", args: "-q", stdin: "secret", err: "unknown flag -q (-h lists the flags)"},
		{name: "password as an argument", args: "secret",
			err: "unexpected argument: the password is read from standard input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := usersfile.Hash(strings.Fields(tt.args), strings.NewReader(tt.stdin), &stdout, &stderr)
			warning := strings.TrimSuffix(strings.TrimPrefix(stderr.String(), "simple-oauth2: "), "\n")
			if warning != tt.warning {
				t.Errorf("warned %q, want %q", warning, tt.warning)
			}
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
		records, _, err := parse(text)
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

func TestWhyWrong(t *testing.T) {
	for _, tt := range []struct{ name, username, password, want string }{
		{name: "nothing to tell", username: "johndoe", password: "secret"},
		{name: "white space around a password", username: "johndoe", password: " secret "},
		{name: "letters", username: "zoë", password: "zoë"},
		{name: "72 bytes", username: "johndoe", password: strings.Repeat("x", 72)},
		{
			name: "73 bytes", username: "johndoe", password: strings.Repeat("x", 73),
			want: "the password has more than 72 bytes",
		},
		{name: "Latin-1", username: "johndoe", password: "zo\xeb", want: "the password is not UTF-8"},
		{name: "a lost letter", username: "johndoe", password: "zo\ufffd", want: "the password is not UTF-8"},
		{name: "UTF-16", username: "johndoe", password: "z\x00o\x00", want: "the password contains NUL bytes"},
		{name: "a newline", username: "johndoe", password: "secret\n", want: "the password ends in a newline, which counts"},
		{name: "of Windows", username: "johndoe", password: "secret\r\n",
			want: "the password ends in a newline, which counts"},
		{name: "a return", username: "johndoe", password: "secret\r", want: "the password ends in a newline, which counts"},
		{name: "two lines", username: "johndoe", password: "a\nb", want: "the password has more than one line"},
		{
			name: "a byte order mark", username: "johndoe", password: "\ufeffsecret",
			want: "the password begins with a byte order mark, which counts",
		},
		{
			name: "pasted", username: "johndoe", password: "\x1b[200~secret",
			want: "the password contains the marks that a terminal puts around pasted text",
		},
		{name: "a username in Latin-1", username: "zo\xeb", password: "zo\xeb", want: "the username is not UTF-8"},
		{
			name: "a username after a byte order mark", username: "\ufeffjohndoe", password: "secret",
			want: "the username contains a character that cannot be seen",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := usersfile.WhyWrong(tt.username, tt.password)
			if got.Value.String() != cmp.Or(tt.want, slog.Attr{}.Value.String()) {
				t.Errorf("%v, want %q", got, tt.want)
			}
		})
	}
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
		_, summary, err := parse("{" + strings.Join(users, ",") + "}")
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
