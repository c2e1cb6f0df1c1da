// Package strictjson reads a JSON object and refuses what encoding/json lets
// pass: a name given twice, names that differ only in case, text after the
// object, and bytes that are not UTF-8. A file that a person wrote and that
// decides who may log in must mean exactly what it says.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Object calls visit with each name of the object in data and its value, in
// the order in which they stand there, and returns the first error of its own
// or of visit. A value is valid JSON; what it means is for visit to say. Names
// reach visit as they were written, so a switch over them is exact.
func Object(data []byte, visit func(name string, value []byte) error) error {
	if !utf8.Valid(data) {
		return errors.New("not JSON: not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	start, err := dec.Token()
	if err != nil {
		return notJSON(data, dec, err)
	}
	if start != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := make(map[string]bool)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return notJSON(data, dec, err)
		}
		name := key.(string) // within an object the decoder lets nothing else through
		if seen[name] {
			return fmt.Errorf("%q appears twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return notJSON(data, dec, err)
		}
		if err := visit(name, value); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return notJSON(data, dec, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("text after the JSON object, line %d", line(data, dec.InputOffset()))
	}
	return nil
}

// notJSON says where the text stops being JSON. It quotes no more of it than a
// character: what follows may be a secret.
func notJSON(data []byte, dec *json.Decoder, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: unexpected end")
	}
	offset := dec.InputOffset()
	if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
		offset = min(syntax.Offset, int64(len(data)))
	}
	return fmt.Errorf("not JSON, line %d: %w", line(data, offset), err)
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:offset], []byte("\n"))
}
