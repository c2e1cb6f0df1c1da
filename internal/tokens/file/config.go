package file

import "flag"

// Config says which file keeps the tokens; an empty File means none.
type Config struct{ File string }

// Flags adds the flag, which is read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.StringVar(&c.File, "tokens-file", "", "`file` that keeps the tokens across restarts; created if missing")
}

// On says whether there is a file.
func (c *Config) On() bool { return c.File != "" }
