package image_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/image"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

const crashRoot = "GANTRY_TEST_CRASH_ROOT"

// TestCrashChild is the process that TestCrash kills. Before it removes a name it says "- name", after it has made one "+ name".
func TestCrashChild(t *testing.T) {
	root := os.Getenv(crashRoot)
	if root == "" {
		t.Skip("only as a child of TestCrash")
	}
	s := open(t, root)
	ctx := context.Background()
	fmt.Println("ready")
	for i := 0; ; i++ {
		name := fmt.Sprintf("crash:%d", rand.IntN(1e9))
		archive, _ := dockerArchive(t, name,
			tarOf(t, text("base", "shared")),
			tarOf(t, text("name", name), text("big", strings.Repeat(name, 20000))),
			tarOf(t, text(".wh.base", ""), text("dir/x", name)),
		)
		if _, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("+", name)
		parent, err := s.Get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		key := strings.ReplaceAll(name, ":", "-")
		if err := s.snapshots.Prepare(ctx, key, parent.DiffIDs); err != nil {
			t.Fatal(err)
		}
		m, err := s.snapshots.Mount(ctx, key, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/name2", m.Fd()), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		_ = m.Close()
		if _, err := s.Commit(ctx, image.CommitOptions{SnapshotKey: key, Parent: parent, Config: dockerspec.DockerOCIImageConfig{}, Repo: name + "-c"}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("+", name+"-c")
		if err := s.snapshots.Remove(ctx, key); err != nil {
			t.Fatal(err)
		}
		images, err := s.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range images[min(6, len(images)):] {
			for _, tag := range old.RepoTags {
				fmt.Println("-", tag)
				if _, err := s.Remove(ctx, tag, image.RemoveOptions{Force: true}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestCrash kills a process in the midst of its work, again and again, and holds what is left against what it had said.
func TestCrash(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	root := t.TempDir()
	alive := map[string]bool{}
	for round := 0; round < 12 || len(alive) == 0 && round < 40; round++ { // on a busy machine nothing may be finished in time
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.v")
		cmd.Env = append(os.Environ(), crashRoot+"="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				time.AfterFunc(time.Duration(rand.IntN(1500+250*round))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
			verb, name, _ := strings.Cut(lines.Text(), " ")
			switch verb {
			case "+":
				alive[name] = true
			case "-":
				delete(alive, name)
			case "---":
				t.Fatal("the child failed: ", lines.Text())
			}
			if strings.Contains(lines.Text(), "_test.go:") {
				t.Fatal("the child failed: ", lines.Text())
			}
		}
		_ = cmd.Wait()
		inspect(t, root, alive)
	}
	if len(alive) == 0 {
		t.Error("no image was ever finished")
	}
}

// inspect opens a data root after a kill: nothing is amiss, and every image is there whole.
func inspect(t *testing.T, root string, alive map[string]bool) {
	t.Helper()
	s := open(t, root)
	ctx := t.Context()
	keys, err := s.snapshots.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys { // what no container's record names
		if err := s.snapshots.Remove(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	s.close(t) // waits for the deletions
	s = open(t, root)
	defer func() { s.close(t) }()
	s.clean(t)
	for _, pattern := range []string{"tmp/*", "content/ingest/*"} {
		if left, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left over: %v %v", left, err)
		}
	}
	for name := range alive {
		i, err := s.Get(ctx, name)
		if err != nil {
			t.Errorf("acknowledged and lost: %v", err)
			continue
		}
		if err := s.snapshots.Prepare(ctx, "inspect", i.DiffIDs); err != nil {
			t.Fatal(err)
		}
		m, err := s.snapshots.Mount(ctx, "inspect", true)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSuffix(name, "-c")
		if got, err := read(t, m, "name"); err != nil || got != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
		_ = m.Close()
		if err := s.snapshots.Remove(ctx, "inspect"); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(ctx, []string{name}, io.Discard, image.SaveOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// A full disk is a clear error, leaves nothing, and does not keep anybody from removing images.
func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=3m"); err != nil {
		t.Skip("cannot mount a small tmpfs:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	s := open(t, root)
	defer s.close(t)
	ctx := t.Context()
	small, _ := dockerArchive(t, "small", tarOf(t, text("f", strings.Repeat("x", 100<<10))))
	if _, err := s.Load(ctx, bytes.NewReader(small), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1300 << 10, 8 << 20} { // fills up while unpacking, and while spooling
		large, _ := dockerArchive(t, "large", tarOf(t, text("f", strings.Repeat("y", size))))
		if _, err := s.Load(ctx, bytes.NewReader(large), image.LoadOptions{}); !errdefs.Is(err, errdefs.Exhausted) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	s.clean(t)
	fill, err := os.Create(filepath.Join(root, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	_ = fill.Close()
	if _, err := s.Remove(ctx, "small", image.RemoveOptions{}); err != nil {
		t.Errorf("remove with a full disk: %v", err)
	}
	s.clean(t)
	if images, err := s.List(ctx); err != nil || len(images) != 0 {
		t.Error(images, err)
	}
}

// A layer that is not what its archive says is found, replaced and kept aside, whatever is wrong with it.
func TestDamagedLayers(t *testing.T) {
	t.Parallel()
	for _, images := range []bool{true, false} {
		root := t.TempDir()
		s := openAs(t, root, images)
		ctx := t.Context()
		archive, id := sampleArchive(t, "kept:1")
		if _, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if found, err := s.CheckLayers(ctx); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
		i, err := s.Get(ctx, id.String())
		if err != nil {
			t.Fatal(err)
		}
		for n, d := range i.DiffIDs {
			folder := filepath.Join(root, "layers", d.Encoded())
			var damaged string
			err := filepath.WalkDir(folder, func(name string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() && e.Name() != "layer.json" && damaged == "" {
					damaged = name
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if damaged == "" { // nothing but folders and whiteouts
				if err := os.Mkdir(filepath.Join(folder, "fs/more"), 0o755); err != nil {
					t.Fatal(err)
				}
				continue
			}
			f, err := os.OpenFile(damaged, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			at := max(0, st.Size()-1-int64(n))
			if _, err := f.WriteAt([]byte{0xee}, at); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}
		found, err := s.CheckLayers(ctx)
		if err != nil || len(found) != len(i.DiffIDs) {
			t.Errorf("images %v: %d of %d found: %v %v", images, len(found), len(i.DiffIDs), found, err)
		}
		for _, d := range found {
			if err := d.Repair(ctx); err != nil {
				t.Error(err)
			}
		}
		if found, err := s.CheckLayers(ctx); err != nil || len(found) > 0 {
			t.Error(found, err)
		}
		aside, err := s.snapshots.Check(ctx)
		if err != nil || len(aside) != len(i.DiffIDs) {
			t.Errorf("aside: %v %v", aside, err)
		}
		for _, d := range aside {
			if err := d.Repair(ctx); err != nil {
				t.Error(err)
			}
		}
		s.clean(t)
		s.close(t)
	}
}

// The database is only an index: images survive its loss with their names. Damaged blobs and layers are found and can be brought anew.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	ctx := t.Context()
	archive, id := sampleArchive(t, "kept:1")
	if _, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, "kept:1", "kept:2"); err != nil {
		t.Fatal(err)
	}
	before, err := s.Get(ctx, "kept:1")
	if err != nil {
		t.Fatal(err)
	}
	s.close(t)
	for _, f := range []string{"gantry.db", "gantry.db-wal", "gantry.db-shm"} {
		if err := os.Truncate(filepath.Join(root, f), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "gantry.db"), bytes.Repeat([]byte("damaged!"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	after, err := s.Get(ctx, "kept:2")
	if err != nil {
		t.Fatal(err)
	}
	if after.ID != id || after.Size != before.Size || len(after.RepoTags) != 2 || after.Manifest.Digest != before.Manifest.Digest {
		t.Errorf("%+v\n%+v", before, after)
	}
	s.clean(t)
	s.close(t)
	// Each file damaged in turn: the daemon starts, Check finds it, repair and load make all right again.
	for _, damage := range []string{
		filepath.Join("content/blobs/sha256", id.Encoded()),
		filepath.Join("content/blobs/sha256", before.Manifest.Digest.Encoded()),
		filepath.Join("layers", before.DiffIDs[0].Encoded(), "layer.json"),
		filepath.Join("content/blobs/sha256", before.DiffIDs[1].Encoded()),
	} {
		if err := os.WriteFile(filepath.Join(root, damage), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, root)
		found, err := s.Check(ctx)
		if err != nil {
			t.Fatal(err)
		}
		more, err := s.snapshots.Check(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if found = append(found, more...); len(found) == 0 {
			t.Errorf("damage of %s was not found", damage)
		}
		for _, d := range found {
			if d.Repair == nil {
				t.Errorf("%s cannot be repaired", d.Problem)
			} else if err := d.Repair(ctx); err != nil && !errdefs.Is(err, errdefs.NotFound) { // nobody knows where it came from
				t.Error(err)
			}
		}
		if _, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{}); err != nil {
			t.Errorf("after damage of %s: %v", damage, err)
		}
		found, err = s.Check(ctx)
		for _, d := range found { // what was moved aside
			err = errors.Join(err, d.Repair(ctx))
		}
		if err != nil {
			t.Error(err)
		}
		s.clean(t)
		if after, err := s.Get(ctx, "kept:1"); err != nil || after.ID != id {
			t.Errorf("after damage of %s: %v %v", damage, after, err)
		}
		s.close(t)
	}
}
