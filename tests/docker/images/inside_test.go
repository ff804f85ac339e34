package images

import (
	"path/filepath"
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

// While an image is squashed its snapshot is no container's, and no difference.
func TestCheckDuringSquash(t *testing.T) {
	e := harness.New(t, daemon)
	if harness.Oracle() {
		t.Skip("docker has none")
	}
	e.LoadImage("large:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "large", Body: strings.Repeat("0123456789abcdef", 4<<20)}))
	met := 0
	for n := 0; n < 10 && met < 3; n++ {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if status, body, err := e.D.Do("POST", "/gantry/images/squash?image=large:1", ""); err != nil || status != 201 {
				t.Errorf("squash: %d %s %v", status, body, err)
			}
		}()
		for under := true; under; {
			snapshots := func() int {
				found, _ := filepath.Glob(filepath.Join(e.D.DataRoot(), "snapshots/squash-*"))
				return len(found)
			}
			before := snapshots()
			found, err := e.D.Fsck()
			if err != nil || len(found) > 0 {
				t.Errorf("fsck: %v %v", found, err)
			}
			if before > 0 && snapshots() > 0 {
				met++
			}
			select {
			case <-done:
				under = false
			default:
			}
		}
		e.OK("image", "prune", "-f")
	}
	if met < 3 {
		t.Errorf("fsck has met %d squashes", met)
	}
}
