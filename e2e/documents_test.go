package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// documents are the README, the guides, and what a contributor reads.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"../README.md"}
	for _, pattern := range []string{"../guide/*.md", "../.github/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		all = append(all, found...)
	}
	return all
}

// block is a fenced block of a document. A comment before it says what the test
// does with it:
//
//	<!-- e2e: given NAME -->  save the README's block of that name
//	<!-- e2e: serve ARGS -->  start the service with ARGS before this block
//	<!-- e2e: starts -->      start the service as each line of the block does
//	<!-- e2e: nginx PATH -->  start nginx with the block, and want PATH to be healthy
//	<!-- e2e: caddy PATH -->  the same with Caddy
//	<!-- e2e: site PATH -->   start nginx with the example in PATH, whose API serves the reader's folder api
//	<!-- e2e: file NAME -->   save the block as NAME
//	<!-- e2e: run -->         run the block as a shell script
//	<!-- e2e: from PATH -->   the block's lines are in PATH, which other tests use
//	<!-- e2e: skip REASON --> do nothing
//
// A console block is typed into a shell, line by line, and the answers are
// compared; … in them stands for anything. Any other block needs a comment.
type block struct {
	line       int
	directives []string
	language   string
	text       string
}

func blocksOf(document string) (found []block) {
	var directives []string
	var open *block
	for i, line := range strings.Split(document, "\n") {
		switch {
		case open != nil && strings.TrimSpace(line) == "```":
			found, open, directives = append(found, *open), nil, nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			open = &block{i + 1, directives, strings.TrimPrefix(line, "```"), ""}
		case strings.HasPrefix(line, "<!-- e2e: "):
			directives = append(directives, strings.TrimSuffix(strings.TrimPrefix(line, "<!-- e2e: "), " -->"))
		case strings.TrimSpace(line) != "":
			directives = nil
		}
	}
	return found
}

// TestDocuments follows the documents.
func TestDocuments(t *testing.T) {
	for _, name := range documents(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			r := newReader(t)
			for _, b := range blocksOf(string(text)) {
				r.follow(b)
			}
			r.leavesNoSecrets()
		})
	}
}

// reader is a person who follows a document: a folder, a shell, and the service.
// The folder has the examples.
type reader struct {
	t     *testing.T
	dir   string
	addr  string
	site  string // the address of nginx, if it runs
	shell io.Writer
	said  *bufio.Scanner
}

const endOfAnswer = "-- end of the answer --"

func newReader(t *testing.T) *reader {
	r := &reader{t: t, dir: t.TempDir()}
	examples, err := filepath.Abs("../examples")
	if err == nil {
		err = os.Symlink(examples, filepath.Join(r.dir, "examples"))
	}
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("bash", "-u", "-o", "pipefail")
	shell.Dir = r.dir
	shell.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	shell.Stderr = shell.Stdout
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { shell.Process.Kill() })
	t.Cleanup(func() { stdin.Close(); shell.Wait(); stuck.Stop() })
	r.shell, r.said = stdin, bufio.NewScanner(stdout)
	return r
}

func (r *reader) follow(b block) {
	r.t.Helper()
	done := b.language == "console"
	for _, directive := range b.directives {
		verb, rest, _ := strings.Cut(directive, " ")
		switch verb {
		case "serve":
			r.addr = startIn(r.t, r.dir, strings.Fields(rest)...)
			continue // it also counts for the blocks that follow
		case "given":
			r.given(b, rest)
			continue
		case "starts":
			r.starts(b)
		case "nginx", "caddy":
			r.proxy(b, verb, rest)
		case "site":
			r.serveSite(rest)
			continue
		case "file":
			if err := os.WriteFile(filepath.Join(r.dir, rest), []byte(r.here(b.text)), 0o600); err != nil {
				r.t.Fatal(err)
			}
		case "run":
			if out := r.run("(set -e; " + strings.TrimSpace(b.text) + "\n) && echo; echo status $?"); !strings.HasSuffix(out, "status 0") {
				r.t.Errorf("line %d: %s\nanswers %s", b.line, b.text, out)
			}
		case "from":
			r.from(b, rest)
		case "skip":
			if rest == "" {
				r.t.Errorf("line %d: skip gives no reason", b.line)
			}
		default:
			r.t.Errorf("line %d: unknown directive %q", b.line, verb)
		}
		done = true
	}
	if !done {
		r.t.Errorf("line %d: nothing tests this block of %s", b.line, b.language)
	}
	if b.language == "console" {
		r.session(b)
	}
}

