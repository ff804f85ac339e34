package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"gantry/errdefs"
	"gantry/image"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// saved returns the archive of an image, which is the same each time.
func (s *store) saved(t *testing.T, ref string, platforms ...ocispec.Platform) []byte {
	t.Helper()
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := s.Save(t.Context(), []string{ref}, w, image.SaveOptions{Platforms: platforms}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("%s: two archives differ", ref)
	}
	return first.Bytes()
}

// filesOf returns the files of an archive.
func filesOf(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// archiveOf makes an archive of files, in the order of their names.
func archiveOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blobIn returns a blob of an archive.
func blobIn(files map[string][]byte, d digest.Digest) []byte {
	return files["blobs/sha256/"+d.Encoded()]
}

// TestSaveIndex takes an index of two platforms and an attestation through an archive, which old readers find the host's image in.
func TestSaveIndex(t *testing.T) {
	from, top, other := family(t)
	ctx := t.Context()
	s := start(t)
	source := from.Host() + "/app:1"
	i, err := s.Pull(ctx, source, image.PullOptions{AllPlatforms: true})
	if err != nil {
		t.Fatal(err)
	}
	archive := s.saved(t, source)
	files := filesOf(t, archive)
	var index ocispec.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != top.Digest || digest.FromBytes(blobIn(files, top.Digest)) != top.Digest {
		t.Fatalf("index.json: %s, %v", files["index.json"], err)
	}
	var old []struct{ Config string }
	if err := json.Unmarshal(files["manifest.json"], &old); err != nil || len(old) != 1 || old[0].Config != "blobs/sha256/"+i.ID.Encoded() {
		t.Errorf("manifest.json: %s, %v", files["manifest.json"], err)
	}
	if !bytes.Equal(blobIn(files, digest.FromString(`{"statement": true}`)), []byte(`{"statement": true}`)) {
		t.Error("the attestation is missing")
	}
	single := s.saved(t, source, other)
	if files := filesOf(t, single); blobIn(files, top.Digest) != nil || !strings.Contains(string(files["manifest.json"]), `"`+strings.TrimPrefix(source, "docker.io/")+`"`) {
		t.Errorf("one platform: %s %s", files["index.json"], files["manifest.json"])
	}
	var none bytes.Buffer
	if err := s.Save(ctx, []string{source}, &none, image.SaveOptions{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}}); !errdefs.Is(err, errdefs.NotFound) ||
		!strings.Contains(err.Error(), "linux/riscv64") || none.Len() > 0 {
		t.Errorf("a platform that is not here: %v", err)
	}

	goesOn := func(s *store, ref string) {
		t.Helper()
		to := registrytest.New()
		defer to.Close()
		target := to.Host() + "/other:1"
		if err := s.Tag(ctx, ref, target); err != nil {
			t.Fatal(err)
		}
		if err := s.Push(ctx, target, image.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := digest.FromBytes(to.Manifest("other", "1")); got != top.Digest {
			t.Errorf("%s was pushed on as %s, not %s", ref, got, top.Digest)
		}
		if !bytes.Equal(to.Blob("other", digest.FromString(`{"statement": true}`)), []byte(`{"statement": true}`)) {
			t.Error("the attestation was not pushed")
		}
	}
	t.Run("all", func(t *testing.T) {
		s := start(t)
		loaded, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{})
		if err != nil || len(loaded) != 1 || loaded[0].ID != i.ID {
			t.Fatal(loaded, err)
		}
		s.close(t)
		s.Service, s.db, s.snapshots = reopened(t, s)
		goesOn(s, source)
		if again := s.saved(t, source); !bytes.Equal(again, archive) {
			t.Error("the archive of what was loaded is another")
		}
		for _, ref := range []string{source, loaded[0].ID.String()} {
			if _, err := s.Remove(ctx, ref, image.RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
		if list, err := s.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("left: %+v, %v", list, err)
		}
	})
	t.Run("layout without names", func(t *testing.T) {
		plain := filesOf(t, archive)
		delete(plain, "manifest.json")
		plain["index.json"] = bytes.ReplaceAll(bytes.ReplaceAll(plain["index.json"], []byte("io.containerd.image.name"), []byte("x")), []byte(source), []byte("y"))
		s := start(t)
		loaded, err := s.Load(ctx, bytes.NewReader(archiveOf(t, plain)), image.LoadOptions{})
		if err != nil || len(loaded) != 2 || loaded[0].ID != i.ID || loaded[0].Name != "" {
			t.Fatal(loaded, err)
		}
		s.close(t)
		s.Service, s.db, s.snapshots = reopened(t, s)
		goesOn(s, loaded[0].ID.String())
	})
	t.Run("one platform", func(t *testing.T) {
		s := start(t)
		_, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}})
		if !errdefs.Is(err, errdefs.NotFound) || !strings.Contains(err.Error(), "there are ") || !strings.Contains(err.Error(), "linux/riscv64") {
			t.Errorf("a platform that it does not have: %v", err)
		}
		loaded, err := s.Load(ctx, bytes.NewReader(archive), image.LoadOptions{Platforms: []ocispec.Platform{other}})
		if err != nil || len(loaded) != 1 || loaded[0].ID == i.ID {
			t.Fatal(loaded, err)
		}
		if list, err := s.List(ctx); err != nil || len(list) != 1 || list[0].Config.Architecture != other.Architecture {
			t.Errorf("here are %+v, %v", list, err)
		}
		_, err = s.Load(ctx, bytes.NewReader(single), image.LoadOptions{Platforms: []ocispec.Platform{host()}})
		if !errdefs.Is(err, errdefs.NotFound) || !strings.Contains(err.Error(), "there are linux/riscv64") {
			t.Errorf("one platform for another: %v", err)
		}
	})
	t.Run("a member is missing", func(t *testing.T) {
		part := filesOf(t, archive)
		m, err := manifestIn(part, top.Digest, 1)
		if err != nil {
			t.Fatal(err)
		}
		delete(part, "blobs/sha256/"+m.Layers[1].Digest.Encoded())
		s := start(t)
		if loaded, err := s.Load(ctx, bytes.NewReader(archiveOf(t, part)), image.LoadOptions{}); err != nil || len(loaded) != 1 || loaded[0].ID != i.ID {
			t.Fatal(loaded, err)
		}
		if list, err := s.List(ctx); err != nil || len(list) != 1 {
			t.Errorf("here are %+v, %v", list, err)
		}
	})
}

// manifestIn returns the nth manifest of an index in an archive.
func manifestIn(files map[string][]byte, index digest.Digest, n int) (m ocispec.Manifest, err error) {
	var x ocispec.Index
	if err := json.Unmarshal(blobIn(files, index), &x); err != nil {
		return m, err
	}
	return m, json.Unmarshal(blobIn(files, x.Manifests[n].Digest), &m)
}
