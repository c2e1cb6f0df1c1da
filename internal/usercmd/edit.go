package usercmd

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// A member is where a name and its value are in a JSON object. The comma and the white
// space before it begin at from, its name at name, the colon at colon, and its value,
// which ends at to, at value.
type member struct {
	key                          string
	from, name, colon, value, to int
}

// membersOf returns the members of a valid JSON object, in order.
func membersOf(object []byte) (members []member) {
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.Token() // the brace
	for {
		m := member{from: int(dec.InputOffset())}
		if !dec.More() {
			return members
		}
		key, _ := dec.Token()
		m.key, _ = key.(string)
		m.colon = int(dec.InputOffset())
		var value json.RawMessage
		dec.Decode(&value)
		m.name = m.from + bytes.IndexByte(object[m.from:], '"')
		m.to = int(dec.InputOffset())
		m.value = m.to - len(value)
		members = append(members, m)
	}
}

// find returns the member with that key, or -1.
func find(members []member, key string) int {
	return slices.IndexFunc(members, func(m member) bool { return m.key == key })
}

// splice returns text with other in the place of text[from:to].
func splice(text []byte, from, to int, other []byte) []byte {
	return slices.Concat(text[:from], other, text[to:])
}

// A style is how an object is written: what stands after its brace, between two of its
// members, around the colon, and before the brace at its end.
type style struct{ open, between, colon, end string }

// styleOf returns the style of an object that has members.
func styleOf(object []byte, members []member) style {
	first, last := members[0], members[len(members)-1]
	s := style{
		open:  string(object[first.from:first.name]),
		colon: string(object[last.colon:last.value]),
		end:   string(object[last.to:bytes.LastIndexByte(object, '}')]),
	}
	switch {
	case len(members) > 1:
		s.between = string(object[last.from:last.name])
	case strings.Contains(s.open, "\n"):
		s.between = "," + s.open
	case strings.HasSuffix(s.colon, " "):
		s.between = ", "
	default:
		s.between = ","
	}
	return s
}

// object writes an object in this style.
func (s style) object(fields []field) []byte {
	written := make([]string, len(fields))
	for i, f := range fields {
		written[i] = s.member(f)
	}
	return []byte("{" + s.open + strings.Join(written, s.between) + s.end + "}")
}

func (s style) member(f field) string { return string(encode(f.key)) + s.colon + string(f.value) }

// A field is a name and a JSON value.
type field struct {
	key   string
	value []byte
}

// encode returns the JSON of a value, as a person would write it.
func encode(value any) []byte {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.Encode(value)
	return bytes.TrimSpace(text.Bytes())
}

// set gives a member of an object, which has others, another value. A new member comes
// last.
func set(object []byte, f field) []byte {
	members := membersOf(object)
	if i := find(members, f.key); i >= 0 {
		return splice(object, members[i].value, members[i].to, f.value)
	}
	s, end := styleOf(object, members), members[len(members)-1].to
	return splice(object, end, end, []byte(s.between+s.member(f)))
}

// remove takes a member out of an object, with one of the commas beside it.
func remove(object []byte, key string) []byte {
	members := membersOf(object)
	i := find(members, key)
	if i > 0 || len(members) == 1 {
		return splice(object, members[i].from, members[i].to, nil)
	}
	comma := members[0].to + bytes.IndexByte(object[members[0].to:], ',')
	return splice(object, members[0].from, comma+1, nil)
}

// newFile and newUser are the style of a file that has no users yet.
var (
	newFile = style{open: "\n  ", between: ",\n  ", colon: ": ", end: "\n"}
	newUser = style{open: "\n    ", between: ",\n    ", colon: ": ", end: "\n  "}
)

// add adds a user behind the others, written like the last one that has a line for each
// field or, if there is none, like the last one.
func add(file []byte, name string, fields []field) []byte {
	like, users := newUser, membersOf(file)
	for i, user := range users {
		record := file[user.value:user.to]
		s := styleOf(record, membersOf(record))
		if i == 0 || strings.Contains(s.open, "\n") || !strings.Contains(like.open, "\n") {
			like = s
		}
	}
	if len(users) > 0 {
		return set(file, field{name, like.object(fields)})
	}
	begin, end := bytes.IndexByte(file, '{'), bytes.LastIndexByte(file, '}')
	return splice(file, begin, end+1, newFile.object([]field{{name, like.object(fields)}}))
}

// change gives a field of a user another value.
func change(file []byte, name string, f field) []byte {
	users := membersOf(file)
	user := users[find(users, name)]
	return splice(file, user.value, user.to, set(file[user.value:user.to], f))
}
