package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestOutputAndStatus(t *testing.T) {
	e := harness.New(t, daemon)
	r := e.Do("run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 7")
	if r.Stdout != "out\n" || r.Stderr != "err\n" || r.Code != 7 {
		t.Fatal(r)
	}
	if r = e.DoInput("from stdin\n", "run", "--rm", "-i", image, "cat"); r.Stdout != "from stdin\n" || r.Code != 0 {
		t.Fatal(r)
	}
	// Without -i the container's stdin is empty.
	if r = e.DoInput("from stdin\n", "run", "--rm", image, "cat"); r.Stdout != "" || r.Code != 0 {
		t.Fatal(r)
	}
	e.Is("", "ps", "-aq")
}

// The first bytes of a very short program must not be lost, nor its last.
func TestNothingIsLost(t *testing.T) {
	e := harness.New(t, daemon)
	n := 20
	if harness.Oracle() {
		n = 3
	}
	for i := range n {
		if got := e.Run(image, "echo", fmt.Sprint("line ", i)); got != fmt.Sprint("line ", i) {
			t.Fatalf("run %d printed %q", i, got)
		}
	}
	r := e.Do("run", "--rm", image, "sh", "-c", "dd if=/dev/zero bs=1M count=20 2>/dev/null | tr '\\0' x")
	if len(r.Stdout) != 20<<20 || strings.Trim(r.Stdout, "x") != "" {
		t.Fatalf("%d bytes of 20 MiB came", len(r.Stdout))
	}
}

func TestExitCodes(t *testing.T) {
	e := harness.New(t, daemon)
	for _, c := range []struct {
		code    int
		pattern string
		args    []string
	}{
		{0, "", []string{image, "true"}},
		{1, "", []string{image, "false"}},
		{42, "", []string{image, "sh", "-c", "exit 42"}},
		{255, "", []string{image, "sh", "-c", "exit 255"}},
		{137, "", []string{"--init", image, "sh", "-c", "kill -9 $$; sleep 9"}},
		{143, "", []string{"--init", image, "sh", "-c", "kill -15 $$; sleep 9"}},
		{127, `exec: "nosuch": executable file not found in \$PATH`, []string{image, "nosuch"}},
		{127, `exec: "/nosuch": stat /nosuch: no such file or directory`, []string{image, "/nosuch"}},
		{126, `exec: "/etc/notexec": permission denied`, []string{image, "/etc/notexec"}},
		{126, `exec: "/etc": .*(permission denied|is a directory)`, []string{image, "/etc"}},
		{127, `exec: "gone": executable file not found in \$PATH`, []string{"--entrypoint", "gone", image, "x"}},
		{125, "unknown flag: --nosuchflag", []string{"--nosuchflag", image}},
		{125, "invalid argument|invalid size", []string{"-m", "lots", image}},
		{125, "No such image|pull access denied|not found|Error response from daemon", []string{"--pull", "never", "nosuchimage:x", "true"}},
		{125, "invalid reference format", []string{"Not/An@Image", "true"}},
	} {
		args := append([]string{"run", "--rm"}, c.args...)
		r := e.Do(args...)
		if r.Code != c.code {
			t.Errorf("want exit code %d: %v", c.code, r)
		} else if c.pattern != "" {
			e.Fails(c.code, c.pattern, args...)
		}
	}
	// A container whose start failed stays, as created, with the reason.
	e.Fails(127, "not found", "run", "--name", "bad", image, "nosuch")
	e.Is("created 127", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "bad")
	e.Match("executable file not found", "inspect", "-f", "{{.State.Error}}", "bad")
}

