// Package envflag lets each flag of a program be set by a variable in the
// environment. A setting that is empty or misspelled must not mean its default
// without a word: that may be less safe than what was meant.
//
// A flag of type string must not be empty, whether it is given or its variable is
// set, nor must a variable that has no flag; leaving it out is the way to its
// default. Any other flag decides for itself what it makes of an empty text. So one
// whose default is the safe way takes it for nothing, and an unset variable in a
// compose file does no harm.
//
// A variable is an error if it is not read, but has the prefix, or is but a letter
// away from one that is read. Case and punctuation do not count: a name with a dot
// or a byte order mark is another name only to a machine.
package envflag

import (
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Env is the environment. The names of the variables begin with Prefix. Names that
// begin with Others, if it is not empty, belong to another program. Environ is
// like [os.Environ].
type Env struct {
	Prefix  string
	Others  string
	Environ []string

	known   []string        // the names that are read
	empty   string          // one of those without a flag that is set, but empty
	fromEnv map[string]bool // the flags that got their value from their variable
}

// Get returns the value of a variable that has no flag, or "".
func (e *Env) Get(name string) string {
	value, set := e.lookup(name)
	if set && value == "" {
		e.empty = name
	}
	return value
}

func (e *Env) lookup(name string) (value string, set bool) {
	e.known = append(e.known, name)
	for _, pair := range e.Environ {
		if value, set = strings.CutPrefix(pair, name+"="); set {
			return value, true
		}
	}
	return "", false
}

// Parse parses args and then, for each flag that is not among them, its variable in
// the environment: the prefix and the flag's name in capitals, APP_TOKEN_TTL for
// -token-ttl. A given flag overrides its variable. An argument after the flags is an
// error, and so is an empty or misspelled setting. An error is one line that names
// the flag or the variable.
func (e *Env) Parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		if name, unknown := strings.CutPrefix(err.Error(), undefined); unknown && slices.Contains(e.known, e.variable(name)) {
			return fmt.Errorf("unknown flag -%s: set %s in the environment instead", name, e.variable(name))
		}
		return Explain(flags, err)
	}
	if n := flags.NArg(); n > 0 {
		return unknownArgument(flags, args[:len(args)-n])
	}
	var first error
	given := make(map[string]bool)
	e.fromEnv = make(map[string]bool)
	flags.Visit(func(f *flag.Flag) {
		given[f.Name] = true
		if first == nil && isEmpty(f) {
			first = fmt.Errorf("-%s is empty: give it a value, or leave it out", f.Name)
		}
	})
	flags.VisitAll(func(f *flag.Flag) {
		name := e.variable(f.Name)
		value, set := e.lookup(name)
		if !set || given[f.Name] || first != nil {
			return
		}
		e.fromEnv[f.Name] = true
		if err := flags.Set(f.Name, value); err != nil {
			first = fmt.Errorf("invalid value %q for %s: %w", value, name, err)
		} else if isEmpty(f) {
			first = fmt.Errorf("%s is empty: give it a value, or unset it", name)
		}
	})
	if first == nil && e.empty != "" {
		first = fmt.Errorf("%s is empty: give it a value, or unset it", e.empty)
	}
	if first == nil {
		first = e.misspelled()
	}
	return first
}

// Blame returns an error that names, after Parse, what a flag's value came from: the
// flag, or its variable. If err is of a file, it has the file's name in quotation marks:
// white space at an end of it is easily overlooked.
func (e *Env) Blame(flag string, err error) error {
	from := "-" + flag
	if e.fromEnv[flag] {
		from = e.variable(flag)
	}
	if file, ok := err.(*fs.PathError); ok {
		return fmt.Errorf(`%s: %s "%s": %w`, from, file.Op, file.Path, file.Err)
	}
	return fmt.Errorf("%s: %w", from, err)
}

// isEmpty says whether a flag is of type string and empty.
func isEmpty(f *flag.Flag) bool {
	getter, ok := f.Value.(flag.Getter)
	return ok && getter.Get() == ""
}

