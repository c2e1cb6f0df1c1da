package usersfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// visitObject calls visit with each name of the object in data and its value, in
// order, and returns the first error of visit, or its own. If data is not valid
// JSON, visit is not called. A value is valid JSON; visit decides what it means.
// Visit gets names as they were written, so a switch over them is exact. Names and
// values may be parts of data.
func visitObject(data []byte, visit func(name, value []byte) error) error {
	if !utf8.Valid(data) {
		return errors.New("not JSON: not UTF-8")
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return errors.New("not JSON: it begins with a byte order mark, save it as UTF-8 without one")
	}
	if !json.Valid(data) {
		return invalid(data)
	}
	return visitValid(data, visit)
}

// visitValid is visitObject for data that is known to be valid JSON in UTF-8, such as a
// value passed to visit. It is many times faster.
func visitValid(data []byte, visit func(name, value []byte) error) error {
	rest := skipSpace(data)
	if rest[0] != '{' {
		return errors.New("not a JSON object")
	}
	var room [16][]byte
	few := room[:0] // names seen so far; if there are many, they move to the map
	var seen map[string]bool
	for rest = skipSpace(rest[1:]); rest[0] != '}'; {
		length := valueLength(rest)
		name, plain := stringOf(rest[:length])
		if !plain {
			var text string
			if err := json.Unmarshal(rest[:length], &text); err != nil {
				return err
			}
			name = []byte(text)
		}
		if seen[string(name)] || slices.ContainsFunc(few, func(other []byte) bool { return bytes.Equal(name, other) }) {
			return fmt.Errorf("%s appears twice", Quote(name))
		}
		if len(few) == cap(few) {
			if seen == nil {
				seen = make(map[string]bool)
			}
			for _, name := range few {
				seen[string(name)] = true
			}
			few = few[:0]
		}
		few = append(few, name)
		rest = skipSpace(skipSpace(rest[length:])[1:]) // the colon
		length = valueLength(rest)
		if err := visit(name, rest[:length]); err != nil {
			return err
		}
		if rest = skipSpace(rest[length:]); rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	return nil
}

// hashLike matches two dollar signs, as in bcrypt's hashes and those of crypt and
// Django, and a long run of base64 or hexadecimal digits.
var hashLike = regexp.MustCompile(`\$.*\$|[./+=0-9A-Za-z]{40}`)

// Quote returns a name in quotes, for an error. A name that looks like a hash is not
// shown: it may be a value that somebody put in the wrong place.
func Quote(name []byte) string {
	if hashLike.Match(name) {
		return `"…" (not shown, it may be a hash)`
	}
	return strconv.Quote(string(name))
}

// stringOf returns the text of a JSON string without escapes, as a part of value; any
// other value is not plain.
func stringOf(value []byte) (text []byte, plain bool) {
	if value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return nil, false
	}
	return value[1 : len(value)-1], true
}

func skipSpace(data []byte) []byte {
	for len(data) > 0 && (data[0] == ' ' || data[0] == '\t' || data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	return data
}

// valueLength returns the length of the value at the start of valid JSON.
func valueLength(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i += stringLength(data[i:]) - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // the end of what contains the value
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(data)
}

// stringLength is the length of the string that valid JSON begins with.
func stringLength(data []byte) int {
	for i := 1; ; i++ {
		i += bytes.IndexByte(data[i:], '"')
		before := i
		for data[before-1] == '\\' {
			before--
		}
		if (i-before)%2 == 0 { // each escape is of two
			return i + 1
		}
	}
}

// invalid says where data stops being one JSON value. It quotes no more of it
// than a character: what follows may be a secret.
func invalid(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(new(json.RawMessage))
	offset := dec.InputOffset()
	if err == nil {
		return fmt.Errorf("text after the JSON object, line %d", line(data, int64(len(data)-len(skipSpace(data[offset:])))))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: unexpected end")
	}
	says := err.Error()
	if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
		offset = min(syntax.Offset, int64(len(data)))
		// The package takes the first byte of a character for one, and shows “ as â.
		character, _ := utf8.DecodeRune(data[offset-1:])
		says = strings.Replace(says, strconv.QuoteRune(rune(data[offset-1])), strconv.QuoteRune(character), 1)
	}
	return fmt.Errorf("not JSON, line %d: %s", line(data, offset), says)
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:offset], []byte("\n"))
}