// leavesNoSecrets checks that git ignores the files with keys, hashes and tokens
// that a document makes: most readers work in their clone.
func (r *reader) leavesNoSecrets() {
	r.t.Helper()
	files, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(filepath.Join(r.dir, file.Name()))
		if !regexp.MustCompile(`PRIVATE KEY|hashed_password|^simple-oauth2 tokens`).Match(text) {
			continue
		}
		check := exec.Command("git", "check-ignore", "--no-index", "-q", file.Name())
		check.Dir = ".."
		if err := check.Run(); err != nil {
			r.t.Errorf("git does not ignore %s: %v", file.Name(), err)
		}
	}
}

// here returns a text of the document with the addresses that the programs have here.
func (r *reader) here(text string) string {
	if r.addr != "" {
		text = strings.NewReplacer("localhost:8000", r.addr, "127.0.0.1:8000", r.addr).Replace(text)
	}
	if r.site != "" {
		text = strings.ReplaceAll(text, "localhost:8080", r.site)
	}
	return text
}

// run types a command and returns what it prints.
func (r *reader) run(command string) string {
	r.t.Helper()
	if r.addr == "" {
		r.addr = startIn(r.t, r.dir)
	}
	command = strings.NewReplacer("go run . ", "simple-oauth2 ", "./simple-oauth2 ", "simple-oauth2 ").Replace(r.here(command))
	fmt.Fprintf(r.shell, "%s\necho; echo '%s'\n", command, endOfAnswer)
	var said []string
	for r.said.Scan() {
		if r.said.Text() == endOfAnswer {
			return strings.TrimSpace(strings.Join(said, "\n"))
		}
		said = append(said, r.said.Text())
	}
	r.t.Fatalf("the shell ended at %s\n%s", command, strings.Join(said, "\n"))
	return ""
}

