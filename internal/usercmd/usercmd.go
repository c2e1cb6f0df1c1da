// Package usercmd is the command simple-oauth2 user, with which an owner adds a
// colleague, changes a password or logs somebody out without opening an editor. Its
// rules:
//
//   - A change is one small change of the text. Users and fields stay in their order,
//     the white space between them stays as it is, and what is new is written like
//     what is there.
//   - Nothing is written if anything is wrong, with the arguments, the password or any
//     user in the file. What is written is what the service can load.
//   - The whole text goes to a second file beside the first, FILE.new, with the first
//     one's owner and mode. It is synced, and then takes the name. Whoever reads the
//     file, and whatever ends the command, finds the old text or the new one.
//   - FILE.lock keeps two of these commands from losing what the other one wrote: the
//     second waits, for some seconds at most. A person who types a password keeps
//     nobody waiting.
//   - A link is not followed: a Secret of Kubernetes is changed in Kubernetes.
//   - A password is read from the terminal or from standard input, never from the
//     command line, and only a generated one is ever shown.
//   - Who is logged out stays so. Each not_before is later than the one before it, even
//     if a clock went back.
package usercmd

import (
	"cmp"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/envflag"
	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/usersfile"
)

const usage = `usage: simple-oauth2 user COMMAND [NAME] [flags]
  add NAME      adds a user; reads the password from the terminal or standard input
  passwd NAME   changes a password, and logs the user out
  disable NAME  refuses all requests of a user, until enable NAME
  remove NAME   removes a user
  logout NAME   ends all tokens of a user or, with -all and no name, of everybody
  list          prints a table of the users
  check         says what is wrong with the file, and what could be better
The file is that of -users or OAUTH2_USERS, or else users.json.
`

// A command is what the arguments ask for.
type command struct {
	verb string
	name string // of the user, or ""
	file string
	all  bool

	email, fullName, ttl *string
	scopes               []string
	cost                 int
	generate             bool

	stdin          io.Reader
	stdout, stderr io.Writer
}

var verbs = map[string]func(*command) error{
	"add": (*command).add, "passwd": (*command).passwd, "disable": (*command).disable, "enable": (*command).enable,
	"remove": (*command).remove, "logout": (*command).logout, "list": (*command).list, "check": (*command).check,
}

// Run is the command simple-oauth2 user; args are what follows. Flags may stand before
// or after the name. A generated password, the table and what check finds go to stdout,
// and what was done to stderr. An error names the user and the file.
func Run(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := &command{stdin: stdin, stdout: stdout, stderr: stderr}
	err := c.parse(args, environ)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return verbs[c.verb](c)
}

func (c *command) parse(args, environ []string) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		c.verb, args = args[0], args[1:]
	}
	flags := c.flags()
	names, err := parseAll(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(c.stdout, usage)
		flags.SetOutput(c.stdout)
		flags.PrintDefaults()
		return err
	case c.verb == "":
		return errors.New("user needs a command: add, passwd, disable, enable, remove, logout, list or check")
	case verbs[c.verb] == nil:
		return fmt.Errorf("user has no command %s (user -h lists them)", quote(c.verb))
	case err != nil:
		return envflag.Explain(flags, err)
	}
	takesName := c.verb != "list" && c.verb != "check" && !c.all
	switch {
	case takesName && len(names) == 0:
		return fmt.Errorf("user %s needs the name of a user", c.verb)
	case c.all && len(names) > 0:
		return errors.New("user logout takes a name or -all, not both")
	case !takesName && len(names) > 0:
		return fmt.Errorf("user %s takes no name", c.verb)
	case len(names) > 1: // not shown: it may be a password
		return fmt.Errorf("user %s takes one name; a password is asked for, or read from standard input", c.verb)
	}
	if takesName {
		c.name = names[0]
	}
	return cmp.Or(c.findFile(flags, environ), c.checkValues())
}

// flags are those that the command takes.
func (c *command) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("user", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&c.file, "users", "users.json", "JSON `file` of the users")
	text := func(to **string) func(string) error {
		return func(s string) error { *to = &s; return nil }
	}
	switch c.verb {
	case "add":
		flags.Func("email", "e-mail `address`", text(&c.email))
		flags.Func("full-name", "`name` of the person", text(&c.fullName))
		flags.Func("scope", "a `scope` that the user may hold; repeat it for more", func(s string) error {
			c.scopes = append(c.scopes, s)
			return nil
		})
		flags.Func("token-ttl", "lifetime of the user's tokens, a `duration` like the service's -token-ttl", text(&c.ttl))
		fallthrough
	case "passwd":
		flags.BoolVar(&c.generate, "generate", false, "make a password, and print it")
		flags.IntVar(&c.cost, "cost", 0, "bcrypt's `cost` (default that of the costliest hash in the file, or 12)")
	case "logout":
		flags.BoolVar(&c.all, "all", false, "log everybody out")
	}
	return flags
}

