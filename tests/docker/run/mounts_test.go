package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestBindMounts(t *testing.T) {
	e := harness.New(t, daemon)
	dir := filepath.Join(e.Config, "src")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := e.Run("-v", dir+":/mnt/new", image, "sh", "-c", "cat /mnt/new/f; echo c > /mnt/new/g"); got != "host" {
		t.Errorf("got %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "g")); err != nil || string(got) != "c\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, flag := range [][]string{{"-v", dir + ":/mnt:ro"}, {"--mount", "type=bind,src=" + dir + ",dst=/mnt,readonly"}} {
		r := e.Do(append(append([]string{"run", "--rm"}, flag...), image, "touch", "/mnt/x")...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "Read-only file system") {
			t.Error(r)
		}
	}
	// One file over a file.
	if got := e.Run("-v", filepath.Join(dir, "f")+":/etc/group:ro", image, "cat", "/etc/group"); got != "host" {
		t.Errorf("got %q", got)
	}
	// -v makes a missing source a directory, --mount refuses it.
	e.Run("-v", filepath.Join(dir, "made")+":/mnt", image, "touch", "/mnt/in")
	if _, err := os.Stat(filepath.Join(dir, "made/in")); err != nil {
		t.Error(err)
	}
	e.Fails(125, `invalid mount config for type "bind": bind source path does not exist: `+dir+`/nosuch`, "run", "--rm", "--mount", "type=bind,src="+dir+"/nosuch,dst=/mnt", image, "true")
	e.Fails(125, "mount path must be absolute|must be absolute", "run", "--rm", "-v", "/tmp:relative", image, "true")
	e.Fails(125, "[Dd]uplicate mount point: /mnt", "run", "--rm", "-v", "/tmp:/mnt", "-v", "/usr:/mnt", image, "true")
	e.Fails(125, "invalid", "run", "--rm", "-v", "/tmp:/mnt:nosuchmode", image, "true")
	e.Fails(125, "destination can't be '/'|invalid", "run", "--rm", "-v", "/tmp:/", image, "true")
	// A link in the image must not lead out of the container.
	e.LoadImage("links:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "out", Type: '2', Link: "/../../../../../tmp"}))
	canary := filepath.Join("/tmp", filepath.Base(filepath.Dir(e.Config))+"-canary")
	e.Run("-v", dir+":/out"+filepath.Base(canary), "links:1", "true")
	e.Run("-v", dir+":/out/"+filepath.Base(canary), "links:1", "true")
	if _, err := os.Lstat(canary); err == nil {
		t.Error("a mount point was made on the host")
	}
}

func TestVolumes(t *testing.T) {
	e := harness.New(t, daemon)
	e.Run("-v", "data:/mnt", image, "sh", "-c", "echo kept > /mnt/f")
	if got := e.Run("-v", "data:/other:ro", image, "cat", "/other/f"); got != "kept" {
		t.Errorf("got %q", got)
	}
	if got := e.Run("--mount", "type=volume,src=data,dst=/m", image, "cat", "/m/f"); got != "kept" {
		t.Errorf("got %q", got)
	}
	// A named volume stays after --rm, an anonymous one does not.
	e.Run("-v", "/anon", image, "touch", "/anon/x")
	e.Is("data", "volume", "ls", "-q")
	id := e.OK("create", "-v", "/anon", image)
	if n := len(strings.Fields(e.OK("volume", "ls", "-q"))); n != 2 {
		t.Errorf("%d volumes", n)
	}
	e.Match(`^volume [0-9a-f]{64} /anon local true$`, "inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Driver}} {{.RW}}{{end}}", id)
	e.OK("rm", "-v", id)
	e.Is("data", "volume", "ls", "-q")
	e.Fails(125, "includes invalid characters for a local volume name", "run", "--rm", "--mount", "type=volume,src=a b,dst=/x", image, "true")
}

// A new volume gets what the image has at its place, with owners and modes.
func TestVolumeCopyUp(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("copyup:1", harness.ImageConfig{Volumes: map[string]struct{}{"/data": {}}}, harness.Layer(
		harness.Entry{Name: "data/", UID: 1000, GID: 2000, Mode: 0o750}, harness.Entry{Name: "data/f", Body: "from image", UID: 1000, Mode: 0o600}, harness.Entry{Name: "data/l", Type: '2', Link: "f"}))
	for _, flags := range [][]string{nil, {"-v", "named:/data"}, {"--mount", "type=volume,src=mounted,dst=/data"}} {
		if got := e.Run(append(flags, "copyup:1", "sh", "-c", "cat /data/l; stat -c ' %u:%g %a' /data; stat -c '%u %a' /data/f; readlink /data/l")...); got != "from image 1000:2000 750\n1000 600\nf" {
			t.Errorf("%v: got %q", flags, got)
		}
	}
	if got := e.Run("-v", "nocopy:/data:nocopy", "copyup:1", "ls", "/data"); got != "" {
		t.Errorf("nocopy: %q", got)
	}
	// The second use does not copy again.
	e.Run("-v", "named:/data", "copyup:1", "rm", "/data/f")
	if got := e.Run("-v", "named:/data", "copyup:1", "ls", "/data"); got != "l" {
		t.Errorf("second use: %q", got)
	}
	if got := e.OK("inspect", "-f", "{{range .Mounts}}{{.Destination}}{{end}}", e.OK("create", "copyup:1")); got != "/data" {
		t.Errorf("mounts: %q", got)
	}
}

func TestVolumesFrom(t *testing.T) {
	e := harness.New(t, daemon)
	e.Sleeper("--name", "vf", "-v", "shared:/s", "-v", "/anon")
	e.OK("exec", "vf", "sh", "-c", "echo x > /s/f; echo y > /anon/g")
	if got := e.Run("--volumes-from", "vf", image, "cat", "/s/f", "/anon/g"); got != "x\ny" {
		t.Errorf("got %q", got)
	}
	if r := e.Do("run", "--rm", "--volumes-from", "vf:ro", image, "touch", "/s/h"); r.Code != 1 {
		t.Error(r)
	}
	e.Fails(125, "No such container: nosuch", "run", "--rm", "--volumes-from", "nosuch", image, "true")
}

func TestTmpfs(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--tmpfs", "/t", "--mount", "type=tmpfs,dst=/u,tmpfs-size=2097152,tmpfs-mode=1770", image, "sh", "-c", "grep -E ' /(t|u) ' /proc/mounts | cut -d' ' -f2,3 | sort; stat -c %a /u; df -k /u | tail -1 | awk '{print $2}'; grep ' /t ' /proc/mounts | grep -c nosuid"); got != "/t tmpfs\n/u tmpfs\n1770\n2048\n1" {
		t.Errorf("got %q", got)
	}
}

func TestPropagation(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("-v", "/tmp:/mnt", image, "sh", "-c", "grep ' /mnt ' /proc/self/mountinfo | grep -E 'shared|master'; true"); got != "" {
		t.Errorf("a bind mount is not private: %q", got)
	}
}

// A path within a volume does not lead out of it, whatever its users make of it.
func TestSubpath(t *testing.T) {
	if harness.Oracle() || harness.OldCLI() {
		t.Skip("volume-subpath came with docker 26")
	}
	e := harness.New(t, daemon)
	e.Run("-v", "sub:/v", image, "sh", "-c", "mkdir -p /v/dir; echo inside > /v/dir/f; echo file > /v/file; ln -s /etc /v/out; ln -s dir /v/in; ln -s ../../../../../../etc /v/up")
	e.Is("inside", "run", "--rm", "--mount", "type=volume,source=sub,target=/x,volume-subpath=dir", image, "cat", "/x/f")
	e.Is("inside", "run", "--rm", "--mount", "type=volume,source=sub,target=/x,volume-subpath=in", image, "cat", "/x/f")
	e.Is("file", "run", "--rm", "--mount", "type=volume,source=sub,target=/x,volume-subpath=file", image, "cat", "/x")
	e.Fails(1, "Read-only file system", "run", "--rm", "--mount", "type=volume,source=sub,target=/x,volume-subpath=dir,readonly", image, "touch", "/x/g")
	for _, evil := range []string{"out", "up"} {
		r := e.Do("run", "--rm", "--mount", "type=volume,source=sub,target=/x,volume-subpath="+evil, image, "ls", "/x/passwd")
		if r.Code == 0 {
			t.Errorf("%s leads to the host: %v", evil, r)
		}
	}
	e.Fails(125, "subpath", "run", "--rm", "--mount", "type=volume,source=sub,target=/x,volume-subpath=../x", image, "true")
}

// What is wrong with a bind is said as docker says it.
func TestBindErrors(t *testing.T) {
	e := harness.New(t, daemon)
	for spec, want := range map[string]string{
		"rel/x:/x":        `create rel/x: "rel/x" includes invalid characters for a local volume name, only "\[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\]" are allowed. If you intended to pass a host directory, use absolute path`,
		"/etc:x":          `invalid volume specification: '/etc:x': invalid mount config for type "bind": invalid mount path: 'x' mount path must be absolute`,
		"/etc:/":          `invalid volume specification: '/etc:/': invalid mount config for type "bind": invalid specification: destination can't be '/'`,
		"/etc:/x:bad":     `invalid mode: bad`,
		"/etc:/x:ro,rw":   `invalid mode: ro,rw`,
		"/etc:/x:nocopy":  `invalid mount config for type "bind": field VolumeOptions must not be specified`,
		"vol:/x:rshared":  `invalid mount config for type "volume": field BindOptions must not be specified`,
		"/etc:/x:rshared": `path /etc is mounted on / but it is not a shared mount`,
		"/etc:/x:rslave":  `path /etc is mounted on / but it is not a shared or slave mount`,
	} {
		e.Fails(125, want, "run", "--rm", "-v", spec, image, "true")
	}
	e.Fails(125, "empty section between colons", "run", "--rm", "-v", ":/x", image, "true")
	e.Fails(125, "invalid mode: bad", "run", "--rm", "--volumes-from", "x:bad", image, "true")
	e.Fails(125, `invalid tmpfs option .*"nosuch"`, "run", "--rm", "--tmpfs", "/t:nosuch", image, "true")
	e.Fails(125, "invalid mount path: 't' mount path must be absolute", "run", "--rm", "--tmpfs", "t", image, "true")
}
