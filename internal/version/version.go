// Package version says which version of the program is running, and which revision
// of its sources: the go command writes that into the program if the sources are in
// a repository.
package version

import (
	"cmp"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
)

// Number is the version of the program (https://semver.org/). docs/openapi.json and
// the Dockerfile, which are also used without the program, must say the same.
const Number = "0.3.0"

// Revision returns the first 12 digits of the revision that the program was built
// from, with "+dirty" behind them if files had been changed since, or "" if that is
// not known.
func Revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return revision(info)
}

func revision(info *debug.BuildInfo) string {
	settings := make(map[string]string)
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	full := settings["vcs.revision"]
	short := full[:min(12, len(full))]
	if short != "" && settings["vcs.modified"] == "true" {
		return short + "+dirty"
	}
	return short
}

// Asked says whether arguments ask for the version: with -version anywhere among
// the flags, as one adds it to a command that is there already, or with the word
// version alone.
func Asked(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "-version") || slices.Contains(args, "--version") || len(args) == 1 && args[0] == "version"
}

// Line returns what -version prints.
func Line() string {
	return fmt.Sprintf("simple-oauth2 %s (revision %s, %s, %s/%s)",
		Number, cmp.Or(Revision(), "unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Attr returns the versions of the program and of Go, for the log.
func Attr() slog.Attr {
	attrs := []any{"version", Number}
	if revision := Revision(); revision != "" {
		attrs = append(attrs, "revision", revision)
	}
	return slog.Group("", append(attrs, "go", runtime.Version())...)
}