// parseAll parses flags that may stand before, between and after the names. What
// follows -- is a name, even if it begins with a dash.
func parseAll(flags *flag.FlagSet, args []string) (names []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		rest := flags.Args()
		if before := args[:len(args)-len(rest)]; len(before) > 0 && before[len(before)-1] == "--" {
			return append(names, rest...), nil
		}
		if len(rest) == 0 {
			return names, nil
		}
		names, args = append(names, rest[0]), rest[1:]
	}
}

// findFile takes the file from the environment if no flag says which one.
func (c *command) findFile(flags *flag.FlagSet, environ []string) error {
	given, source := false, "-users"
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "users" })
	for _, pair := range environ {
		if value, ok := strings.CutPrefix(pair, "OAUTH2_USERS="); ok && !given {
			c.file, source = value, "OAUTH2_USERS"
		}
	}
	if c.file == "" {
		return fmt.Errorf("%s is empty: give it a value, or leave it out", source)
	}
	return nil
}

// checkValues returns an error for a value that the users file would not say back.
func (c *command) checkValues() error {
	for _, text := range []string{c.name, *cmp.Or(c.email, new(string)), *cmp.Or(c.fullName, new(string))} {
		if !utf8.ValidString(text) {
			return errors.New("an argument is not UTF-8: set the encoding of the shell")
		}
	}
	if c.ttl != nil {
		if _, err := tokens.ParseTTL(*c.ttl); err != nil {
			return fmt.Errorf("-token-ttl %s: %w", *c.ttl, err)
		}
	}
	if c.cost != 0 {
		return usersfile.CheckCost(c.cost)
	}
	return nil
}

// add adds a user.
func (c *command) add() error {
	err := c.setPassword("added", func(now *users, hash string) ([]byte, error) {
		if _, known := now.byName[c.name]; known {
			return nil, fmt.Errorf("%s has a user %s already; user passwd changes the password", c.file, quote(c.name))
		}
		return add(now.text, c.name, c.fields(hash)), nil
	})
	if err != nil {
		return err
	}
	now, err := c.read()
	if err != nil {
		return err
	}
	if like := now.alike(c.name); like != "" {
		fmt.Fprintf(c.stderr, "%s: warning: %s\n", c.file, differOnlyInCase(like, c.name))
	}
	return nil
}

// hashOfNobody stands for the hash of a password that is not known yet.
const hashOfNobody = "$2a$04$....................................................."

// fields are those of the user to be added.
func (c *command) fields(hash string) []field {
	var fields []field
	for _, text := range []struct {
		key   string
		value *string
	}{{"full_name", c.fullName}, {"email", c.email}, {"hashed_password", &hash}} {
		if text.value != nil {
			fields = append(fields, field{text.key, encode(*text.value)})
		}
	}
	if len(c.scopes) > 0 {
		scopes := make([]string, len(c.scopes))
		for i, scope := range c.scopes {
			scopes[i] = string(encode(scope))
		}
		fields = append(fields, field{"scopes", []byte("[" + strings.Join(scopes, ", ") + "]")})
	}
	if c.ttl != nil {
		fields = append(fields, field{"token_ttl", encode(*c.ttl)})
	}
	return fields
}

// passwd changes a user's password, which logs the user out.
func (c *command) passwd() error {
	return c.setPassword("has a new password, and is logged out", func(now *users, hash string) ([]byte, error) {
		record, err := c.user(now)
		if err != nil {
			return nil, err
		}
		text := change(now.text, c.name, field{"hashed_password", encode(hash)})
		return change(text, c.name, out(time.Now(), record)), nil
	})
}

// setPassword makes a change that needs the hash of a password, says that it is done, and
// prints the password if it is generated. Nobody types a password for a change that
// cannot be made.
func (c *command) setPassword(done string, edit func(now *users, hash string) ([]byte, error)) error {
	hash := hashOfNobody
	withHash := func(now *users) ([]byte, error) { return edit(now, hash) }
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	now, _, _, err := c.edited(withHash)
	unlock()
	if err != nil {
		return err
	}
	generated, hash, err := c.newPassword(now)
	if err == nil {
		err = c.change(withHash)
	}
	if err != nil {
		return err
	}
	c.say(done)
	if generated != "" {
		_, err = fmt.Fprintln(c.stdout, generated)
	}
	return err
}

// newPassword returns the hash of a password that is typed or generated. If it is
// generated, the password is returned as well.
func (c *command) newPassword(now *users) (generated, hash string, err error) {
	var password string
	if c.generate {
		generated = rand.Text()
		password = generated
	} else if password, err = usersfile.ReadPassword(c.stdin, c.stderr); err != nil {
		return "", "", c.named(fmt.Errorf("user %s: %w", quote(c.name), err))
	}
	cost := cmp.Or(c.cost, usersfile.DefaultCost)
	if c.cost == 0 && len(now.names) > 0 { // a cheaper hash would tell who has it
		cost = max(now.summary.Costliest, usersfile.LeastCost)
	}
	text, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return "", "", c.named(fmt.Errorf("user %s: %w", quote(c.name), err))
	}
	return generated, string(text), nil
}

