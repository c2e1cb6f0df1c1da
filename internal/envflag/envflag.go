// Package envflag gives each flag of a program a twin in the environment.
package envflag

import (
	"flag"
	"fmt"
	"strings"
)

// Parse parses args and then, for each flag that they do not give, its twin in
// the environment: prefix and the flag's name in capitals, APP_TOKEN_TTL for
// -token-ttl. A twin that is empty counts as not there, and one whose flag is
// given is not looked at. Whatever is left after the flags is an error. An
// error is one line that names the flag or the variable.
func Parse(flags *flag.FlagSet, prefix string, args []string, getenv func(string) string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var first error
	flags.VisitAll(func(f *flag.Flag) {
		name := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := getenv(name)
		if value == "" || given[f.Name] || first != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			first = fmt.Errorf("invalid value %q for %s: %w", value, name, err)
		}
	})
	return first
}
