// Package version says which build of the program is running, from what the go
// command wrote into it: the version of the module, which the go command derives
// from the revision if the sources are in a repository, or only the revision.
package version

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
)

// Get returns the version of this program, or "(devel)" if the build has none.
func Get() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	return of(info)
}

func of(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := make(map[string]string)
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	switch revision := settings["vcs.revision"]; {
	case revision == "":
		return "(devel)"
	case settings["vcs.modified"] == "true":
		return revision + "+dirty"
	default:
		return revision
	}
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
	return fmt.Sprintf("simple-oauth2 %s %s %s/%s", Get(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Attr returns the versions of the program and of Go, for the log.
func Attr() slog.Attr {
	return slog.Group("", "version", Get(), "go", runtime.Version())
}