// session runs the lines that begin with "$ ", and compares what each prints with
// the lines that follow it.
func (r *reader) session(b block) {
	r.t.Helper()
	for _, command := range strings.Split("\n"+b.text, "\n$ ")[1:] {
		lines := strings.SplitAfter(command+"\n", "\n")
		n := 1
		for n < len(lines) && strings.HasSuffix(strings.TrimSpace(lines[n-1]), "\\") {
			n++
		}
		command, want := strings.TrimSpace(strings.Join(lines[:n], "")), strings.TrimSpace(strings.Join(lines[n:], ""))
		pattern := regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", `[^",]+`) + "$")
		if got := r.run(command); !pattern.MatchString(got) {
			r.t.Errorf("line %d: %s\nanswers %s\nthe document says %s", b.line, command, got, want)
		}
	}
}

// given saves the README's block of a name.
func (r *reader) given(b block, name string) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, there := range blocksOf(string(readme)) {
		if slices.Contains(there.directives, "file "+name) {
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(there.text), 0o600); err != nil {
				r.t.Fatal(err)
			}
			return
		}
	}
	r.t.Errorf("line %d: the README has no %s", b.line, name)
}

// starts runs the lines that start the service, on a free port. There is no Docker
// where the tests run, so lines that need it are left out.
func (r *reader) starts(b block) {
	r.t.Helper()
	started := false
	for line := range strings.Lines(strings.ReplaceAll(b.text, "go run .", "./simple-oauth2")) {
		if args, ok := strings.CutPrefix(strings.TrimSpace(line), "./simple-oauth2"); ok {
			r.addr, started = startIn(r.t, r.dir, strings.Fields(args)...), true
		}
	}
	if !started {
		r.t.Errorf("line %d: this block starts no service", b.line)
	}
}

// proxy runs a proxy whose configuration is the block, or has it in its server.
func (r *reader) proxy(b block, program, path string) {
	r.t.Helper()
	if r.addr == "" {
		r.addr = startIn(r.t, r.dir)
	}
	s := &stage{t: r.t, dir: r.t.TempDir(), addr: freeAddrs(r.t, 1)[0]}
	text := strings.NewReplacer("127.0.0.1:8000", r.addr, "listen 80;", "listen "+s.addr+";", "auth.example.com {", "http://"+s.addr+" {").Replace(b.text)
	if program == "caddy" {
		s.write("Caddyfile", "{\nadmin off\n}\n"+text)
		s.run("env", "XDG_CONFIG_HOME="+s.dir, "XDG_DATA_HOME="+s.dir, "caddy", "run", "--adapter", "caddyfile", "--config", filepath.Join(s.dir, "Caddyfile"))
	} else {
		if !strings.Contains(text, "server {") {
			text = "server {\nlisten " + s.addr + ";\n" + text + "}\n"
		}
		s.write("guarded.conf", text)
		s.runNginx("", "guarded.conf")
	}
	if status, _, body, _ := ask(&process{url: "http://" + s.addr}, path, "", nil); status != 200 || body != `{"status":"ok"}` {
		r.t.Errorf("line %d: %s of %s is %d %s", b.line, path, program, status, body)
	}
}

// serveSite runs nginx with an example that has a site.conf.
func (r *reader) serveSite(folder string) {
	r.t.Helper()
	api := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(r.dir, "api"))))
	r.t.Cleanup(api.Close)
	s := &stage{t: r.t, dir: r.t.TempDir(), addr: freeAddrs(r.t, 1)[0]}
	s.copyExample(filepath.Join("..", folder), r.addr, strings.TrimPrefix(api.URL, "http://"))
	s.runNginx("", "site.conf")
	r.site = s.addr
}

// from wants the block's lines to be in a file, in order.
func (r *reader) from(b block, name string) {
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		r.t.Errorf("line %d: %v", b.line, err)
		return
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	for line := range strings.Lines(b.text) {
		i := slices.Index(lines, strings.TrimSpace(line))
		if i < 0 {
			r.t.Errorf("line %d: %s does not have %q at that place", b.line, name, strings.TrimSpace(line))
			return
		}
		lines = lines[i+1:]
	}
}

// TestReadmeIsShort checks that two minutes are enough for the README.
func TestReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if lines := strings.Count(string(text), "\n"); err != nil || lines > 190 {
		t.Errorf("README.md has %d lines, want 190 at most; the rest goes to guide/ (%v)", lines, err)
	}
}

// TestFlagTables compares the tables of flags with the program's own flags.
func TestFlagTables(t *testing.T) {
	help, err := exec.Command(program, "-h").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	defaults := make(map[string]string)
	for _, flag := range regexp.MustCompile(`(?m)^  -(\S+)(?:.*\n(?:    \t.*\n)+)`).FindAllStringSubmatch(string(help), -1) {
		said := regexp.MustCompile(`\(default "?([^")]*)"?\)`).FindStringSubmatch(flag[0])
		defaults[flag[1]] = ""
		if said != nil {
			defaults[flag[1]] = said[1]
		}
	}
	if len(defaults) < 10 {
		t.Fatalf("only %d flags in\n%s", len(defaults), help)
	}
	told := make(map[string]bool)
	for _, name := range documents(t) {
		text, _ := os.ReadFile(name)
		for _, row := range regexp.MustCompile("(?m)^\\| ((?:`-[a-z-]+`(?:, )?)+) \\| (.*?) \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
			for _, quoted := range strings.Split(row[1], ", ") {
				flag := strings.Trim(quoted, "`-")
				def, known := defaults[flag]
				if !known {
					t.Errorf("%s: the program has no flag -%s", name, flag)
				}
				twin := "`OAUTH2_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) + "`"
				if !strings.Contains(row[2], twin) {
					t.Errorf("%s: the row of -%s does not name its twin %s", name, flag, twin)
				}
				if def != "" && !strings.HasPrefix(def, "the ") && !strings.Contains(row[3], "`"+def+"`") {
					t.Errorf("%s: the row of -%s does not say its default `%s`", name, flag, def)
				}
				told[flag] = true
			}
		}
	}
	for flag := range defaults {
		if !told[flag] {
			t.Errorf("no table has the flag -%s", flag)
		}
	}
}

// TestEndpointTable compares the README's table of endpoints with the routes in
// openapi.json.
func TestEndpointTable(t *testing.T) {
	var description struct{ Paths map[string]map[string]any }
	text, err := os.ReadFile("../docs/openapi.json")
	if err == nil {
		err = json.Unmarshal(text, &description)
	}
	if err != nil {
		t.Fatal(err)
	}
	routes := []string{ // which openapi.json does not describe
		"GET /docs", "GET /openapi.json",
		"GET /login", "POST /login", "POST /logout", // for which no client is generated
	}
	for path, operations := range description.Paths {
		for method := range operations {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	readme, _ := os.ReadFile("../README.md")
	var told []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[A-Z]+ /.*?) \\|").FindAllStringSubmatch(string(readme), -1) {
		for _, quoted := range strings.Split(row[1], ", ") {
			told = append(told, strings.Trim(quoted, "`"))
		}
	}
	slices.Sort(routes)
	slices.Sort(told)
	if !slices.Equal(routes, told) {
		t.Errorf("the service has %q\nthe README has %q", routes, told)
	}
}

