package admission

import (
	"errors"
	"flag"
	"strconv"
)

// Flag adds the flag -max-failures, which is read into maxFailures.
func Flag(flags *flag.FlagSet, maxFailures *int) {
	*maxFailures = 10
	flags.Func("max-failures", "wrong passwords in a row, for one username from one address, before it has to wait;\na `number`, 0 for no limit (default 10)", func(s string) (err error) {
		if *maxFailures, err = strconv.Atoi(s); err != nil || *maxFailures < 0 || *maxFailures > 1_000_000 {
			return errors.New("it must be a whole number from 0 to 1000000")
		}
		return nil
	})
}
