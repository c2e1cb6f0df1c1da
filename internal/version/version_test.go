package version

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for _, tt := range []struct {
		name, module, revision, modified string
		want                             string
	}{
		{"a module", "v1.2.3", "", "", "v1.2.3"},
		{"a module from a repository", "v0.0.0-20261125044240-10875481954f+dirty", "10875481954f", "true", "v0.0.0-20261125044240-10875481954f+dirty"},
		{"a revision", "(devel)", "10875481954f", "false", "10875481954f"},
		{"a revision that was changed", "", "10875481954f", "true", "10875481954f+dirty"},
		{"neither", "(devel)", "", "", "(devel)"},
		{"nothing", "", "", "", "(devel)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			info := &debug.BuildInfo{Main: debug.Module{Version: tt.module}}
			if tt.revision != "" {
				info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: tt.revision}, {Key: "vcs.modified", Value: tt.modified}}
			}
			if got := of(info); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
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
