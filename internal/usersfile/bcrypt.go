package usersfile

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// LongestPassword is the number of bytes that bcrypt looks at; a longer password
// would match any other that begins with the same bytes.
const LongestPassword = 72

// WhyWrong returns the reason, for the log, why a username or a password is wrong, if
// it can be told without knowing the right one: no users file can have the name, or
// the password is one that simple-oauth2 hash refuses or takes for a shorter one.
func WhyWrong(username, password string) slog.Attr {
	err := checkName(username)
	switch {
	case !utf8.ValidString(username):
		err = errors.New("the username is not UTF-8")
	case err != nil:
	case len(password) > LongestPassword:
		err = fmt.Errorf("the password has more than %d bytes", LongestPassword)
	case strings.HasPrefix(password, "\ufeff"):
		err = errors.New("the password begins with a byte order mark, which counts")
	case strings.TrimRight(password, "\r\n") != password:
		err = errors.New("the password ends in a newline, which counts")
	default:
		err = checkPassword(password)
	}
	if err == nil {
		return slog.Attr{}
	}
	reason, _, _ := strings.Cut(err.Error(), ":") // what follows is advice for whoever runs hash
	return slog.String("reason", reason)
}

// costOf returns the cost of a bcrypt hash, $2a$, $2b$ or $2y$. If it is not one,
// the error says what it is instead, and shows nothing of it.
func costOf(hash []byte) (cost int, err error) {
	if len(hash) != 60 || hash[6] != '$' {
		return 0, notBcrypt(string(hash))
	}
	switch string(hash[:4]) {
	case "$2a$", "$2b$", "$2y$":
	default:
		return 0, notBcrypt(string(hash))
	}
	for _, c := range hash[7:] {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '.' <= c && c <= '9') { // ./0123456789
			return 0, notBcrypt(string(hash))
		}
	}
	tens, ones := hash[4]-'0', hash[5]-'0'
	if tens > 9 || ones > 9 {
		return 0, notBcrypt(string(hash))
	}
	return int(tens)*10 + int(ones), nil
}

var (
	bcryptPrefix = regexp.MustCompile(`\$2[aby]\$`)
	bcryptCost   = regexp.MustCompile(`^\$2.\$[0-9]{2}\$`)
	digest       = regexp.MustCompile(`^(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})$`)
	// PowerShell leaves ./hash of a hash.
	shellCut = regexp.MustCompile(`^(?:[aby][0-9]|[./])[./A-Za-z0-9]{20,}$|^[aby][0-9]$`)

	// otherKinds is how hashes begin that other programs make.
	otherKinds = []string{"$argon2id$", "$argon2i$", "$argon2d$", "$apr1$", "$1$", "$2$", "$2x$", "$5$", "$6$", "$7$",
		"$y$",
		"$scrypt$", "$pbkdf2-sha256$", "$pbkdf2-sha512$", "{SHA}", "{SSHA}", "argon2$", "bcrypt_sha256$", "pbkdf2_sha256$",
		"pbkdf2:", "scrypt:"}
)

func notBcrypt(hash string) error {
	for _, kind := range otherKinds {
		if strings.HasPrefix(hash, kind) {
			return fmt.Errorf("hashed_password is a hash of the kind %s: only bcrypt's $2a$, $2b$ and $2y$ work", kind)
		}
	}
	at := bcryptPrefix.FindStringIndex(hash)
	var is string
	switch {
	case strings.HasPrefix(hash, "$$2"):
		is = "has $$ in the place of $"
	case at != nil && strings.ContainsFunc(hash, unicode.IsSpace):
		is = "is a bcrypt hash with white space or a newline"
	case at != nil && at[0] > 0:
		is = "has something before the bcrypt hash"
	case at != nil && len(hash) != 60:
		is = fmt.Sprintf("is a bcrypt hash of %d characters, and not of 60: was it cut, or did it grow?", len(hash))
	case at != nil && !bcryptCost.MatchString(hash):
		is = "is a bcrypt hash whose cost is not of two digits"
	case at != nil:
		is = "is a bcrypt hash with a character that bcrypt does not use"
	case shellCut.MatchString(hash) && !digest.MatchString(hash):
		is = "has lost its $2a$, which a shell replaces in double quotes: copy the whole hash"
	case digest.MatchString(hash), strings.HasPrefix(hash, "$"):
		is = "is a hash of another kind than bcrypt's $2a$, $2b$ and $2y$"
	default:
		is = "is no hash, but perhaps the password itself: simple-oauth2 hash makes one"
	}
	return errors.New("hashed_password " + is)
}
