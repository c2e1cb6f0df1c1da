package file

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"simple-oauth2/internal/tokens"
)

// header is the first line of the file.
const header = "simple-oauth2 tokens 1\n"

// A line has at most maxLine bytes. Quoting turns a byte into at most four, so a
// record with maxText bytes of names fits.
const (
	maxLine = 1 << 20
	maxText = maxLine / 8
)

var (
	encoding   = base64.RawURLEncoding
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// An entry is what a line says: the record was put or, if it is nil, the
// token was deleted.
type entry struct {
	key    tokens.Key
	record *tokens.Record
}

// position is a place between two lines of the file.
type position struct {
	offset int64
	lines  int
	sum    uint32 // the CRC-32C of all bytes before it
}

// after returns the position at the end of text, which starts at p.
func (p position) after(text []byte) position {
	return position{p.offset + int64(len(text)), p.lines + bytes.Count(text, []byte("\n")), crc32.Update(p.sum, castagnoli, text)}
}

// appendLine appends the line of an entry, which starts at p, to buf, and returns
// the position at its end. The line begins with a space if it is written together
// with the line before it.
func (p position) appendLine(buf []byte, e entry, together bool) ([]byte, position) {
	start := len(buf)
	if together {
		buf = append(buf, ' ')
	}
	if r := e.record; r != nil {
		buf = encoding.AppendEncode(append(buf, "+ "...), e.key[:])
		buf = strconv.AppendInt(append(buf, ' '), r.Issued, 10)
		buf = strconv.AppendInt(append(buf, ' '), r.Expires, 10)
		buf = encoding.AppendEncode(append(buf, ' '), r.Credential[:])
		buf = strconv.AppendQuote(append(buf, ' '), r.Username.String())
		buf = strconv.AppendQuote(append(buf, ' '), r.Scope.String())
		if r.Since != 0 {
			buf = strconv.AppendInt(append(buf, ' '), r.Since, 10)
		}
	} else {
		buf = encoding.AppendEncode(append(buf, "- "...), e.key[:])
	}
	buf = append(buf, ' ')
	buf = p.after(buf[start:]).appendSum(buf)
	return buf, p.after(buf[start:])
}

// appendSum appends the end of a line: the checksum of everything before it.
func (p position) appendSum(buf []byte) []byte {
	return append(hex.AppendEncode(buf, binary.BigEndian.AppendUint32(make([]byte, 0, 4), p.sum)), '\n')
}

// parseLine is the inverse of appendLine.
func (p position) parseLine(line []byte) (entry, error) {
	sum := len(line) - len("00000000\n")
	if sum < 0 || !bytes.Equal(p.after(line[:sum]).appendSum(make([]byte, 0, 16)), line[sum:]) {
		return entry{}, errors.New("its checksum does not match")
	}
	kind, rest, _ := bytes.Cut(bytes.TrimPrefix(line[:sum], []byte(" ")), []byte(" "))
	key, rest, _ := bytes.Cut(rest, []byte(" "))
	var e entry
	if !decode(e.key[:], key) {
		return entry{}, errors.New("it has no key")
	}
	switch string(kind) {
	case "-":
		return e, nil
	case "+":
		record, err := parseRecord(string(rest))
		e.record = record
		return e, err
	}
	return entry{}, errors.New("it neither adds nor ends a token")
}

// parseRecord returns the record in a line, which ends with a space. A line of an
// earlier release has no Since.
func parseRecord(text string) (*tokens.Record, error) {
	record := &tokens.Record{}
	issued, text, _ := strings.Cut(text, " ")
	expires, text, _ := strings.Cut(text, " ")
	credential, text, _ := strings.Cut(text, " ")
	var errs [5]error
	var username, scope string
	record.Issued, errs[0] = strconv.ParseInt(issued, 10, 64)
	record.Expires, errs[1] = strconv.ParseInt(expires, 10, 64)
	username, text, errs[2] = cutQuoted(text)
	scope, text, errs[3] = cutQuoted(text)
	if since, rest, ok := strings.Cut(text, " "); ok {
		record.Since, errs[4] = strconv.ParseInt(since, 10, 64)
		text = rest
	}
	if err := errors.Join(errs[:]...); err != nil || text != "" || !decode(record.Credential[:], []byte(credential)) {
		return nil, errors.New("its record cannot be read")
	}
	record.Username, record.Scope = tokens.Share(username), tokens.Share(scope)
	return record, nil
}

// cutQuoted returns the quoted string at the beginning of text, and the rest of
// text after the space that follows.
func cutQuoted(text string) (s, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", "", err
	}
	s, err = strconv.Unquote(quoted)
	rest, _ = strings.CutPrefix(text[len(quoted):], " ")
	return s, rest, err
}

// decode decodes hex that must fill all of to.
func decode(to, text []byte) bool {
	if encoding.DecodedLen(len(text)) != len(to) {
		return false
	}
	n, err := encoding.Decode(to, text)
	return err == nil && n == len(to)
}

// read calls each with every entry of the file. It returns the position after the
// last complete line, and how many bytes follow: those of a write that a crash
// cut short. A file that is empty, or torn in its header, has no lines.
func read(file io.Reader, each func(entry)) (end position, torn int, err error) {
	lines := bufio.NewReaderSize(file, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case end.lines == 0 && (len(line) > len(header) || header[:len(line)] != string(line)):
			return end, 0, errors.New("not a tokens file, or one of another version")
		case errors.Is(err, io.EOF):
			return end, len(line), nil
		case errors.Is(err, bufio.ErrBufferFull):
			return end, 0, damaged(end, errors.New("it is too long"))
		case err != nil:
			return end, 0, err
		}
		if end.lines > 0 {
			e, err := end.parseLine(line)
			if err != nil {
				if torn, ok := unfinished(line, lines); ok {
					return end, torn, nil
				}
				return end, 0, damaged(end, err)
			}
			each(e)
		}
		end = end.after(line)
	}
}

// unfinished says whether a bad line and what follows come from a write that a
// power cut ended, and how long they are. The blocks of a write reach the disk in
// any order, and those that did not are zeros. No other write follows it.
func unfinished(line []byte, rest *bufio.Reader) (length int, ok bool) {
	if !bytes.Contains(line, []byte{0}) {
		return 0, false
	}
	for length = len(line); ; length += len(line) {
		var err error
		line, err = rest.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return length + len(line), true
		case err != nil || line[0] == '+' || line[0] == '-':
			return 0, false
		}
	}
}

func damaged(at position, err error) error {
	return fmt.Errorf("line %d, at byte %d, is damaged: %w; the file was not changed", at.lines+1, at.offset, err)
}