// TestLinks checks that each link within the repository leads to an existing file, and
// to a heading in it.
func TestLinks(t *testing.T) {
	headings := func(name string) (anchors []string) {
		text, _ := os.ReadFile(name)
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
			anchor := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
			anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
		}
		return anchors
	}
	for _, name := range documents(t) {
		text, _ := os.ReadFile(name)
		for _, link := range regexp.MustCompile(`(?:\]\(|src=")([^)"]+)`).FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			target, anchor, _ := strings.Cut(link[1], "#")
			path := name
			if target != "" {
				path = filepath.Join(filepath.Dir(name), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s leads nowhere", name, link[1])
			} else if anchor != "" && !slices.Contains(headings(path), anchor) {
				t.Errorf("%s: %s has no heading #%s", name, path, anchor)
			}
		}
	}
}

// TestNames checks that what the guides name is in the program and its tests, and
// each metric and each line of the log that an operator may look for to be in a
// guide.
func TestNames(t *testing.T) {
	read := func(pattern string) string {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, name := range files {
			text, _ := os.ReadFile(name)
			all.Write(text)
		}
		return all.String()
	}
	program := read("../*.go") + read("../internal/*/*.go") + read("*.go") + read("../internal/*/*/*.go")
	guides := read("../guide/*.md")
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(guides, -1) {
		if !strings.Contains(program, "func "+name) {
			t.Errorf("a guide names %s, which is no test", name)
		}
	}
	metric := regexp.MustCompile(`\b(simple_oauth2|go)_[a-z0-9_]+\b`)
	for _, name := range metric.FindAllString(guides, -1) {
		if !strings.Contains(read("../internal/metrics/text.go"), `"`+name+`"`) {
			t.Errorf("a guide names %s, which is no metric", name)
		}
	}
	for _, name := range metric.FindAllString(read("../internal/metrics/text.go"), -1) {
		if !strings.Contains(guides, "`"+name+"`") {
			t.Errorf("no guide names the metric %s", name)
		}
	}
	lines := regexp.MustCompile("(?s)\\| line \\| level .*?\n\n").FindString(guides)
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\| (?:info|warning|error) \\|").FindAllStringSubmatch(lines, -1) {
		for _, quoted := range strings.Split(row[1], ", `") {
			line, _, _ := strings.Cut(strings.Trim(quoted, "`"), "…")
			if what, rest, ok := strings.Cut(line, " could not"); ok { // the watcher's, for each of its files
				line = what
				if !strings.Contains(program, `" could not`+strings.TrimRight(rest, " ,")) {
					t.Errorf("a guide names the line %q", quoted)
				}
			}
			if !strings.Contains(program, `"`+strings.TrimRight(line, " ,")) {
				t.Errorf("a guide names the line %q, which nothing logs", quoted)
			}
		}
	}
}
