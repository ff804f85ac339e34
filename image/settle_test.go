package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/archive"
	"gantry/image"
	"gantry/registry/registrytest"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// zipped compresses as Docker's and BuildKit's Go does.
func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zstandard compresses as BuildKit, podman and our own push do when they are told to use zstd.
func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// addZipped gives a registry's repository "app" an image of compressed layers.
func addZipped(t *testing.T, reg *registrytest.Registry, tag string, layers ...[]byte) {
	t.Helper()
	config := ocispec.Image{Platform: host(), RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		plain, kind, err := archive.Decompress(bytes.NewReader(l))
		if err != nil {
			t.Fatal(err)
		}
		id, err := digest.FromReader(plain)
		if err != nil {
			t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, id)
		d := reg.AddBlob("app", l)
		d.MediaType = ocispec.MediaTypeImageLayerGzip
		if kind == archive.Zstd {
			d.MediaType = ocispec.MediaTypeImageLayerZstd
		}
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = reg.AddBlob("app", data)
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	reg.AddManifest("app", tag, m.MediaType, data)
}

// words is content that compresses.
func words(seed byte, n int) string {
	var b strings.Builder
	for rest := noise(seed, n); b.Len() < n; rest = rest[16:] {
		b.WriteString(rest[:16] + " layers are unpacked once, and pushed as they came; "[:20+rest[0]%32])
	}
	return b.String()[:n]
}

func blobs(t *testing.T, root, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "content", folder, "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// awaitSettled waits until there are so many recipes.
func awaitSettled(t *testing.T, root string, recipes int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(blobs(t, root, "recipes")) != recipes; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("recipes %q, blobs %q", blobs(t, root, "recipes"), blobs(t, root, "blobs"))
		}
	}
}

