package usercmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"simple-oauth2/internal/usersfile"
)

// list prints a table of the users.
func (c *command) list() error {
	now, err := c.read()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tDISABLED\tSCOPES\tCOST\tLIFETIME\tOUT SINCE")
	for _, name := range now.names {
		record, lifetime, since := now.byName[name], "", ""
		if record.TokenTTL > 0 {
			lifetime = short(record.TokenTTL)
		}
		if !record.NotBefore.IsZero() {
			since = record.NotBefore.UTC().Format(time.RFC3339)
		}
		disabled := ""
		if record.Disabled != nil && *record.Disabled {
			disabled = "yes"
		}
		cells := []string{name, disabled, strings.Join(record.Scopes, " "), fmt.Sprint(record.Cost), lifetime, since}
		for i, cell := range cells {
			if cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

// short returns a duration as a person writes it: 168h for 168h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// check prints each fault for which the service would refuse the file, with its line,
// or else what could be better.
func (c *command) check() error {
	text, err := os.ReadFile(c.file)
	if err != nil {
		return c.unread(err)
	}
	info, err := os.Stat(c.file)
	if err != nil {
		return err
	}
	now, err := parse(text)
	if err != nil {
		return c.faults(text, err)
	}
	warnings := now.warnings(info.Mode().Perm())
	for _, warning := range warnings {
		fmt.Fprintf(c.stdout, "%s: warning: %s\n", c.file, warning)
	}
	_, err = fmt.Fprintf(c.stdout, "%s: the service can load it; users: %d, warnings: %d\n",
		c.file, len(now.names), len(warnings))
	return err
}

// faults prints the fault of each user. If the file has another fault, that is the
// error.
func (c *command) faults(text []byte, err error) error {
	var faults int
	if json.Valid(text) && bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		for _, m := range membersOf(text) {
			alone := fmt.Appendf(nil, "{%s}", text[m.name:m.to])
			if _, err := parse(alone); err != nil {
				line := 1 + bytes.Count(text[:m.name], []byte("\n"))
				fmt.Fprintf(c.stdout, "%s, line %d: %v\n", c.file, line, err)
				faults++
			}
		}
	}
	if faults == 0 {
		return c.named(err)
	}
	return errors.New(c.file + ": the service would refuse it")
}

// warnings are what the service loads, but an owner may want to change.
func (u *users) warnings(mode fs.FileMode) (all []string) {
	warn := func(format string, values ...any) { all = append(all, fmt.Sprintf(format, values...)) }
	if len(u.names) == 0 {
		warn("there are no users: nobody can log in")
	}
	if mode&0o004 != 0 {
		warn("everybody on this machine may read the file (mode %#o), and crack the hashes", mode)
	}
	cheapest, seen := u.summary.Costliest, make(map[string]string)
	for _, name := range u.names {
		record := u.byName[name]
		cheapest = min(cheapest, record.Cost)
		if record.Cost < usersfile.LeastCost {
			warn("user %s: a hash of cost %d is cracked too fast; user passwd makes a new one", quote(name), record.Cost)
		}
		if record.NotBefore.After(time.Now()) {
			warn("user %s: not_before is in the future", quote(name))
		}
		if like := seen[strings.ToLower(name)]; like != "" {
			warn("%s", differOnlyInCase(like, name))
		}
		seen[strings.ToLower(name)] = name
	}
	if cheapest < u.summary.Costliest {
		warn("the hashes have costs from %d to %d: the time of an answer tells who has a cheap one",
			cheapest, u.summary.Costliest)
	}
	return all
}
