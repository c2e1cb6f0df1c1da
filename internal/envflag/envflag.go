// Package envflag lets each flag of a program be set by a variable in the
// environment, its twin, and warns of variables that look like one but are not.
package envflag

import (
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Env is the environment. Getenv is [os.Getenv], and the names of the twins
// begin with Prefix.
type Env struct {
	Prefix string
	Getenv func(string) string

	known []string // the names that are read
}

// Get returns the value of a variable that is no flag's twin, or "".
func (e *Env) Get(name string) string {
	e.known = append(e.known, name)
	return e.Getenv(name)
}

// Parse parses args and then, for each flag that is not among them, its twin in
// the environment: the prefix and the flag's name in capitals, APP_TOKEN_TTL for
// -token-ttl. An empty twin counts as unset, and a given flag overrides its twin.
// An argument after the flags is an error. An error is one line that names the
// flag or the variable.
func (e *Env) Parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return e.unknownFlag(flags, err)
	}
	if n := flags.NArg(); n > 0 {
		return unknownArgument(flags, args[:len(args)-n])
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var first error
	flags.VisitAll(func(f *flag.Flag) {
		name := e.twin(f.Name)
		value := e.Get(name)
		if value == "" || given[f.Name] || first != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			first = fmt.Errorf("invalid value %q for %s: %w", value, name, err)
		}
	})
	return first
}

func (e *Env) twin(flag string) string {
	return e.Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// unknownFlag returns the error of package flag or, if the flag does not exist,
// one that says which was probably meant.
func (e *Env) unknownFlag(flags *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return err
	}
	if twin := e.twin(name); slices.Contains(e.known, twin) {
		return fmt.Errorf("unknown flag -%s: set %s in the environment instead", name, twin)
	}
	var names []string
	flags.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if meant := e.nearest(name, names); meant != "" {
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

// Warn warns, after Parse, of each variable in environ whose name begins with the
// prefix but is not read, and says which one was probably meant. It logs no
// values: they may be secrets.
func (e *Env) Warn(log *slog.Logger, environ []string) {
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(strings.ToUpper(name), e.Prefix) || slices.Contains(e.known, name) {
			continue
		}
		attrs := []any{"name", name}
		if meant := e.nearest(name, e.known); meant != "" {
			attrs = append(attrs, "meant", meant)
		}
		log.Warn("unknown environment variable", attrs...)
	}
}

// nearest returns the one of the names most like name, or "" if none is like it.
// Two are alike if at most a third of their letters differ, or if one contains
// the other.
func (e *Env) nearest(name string, names []string) (nearest string) {
	bare := func(name string) string {
		return strings.NewReplacer("_", "", "-", "").Replace(strings.TrimPrefix(strings.ToUpper(name), e.Prefix))
	}
	from, least := bare(name), 0
	for _, known := range names {
		to := bare(known)
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
