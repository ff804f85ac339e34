package damage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/registry/registrytest"
	"gantry/tests/harness"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// limited starts a daemon whose data root is a small file system of its own: a tmpfs with these options, or an ext4 of a size in MiB.
func limited(t *testing.T, name, options string, ext4 int64) *harness.Env {
	t.Helper()
	return own(t, name, func(d *harness.Daemon) {
		if ext4 > 0 {
			disk := filepath.Join(d.Dir, "disk")
			if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, ext4<<20)); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", disk}, {"mount", "-o", "loop", disk, d.DataRoot()}} {
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Skipf("%v: %v: %s", args, err, out)
				}
			}
		} else if err := syscall.Mount("limited", d.DataRoot(), "tmpfs", 0, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // after the daemon's end
			if err := syscall.Unmount(d.DataRoot(), 0); err != nil {
				t.Error(err)
			}
		})
	})
}

// fillSpace takes all space of the data root, and returns what gives it back.
func fillSpace(e *harness.Env) (release func()) {
	e.Helper()
	path := filepath.Join(e.D.DataRoot(), "filler")
	f, err := os.Create(path)
	if err != nil {
		e.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			e.Fatal(err)
		}
	}
	return func() { _ = os.Remove(path) }
}

// fillInodes takes all inodes of the data root, and returns what gives them back.
func fillInodes(e *harness.Env) (release func()) {
	e.Helper()
	dir := filepath.Join(e.D.DataRoot(), "filler")
	if err := os.Mkdir(dir, 0o700); err != nil {
		e.Fatal(err)
	}
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err == nil {
			f.Close()
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			e.Fatal(err)
		}
		return func() { _ = os.RemoveAll(dir) }
	}
}

const noSpace = "(?i)no space left on device|disk is full|no space"

