package apparmor

import (
	"regexp"
	"strings"
	"testing"
)

// The profile is one of the name that loaded looks for, and names whoever runs this where the daemon belongs.
func TestText(t *testing.T) {
	text := text()
	if !strings.Contains(text, "\nprofile "+Default+" flags=(") || strings.Contains(text, "@") {
		t.Error(text)
	}
	if !strings.Contains(text, "signal (receive) peer="+own()+",\n") || !regexp.MustCompile(`^"[^"( ]+"$`).MatchString(own()) {
		t.Errorf("the daemon's profile is %s: %s", own(), text)
	}
}
