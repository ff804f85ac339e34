package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// On a terminal a download has its rate and the time that is left, where there is room.
func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	for _, c := range []struct {
		width int
		want  string
	}{
		{200, "abc: Downloading [===============>                                  ]      3MB/10MB  1MB/s, 7s left"},
		{60, "abc: Downloading      3MB/10MB  1MB/s, 7s left"},
		{30, "abc: Downloading      3MB/10MB"},
	} {
		var b bytes.Buffer
		p := progress{w: &b, terminal: true, width: c.width, lines: map[string]int{}, now: func() time.Time { return now }, begun: map[string]mark{}}
		for i, current := range []int64{1e6, 1.5e6, 3e6} {
			now = time.Unix(int64(i), 0)
			p.print(&jsonstream.Message{ID: "abc", Status: "Downloading", Progress: &jsonstream.Progress{Current: current, Total: 10e6}})
			if i == 0 && strings.Contains(b.String(), "left") {
				t.Error("a rate of nothing:", b.String())
			}
		}
		lines := strings.Split(b.String(), "\x1b[2K\r")
		if got, _, _ := strings.Cut(lines[len(lines)-1], "\r"); got != c.want {
			t.Errorf("width %d: %q", c.width, got)
		}
		p.print(&jsonstream.Message{ID: "abc", Status: "Extracting", Progress: &jsonstream.Progress{Current: 9e6, Total: 10e6}})
		p.print(&jsonstream.Message{ID: "abc", Status: "Downloading", Progress: &jsonstream.Progress{Current: 0, Total: 10e6}}) // anew
		if strings.Count(b.String(), "left") > 2 {
			t.Errorf("%q", b.String())
		}
	}
}
