package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// copyTracked copies the files that git tracks, as they are now, to a folder.
func copyTracked(t *testing.T, to string, but ...string) {
	t.Helper()
	list := exec.Command("git", append([]string{"ls-files", "--"}, but...)...)
	list.Dir = ".."
	files, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(files)) {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			continue // deleted, but the deletion is not committed
		}
		os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o755)
		if err := os.WriteFile(filepath.Join(to, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// repository makes a repository whose only commit has the files as they are now.
func repository(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "repository")
	copyTracked(t, dir, ":!e2e", ":!bench")
	shell(t, dir, `export GIT_CONFIG_GLOBAL=/dev/null
		git init -q && git add . && git -c user.name=e2e -c user.email=e2e@localhost commit -qm all`)
	return dir
}

// TestVersion asks programs for their version: one that was built from a commit, one
// from a file that was changed since, and one without a repository.
func TestVersion(t *testing.T) {
	dir := repository(t)
	shell(t, dir, `go build -buildvcs=true -o ../clean .
		go build -buildvcs=false -o ../none .
		echo >>README.md && go build -buildvcs=true -o ../dirty .
		git rev-parse HEAD >../revision`)
	head, err := os.ReadFile(dir + "/../revision")
	if err != nil {
		t.Fatal(err)
	}
	revision := regexp.QuoteMeta(string(head[:12]))
	for _, tt := range []struct{ name, line, log string }{
		{name: "clean", line: revision, log: "revision=" + revision + " "},
		{name: "dirty", line: revision + `\+dirty`, log: "revision=" + revision + `\+dirty `},
		{name: "none", line: "unknown"},
	} {
		program := filepath.Join(dir, "..", tt.name)
		line := regexp.MustCompile(`^simple-oauth2 \d+\.\d+\.\d+ \(revision ` + tt.line + `, go1\S+, \w+/\w+\)\n$`)
		for _, args := range []string{"-version", "--version", "-addr :1 -version"} {
			if out, err := exec.Command(program, strings.Fields(args)...).Output(); err != nil || !line.Match(out) {
				t.Errorf("%s %s: %v\n%s", tt.name, args, err, out)
			}
		}
		first := regexp.MustCompile(`^time=\S+ level=INFO msg=starting version=\d+\.\d+\.\d+ ` + tt.log + `go=go1`)
		log, _ := exec.Command(program, "-addr", "127.0.0.1:0", "-users", dir).CombinedOutput() // a folder ends it
		if !first.Match(log) {
			t.Errorf("%s begins its log with\n%s", tt.name, log)
		}
	}
}

// TestSameBytes builds the program as the Dockerfile does, from clones of one commit
// in two folders. Both must have the same bytes, so that anybody can check what is in
// an image.
func TestSameBytes(t *testing.T) {
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	build := regexp.MustCompile(`RUN (CGO_ENABLED=0 .*go build .*) -o /simple-oauth2 \. `).FindSubmatch(dockerfile)
	if build == nil {
		t.Fatal("the Dockerfile does not build /simple-oauth2")
	}
	dir := repository(t)
	for _, platform := range []string{"amd64", "arm64"} {
		var programs [][]byte
		for _, name := range []string{"one", "another/folder"} {
			clone := filepath.Join(dir, "..", platform, name)
			shell(t, ".", "git clone -q "+dir+" "+clone)
			shell(t, clone, "export GOFLAGS=-buildvcs=true TARGETOS=linux TARGETARCH="+platform+
				"\n"+string(build[1])+" -o program .")
			text, err := os.ReadFile(filepath.Join(clone, "program"))
			if err != nil {
				t.Fatal(err)
			}
			programs = append(programs, text)
		}
		if !bytes.Equal(programs[0], programs[1]) {
			t.Errorf("%s: the second program has other bytes", platform)
		}
	}
}