// serviceLink matches a variable that Kubernetes sets in each pod for a Service of
// its namespace. Whoever names a Service must not keep a program from starting.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$`)

// misspelled is the error for a variable that is not read but was probably meant
// for one that is.
func (e *Env) misspelled() error {
	for _, name := range e.unknown() {
		if serviceLink.MatchString(name) {
			continue
		}
		if meant := e.nearest(name, e.known); meant != "" {
			return fmt.Errorf("unknown environment variable %q, did you mean %s? If not, unset it", name, meant)
		}
		return fmt.Errorf("unknown environment variable %q: unset it (-h lists the flags, and each has a variable)", name)
	}
	return nil
}

// unknown returns the names that are not read, but have the prefix or are a letter
// away from a name that is read.
func (e *Env) unknown() (names []string) {
	for _, pair := range e.Environ {
		name, _, _ := strings.Cut(pair, "=")
		plain := bare(name)
		others := e.Others != "" && strings.HasPrefix(plain, bare(e.Others))
		near := func(known string) bool { return distance(plain, bare(known)) <= 1 }
		isOurs := strings.HasPrefix(plain, bare(e.Prefix)) || slices.ContainsFunc(e.known, near)
		if isOurs && !others && !slices.Contains(e.known, name) {
			names = append(names, name)
		}
	}
	return names
}

// bare returns the letters and digits of a name, in capitals.
func bare(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
		return -1
	}, name)
}

func (e *Env) variable(flag string) string {
	return e.Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const undefined = "flag provided but not defined: -"

// Explain returns an error of flags.Parse or, if a flag does not exist, one that
// says which was probably meant: the one most like it, or the only one that begins
// so.
func Explain(flags *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), undefined)
	if !unknown {
		return err
	}
	var names, begin []string
	flags.VisitAll(func(f *flag.Flag) {
		names = append(names, f.Name)
		if strings.HasPrefix(f.Name, name) {
			begin = append(begin, f.Name)
		}
	})
	meant := new(Env).nearest(name, names)
	if meant == "" && len(begin) == 1 {
		meant = begin[0]
	}
	if meant != "" {
		return fmt.Errorf("unknown flag -%s, did you mean -%s? (-h lists the flags)", name, meant)
	}
	return fmt.Errorf("unknown flag -%s (-h lists the flags)", name)
}

// unknownArgument is the error for an argument after the flags. One after a
// boolean flag was meant as its value.
func unknownArgument(flags *flag.FlagSet, before []string) error {
	hint := "(-h lists the flags)"
	if n := len(before); n > 0 {
		name := strings.TrimLeft(before[n-1], "-")
		if f := flags.Lookup(name); f != nil {
			if is, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && is.IsBoolFlag() {
				hint = fmt.Sprintf("(-%s is written -%[1]s=true or -%[1]s=false)", name)
			}
		}
	}
	return fmt.Errorf("unknown argument %q %s", flags.Arg(0), hint)
}

// Warn warns, after Parse, of each variable that Kubernetes seems to have set, but
// that somebody may have meant for the program. It logs no values: they may be
// secrets.
func (e *Env) Warn(log *slog.Logger) {
	for _, name := range e.unknown() {
		log.Warn("unknown environment variable", "name", name)
	}
}

// nearest returns the one of the names most like name, or "" if none is like it.
// Two are alike if at most a third of their letters differ, or if one contains
// the other.
func (e *Env) nearest(name string, names []string) (nearest string) {
	withoutPrefix := func(name string) string { return strings.TrimPrefix(bare(name), bare(e.Prefix)) }
	from, least := withoutPrefix(name), 0
	for _, known := range names {
		to := withoutPrefix(known)
		d := distance(from, to)
		alike := d <= max(1, len(to)/3) || len(from) > 2 && (strings.Contains(to, from) || strings.Contains(from, to))
		if alike && (nearest == "" || d < least) {
			nearest, least = known, d
		}
	}
	return nearest
}

// distance is how many letters must be added, removed or changed to turn a into
// b (the Levenshtein distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}
