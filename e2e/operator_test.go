package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestHashOnTerminal types a password into a terminal, and pipes one.
func TestHashOnTerminal(t *testing.T) {
	hash := regexp.MustCompile(`\$2a\$04\$[./A-Za-z0-9]{53}\r?\n`)
	terminal := exec.Command("script", "-qec", program+" hash -cost 4", "/dev/null")
	terminal.Stdin = strings.NewReader("secret\n")
	out, err := terminal.CombinedOutput()
	if err != nil || !hash.Match(out) || !strings.Contains(string(out), "visible") {
		t.Errorf("on a terminal: %v\n%s", err, out)
	}
	piped := exec.Command(program, "hash", "-cost", "4")
	piped.Stdin = strings.NewReader("secret\n")
	out, err = piped.CombinedOutput()
	if err != nil || !regexp.MustCompile("^"+hash.String()+"$").Match(out) {
		t.Errorf("from a pipe: %v\n%s", err, out)
	}
}

// TestVersion asks the program which it is.
func TestVersion(t *testing.T) {
	for _, flag := range []string{"-version", "--version"} {
		out, err := exec.Command(program, flag).Output()
		if err != nil || !regexp.MustCompile(`^simple-oauth2 \S+ go1\S+ \S+/\S+\n$`).Match(out) {
			t.Errorf("%s: %v\n%s", flag, err, out)
		}
	}
}

// TestEndInJSON has the program end by an error that its log has to tell.
func TestEndInJSON(t *testing.T) {
	for format, want := range map[string]string{
		"text": `^simple-oauth2: -addr: listen tcp: address nowhere: missing port in address\n$`,
		"json": `^\{"time":"[^"]+","level":"ERROR","msg":"ended by an error","error":"-addr: listen tcp: address nowhere: missing port in address"\}\n$`,
	} {
		out, err := exec.Command(program, "-log-format", format, "-addr", "nowhere").CombinedOutput()
		if err == nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("%s: %v\n%s", format, err, out)
		}
	}
}
