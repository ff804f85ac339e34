package images

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gantry/tests/harness"
)

// tags lists the names of all images, sorted, but the harness's.
func tags(e *harness.Env) string {
	e.Helper()
	all := strings.Fields(e.OK("images", "--format", "{{.Repository}}:{{.Tag}}"))
	all = slices.DeleteFunc(all, func(name string) bool { return name == image })
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestPruneFilters(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("create", "--name", "holds", image, "true")
	load := func(name, label string) {
		config := harness.ImageConfig{}
		if k, v, ok := strings.Cut(label, "="); ok {
			config.Labels = map[string]string{k: v}
		}
		e.LoadImage(name, config, harness.Layer(harness.Entry{Name: "f", Body: name + label}))
	}
	load("yes:1", "keep=yes")
	load("no:1", "keep=no")
	load("none:1", "")
	load("used:1", "")
	e.OK("create", "--name", "user", "used:1", "true")
	e.OK("commit", "holds", "fresh:1")
	e.OK("image", "prune", "-af", "--filter", "label=keep=no")
	if got := tags(e); got != "fresh:1 none:1 used:1 yes:1" {
		t.Errorf("label=: %s", got)
	}
	e.OK("image", "prune", "-af", "--filter", "label!=keep=yes", "--filter", "until=1h")
	if got := tags(e); got != "fresh:1 used:1 yes:1" {
		t.Errorf("label!= and until=: %s", got)
	}
	old := e.OK("image", "inspect", "-f", "{{.Id}}", "yes:1")
	load("yes:1", "other=x") // leaves the old one without a name
	e.OK("image", "prune", "-f", "--filter", "dangling=true", "--filter", "label=keep=no")
	e.OK("image", "inspect", old)
	e.OK("image", "prune", "-f", "--filter", "dangling=true")
	e.Fails(1, "No such image", "image", "inspect", old)
	if got := tags(e); got != "fresh:1 used:1 yes:1" {
		t.Errorf("dangling: %s", got)
	}
	e.Fails(1, "invalid filter 'dangling", "image", "prune", "-f", "--filter", "dangling=false") // the command line says true, too
	e.OK("image", "prune", "-af")
	if got := tags(e); got != "used:1" {
		t.Errorf("all: %s", got)
	}
	e.Fails(1, "invalid filter|invalid", "image", "prune", "-f", "--filter", "colour=red")
}

func TestRemoveSeveral(t *testing.T) {
	e := harness.New(t, daemon)
	for _, name := range []string{"first:1", "second:1", "third:1"} {
		e.LoadImage(name, harness.ImageConfig{Labels: map[string]string{"n": name}})
	}
	short := e.OK("image", "inspect", "-f", "{{.Id}}", "first:1")[7:17]
	e.OK("tag", "second:1", "second:2")
	r := e.Do("rmi", short, "second:1", "nosuch:1", "third:1")
	if r.Code != 1 || !strings.Contains(r.Stderr, "nosuch:1") || !strings.Contains(r.Stdout, "Untagged: first:1") || !strings.Contains(r.Stdout, "Untagged: third:1") {
		t.Errorf("%v", r)
	}
	if got := tags(e); got != "second:2" {
		t.Errorf("left: %s", got)
	}
	// A parent without a name goes with its child unless told to stay.
	for _, flag := range []string{"--no-prune", "--force"} {
		e.OK("create", "--name", "base", image, "true")
		e.OK("cp", e.File("f", "parent"+flag), "base:/f")
		parent := e.OK("commit", "base")
		e.OK("rm", "base")
		e.OK("create", "--name", "base", parent, "true")
		e.OK("cp", e.File("g", "child"+flag), "base:/g")
		e.OK("commit", "base", "child:1")
		e.OK("rm", "base")
		e.OK("rmi", flag, "child:1")
		if r := e.Do("image", "inspect", parent); (r.Code == 0) != (flag == "--no-prune") {
			t.Errorf("%s: %v", flag, r)
		}
		e.Do("rmi", parent)
	}
}

// A rehearsal prints what would go and changes nothing.
func TestDryRun(t *testing.T) {
	e := harness.New(t, daemon)
	if harness.Oracle() {
		t.Skip("docker has none")
	}
	gantry := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(harness.Bin("gantry"), args...)
		cmd.Env = e.Cmd().Env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("gantry %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	e.OK("create", "--name", "holds", image, "true") // keeps the harness's image
	e.LoadImage("unused:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "u", Body: strings.Repeat("unused", 100_000)}))
	e.LoadImage("used:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "v", Body: strings.Repeat("used", 200_000)}))
	e.OK("run", "--name", "ended", "-v", "/anonymous", "used:1", "sh", "-c", "echo x > /anonymous/f")
	e.OK("network", "create", "idle")
	everything := func() string {
		return e.OK("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}} {{.Size}}") + e.OK("ps", "-aq") + e.OK("volume", "ls") + e.OK("network", "ls")
	}
	before, disk := everything(), df(e).LayersSize
	for _, c := range []struct {
		args, has, not string
	}{
		{"image prune --dry-run", "Total reclaimable space: 0B", "unused"},
		{"image prune -a --dry-run", "untagged: unused:1", "untagged: used:1"},
		{"image prune -a --dry-run --filter until=100000h", "Total reclaimable space: 0B", "unused"},
		{"rmi --dry-run unused:1", "untagged: unused:1", "untagged: used:1"},
		{"system prune --dry-run", "idle", "unused"},
		{"system prune -a --volumes --dry-run", "untagged: used:1", "\x00"},
	} {
		out := gantry(strings.Fields(c.args)...)
		if !strings.Contains(out, c.has) || strings.Contains(out, c.not) {
			t.Errorf("gantry %s printed\n%s", c.args, out)
		}
		if now := everything(); now != before {
			t.Errorf("gantry %s changed\n%s\ninto\n%s", c.args, before, now)
		}
	}
	out := gantry("system", "prune", "-a", "--volumes", "--dry-run")
	for _, want := range []string{e.OK("ps", "-aq", "--no-trunc", "--filter", "name=ended"), e.OK("volume", "ls", "-q"), "untagged: unused:1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not announced:\n%s", want, out)
		}
	}
	e.Fails(1, "unable to remove repository reference", "rmi", "used:1")
	if cmd := exec.Command(harness.Bin("gantry"), "-H", e.D.Host(), "rmi", "--dry-run", "used:1"); cmd.Run() == nil {
		t.Error("what cannot be removed is announced")
	}
	said := rehearse(e, "/gantry/images/removal?image=unused:1")
	e.OK("rmi", "unused:1")
	if freed := disk - df(e).LayersSize; said < 600_000 || freed < 600_000 { // what is settled meanwhile is freed, too
		t.Errorf("%d bytes were freed, and %d announced", freed, said)
	}
}
