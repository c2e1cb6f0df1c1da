package usersfile_test

import (
	"bytes"
	"fmt"
	"testing"

	"simple-oauth2/internal/usersfile"
)

// many is a file of n users.
func many(n int) []byte {
	var text bytes.Buffer
	text.WriteString("{")
	for i := range n {
		if i > 0 {
			text.WriteString(",")
		}
		fmt.Fprintf(&text, "\n  \"user%d\": {\"full_name\": \"User %d\", \"email\": \"user%d@example.com\", \"hashed_password\": \"%s%031d\", \"disabled\": false, \"scopes\": [\"items:read\"]}",
			i, i, i, "$2a$12$Utorln/cnSyG7X5Csg1/eu", i)
	}
	text.WriteString("\n}")
	return text.Bytes()
}

// BenchmarkParse reads a file of 200,000 users.
func BenchmarkParse(b *testing.B) {
	text := many(200_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := usersfile.Parse(text, func(string, usersfile.Record) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAllocations wants little memory that is not kept: of a user with a name, two
// texts and a hash, that is six pieces.
func TestAllocations(t *testing.T) {
	const users = 1000
	text := many(users)
	got := testing.AllocsPerRun(5, func() { usersfile.Parse(text, func(string, usersfile.Record) {}) })
	if got > 11*users {
		t.Errorf("%v allocations for %d users", got, users)
	}
}