// What is refused on a full disk says why and leaves nothing, and what gives space back works.
func TestFull(t *testing.T) {
	for _, c := range []struct {
		name, options string
		ext4          int64 // MiB
		fill          func(*harness.Env) func()
		withoutInodes bool
	}{
		{"space", "size=24m", 0, fillSpace, false},
		{"inodes", "size=64m,nr_inodes=700", 0, fillInodes, true},
		{"ext4", "", 32, fillSpace, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := limited(t, "f"+c.name, c.options, c.ext4)
			big, err := harness.BusyboxArchive("big:1", harness.ImageConfig{}, harness.Layer(bulk()...))
			if err != nil {
				t.Fatal(err)
			}
			registry := harness.Registry(t, "")
			e.OK("tag", image, registry+"/base:1")
			e.OK("push", registry+"/base:1")
			e.LoadImage("spare:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "spare", Body: "x"}))
			e.OK("tag", image, "other:1")
			e.OK("volume", "create", "vol")
			e.OK("volume", "create", "unused")
			e.OK("network", "create", "unused")
			runs := e.Sleeper("--name", "runs", "-v", "vol:/v")
			e.Ready(runs)
			e.Sleeper("--name", "runs2")
			e.OK("run", "--name", "ended", image, "sh", "-c", "echo said; echo x > /file")
			e.OK("create", "--name", "made", image, "true")
			src := e.File("src", strings.Repeat("x", 1<<20))
			images := e.OK("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")

			release := c.fill(e)
			defer release()
			// What needs space is refused, in words.
			if r := e.DoInput(string(big), "load"); r.Code == 0 || !matches(noSpace, r.Stdout+r.Stderr) {
				t.Errorf("load: %v", r)
			}
			if r := e.DoInput(string(harness.Layer(bulk()...)), "import", "-", "imported:1"); r.Code != 1 || !matches(noSpace, r.Stderr) {
				t.Errorf("import: %v", r)
			}
			e.Fails(1, noSpace, "cp", src, "runs:/tmp/src")
			e.Fails(1, noSpace, "cp", src, "made:/tmp/src")
			if !c.withoutInodes {
				if r := e.Do("exec", "runs", "sh", "-c", "cp /bin/busybox /v/f"); r.Code == 0 || !matches(noSpace, r.Stderr) {
					t.Errorf("write to a volume: %v", r)
				}
			} else {
				if r := e.Do("exec", "runs", "touch", "/v/f"); r.Code == 0 || !matches(noSpace, r.Stderr) {
					t.Errorf("write to a volume: %v", r)
				}
			}
			// These may succeed with what is kept in reserve; when they fail they say why, and in the end they must fail.
			for _, command := range [][]string{
				{"create", image, "true"},
				{"commit", "ended", "committed:%d"},
				{"volume", "create", "full%d"},
			} {
				failed := false
				for i := 0; i < 200 && !failed; i++ {
					args := append([]string(nil), command...)
					for j := range args {
						args[j] = strings.ReplaceAll(args[j], "%d", fmt.Sprint(i))
					}
					r := e.Do(args...)
					failed = r.Code != 0
					if failed && !matches(noSpace, r.Stderr) {
						t.Errorf("%v: %v", args, r)
					}
				}
				if !failed && command[0] != "volume" {
					t.Errorf("%v never failed", command)
				}
			}
			if r := e.Do("run", "--name", "refused", image, "true"); r.Code != 125 || !matches(noSpace, r.Stderr) {
				t.Errorf("run: %v", r)
			}
			if r := e.Do("inspect", "refused"); r.Code == 0 {
				t.Error("a refused container is there")
			}
			for _, name := range []string{"big:1", "imported:1"} {
				if r := e.Do("image", "inspect", name); r.Code == 0 {
					t.Errorf("a refused image is there: %s", name)
				}
			}
			// What looks works.
			e.OK("ps", "-a")
			e.OK("info")
			e.OK("images")
			e.Is("said", "logs", "ended")
			e.OK("inspect", "runs")
			e.OK("exec", "runs", "true")
			e.OK("top", "runs")
			if found := ours(e); len(found) > 0 {
				t.Errorf("fsck on the full disk: %v", found)
			}
			// What ends and removes works, with 0 bytes free: each starts on a disk that is full again.
			for _, command := range [][]string{
				{"stop", "-t", "1", "runs"},
				{"kill", "runs2"},
				{"rm", "ended"},
				{"rm", "-f", "runs2"},
				{"rmi", "other:1"},
				{"rmi", "spare:1"},
				{"volume", "rm", "unused"},
				{"network", "rm", "unused"},
				{"container", "prune", "-f"},
				{"volume", "prune", "-f"},
				{"image", "prune", "-a", "-f"},
				{"system", "prune", "-f"},
			} {
				again := refill(e, c.withoutInodes)
				if r := e.Do(command...); r.Code != 0 {
					t.Errorf("%v", r)
				}
				again()
			}
			// A daemon starts on a full disk.
			again := refill(e, c.withoutInodes)
			if err := e.D.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := e.D.Start(); err != nil {
				t.Error(err)
				again()
				release()
				if err := e.D.Start(); err != nil {
					t.Fatal(err)
				}
			}
			e.OK("ps", "-a")
			again()
			release()
			if found := ours(e); len(found) > 0 {
				t.Errorf("fsck with space again: %v", found)
			}
			if err := e.D.Base(); err != nil {
				t.Fatal(err)
			}
			e.Is("hi", "run", "--rm", image, "echo", "hi")
			if got := e.OK("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"); !strings.Contains(images, strings.Fields(got)[0]) {
				t.Errorf("images\n%s\nwere\n%s", got, images)
			}
			e.LoadImage("fits:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "f", Body: "x"}))
			e.OK("rmi", "fits:1")
			// A pull that has no space.
			e.OK("rmi", "-f", image)
			e.Do("rmi", "-f", registry+"/base:1") // unless pruned
			release = c.fill(e)
			e.Fails(1, noSpace, "pull", registry+"/base:1")
			release()
			e.OK("pull", registry+"/base:1")
			e.Is("hi", "run", "--rm", registry+"/base:1", "echo", "hi")
			if found := ours(e); len(found) > 0 {
				t.Errorf("fsck at the end: %v", found)
			}
		})
	}
}

// refill takes what is free now.
func refill(e *harness.Env, inodes bool) (release func()) {
	e.Helper()
	name := fmt.Sprintf("refill-%d", time.Now().UnixNano())
	path := filepath.Join(e.D.DataRoot(), name)
	if inodes {
		var made []string
		for i := 0; ; i++ {
			p := fmt.Sprintf("%s-%d", path, i)
			f, err := os.Create(p)
			if err != nil {
				return func() {
					for _, p := range made {
						_ = os.Remove(p)
					}
				}
			}
			f.Close()
			made = append(made, p)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return func() {}
	}
	for err == nil {
		_, err = io.CopyN(f, zeros{}, 4096)
	}
	f.Close()
	return func() { _ = os.Remove(path) }
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// bulk is more than a limited disk has, in bytes and in files.
func bulk() []harness.Entry {
	var entries []harness.Entry
	body := strings.Repeat("0123456789abcdef", 4096)
	for i := range 800 {
		entries = append(entries, harness.Entry{Name: fmt.Sprintf("bulk-%d", i), Body: body})
	}
	return entries
}

// ours returns what fsck finds.
func ours(e *harness.Env) []string {
	e.Helper()
	found, err := e.D.Fsck()
	if err != nil {
		e.Fatal(err)
	}
	return found
}

// A pull whose layers fill the disk says so and gives everything back; one whose layers say what they take does not begin.
func TestPullFillsDisk(t *testing.T) {
	e := limited(t, "fpull", "size=24m", 0)
	registry := registrytest.New()
	t.Cleanup(registry.Close)
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	layer := zip(e, harness.Layer(bulk()...))
	registry.AddImage("small", "1", platform, zip(e, harness.Layer(harness.Entry{Name: "small", Body: "x"})))
	registry.AddImage("bulk", "1", platform, zip(e, harness.Layer(harness.Entry{Name: "some", Body: noise(1<<20, 3)})), layer)
	m := strings.Replace(string(registry.Manifest("bulk", "1")), digest.FromBytes(layer).String()+`"`, digest.FromBytes(layer).String()+`","annotations":{"io.containers.estargz.uncompressed-size":"52000000"}`, 1)
	registry.AddManifest("bulk", "known", ocispec.MediaTypeImageManifest, []byte(m))
	e.OK("pull", registry.Host()+"/small:1") // what the first pull makes stays
	before := used(e)
	for range 2 {
		e.Fails(1, noSpace, "pull", registry.Host()+"/bulk:1")
		if found := ours(e); len(found) > 0 {
			t.Errorf("fsck: %v", found)
		}
		if now := used(e); now > before+256<<10 {
			t.Errorf("%d bytes are used, and %d were before", now, before)
		}
	}
	asked := registry.Count("GET", "/blobs/"+digest.FromBytes(layer).String())
	e.Fails(1, "no space left on device: .* layers take at least 5[23][.0-9]* MB unpacked", "pull", registry.Host()+"/bulk:known")
	if registry.Count("GET", "/blobs/"+digest.FromBytes(layer).String()) > asked {
		t.Error("the download began")
	}
	e.OK("pull", registry.Host()+"/small:1")
}

// used returns how many bytes of its file system the data root takes.
func used(e *harness.Env) int64 {
	e.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(e.D.DataRoot(), &st); err != nil {
		e.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}
