package usersfile_test

import (
	"bytes"
	"fmt"
	"testing"

	"simple-oauth2/internal/usersfile"
)

// BenchmarkParse reads a file of 200,000 users.
func BenchmarkParse(b *testing.B) {
	var text bytes.Buffer
	text.WriteString("{")
	for i := range 200_000 {
		if i > 0 {
			text.WriteString(",")
		}
		fmt.Fprintf(&text, "\n  \"user%d\": {\"full_name\": \"User %d\", \"email\": \"user%d@example.com\", \"hashed_password\": \"%s%031d\", \"disabled\": false, \"scopes\": [\"items:read\"]}",
			i, i, i, "$2a$12$Utorln/cnSyG7X5Csg1/eu", i)
	}
	text.WriteString("\n}")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := usersfile.Parse(b.Context(), text.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
