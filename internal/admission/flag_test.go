package admission

import (
	"flag"
	"testing"
)

func TestFlag(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int // -1: refused
	}{
		{"0", 0}, {"10", 10}, {"1000000", 1_000_000}, {"1000001", -1}, {"9223372036854775807", -1}, {"-1", -1}, {"ten", -1},
		{"1.5", -1}, {"", -1},
	} {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		var maxFailures int
		Flag(flags, &maxFailures)
		if maxFailures != 10 {
			t.Errorf("default %d", maxFailures)
		}
		if err := flags.Set("max-failures", tt.text); (err == nil) != (tt.want >= 0) || err == nil && maxFailures != tt.want {
			t.Errorf("%q is %d, %v; want %d", tt.text, maxFailures, err, tt.want)
		}
	}
}
