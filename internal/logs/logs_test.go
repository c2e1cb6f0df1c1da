package logs

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestCut(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"as long as may be", strings.Repeat("a", 64), strings.Repeat("a", 64)},
		{"a byte too long", strings.Repeat("a", 65), strings.Repeat("a", 64) + "…"},
		{"cut inside a letter", strings.Repeat("a", 63) + "üü", strings.Repeat("a", 63) + "…"},
	} {
		if got := Cut(tt.text); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestFormats writes a line with each kind of value, and one with the standard
// library's log.
func TestFormats(t *testing.T) {
	for _, tt := range []struct{ args, line, standard string }{
		{"", `level=WARN msg="a line" client=192.0.2.1 ends=2026-11-25T04:00:00.123Z took=1m30.5s error=fault`, `level=INFO msg=plain`},
		{"-log-format text", `level=WARN msg="a line" client=192.0.2.1 ends=2026-11-25T04:00:00.123Z took=1m30.5s error=fault`, `level=INFO msg=plain`},
		{"-log-format json", `"level":"WARN","msg":"a line","client":"192.0.2.1","ends":"2026-11-25T04:00:00.123Z","took":"1m30.5s","error":"fault"}`, `"level":"INFO","msg":"plain"}`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var c Config
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			c.Flags(flags)
			if err := flags.Parse(strings.Fields(tt.args)); err != nil {
				t.Fatal(err)
			}
			var written strings.Builder
			end := time.Date(2026, 11, 25, 5, 0, 0, 123456789, time.FixedZone("", 3600))
			c.New(&written).Warn("a line", "client", netip.MustParseAddr("192.0.2.1"), "ends", end,
				"took", 90*time.Second+500*time.Millisecond+time.Nanosecond, "error", errors.New("fault"))
			log.Print("plain")
			lines := strings.Split(written.String(), "\n")
			if len(lines) != 3 || !strings.HasSuffix(lines[0], tt.line) || !strings.HasSuffix(lines[1], tt.standard) {
				t.Fatalf("wrote %s, want %s, %s", &written, tt.line, tt.standard)
			}
			for _, line := range lines[:2] {
				if !regexp.MustCompile(`^(time=|\{"time":")\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z[ "]`).MatchString(line) {
					t.Errorf("the time of %s", line)
				}
			}
		})
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	new(Config).Flags(flags)
	if err := flags.Parse([]string{"-log-format", "xml"}); err == nil || !strings.HasSuffix(err.Error(), "-log-format: it must be text or json") {
		t.Errorf("error %v", err)
	}
}

// TestUnseen logs characters that a terminal acts on, or that turn a line around.
func TestUnseen(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	for _, tt := range []struct{ name, text, escaped string }{
		{"a control sequence in one byte", "a\u009b2Jb", `a\u009b2Jb`},
		{"a control sequence in two", "a\x1b[2Jb", `a\u001b[2Jb`},
		{"DEL", "a\x7fb", `a\u007fb`},
		{"next line", "a\u0085b", `a\u0085b`},
		{"right to left", "a\u202eb", `a\u202eb`},
		{"an isolate", "a\u2066b", `a\u2066b`},
		{"a separator of lines", "a\u2028b", `a\u2028b`},
		{"a separator of paragraphs", "a\u2029b", `a\u2029b`},
		{"a space without width", "a\u200bb", `a\u200bb`},
		{"a byte order mark", "a\ufeffb", `a\ufeffb`},
		{"a tag, which takes two units of UTF-16", "a\U000e0041b", `a\udb40\udc41b`},
		{"a backslash before it", `a\` + "\u202eb", `a\\\u202eb`},
		{"other scripts", "Zoë 李雷 😀", `Zoë 李雷 😀`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, inJSON := range []bool{false, true} {
				var written strings.Builder
				c := Config{JSON: inJSON}
				c.New(&written).Warn("message "+tt.text, "username", tt.text, "error", errors.New(tt.text), "list",
					[]string{tt.text})
				line := strings.TrimSuffix(written.String(), "\n")
				for _, r := range line {
					if !unicode.IsPrint(r) {
						t.Fatalf("%U is in %q", r, line)
					}
				}
				if !inJSON {
					continue
				}
				if n := strings.Count(line, tt.escaped); n != 4 {
					t.Errorf("%s is there %d times, want 4: %s", tt.escaped, n, line)
				}
				var read struct {
					Msg, Username, Error string
					List                 []string
				}
				if err := json.Unmarshal([]byte(line), &read); err != nil || read.Msg != "message "+tt.text ||
					read.Username != tt.text || read.Error != tt.text || read.List[0] != tt.text {
					t.Errorf("read %+q, %v", read, err)
				}
			}
		})
	}
}

func TestRequest(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	long := strings.Repeat("x", 128)
	for _, tt := range []struct {
		name, id, parent string
		want             string
	}{
		{"neither", "", "", ""},
		{"an ID", "f7c1-22", "", "request_id=f7c1-22"},
		{"the ID goes first", "f7c1-22", "00-" + trace + "-00f067aa0ba902b7-01", "request_id=f7c1-22"},
		{"a trace", "", "00-" + trace + "-00f067aa0ba902b7-01", "trace_id=" + trace},
		{"a trace of a later version", "", "cc-" + trace + "-00f067aa0ba902b7-01-what", "trace_id=" + trace},
		{"no trace", "", "00-" + trace + "-00f067aa0ba902b7-01what", ""},
		{"a trace that is cut", "", "00-" + trace, ""},
		{"as long as may be", long, "", "request_id=" + long},
		{"too long", long + "x", "00-" + trace + "-00f067aa0ba902b7-01", "trace_id=" + trace},
		{"two words", "a b", "", ""},
		{"a line's end", "a\nb", "", ""},
		{"not ASCII", "ü", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := make(http.Header)
			if tt.id != "" {
				header.Set("X-Request-ID", tt.id)
			}
			if tt.parent != "" {
				header.Set("Traceparent", tt.parent)
			}
			got := Request(header)
			if tt.want == "" && !got.Equal(slog.Attr{}) || tt.want != "" && got.String() != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	if got := Request(http.Header{"X-Request-Id": {"a", "b"}}); !got.Equal(slog.Attr{}) {
		t.Errorf("of two IDs: %s", got)
	}
}

// TestTell checks that the last error is in the log's format once there is a log.
func TestTell(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	for _, tt := range []struct{ name, format, log, stderr string }{
		{"no log yet", "", "", "simple-oauth2: no file\n"},
		{"text", "text", "level=ERROR msg=exiting error=\"no file\"\n", ""},
		{"json", "json", `"level":"ERROR","msg":"exiting","error":"no file"}` + "\n", ""},
	} {
		slog.SetDefault(slog.New(slog.DiscardHandler))
		var log, stderr strings.Builder
		if tt.format != "" {
			c := Config{JSON: tt.format == "json"}
			c.New(&log)
		}
		tell(&stderr, errors.New("no file"))
		if got := log.String(); !strings.HasSuffix(got, tt.log) || (got == "") != (tt.log == "") || stderr.String() != tt.stderr {
			t.Errorf("%s: log %q, stderr %q; want %q, %q", tt.name, got, &stderr, tt.log, tt.stderr)
		}
	}
}

// TestExit exits in a process of its own, which must fail, so that whoever started
// it sees that.
func TestExit(t *testing.T) {
	if os.Getenv("LOGS_TEST_EXIT") != "" {
		Exit(errors.New("no file"))
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "-test.run=^TestExit$")
	command.Env = append(os.Environ(), "LOGS_TEST_EXIT=1")
	var stderr strings.Builder
	command.Stderr = &stderr
	err = command.Run()
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok || failed.ExitCode() != 1 || stderr.String() != "simple-oauth2: no file\n" {
		t.Errorf("%v, and on stderr %q", err, &stderr)
	}
}
