package lifecycle

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestDiff(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--tmpfs", "/scratch", "-v", "/vol", image, "sh", "-c", "touch /new /scratch/no /vol/no; rm /etc/group; echo x >> /etc/passwd; mkdir /d; touch /d/f")
	e.OK("wait", id)
	lines := strings.Split(e.OK("diff", id), "\n")
	sort.Strings(lines)
	if got := strings.Join(lines, ","); got != "A /d,A /d/f,A /new,A /scratch,A /vol,C /etc,C /etc/passwd,D /etc/group" {
		t.Errorf("diff printed %s", got)
	}
}

func TestCopy(t *testing.T) {
	e := harness.New(t, daemon)
	run := e.Sleeper("--name", "cpr", "-v", "cpv:/vol")
	e.OK("create", "--name", "cps", image)
	src := e.File("f", "from host")
	dir := filepath.Join(e.Config, "tree/sub")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "g"), []byte("deep"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/g", filepath.Join(e.Config, "tree/link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"cpr", "cps"} {
		e.OK("cp", src, c+":/tmp/")
		e.OK("cp", src, c+":/tmp/renamed")
		e.OK("cp", filepath.Join(e.Config, "tree"), c+":/tmp")
		e.OK("cp", filepath.Join(e.Config, "tree")+"/.", c+":/home")
		for path, want := range map[string]string{"/tmp/f": "from host", "/tmp/renamed": "from host", "/tmp/tree/sub/g": "deep", "/home/sub/g": "deep", "/etc/group": "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n"} {
			to := filepath.Join(e.Config, "back")
			os.Remove(to)
			e.OK("cp", c+":"+path, to)
			if got, err := os.ReadFile(to); err != nil || string(got) != want {
				t.Errorf("%s:%s is %q, %v", c, path, got, err)
			}
		}
		e.OK("cp", c+":/tmp/tree", filepath.Join(e.Config, "whole-"+c))
		if target, err := os.Readlink(filepath.Join(e.Config, "whole-"+c, "link")); err != nil || target != "sub/g" {
			t.Errorf("link %q, %v", target, err)
		}
		// As a tar on stdout, and from stdin.
		r := e.Do("cp", c+":/tmp/tree", "-")
		if names := tarNames(t, []byte(r.Stdout)); names != "tree/ tree/link tree/sub/ tree/sub/g" {
			t.Errorf("tar of %s", names)
		}
		layer := harness.Layer(harness.Entry{Name: "owned", Body: "x", UID: 1000, GID: 1000})
		if r := e.DoInput(string(layer), "cp", "-", c+":/home"); r.Code != 0 {
			t.Error(r)
		}
		e.Fails(1, "(Could not find the file|No such container:path|no such file or directory).*/nosuch", "cp", c+":/nosuch", e.Config)
		e.Fails(1, "Could not find the file|no such (directory|file)|not found|No such container:path", "cp", src, c+":/nosuch/dir/")
		e.Fails(1, "no such file or directory", "cp", filepath.Join(e.Config, "nosuch"), c+":/tmp")
	}
	e.Is("1000:1000", "exec", run, "stat", "-c", "%u:%g", "/home/owned")
	// Into a volume.
	e.OK("cp", src, "cpr:/vol/f")
	e.Is("from host", "exec", run, "cat", "/vol/f")
	e.Fails(1, "copying between containers is not supported", "cp", "cpr:/etc/group", "cps:/tmp")
}

// The files of a container that does not run are seen with what is mounted in them, as when it runs.
func TestCopyStopped(t *testing.T) {
	e := harness.New(t, daemon)
	bound := filepath.Join(e.Config, "bound")
	if err := os.Mkdir(bound, 0o755); err != nil {
		t.Fatal(err)
	}
	e.OK("volume", "create", "stopped")
	e.OK("run", "--name", "sto", "-h", "stopper", "-v", "stopped:/srv/deep/vol", "-v", bound+":/srv/ro:ro", image, "sh", "-c", "echo in volume > /srv/deep/vol/f; ln -sfn /srv/deep/vol /way")
	if err := os.WriteFile(filepath.Join(bound, "b"), []byte("bound"), 0o644); err != nil {
		t.Fatal(err)
	}
	if names := tarNames(t, []byte(e.Do("cp", "sto:/srv", "-").Stdout)); names != "srv/ srv/deep/ srv/deep/vol/ srv/deep/vol/f srv/ro/ srv/ro/b" {
		t.Errorf("tar of %s", names)
	}
	if names := tarNames(t, []byte(e.Do("cp", "sto:/srv/deep/vol", "-").Stdout)); names != "vol/ vol/f" {
		t.Errorf("tar of %s", names)
	}
	if r := e.Do("cp", "sto:/etc/hostname", "-"); !strings.Contains(r.Stdout, "stopper") {
		t.Errorf("hostname: %v", r)
	}
	src := e.File("f", "through a link")
	e.OK("cp", src, "sto:/way/g")
	e.OK("cp", e.Config+"/f", "sto:/srv/deep/vol/h")
	e.Is("through a link", "run", "--rm", "-v", "stopped:/v", image, "cat", "/v/g")
	e.Is("through a link", "run", "--rm", "-v", "stopped:/v", image, "cat", "/v/h")
	e.Fails(1, "read-only", "cp", src, "sto:/srv/ro/c")
	e.OK("start", "-a", "sto")
	// One that never ran.
	e.OK("create", "--name", "new", "-v", "stopped:/a/b", image)
	if names := tarNames(t, []byte(e.Do("cp", "new:/a", "-").Stdout)); names != "a/ a/b/ a/b/f a/b/g a/b/h" {
		t.Errorf("tar of %s", names)
	}
}

