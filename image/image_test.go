package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/archive/confined"
	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/image"
	"gantry/linux/safepath"
	"gantry/registry"
	"gantry/snapshot/layers"
	"gantry/snapshot/overlay"

	"github.com/opencontainers/go-digest"
)

func TestMain(m *testing.M) {
	confined.Main()
	os.Exit(m.Run())
}

// store is a Service on a data root of its own.
type store struct {
	*image.Service
	snapshots *overlay.Snapshotter
	db        *db.DB
	root      string
}

func open(t *testing.T, root string) *store {
	t.Helper()
	return openWith(t, root, registry.Config{})
}

func openWith(t *testing.T, root string, c registry.Config) *store {
	t.Helper()
	return openOptions(t, image.Options{Root: root, Registry: c}, true)
}

// openPolicy is open with a policy.
func openPolicy(t *testing.T, root, policy string) *store {
	t.Helper()
	return openOptions(t, image.Options{Root: root, Policy: policy}, true)
}

// openAs is open with new layers as images, where the kernel can mount them, or as folders.
func openAs(t *testing.T, root string, images bool) *store {
	t.Helper()
	return openOptions(t, image.Options{Root: root}, images)
}

func openOptions(t *testing.T, o image.Options, images bool) *store {
	t.Helper()
	root := o.Root
	snapshots, err := overlay.Open(root, layers.Options{Images: images})
	if errdefs.Is(err, errdefs.NotImplemented) {
		snapshots, err = overlay.Open(root, layers.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(filepath.Join(root, "gantry.db"))
	if err != nil {
		t.Fatal(err)
	}
	o.DB, o.Events, o.Snapshots = d, &event.Bus{}, snapshots
	s, err := image.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return &store{s, snapshots, d, root}
}

func (s *store) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(s.Close(), s.snapshots.Close(), s.db.Close()); err != nil {
		t.Fatal(err)
	}
}

// start opens a store that is checked and closed at the end of the test.
func start(t *testing.T) *store {
	t.Helper()
	s := open(t, t.TempDir())
	t.Cleanup(func() {
		s.clean(t)
		s.close(t)
	})
	return s
}

// clean fails the test when Check finds anything.
func (s *store) clean(t *testing.T) {
	t.Helper()
	found, err := s.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	more, err := s.snapshots.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(found, more...) {
		t.Errorf("check: %s %s: %s", d.Area, d.Object, d.Problem)
	}
}

// tarOf makes a tar of headers; a regular file's content is its Linkname.
func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		data := ""
		if h.Typeflag == tar.TypeReg {
			data, h.Linkname = h.Linkname, ""
			h.Size = int64(len(data))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}

// dockerArchive makes a `docker save` archive of one image.
func dockerArchive(t *testing.T, tag string, layers ...[]byte) (data []byte, id digest.Digest) {
	t.Helper()
	config := map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}, "Env": []string{"A=b"}}}
	var ids []digest.Digest
	var entries []tar.Header
	var names []string
	for _, l := range layers {
		d := digest.FromBytes(l)
		ids = append(ids, d)
		names = append(names, d.Encoded()+"/layer.tar")
		entries = append(entries, text(d.Encoded()+"/layer.tar", string(l)))
	}
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": ids}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	id = digest.FromBytes(raw)
	manifest, err := json.Marshal([]map[string]any{{"Config": id.Encoded() + ".json", "RepoTags": []string{tag}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, text(id.Encoded()+".json", string(raw)), text("manifest.json", string(manifest)))
	return tarOf(t, entries...), id
}

// read returns a file of a mounted snapshot.
func read(t *testing.T, mount *os.File, name string) (string, error) {
	t.Helper()
	f, err := safepath.Open(mount, name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}

func TestLoadMountRemove(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	archive, id := dockerArchive(t, "base:1",
		tarOf(t, text("etc/one", "1"), text("etc/two", "2"), text("opt/x/old", "old")),
		tarOf(t, text("etc/.wh.two", ""), text("etc/three", "3"), text("opt/x/.wh..wh..opq", ""), text("opt/x/new", "new")),
		tarOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "etc/linked", Linkname: "etc/one"}),
	)
	loaded, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) != 1 || loaded[0].ID != id || loaded[0].Name != "base:1" {
		t.Fatalf("loaded %+v, want %s", loaded, id)
	}
	i, err := s.Get(ctx, id.Encoded()[:8])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.snapshots.Prepare(ctx, "c1", i.DiffIDs); err != nil {
		t.Fatal(err)
	}
	m, err := s.snapshots.Mount(ctx, "c1", false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for name, want := range map[string]string{"etc/one": "1", "etc/three": "3", "opt/x/new": "new", "etc/linked": "1"} {
		if got, err := read(t, m, name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"etc/two", "opt/x/old", "etc/.wh.two", "opt/x/.wh..wh..opq"} {
		if got, err := read(t, m, name); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s is there: %q, %v", name, got, err)
		}
	}
	if err := s.Tag(ctx, "base:1", "other/name"); err != nil {
		t.Fatal(err)
	}
	if i, err = s.Get(ctx, "other/name:latest"); err != nil || len(i.RepoTags) != 2 {
		t.Fatalf("%+v, %v", i, err)
	}
	removed, err := s.Remove(ctx, "base:1", image.RemoveOptions{})
	if err != nil || len(removed) != 1 || removed[0].Untagged != "base:1" {
		t.Fatalf("%v, %v", removed, err)
	}
	s.close(t)
	*s = *open(t, s.root)
	inUse := func(digest.Digest) []image.ContainerUse { return []image.ContainerUse{{ID: "c1"}} }
	if _, err := s.Remove(ctx, "other/name", image.RemoveOptions{InUse: inUse}); !errdefs.Is(err, errdefs.Conflict) {
		t.Fatalf("remove in use: %v", err)
	}
	if removed, err = s.Remove(ctx, "other/name", image.RemoveOptions{InUse: inUse, Force: true}); err != nil || len(removed) != 5 {
		t.Fatalf("%v, %v", removed, err)
	}
	if _, err := s.Get(ctx, "other/name"); !errdefs.Is(err, errdefs.NotFound) || err.Error() != "No such image: other/name:latest" {
		t.Fatal(err)
	}
	if got, err := read(t, m, "etc/one"); err != nil || got != "1" {
		t.Errorf("layers went under a container: %q, %v", got, err)
	}
	m.Close()
	if err := s.snapshots.Remove(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	s.close(t)
	*s = *open(t, s.root)
	for _, pattern := range []string{"content/blobs/sha256/*", "layers/[0-9a-f][0-9a-f][0-9a-f]*", "snapshots/*", "tmp/*", "content/ingest/*"} {
		if left, _ := filepath.Glob(filepath.Join(s.root, pattern)); len(left) != 0 {
			for _, l := range left {
				if filepath.Base(l) != "base" {
					t.Errorf("left over: %s", l)
				}
			}
		}
	}
}

func TestImport(t *testing.T) {
	s := start(t)
	i, err := s.Import(t.Context(), bytes.NewReader(tarOf(t, text("bin/x", "x"))), image.ImportOptions{Repo: "imp", Tag: "v1", Message: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	if len(i.DiffIDs) != 1 || i.RepoTags[0] != "imp:v1" || i.Size != 1 {
		t.Fatalf("%+v", i)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
}
