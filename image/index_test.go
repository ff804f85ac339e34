package image_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"gantry/archive"
	"gantry/db"
	"gantry/errdefs"
	"gantry/image"
	"gantry/registry/registrytest"
	"gantry/snapshot/overlay"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// family is a registry with an index "app:1" of two platforms and an attestation.
func family(t *testing.T) (r *registrytest.Registry, top ocispec.Descriptor, other ocispec.Platform) {
	t.Helper()
	r = registrytest.New()
	t.Cleanup(r.Close)
	other = host()
	other.Architecture = "riscv64"
	shared := tarOf(t, text("shared", strings.Repeat("shared", 1000)))
	a := r.AddImage("app", "", host(), shared, tarOf(t, text("own", "a")))
	b := r.AddImage("app", "", other, shared, tarOf(t, text("own", "b")))
	statement := r.AddBlob("app", []byte(`{"statement": true}`))
	statement.MediaType = "application/vnd.in-toto+json"
	config := r.AddBlob("app", []byte(`{"architecture": "unknown"}`))
	config.MediaType = ocispec.MediaTypeImageConfig
	data, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{statement}})
	if err != nil {
		t.Fatal(err)
	}
	about := r.AddManifest("app", "", ocispec.MediaTypeImageManifest, data)
	about.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	about.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": a.Digest.String()}
	return r, r.AddIndex("app", "1", ocispec.MediaTypeImageIndex, a, b, about), other
}

// said collects what a verb says.
type said []image.Progress

func (s *said) listen(p image.Progress) { *s = append(*s, p) }

// instead returns the note that one platform was pushed for all, or nil.
func (s said) instead() *image.PushedInstead {
	for _, p := range s {
		if n, ok := p.Aux.(image.PushedInstead); ok {
			return &n
		}
	}
	return nil
}

// TestPushIndex pushes a name that stands for an index: as one platform where the others are nowhere, as the index where they are here or in the repository.
func TestPushIndex(t *testing.T) {
	t.Parallel()
	from, top, other := family(t)
	to := registrytest.New()
	defer to.Close()
	s := start(t)
	ctx := t.Context()
	source, target := from.Host()+"/app:1", to.Host()+"/team/app:1"
	i, err := s.Pull(ctx, source, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, source, target); err != nil {
		t.Fatal(err)
	}
	push := func(ref string, o image.PushOptions) said {
		t.Helper()
		var lines said
		o.Progress = lines.listen
		if err := s.Push(ctx, ref, o); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	lines := push(target, image.PushOptions{})
	if n := lines.instead(); n == nil || n.Index.Digest != top.Digest || n.Manifest.Digest != i.Manifest.Digest {
		t.Errorf("one platform: %+v", n)
	}
	if got := digest.FromBytes(to.Manifest("team/app", "1")); got != i.Manifest.Digest {
		t.Errorf("pushed %s, want %s", got, i.Manifest.Digest)
	}
	// The repository that it came from has the rest.
	if err := s.Tag(ctx, source, from.Host()+"/app:2"); err != nil {
		t.Fatal(err)
	}
	if n := push(from.Host()+"/app:2", image.PushOptions{}).instead(); n != nil || digest.FromBytes(from.Manifest("app", "2")) != top.Digest {
		t.Errorf("within a repository: %+v", n)
	}
	if err := s.Push(ctx, target, image.PushOptions{Platform: &other}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("a platform that is not here: %v", err)
	}

	if _, err := s.Pull(ctx, source, image.PullOptions{AllPlatforms: true}); err != nil {
		t.Fatal(err)
	}
	s.close(t)
	s.Service, s.db, s.snapshots = reopened(t, s)
	if err := s.Tag(ctx, source, target); err != nil {
		t.Fatal(err)
	}
	if n := push(target, image.PushOptions{}).instead(); n != nil {
		t.Errorf("all platforms: %+v", n)
	}
	var index ocispec.Index
	if data := to.Manifest("team/app", "1"); digest.FromBytes(data) != top.Digest || json.Unmarshal(data, &index) != nil {
		t.Fatalf("pushed %s", data)
	}
	for _, m := range index.Manifests {
		if got := to.Manifest("team/app", m.Digest.String()); digest.FromBytes(got) != m.Digest {
			t.Errorf("%s was not pushed", m.Digest)
		}
	}
	if !bytes.Equal(to.Blob("team/app", digest.FromString(`{"statement": true}`)), []byte(`{"statement": true}`)) {
		t.Error("the attestation was not pushed")
	}
	push(target, image.PushOptions{Platform: &other})
	if got := digest.FromBytes(to.Manifest("team/app", "1")); got != index.Manifests[1].Digest {
		t.Errorf("another platform: pushed %s", got)
	}
	// With the names go the other platforms.
	for _, name := range []string{source, from.Host() + "/app:2", target} {
		if _, err := s.Remove(ctx, name, image.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}

// reopened opens a closed store anew.
func reopened(t *testing.T, s *store) (*image.Service, *db.DB, *overlay.Snapshotter) {
	t.Helper()
	n := open(t, s.root)
	return n.Service, n.db, n.snapshots
}

// TestPushCompression pushes pulled images compressed otherwise, and then as they were.
func TestPushCompression(t *testing.T) {
	t.Parallel()
	from, top, _ := family(t)
	to := registrytest.New()
	defer to.Close()
	s := start(t)
	ctx := t.Context()
	source, target := from.Host()+"/app:1", to.Host()+"/app:1"
	if _, err := s.Pull(ctx, source, image.PullOptions{AllPlatforms: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, source, target); err != nil {
		t.Fatal(err)
	}
	for _, choice := range []struct {
		packing   archive.Packing
		mediaType string
	}{
		{archive.Packing{Kind: archive.Zstd, Level: 9}, ocispec.MediaTypeImageLayerZstd},
		{archive.Packing{Kind: archive.Gzip}, ocispec.MediaTypeImageLayerGzip},
	} {
		var lines said
		if err := s.Push(ctx, target, image.PushOptions{Packing: choice.packing, Progress: lines.listen}); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(lines, func(p image.Progress) bool {
			return p.Status == "Compressing as "+choice.packing.String()+" (was none)"
		}) {
			t.Errorf("it does not say so: %+v", lines)
		}
		var index ocispec.Index
		if err := json.Unmarshal(to.Manifest("app", "1"), &index); err != nil || len(index.Manifests) != 2 {
			t.Fatalf("index: %+v, %v", index, err)
		}
		for _, d := range index.Manifests {
			var m ocispec.Manifest
			if err := json.Unmarshal(to.Manifest("app", d.Digest.String()), &m); err != nil || d.Platform == nil {
				t.Fatal(d, err)
			}
			for _, l := range m.Layers {
				blob := to.Blob("app", l.Digest)
				if l.MediaType != choice.mediaType || archive.Detect(blob) != choice.packing.Kind || l.Size != int64(len(blob)) {
					t.Errorf("layer %s %s, %d bytes", l.MediaType, archive.Detect(blob), len(blob))
				}
			}
		}
		// It is the same image, for everybody.
		second := start(t)
		i, err := second.Pull(ctx, target, image.PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if own, err := s.Get(ctx, source); err != nil || own.ID != i.ID {
			t.Error(own, err)
		}
	}
	if err := s.Push(ctx, target, image.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := digest.FromBytes(to.Manifest("app", "1")); got != top.Digest {
		t.Errorf("without a choice: %s, want %s", got, top.Digest)
	}
}