// TestSettle has layers' blobs replaced by recipes, and sends them on as they came.
func TestSettle(t *testing.T) {
	for _, how := range []struct {
		images bool
		zipped func(*testing.T, []byte) []byte
	}{{true, zipped}, {false, zipped}, {true, zstandard}} {
		images, zipped := how.images, how.zipped
		reg := registrytest.New()
		defer reg.Close()
		plain := tarOf(t, text("a/first", words(1, 20_000)), text("a/second", words(2, 100_000)), text("a/first", words(3, 2<<20)))
		beneath := tarOf(t, text("b/file", words(4, 300_000)))
		addZipped(t, reg, "1", zipped(t, beneath), zipped(t, plain))
		root := t.TempDir()
		s := openOptions(t, image.Options{Root: root, Registry: quick()}, images)
		ref := reg.Host() + "/app:1"
		i, err := s.Pull(t.Context(), ref, image.PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		awaitSettled(t, root, 2)
		s.clean(t)
		if left := blobs(t, root, "blobs"); len(left) != 2 { // config and manifest
			t.Errorf("blobs %q", left)
		}

		// Sent to another registry, with the very digest.
		second := registrytest.New()
		defer second.Close()
		target := second.Host() + "/copy:1"
		if err := s.Tag(t.Context(), i.ID.String(), target); err != nil {
			t.Fatal(err)
		}
		if err := s.Push(t.Context(), target, image.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		other := open(t, t.TempDir())
		o, err := other.Pull(t.Context(), target, image.PullOptions{})
		if err != nil || o.Manifest.Digest != i.Manifest.Digest {
			t.Errorf("pushed as %v: %v", o, err)
		}
		var saved bytes.Buffer
		if err := s.Save(t.Context(), []string{ref}, &saved, image.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, l := range [][]byte{zipped(t, beneath), zipped(t, plain)} {
			if !bytes.Contains(saved.Bytes(), l) {
				t.Error("the archive lacks a layer as it came")
			}
		}
		other.close(t)

		// Another image with the layer need not fetch it; nor does an opened store that was closed.
		s.close(t)
		s = openOptions(t, image.Options{Root: root, Registry: quick()}, images)
		addZipped(t, reg, "2", zipped(t, beneath))
		before := reg.Sent()
		if _, err := s.Pull(t.Context(), reg.Host()+"/app:2", image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
		if sent := reg.Sent() - before; sent > 10_000 {
			t.Errorf("%d bytes were sent for a layer that is here", sent)
		}
		if found, err := s.CheckLayers(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("check: %v %v", found, err)
		}
		for _, name := range []string{ref, target, reg.Host() + "/app:2"} {
			if _, err := s.Remove(t.Context(), name, image.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if left := append(blobs(t, root, "recipes"), blobs(t, root, "blobs")...); len(left) > 0 {
			t.Errorf("left after the images were removed: %q", left)
		}
		s.clean(t)
		s.close(t)
	}
}

// TestSettleNot keeps what it is told to keep, and what no recipe can be made of.
func TestSettleNot(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	addZipped(t, reg, "1", zipped(t, tarOf(t, text("file", words(1, 200_000)))))
	root := t.TempDir()
	s := openOptions(t, image.Options{Root: root, Registry: quick(), Keep: true}, true)
	if _, err := s.Pull(t.Context(), reg.Host()+"/app:1", image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	if n := len(blobs(t, root, "blobs")); n != 3 {
		t.Errorf("%d blobs", n)
	}
	s.close(t)
	s = openOptions(t, image.Options{Root: root, Registry: quick(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, true)
	awaitSettled(t, root, 1)
	s.close(t)
}

// TestSettledDamage finds a damaged recipe, sends nothing that is wrong, and repairs it from where the image came.
func TestSettledDamage(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	layer := zipped(t, tarOf(t, text("file", words(1, 1<<20))))
	addZipped(t, reg, "1", layer)
	root := t.TempDir()
	s := openWith(t, root, quick())
	ref := reg.Host() + "/app:1"
	i, err := s.Pull(t.Context(), ref, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitSettled(t, root, 1)
	for _, damage := range []struct {
		name string
		file string
		at   int64
	}{
		{"recipe", blobs(t, root, "recipes")[0], 80},
		{"header", blobs(t, root, "recipes")[0], 10},
		{"layer", filepath.Join(root, "layers", i.DiffIDs[0].Encoded(), "layer.erofs"), 40_000},
	} {
		t.Run(damage.name, func(t *testing.T) {
			if _, err := os.Stat(damage.file); err != nil {
				t.Skip("layers are folders here")
			}
			flip(t, damage.file, damage.at)
			err := s.Save(t.Context(), []string{ref}, io.Discard, image.SaveOptions{})
			if err == nil {
				t.Error("a damaged layer was saved")
			}
			found, err := s.CheckLayers(t.Context())
			if err != nil || len(found) == 0 {
				t.Fatalf("%v %v", found, err)
			}
			for _, d := range found {
				t.Log(d.Object, d.Problem)
				if d.Repair == nil {
					t.Fatal("no repair")
				}
				if err := d.Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if found, err := s.CheckLayers(t.Context()); err != nil || len(found) > 0 {
				t.Errorf("after the repair: %v %v", found, err)
			}
			var saved bytes.Buffer
			if err := s.Save(t.Context(), []string{ref}, &saved, image.SaveOptions{}); err != nil || !bytes.Contains(saved.Bytes(), layer) {
				t.Errorf("after the repair: %v", err)
			}
			awaitSettled(t, root, 1)
			for deadline := time.Now().Add(time.Minute); len(blobs(t, root, "blobs")) > 2 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			}
		})
	}
	s.close(t)
}

// TestSettledOfAnother has a layer that depends on those below it in two images. Its blob's recipe is of what it is in the first, which is removed.
func TestSettledOfAnother(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	linked := zipped(t, tarOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "b/also", Linkname: "b/file"}, text("own", words(1, 100_000))))
	addZipped(t, reg, "1", zipped(t, tarOf(t, text("b/file", words(2, 20_000)))), linked)
	addZipped(t, reg, "2", zipped(t, tarOf(t, text("b/file", words(3, 20_000)))), linked)
	root := t.TempDir()
	s := openWith(t, root, quick())
	for n, tag := range []string{"1", "2"} {
		if _, err := s.Pull(t.Context(), reg.Host()+"/app:"+tag, image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
		awaitSettled(t, root, 2+n)
	}
	report, err := s.RehearseRemove(t.Context(), reg.Host()+"/app:1", image.RemoveOptions{})
	if err != nil || report.SpaceReclaimed == 0 {
		t.Errorf("rehearsal: %+v, %v", report, err)
	}
	if _, err := s.Remove(t.Context(), reg.Host()+"/app:1", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.clean(t)
	var saved bytes.Buffer
	if err := s.Save(t.Context(), []string{reg.Host() + "/app:2"}, &saved, image.SaveOptions{}); err != nil || !bytes.Contains(saved.Bytes(), linked) {
		t.Errorf("save of the other: %v", err)
	}
	if _, err := s.Remove(t.Context(), reg.Host()+"/app:2", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "layers", "[0-9a-f]*[0-9]*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	s.clean(t)
	s.close(t)
}

func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
