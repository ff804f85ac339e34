package images

import (
	"strings"
	"testing"

	"gantry/tests/harness"
)

// Commands that look into images, which only our command line has.
func TestInside(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("inside:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "a", Body: "12345"}, harness.Entry{Name: "b", Body: "1"}))
	e.LoadImage("inside:2", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "a", Body: "12345"}, harness.Entry{Name: "b", Body: "1"}),
		harness.Layer(harness.Entry{Name: "a", Body: "other"}, harness.Entry{Name: ".wh.b"}, harness.Entry{Name: "c", Body: "new"}))
	gantry := func(args ...string) string {
		t.Helper()
		cmd := e.Cmd(args...)
		cmd.Path, cmd.Args[0] = harness.Bin("gantry"), "gantry"
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("gantry %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	// The image that the harness puts beneath has files of its own.
	rows := strings.Split(gantry("image", "tree", "-H=false", "--format", "{{.Size}} {{.Waste}} {{.Files}}", "inside:2"), "\n")
	if n := len(rows); n < 2 || rows[n-2] != "6 6 2" || rows[n-1] != "8 0 2" {
		t.Errorf("tree: %q", rows)
	}
	if out := gantry("image", "tree", "inside:2"); !strings.Contains(out, "LAYER") || !strings.Contains(out, "wasted") {
		t.Errorf("tree: %s", out)
	}
	want := "C content /a\nD  /b\nA  /c"
	if out := gantry("image", "diff", "--format", "{{.Type}} {{.What}} {{.Path}}", "inside:1", "inside:2"); out != want {
		t.Errorf("diff: %q, want %q", out, want)
	}
	id := gantry("image", "squash", "inside:2", "inside:flat")
	if out := gantry("image", "diff", "--format", "{{.Path}}", "inside:2", id); out != "" {
		t.Errorf("squashed: %q", out)
	}
	e.Is("other\nnew", "run", "--rm", "inside:flat", "sh", "-c", "cat /a; echo; cat /c; test ! -e /b")
	e.OK("rmi", "inside:flat")
}
