// Package strictjson reads a JSON object and refuses what encoding/json lets
// pass: a repeated name, names that differ only in case, text after the
// object, and bytes that are not UTF-8. A file that a person wrote and that
// decides who may log in must mean exactly what it says.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Object calls visit with each name of the object in data and its value, in
// order, and returns the first error of visit, or its own. If data is not valid
// JSON, visit is not called. A value is valid JSON; visit decides what it means.
// Visit gets names as they were written, so a switch over them is exact.
func Object(data []byte, visit func(name string, value []byte) error) error {
	if !utf8.Valid(data) {
		return errors.New("not JSON: not UTF-8")
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return errors.New("not JSON: it begins with a byte order mark, save it as UTF-8 without one")
	}
	if !json.Valid(data) {
		return invalid(data)
	}
	return Valid(data, visit)
}

// Valid is Object for data that is known to be valid JSON in UTF-8, such as a
// value passed to visit. It is many times faster.
func Valid(data []byte, visit func(name string, value []byte) error) error {
	rest := skipSpace(data)
	if rest[0] != '{' {
		return errors.New("not a JSON object")
	}
	var few []string // names seen so far; if there are many, they move to the map
	var seen map[string]bool
	for rest = skipSpace(rest[1:]); rest[0] != '}'; {
		length := valueLength(rest)
		name, plain := String(rest[:length])
		if !plain {
			if err := json.Unmarshal(rest[:length], &name); err != nil {
				return err
			}
		}
		if seen[name] || slices.Contains(few, name) {
			return fmt.Errorf("%q appears twice", name)
		}
		if few = append(few, name); len(few) > 16 {
			if seen == nil {
				seen = make(map[string]bool)
			}
			for _, name := range few {
				seen[name] = true
			}
			few = few[:0]
		}
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

// String returns the text of a JSON string without escapes; any other value is
// not plain.
func String(value []byte) (text string, plain bool) {
	if value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return "", false
	}
	return string(value[1 : len(value)-1]), true
}

func skipSpace(data []byte) []byte { return bytes.TrimLeft(data, " \t\r\n") }

// valueLength returns the length of the value at the start of valid JSON.
func valueLength(data []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
			if !inString && depth == 0 {
				return i + 1
			}
		case inString:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 { // the end of what contains the value
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i
		}
	}
	return len(data)
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
	if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
		offset = min(syntax.Offset, int64(len(data)))
	}
	return fmt.Errorf("not JSON, line %d: %w", line(data, offset), err)
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:offset], []byte("\n"))
}
