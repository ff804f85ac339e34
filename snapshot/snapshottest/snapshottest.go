// Package snapshottest holds what every snapshot.Snapshotter must do.
package snapshottest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gantry/errdefs"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Entry is one entry of a tar: a folder when Name ends in a slash, a symbolic or hard link when Link is set.
type Entry struct {
	Name, Data    string
	Symlink, Link string
	Mode          int64
	Xattrs        map[string]string
}

// Tar makes a layer.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Mode: e.Mode, Typeflag: tar.TypeReg, Size: int64(len(e.Data)), Format: tar.FormatPAX}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		switch {
		case strings.HasSuffix(e.Name, "/"):
			h.Typeflag = tar.TypeDir
		case e.Symlink != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Symlink
		case e.Link != "":
			h.Typeflag, h.Linkname = tar.TypeLink, e.Link
		}
		for k, v := range e.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, e.Data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Run holds snapshotters to their contract. open opens one on a data root; opening a root anew is a restart.
func Run(t *testing.T, open func(t *testing.T, root string) snapshot.Snapshotter) {
	t.Run("Layers", func(t *testing.T) { testLayers(t, open) })
	t.Run("Snapshot", func(t *testing.T) { testSnapshot(t, open) })
	t.Run("LinkBelow", func(t *testing.T) { testLinkBelow(t, open) })
	t.Run("Changes", func(t *testing.T) { testChanges(t, open) })
	t.Run("Restart", func(t *testing.T) { testRestart(t, open) })
	t.Run("Errors", func(t *testing.T) { testErrors(t, open) })
	t.Run("Parallel", func(t *testing.T) { testParallel(t, open) })
	t.Run("Attributes", func(t *testing.T) { testAttributes(t, open) })
	t.Run("ManyLayers", func(t *testing.T) { testManyLayers(t, open) })
}

// Commit stages and commits one layer.
func Commit(t testing.TB, s snapshot.Snapshotter, data []byte, parents ...digest.Digest) digest.Digest {
	t.Helper()
	g, err := s.Stage(t.Context(), bytes.NewReader(data), parents)
	must(t, err)
	must(t, s.Commit(t.Context(), []*snapshot.Staged{g}))
	if want := digest.FromBytes(data); g.DiffID != want {
		t.Fatalf("diffID %s, want %s", g.DiffID, want)
	}
	return g.DiffID
}

// mountPoints is what every snapshot has beneath its layers, for the mounts of containers.
var mountPoints = []string{ //nolint:gochecknoglobals // a constant
	".dockerenv=", "dev", "dev/console=", "dev/pts", "dev/shm", "etc", "etc/hostname=", "etc/hosts=", "etc/mtab->/proc/mounts", "etc/resolv.conf=", "proc", "sys",
}

// tree lists what a snapshot shows besides mount points: "path" of folders, "path=content" of files, "path->target" of links.
func tree(t testing.TB, s snapshot.Snapshotter, key string) []string {
	t.Helper()
	m, err := s.Mount(t.Context(), key, true)
	must(t, err)
	defer m.Close()
	root := os.DirFS(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
	var list []string
	must(t, fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", m.Fd()), name))
			list = append(list, name+"->"+target)
			return err
		case e.IsDir():
			list = append(list, name)
			return nil
		}
		data, err := fs.ReadFile(root, name)
		list = append(list, name+"="+string(data))
		return err
	}))
	return slices.DeleteFunc(list, func(line string) bool { return slices.Contains(mountPoints, line) })
}

