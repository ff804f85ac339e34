package signal

import (
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]syscall.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGRTMIN": 34, "RTMIN+3": 37, "RTMAX-1": 63, "64": 64} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "65", "-1", "NOPE", "RTMIN+99", "SIG"} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}
