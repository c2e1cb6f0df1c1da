// Package logs configures the log: its format, and lines that stay readable
// whatever a client sends.
//
// In both formats, times are RFC 3339 in UTC with milliseconds, and durations are
// as Go writes them. A character that cannot be printed is escaped as in JSON,
// wherever it comes from: a terminal would act on U+009B, and U+202E turns the rest
// of a line around.
package logs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Config says how lines are written.
type Config struct{ JSON bool }

// Flags adds the flag that is read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.Func("log-format", "`format` of the log, text or json (default text)", func(s string) error {
		if s != "text" && s != "json" && s != "" {
			return errors.New("it must be text or json")
		}
		c.JSON = s == "json"
		return nil
	})
}

// New returns the logger, and makes it the default: what a package logs with the
// standard library's log then has the same format.
func (c *Config) New(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: oneForm}
	w = printable{w}
	log := slog.New(slog.NewTextHandler(w, options))
	if c.JSON {
		log = slog.New(slog.NewJSONHandler(w, options))
	}
	slog.SetDefault(log)
	return log
}

// printable writes lines, in which slog itself leaves many characters as they are.
type printable struct{ io.Writer }

func (p printable) Write(line []byte) (int, error) {
	if !bytes.ContainsFunc(line, unprintable) {
		return p.Writer.Write(line)
	}
	var escaped []byte
	for _, r := range string(line) {
		if !unprintable(r) {
			escaped = utf8.AppendRune(escaped, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
	}
	if _, err := p.Writer.Write(escaped); err != nil {
		return 0, err
	}
	return len(line), nil
}

func unprintable(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

func oneForm(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindTime:
		a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().Round(time.Microsecond).String())
	}
	return a
}

// Exit prints an error and ends the program. Once New has made a log, the error is
// its last line, with a time and a level like the others. Before that, for a wrong
// flag or in a command other than the service, it is plain text.
func Exit(err error) {
	tell(os.Stderr, err)
	os.Exit(1)
}

func tell(stderr io.Writer, err error) {
	switch slog.Default().Handler().(type) {
	case *slog.TextHandler, *slog.JSONHandler: // New's
		slog.Error("exiting", "error", err)
	default:
		fmt.Fprintln(stderr, "simple-oauth2:", err)
	}
}

// Request returns the ID by which other logs know a request: request_id, which is
// its X-Request-ID, or trace_id, from its Traceparent. It is empty if neither is
// short and printable ASCII.
func Request(header http.Header) slog.Attr {
	if id := header["X-Request-Id"]; len(id) == 1 && shortWord.MatchString(id[0]) {
		return slog.String("request_id", id[0])
	}
	if parent := header["Traceparent"]; len(parent) == 1 {
		if id := traceparent.FindStringSubmatch(parent[0]); id != nil {
			return slog.String("trace_id", id[1])
		}
	}
	return slog.Attr{}
}

var (
	shortWord   = regexp.MustCompile(`^[!-~]{1,128}$`)
	traceparent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-|$)`) // W3C Trace Context 3.2
)

// Cut returns s, or its first 64 bytes and an ellipsis if it is longer. A client
// chooses the length of a username; the log must not grow with it.
func Cut(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