func TestNames(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("create", "--name", "taken", image)
	if len(id) != 64 {
		t.Fatalf("ID %q", id)
	}
	e.Fails(125, `Conflict\. The container name "/taken" is already in use by container "`+id+`"\. You have to remove \(or rename\) that container to be able to reuse that name\.`,
		"run", "--name", "taken", image)
	e.Fails(1, `Conflict\. The container name "/taken"`, "create", "--name", "taken", image)
	e.Fails(125, `Invalid container name \(a b\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\] are allowed`, "run", "--name", "a b", image)
	name := e.OK("inspect", "-f", "{{.Name}}", e.OK("create", image))
	if strings.Count(name, "_") != 1 || name[0] != '/' {
		t.Fatalf("made up name %q", name)
	}
	// Any unique prefix of an ID names the container.
	e.Is(id, "inspect", "-f", "{{.Id}}", id[:8])
	e.Is("taken", "rm", "taken")
	e.Fails(1, "No such container: taken|No such object: taken", "inspect", "taken")
}

func TestDetached(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--name", "det", image, "sh", "-c", "echo hello; sleep 100")
	if len(id) != 64 {
		t.Fatalf("printed %q", id)
	}
	e.Is("running", "inspect", "-f", "{{.State.Status}}", "det")
	e.Is("det", "rm", "-f", "det")
	// --rm with -d removes it when it ends.
	id = e.OK("run", "-d", "--rm", image, "true")
	e.Eventually(harness.CommandTimeout/6, func() error {
		if r := e.Do("inspect", id); r.Code == 0 {
			return fmt.Errorf("still there: %v", r)
		}
		return nil
	})
}

func TestCidfile(t *testing.T) {
	e := harness.New(t, daemon)
	path := filepath.Join(e.Config, "cid")
	id := e.OK("run", "-d", "--cidfile", path, image, "true")
	if got, err := os.ReadFile(path); err != nil || string(got) != id {
		t.Fatalf("%q, %v; want %s", got, err, id)
	}
	e.Fails(125, "container ID file found, make sure the other container isn't running or delete", "run", "--cidfile", path, image, "true")
}

func TestEnvironment(t *testing.T) {
	e := harness.New(t, daemon)
	file := e.File("env", "FILE=1\n# no\nSPACES=a b c\nQUOTED=\"q\"\nHERE\n")
	cmd := e.Cmd("run", "--rm", "-e", "A=1", "-e", "B=x=y", "--env", "FROMHERE", "-e", "NOTHERE", "--env-file", file, "--hostname", "h.example", image, "env")
	cmd.Env = append(cmd.Env, "FROMHERE=yes", "HERE=too")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"A=1\n", "B=x=y\n", "FROMHERE=yes\n", "FILE=1\n", "SPACES=a b c\n", "QUOTED=\"q\"\n", "HERE=too\n", "HOSTNAME=h.example\n", "HOME=/root\n", "PATH=/usr/local/sbin:"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "NOTHERE") || strings.Contains(string(out), "TERM=") {
		t.Errorf("too much in\n%s", out)
	}
	if got := e.Run("-t", image, "sh", "-c", "echo $TERM"); got != "xterm" {
		t.Errorf("TERM is %q", got)
	}
	e.Fails(125, "no such file or directory", "run", "--rm", "--env-file", "/nosuch", image, "env")
}

func TestWorkdirUserEntrypoint(t *testing.T) {
	e := harness.New(t, daemon)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"/tmp", []string{"-w", "/tmp", image, "pwd"}},
		{"/made/up", []string{"-w", "/made/up", image, "pwd"}}, // a missing directory is made
		{"/", []string{image, "pwd"}},
		{"uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)", []string{"-u", "app", image, "id"}},
		{"uid=1000(app) gid=65534(nogroup) groups=65534(nogroup)", []string{"-u", "app:nogroup", image, "id"}},
		{"uid=1234 gid=0(root) groups=0(root)", []string{"-u", "1234", image, "id"}},
		{"uid=1234 gid=5678 groups=5678", []string{"-u", "1234:5678", image, "id"}},
		{"uid=0(root) gid=0(root) groups=2000(extra),3000", []string{"--group-add", "extra", "--group-add", "3000", image, "sh", "-c", "id | sed 's/=0(root),/=/; s/groups=0(root)$//' | sed 's/groups=10(wheel),//'"}},
		{"/home/app", []string{"-u", "app", image, "sh", "-c", "echo $HOME"}},
		{"x y", []string{"--entrypoint", "echo", image, "x", "y"}},
		{"", []string{"--entrypoint", "true", image}},
	} {
		if got := e.Run(c.args...); got != c.want {
			t.Errorf("run %v\n got %q\nwant %q", c.args, got, c.want)
		}
	}
	e.Fails(125, "unable to find user nosuch: no matching entries in passwd file", "run", "--rm", "-u", "nosuch", image, "id")
	e.Fails(125, "unable to find group nosuch: no matching entries in group file", "run", "--rm", "-u", "app:nosuch", image, "id")
	// CVE-2024-21626: no working directory through a descriptor of the runtime.
	for n := 3; n < 12; n++ {
		if r := e.Do("run", "--rm", "-w", fmt.Sprint("/proc/self/fd/", n), image, "ls", "/proc/self/fd/"); r.Code == 0 {
			t.Errorf("working directory through descriptor %d: %v", n, r)
		}
	}
}