func same(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func clean(t testing.TB, s snapshot.Snapshotter) {
	t.Helper()
	found, err := s.Check(t.Context())
	must(t, err)
	for _, d := range found {
		t.Errorf("check: %s %s: %s", d.Area, d.Object, d.Problem)
	}
}

type opener = func(t *testing.T, root string) snapshot.Snapshotter

func testLayers(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	a := Commit(t, s, Tar(t, Entry{Name: "d/"}, Entry{Name: "d/old", Data: "old"}, Entry{Name: "d/sub/deep", Data: "x"}, Entry{Name: "f", Data: "f"}, Entry{Name: "gone/", Mode: 0o700}, Entry{Name: "gone/x", Data: "x"}, Entry{Name: "turn", Data: "file"}))
	b := Commit(t, s, Tar(t, Entry{Name: "d/.wh..wh..opq"}, Entry{Name: "d/new", Data: "new"}, Entry{Name: ".wh.gone"}, Entry{Name: "turn/"}, Entry{Name: "turn/in", Data: "in"}, Entry{Name: "l", Symlink: "/f"}))
	c := Commit(t, s, Tar(t, Entry{Name: "gone/"}, Entry{Name: "gone/back", Data: "back"}, Entry{Name: "hard", Data: "h"}, Entry{Name: "linked", Link: "hard"}))
	d := Commit(t, s, Tar(t, Entry{Name: ".wh.d"}, Entry{Name: "d/anew", Data: "anew"}))
	e := Commit(t, s, Tar(t, Entry{Name: ".wh..wh..opq"}, Entry{Name: "only", Data: "only"}))
	for i, c := range []struct {
		layers []digest.Digest
		want   []string
	}{
		{nil, nil},
		{[]digest.Digest{a}, []string{"d", "d/old=old", "d/sub", "d/sub/deep=x", "f=f", "gone", "gone/x=x", "turn=file"}},
		{[]digest.Digest{a, b}, []string{"d", "d/new=new", "f=f", "l->/f", "turn", "turn/in=in"}},
		{[]digest.Digest{a, b, c}, []string{"d", "d/new=new", "f=f", "gone", "gone/back=back", "hard=h", "l->/f", "linked=h", "turn", "turn/in=in"}},
		{[]digest.Digest{a, c}, []string{"d", "d/old=old", "d/sub", "d/sub/deep=x", "f=f", "gone", "gone/back=back", "gone/x=x", "hard=h", "linked=h", "turn=file"}},
		{[]digest.Digest{a, d}, []string{"d", "d/anew=anew", "f=f", "gone", "gone/x=x", "turn=file"}},
		{[]digest.Digest{a, e, c}, []string{"gone", "gone/back=back", "hard=h", "linked=h", "only=only"}},
		{[]digest.Digest{a, a, b, a}, []string{"d", "d/new=new", "d/old=old", "d/sub", "d/sub/deep=x", "f=f", "gone", "gone/x=x", "l->/f", "turn=file"}},
	} {
		key := fmt.Sprintf("k%d", i)
		must(t, s.Prepare(ctx, key, c.layers))
		same(t, tree(t, s, key), c.want...)
		must(t, s.Remove(ctx, key))
	}
	for _, l := range []digest.Digest{a, b, c, d, e} {
		must(t, s.RemoveLayer(ctx, l))
	}
	if left, err := s.Layers(ctx); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
	clean(t, s)
}

func testSnapshot(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	a := Commit(t, s, Tar(t, Entry{Name: "conf/"}, Entry{Name: "conf/keep", Data: "keep"}, Entry{Name: "conf/drop", Data: "drop"}, Entry{Name: "dir/"}, Entry{Name: "dir/x", Data: "x"}))
	must(t, s.Prepare(ctx, "one", []digest.Digest{a}))
	must(t, s.Prepare(ctx, "two", []digest.Digest{a}))
	edit(t, s, "one", func(root string) {
		must(t, os.WriteFile(root+"/new", []byte("new"), 0o644))
		must(t, os.Remove(root+"/conf/drop"))
		must(t, os.RemoveAll(root+"/dir"))
		must(t, os.Mkdir(root+"/dir", 0o755))
		must(t, os.WriteFile(root+"/dir/y", []byte("y"), 0o644))
	})
	want := []string{"conf", "conf/keep=keep", "dir", "dir/y=y", "new=new"}
	same(t, tree(t, s, "one"), want...)
	same(t, tree(t, s, "two"), "conf", "conf/drop=drop", "conf/keep=keep", "dir", "dir/x=x")
	var diff bytes.Buffer
	must(t, s.Diff(ctx, "one", &diff))
	b := Commit(t, s, diff.Bytes(), a)
	must(t, s.Prepare(ctx, "three", []digest.Digest{a, b}))
	same(t, tree(t, s, "three"), want...)
	if bytes, inodes, err := s.Usage(ctx, "one"); err != nil || bytes < 4 || inodes < 4 {
		t.Error(bytes, inodes, err)
	}
	if keys, err := s.List(ctx); err != nil || !slices.Equal(keys, []string{"one", "three", "two"}) {
		t.Error(keys, err)
	}
	if paths, err := s.Paths(ctx, "one"); err != nil || paths["UpperDir"] == "" {
		t.Error(paths, err)
	}
	m, err := s.Mount(ctx, "three", true)
	must(t, err)
	if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/x", m.Fd()), nil, 0o644); err == nil {
		t.Error("a read-only mount can be written to")
	}
	must(t, m.Close())
	v, err := s.MountVolatile(ctx, "two")
	must(t, err)
	must(t, os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/volatile", v.Fd()), []byte("v"), 0o644))
	must(t, v.Close())
	edit(t, s, "two", func(root string) { must(t, os.Remove(root+"/dir/x")) })
	same(t, tree(t, s, "two"), "conf", "conf/drop=drop", "conf/keep=keep", "dir", "volatile=v")
	for _, k := range []string{"one", "two", "three", "none"} {
		must(t, s.Remove(ctx, k))
	}
	clean(t, s)
}

// edit changes a snapshot through a mount of it.
func edit(t testing.TB, s snapshot.Snapshotter, key string, change func(root string)) {
	t.Helper()
	m, err := s.Mount(t.Context(), key, false)
	must(t, err)
	change(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
	must(t, m.Close())
}

func testLinkBelow(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	a := Commit(t, s, Tar(t, Entry{Name: "bin/"}, Entry{Name: "bin/tool", Data: "tool", Mode: 0o4755}, Entry{Name: "bin/gone", Data: "x"}))
	b := Commit(t, s, Tar(t, Entry{Name: "bin/.wh.gone"}))
	layer := Tar(t, Entry{Name: "usr/"}, Entry{Name: "usr/alias", Link: "bin/tool"})
	if _, err := s.Stage(t.Context(), bytes.NewReader(layer), nil); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("link to nothing: %v", err)
	}
	if _, err := s.Stage(t.Context(), bytes.NewReader(Tar(t, Entry{Name: "x", Link: "bin/gone"})), []digest.Digest{a, b}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("link to what a layer removed: %v", err)
	}
	c := Commit(t, s, layer, a, b)
	must(t, s.Prepare(t.Context(), "k", []digest.Digest{a, b, c}))
	same(t, tree(t, s, "k"), "bin", "bin/tool=tool", "usr", "usr/alias=tool")
	if err := s.Prepare(t.Context(), "other", []digest.Digest{b, c}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("a layer that stands on others was used without them: %v", err)
	}
	must(t, s.Remove(t.Context(), "k"))
	clean(t, s)
}

func testChanges(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	a := Commit(t, s, Tar(t, Entry{Name: "conf/"}, Entry{Name: "conf/a", Data: "a"}, Entry{Name: "conf/b", Data: "b"}, Entry{Name: "var/"}, Entry{Name: "var/log/"}, Entry{Name: "var/log/x", Data: "x"}, Entry{Name: "mode", Data: "m"}))
	must(t, s.Prepare(ctx, "k", []digest.Digest{a}))
	if c, err := s.Changes(ctx, "k"); err != nil || len(c) != 0 {
		t.Error(c, err)
	}
	edit(t, s, "k", func(root string) {
		must(t, os.WriteFile(root+"/conf/new", nil, 0o644))
		must(t, os.Remove(root+"/conf/b"))
		must(t, os.WriteFile(root+"/var/log/x", []byte("changed"), 0o644))
		must(t, os.MkdirAll(root+"/opt/deep", 0o755))
		must(t, os.Chmod(root+"/mode", 0o600))
	})
	changes, err := s.Changes(ctx, "k")
	must(t, err)
	var got []string
	for _, c := range changes {
		got = append(got, c.Kind.String()+" "+c.Path)
	}
	same(t, got, "C /conf", "D /conf/b", "A /conf/new", "C /mode", "A /opt", "A /opt/deep", "C /var/log/x")
	must(t, s.Remove(ctx, "k"))
}

func testRestart(t *testing.T, open opener) {
	root := t.TempDir()
	s := open(t, root)
	ctx := t.Context()
	a := Commit(t, s, Tar(t, Entry{Name: "f", Data: "f"}))
	must(t, s.Prepare(ctx, "k", []digest.Digest{a}))
	edit(t, s, "k", func(root string) { must(t, os.WriteFile(root+"/g", []byte("g"), 0o644)) })
	if _, err := s.Stage(ctx, bytes.NewReader(Tar(t, Entry{Name: "never", Data: "committed"})), nil); err != nil {
		t.Fatal(err)
	}
	s = open(t, root) // without a word to the one before, as after a kill
	same(t, tree(t, s, "k"), "f=f", "g=g")
	if layers, err := s.Layers(ctx); err != nil || len(layers) != 1 || layers[0].DiffID != a || layers[0].Size != 1 {
		t.Error(layers, err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "tmp", "*")); err != nil || len(left) != 0 {
		t.Error("left over:", left, err)
	}
	if err := s.RemoveLayer(ctx, a); !errdefs.Is(err, errdefs.Conflict) {
		t.Error("a layer in use was removed:", err)
	}
	if !s.InUse(a) {
		t.Error("layer is not in use")
	}
	clean(t, s)
	must(t, s.Remove(ctx, "k"))
}

func testErrors(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	none := digest.FromString("none")
	for _, c := range []struct {
		what string
		err  error
		kind errdefs.Kind
	}{
		{"prepare on a missing layer", s.Prepare(ctx, "k", []digest.Digest{none}), errdefs.NotFound},
		{"prepare with a bad key", s.Prepare(ctx, "../k", nil), errdefs.InvalidParameter},
		{"prepare with a bad digest", s.Prepare(ctx, "k", []digest.Digest{"sha256:../../x"}), errdefs.InvalidParameter},
		{"remove with a bad key", s.Remove(ctx, ".."), errdefs.InvalidParameter},
	} {
		if !errdefs.Is(c.err, c.kind) {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
	must(t, s.Prepare(ctx, "k", nil))
	if err := s.Prepare(ctx, "k", nil); !errdefs.Is(err, errdefs.Conflict) {
		t.Error(err)
	}
	must(t, s.Remove(ctx, "k"))
	if _, err := s.Mount(ctx, "k", true); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
	if _, err := s.Stage(ctx, strings.NewReader("no tar at all, but long enough to be a block"+strings.Repeat(".", 1000)), nil); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
	whole := Tar(t, Entry{Name: "f", Data: strings.Repeat("f", 5000)})
	if _, err := s.Stage(ctx, bytes.NewReader(whole[:3000]), nil); err == nil {
		t.Error("a tar that is cut off was taken")
	}
	if _, err := s.Stage(ctx, io.MultiReader(bytes.NewReader(whole[:3000]), failing{}), nil); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	clean(t, s)
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

func testParallel(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	var group sync.WaitGroup
	layer := Tar(t, Entry{Name: "same", Data: "same"})
	for i := range 8 {
		group.Go(func() {
			a := Commit(t, s, layer)
			b := Commit(t, s, Tar(t, Entry{Name: "own", Data: fmt.Sprint(i)}))
			key := fmt.Sprint("k", i)
			if err := s.Prepare(t.Context(), key, []digest.Digest{a, b}); err != nil {
				t.Error(err)
				return
			}
			same(t, tree(t, s, key), "own="+fmt.Sprint(i), "same=same")
			if err := s.Remove(t.Context(), key); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if layers, err := s.Layers(t.Context()); err != nil || len(layers) != 9 {
		t.Error(len(layers), err)
	}
	clean(t, s)
}

func testManyLayers(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	var layers []digest.Digest
	var staged []*snapshot.Staged
	var want []string
	const n = 320
	staged = make([]*snapshot.Staged, n)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := worker; i < n; i += 4 {
				var err error
				if staged[i], err = s.Stage(t.Context(), bytes.NewReader(Tar(t, Entry{Name: fmt.Sprintf("f%03d", i), Data: "x"})), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	for i, g := range staged {
		if g == nil {
			t.FailNow()
		}
		layers = append(layers, g.DiffID)
		want = append(want, fmt.Sprintf("f%03d=x", i))
	}
	must(t, s.Commit(t.Context(), staged))
	must(t, s.Prepare(t.Context(), "k", layers))
	same(t, tree(t, s, "k"), want...)
	must(t, s.Remove(t.Context(), "k"))
}