// CVE-2018-15664, CVE-2024-41110's like: links in the container lead nowhere but into the container.
func TestCopyStaysInside(t *testing.T) {
	e := harness.New(t, daemon)
	secret := filepath.Join(e.Config, "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := e.Sleeper()
	e.OK("exec", id, "sh", "-c", "ln -s "+secret+" /tmp/file; ln -s "+e.Config+" /tmp/dir; ln -s / /tmp/root; ln -s ../../../../../../"+secret+" /tmp/up")
	for _, path := range []string{"/tmp/file", "/tmp/dir/secret", "/tmp/up", "/tmp/root" + secret} {
		to := filepath.Join(e.Config, "stolen")
		e.Do("cp", "-L", id+":"+path, to)
		if got, err := os.ReadFile(to); err == nil && strings.Contains(string(got), "of the host") {
			t.Errorf("%s led to the host's file", path)
		}
		os.Remove(to)
	}
	e.Do("cp", e.File("x", "x"), id+":/tmp/dir/written")
	if _, err := os.Lstat(filepath.Join(e.Config, "written")); err == nil {
		t.Error("cp wrote through a link onto the host")
	}
}

func tarNames(t *testing.T, data []byte) string {
	t.Helper()
	var names []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

func TestExport(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "-v", "/vol", image, "sh", "-c", "echo x > /made; rm /etc/group; touch /vol/not")
	e.OK("wait", id)
	path := filepath.Join(e.Config, "out.tar")
	e.OK("export", "-o", path, id)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := " " + tarNames(t, data) + " "
	for _, want := range []string{" made ", " bin/busybox ", " etc/passwd ", " vol/ "} {
		if !strings.Contains(names, want) {
			t.Errorf("no%s", want)
		}
	}
	for _, not := range []string{" etc/group ", " vol/not "} {
		if strings.Contains(names, not) {
			t.Errorf("has%s", not)
		}
	}
	if r := e.Do("export", id); r.Stdout != string(data) && len(r.Stdout) != len(data) {
		t.Errorf("%d bytes on stdout, %d in the file", len(r.Stdout), len(data))
	}
	// And in again.
	sum := e.OK("import", "-c", "CMD [\"cat\",\"/made\"]", "-m", "brought in", path, "back:1")
	if !strings.HasPrefix(sum, "sha256:") {
		t.Errorf("import printed %q", sum)
	}
	e.Is("x", "run", "--rm", "back:1")
	e.Match("brought in", "history", "--format", "{{.Comment}}", "back:1")
}

func TestCommit(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "-e", "A=1", "-l", "l=1", "-v", "/vol", image, "sh", "-c", "echo committed > /made; rm /etc/notexec; touch /vol/not; sleep 1000")
	e.Eventually(harness.CommandTimeout/6, func() error { return has(e.Do("exec", id, "ls", "/").Stdout, "made") })
	e.OK("exec", id, "sh", "-c", "test -e /vol/not || sleep 0.3")
	sum := e.OK("commit", "-a", "me", "-m", "why", "-c", "CMD [\"cat\",\"/made\"]", "-c", "ENV B=2", "-c", "EXPOSE 80", "-c", "USER app", "-c", "WORKDIR /tmp", "-c", "LABEL x=y", id, "committed:1")
	e.Is(sum, "image", "inspect", "-f", "{{.Id}}", "committed:1")
	e.Is("committed", "run", "--rm", "committed:1")
	e.Is("1 2 /tmp app", "run", "--rm", "committed:1", "sh", "-c", "echo $A $B $PWD $(id -un); ls /etc/notexec /vol/not 2>/dev/null; true")
	e.Is("me why 1 y map[80/tcp:{}]", "image", "inspect", "-f", `{{.Author}} {{.Comment}} {{.Config.Labels.l}} {{.Config.Labels.x}} {{.Config.ExposedPorts}}`, "committed:1")
	e.Match("^why", "history", "--format", "{{.Comment}}", "committed:1")
	e.Fails(1, "invalid reference format", "commit", id, "Not/An@Image")
	e.Fails(1, "is not a valid change command|unknown instruction", "commit", "-c", "RUN x", id)
	// Without a name it is dangling.
	sum = e.OK("commit", "--pause=false", id)
	e.Match(strings.TrimPrefix(sum, "sha256:")[:12], "images", "-q", "--filter", "dangling=true")
}