func TestImageDefaults(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("defaults:1", harness.ImageConfig{
		User: "app", WorkingDir: "/data/dir", Entrypoint: []string{"sh", "-c", `echo "$@ $A $PWD $(id -un)"`, "sh"}, Cmd: []string{"default", "words"},
		Env: []string{"PATH=/bin", "A=image"}, Labels: map[string]string{"from": "image", "both": "image"},
	})
	if got := e.Run("defaults:1"); got != "default words image /data/dir app" {
		t.Errorf("got %q", got)
	}
	if got := e.Run("-e", "A=mine", "-u", "0", "-w", "/tmp", "defaults:1", "other"); got != "other mine /tmp root" {
		t.Errorf("got %q", got)
	}
	// --entrypoint drops the image's command too.
	if got := e.Run("--entrypoint", "echo", "defaults:1"); got != "" {
		t.Errorf("got %q", got)
	}
	e.OK("create", "--name", "lab", "-l", "both=mine", "--label", "more", "--label-file", e.File("labels", "file=1\n"), "defaults:1")
	e.Is("image mine  1", "inspect", "-f", `{{index .Config.Labels "from"}} {{index .Config.Labels "both"}} {{index .Config.Labels "more"}} {{index .Config.Labels "file"}}`, "lab")
}

func TestNoCommand(t *testing.T) {
	e := harness.New(t, daemon)
	e.Load(harness.Archive("nocmd:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "a", Body: "x"})))
	e.Fails(125, "No command specified|no command specified", "run", "--rm", "nocmd:1")
	e.Fails(127, `exec: "/x": stat /x: no such file or directory`, "run", "--rm", "nocmd:1", "/x")
}

func TestPlatform(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--platform", "linux/amd64", image, "echo", "x"); got != "x" {
		t.Errorf("got %q", got)
	}
	e.Fails(125, "", "run", "--rm", "--pull", "never", "--platform", "windows/amd64", image, "true")
}

func TestPullPolicy(t *testing.T) {
	e := harness.New(t, daemon)
	addr := harness.Registry(t, "")
	name := addr + "/pull:1"
	e.Fails(125, "manifest unknown|not found", "run", "--rm", name, "true")
	e.OK("tag", image, name)
	e.OK("push", name)
	e.OK("rmi", name)
	e.Fails(125, "No such image: "+name, "run", "--rm", "--pull", "never", name, "true")
	r := e.Do("run", "--rm", name, "echo", "pulled")
	if r.Code != 0 || r.Stdout != "pulled\n" || !strings.Contains(r.Stderr, "Unable to find image '"+name+"' locally") {
		t.Error(r)
	}
	r = e.Do("run", "--rm", "--pull", "always", name, "echo", "again")
	if r.Code != 0 || !strings.Contains(r.Stderr, "Image is up to date for "+name) {
		t.Error(r)
	}
	if harness.OldCLI() {
		return
	}
	r = e.Do("run", "--rm", "--pull", "always", "--quiet", name, "echo", "again")
	if r.Code != 0 || r.Stderr != "" {
		t.Error(r)
	}
}
