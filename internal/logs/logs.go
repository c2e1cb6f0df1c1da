// Package logs keeps the lines of the log readable, whatever a client sends.
package logs

import "strings"

// Cut returns s, shortened to 64 bytes and an ellipsis if it is longer. A
// client chooses the length of its username; the log does not grow with it.
func Cut(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