func (c *command) disable() error { return c.setDisabled(true) }
func (c *command) enable() error  { return c.setDisabled(false) }

func (c *command) setDisabled(disabled bool) error {
	outcome := map[bool]string{true: "disabled", false: "enabled"}[disabled]
	err := c.change(func(now *users) ([]byte, error) {
		record, err := c.user(now)
		if err != nil {
			return nil, err
		}
		if was := record.Disabled != nil && *record.Disabled; was == disabled {
			outcome += " already"
			return now.text, nil
		}
		return change(now.text, c.name, field{"disabled", encode(disabled)}), nil
	})
	if err == nil {
		c.say("is " + outcome)
	}
	return err
}

// remove removes a user.
func (c *command) remove() error {
	err := c.change(func(now *users) ([]byte, error) {
		if _, err := c.user(now); err != nil {
			return nil, err
		}
		return remove(now.text, c.name), nil
	})
	if err == nil {
		c.say("removed")
	}
	return err
}

// logout logs a user out, or everybody.
func (c *command) logout() error {
	err := c.change(func(now *users) ([]byte, error) {
		if _, err := c.user(now); err != nil && !c.all {
			return nil, err
		}
		return logOut(now, func(name string) bool { return c.all || name == c.name }), nil
	})
	if err != nil {
		return err
	}
	if c.all {
		_, err = fmt.Fprintf(c.stderr, "%s: everybody is logged out\n", c.file)
		return err
	}
	c.say("is logged out")
	return nil
}

// logOut returns the text in which the users who are wanted are logged out.
func logOut(now *users, wanted func(name string) bool) (text []byte) {
	at, done := time.Now(), 0
	for _, m := range membersOf(now.text) {
		if wanted(m.key) {
			text = append(text, now.text[done:m.value]...)
			text = append(text, set(now.text[m.value:m.to], out(at, now.byName[m.key]))...)
			done = m.to
		}
	}
	return append(text, now.text[done:]...)
}

// out is the field that ends all tokens of a user that were issued until now, and all
// that an earlier not_before let live.
func out(now time.Time, record usersfile.Record) field {
	until := now.Truncate(time.Millisecond).Add(time.Millisecond)
	if !until.After(record.NotBefore) {
		until = record.NotBefore.Truncate(time.Millisecond).Add(2 * time.Millisecond)
	}
	return field{"not_before", encode(until.UTC().Format("2006-01-02T15:04:05.000Z07:00"))}
}

// user returns the user of the command's name.
func (c *command) user(now *users) (usersfile.Record, error) {
	record, known := now.byName[c.name]
	if !known {
		return record, fmt.Errorf("%s has no user %s", c.file, quote(c.name))
	}
	return record, nil
}

// say tells what was done to the user.
func (c *command) say(what string) { fmt.Fprintf(c.stderr, "%s: %s %s\n", c.file, quote(c.name), what) }

func quote(name string) string { return usersfile.Quote([]byte(name)) }

// users is one reading of the file.
type users struct {
	text    []byte
	names   []string // in the order of the file
	byName  map[string]usersfile.Record
	summary usersfile.Summary
}

// parse reads the users in a text.
func parse(text []byte) (*users, error) {
	u := &users{text: text, byName: make(map[string]usersfile.Record)}
	var err error
	u.summary, err = usersfile.Parse(text, func(name string, record usersfile.Record) {
		u.names = append(u.names, name)
		u.byName[name] = record
	})
	return u, err
}

// read reads the file. Its error names the file.
func (c *command) read() (*users, error) {
	text, err := os.ReadFile(c.file)
	if err != nil {
		return nil, c.unread(err)
	}
	u, err := parse(text)
	return u, c.named(err)
}

// unread says why the file cannot be read.
func (c *command) unread(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s: name another with -users or OAUTH2_USERS, or make it with user add", c.file)
	case errors.Is(err, fs.ErrPermission):
		return c.mayNot("read " + c.file)
	}
	return err
}

// named puts the file's name before an error, if there is one.
func (c *command) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", c.file, err)
}

func differOnlyInCase(one, other string) string {
	return fmt.Sprintf("users %s and %s differ only in upper and lower case", quote(one), quote(other))
}

// alike returns a user whose name differs only in upper and lower case, or "".
func (u *users) alike(name string) string {
	i := slices.IndexFunc(u.names, func(other string) bool { return other != name && strings.EqualFold(other, name) })
	if i < 0 {
		return ""
	}
	return u.names[i]
}
