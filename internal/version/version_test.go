package version

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestRevision(t *testing.T) {
	const full = "46733d3c0e5f8a1b2c3d4e5f60718293a4b5c6d7"
	for _, tt := range []struct {
		name, revision, modified string
		want                     string
	}{
		{name: "of a repository", revision: full, modified: "false", want: "46733d3c0e5f"},
		{name: "of a repository that was changed", revision: full, modified: "true", want: "46733d3c0e5f+dirty"},
		{name: "of another system, and short", revision: "17", modified: "false", want: "17"},
		{name: "of no repository", want: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: tt.revision},
				{Key: "vcs.modified", Value: tt.modified}}}
			if got := revision(info); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestNumber checks that other programs can compare the version, and that the files
// that are used without the program say it, too.
func TestNumber(t *testing.T) {
	if !regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$`).MatchString(Number) {
		t.Errorf("%s is not of the form 1.2.3", Number)
	}
	for name, line := range map[string]string{
		"docs/openapi.json": "\n    \"version\": \"" + Number + "\",\n",
		"Dockerfile":        "\nARG VERSION=" + Number + "\n",
	} {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil || !strings.Contains(string(text), line) {
			t.Errorf("%s has no line %s (%v)", name, strings.TrimSpace(line), err)
		}
	}
}

func TestAsked(t *testing.T) {
	for _, tt := range []struct {
		args string
		want bool
	}{
		{"-version", true},
		{"--version", true},
		{"version", true},
		{"-addr :1 -version", true},
		{"-version -addr :1", true},
		{"-docs=false --version", true},
		{"healthcheck -version", true},
		{"", false},
		{"-addr :1", false},
		{"-users version", false},
		{"-addr :1 -- -version", false},
		{"-versions", false},
	} {
		if got := Asked(strings.Fields(tt.args)); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.args, got, tt.want)
		}
	}
}
