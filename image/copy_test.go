package image_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/errdefs"
	"gantry/image"
	"gantry/registry"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestCopy copies an index of two platforms with a signature, past a registry that breaks connections.
func TestCopy(t *testing.T) {
	from, to := registrytest.New(), registrytest.New()
	defer from.Close()
	defer to.Close()
	shared, own := bigLayer(t, 1, 3<<20), tarOf(t, text("own", "1"))
	a := from.AddImage("app", "", host(), shared, own)
	other := host()
	other.Architecture = "riscv64"
	b := from.AddImage("app", "", other, shared)
	a.Platform, b.Platform = &ocispec.Platform{OS: host().OS, Architecture: host().Architecture}, &other
	top := from.AddIndex("app", "1", ocispec.MediaTypeImageIndex, a, b)
	public, sign := keyPair(t)
	signSimple(t, from, "app", top.Digest, sign)
	from.Break(registrytest.Fault{Method: "GET", Path: "/app/blobs/" + digest.FromBytes(shared).String(), Times: 2, Do: registrytest.Cut(1 << 20)})

	s := start(t)
	if err := s.Configure(quick(), 0, 0); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var said []string
	d, err := s.Copy(ctx, from.Host()+"/app:1", to.Host()+"/team/copy:2", image.CopyOptions{Progress: func(p image.Progress) { said = append(said, p.Status) }})
	if err != nil || d.Digest != top.Digest {
		t.Fatal(d, err)
	}
	if !slices.Contains(said, "Copied") || !strings.HasPrefix(said[len(said)-1], "2: digest: "+top.Digest.String()) {
		t.Errorf("%q", said)
	}
	for _, ref := range []string{"2", top.Digest.String(), a.Digest.String(), b.Digest.String(), "sha256-" + top.Digest.Encoded() + ".sig"} {
		if got, want := to.Manifest("team/copy", ref), from.Manifest("app", map[bool]string{true: "1", false: ref}[ref == "2"]); len(got) == 0 || string(got) != string(want) {
			t.Errorf("manifest %s: %d bytes, want %d", ref, len(got), len(want))
		}
	}
	for _, layer := range [][]byte{shared, own} {
		if got := to.Blob("team/copy", digest.FromBytes(layer)); string(got) != string(layer) {
			t.Errorf("a layer has %d bytes, want %d", len(got), len(layer))
		}
	}
	// It runs where it is now, and a second copy sends nothing.
	if _, err := s.Pull(ctx, to.Host()+"/team/copy:2", image.PullOptions{}); err != nil {
		t.Error(err)
	}
	if v, err := s.Verify(ctx, to.Host()+"/team/copy:2", image.VerifyOptions{Key: public}); err != nil || len(v) != 1 || v[0].Allowed || !strings.Contains(v[0].Reasons[0], "it names the image") {
		t.Errorf("the signature is for another name: %+v, %v", v, err)
	}
	before := to.Count("PUT", "/blobs/uploads/")
	if _, err := s.Copy(ctx, from.Host()+"/app:1", to.Host()+"/team/copy:3", image.CopyOptions{}); err != nil || to.Count("PUT", "/blobs/uploads/") != before {
		t.Errorf("a second copy sent blobs: %v", err)
	}
	if _, err := s.Remove(ctx, to.Host()+"/team/copy:2", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, "content/partial/*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, name := range []string{from.Host() + "/app:none", from.Host() + "/none:1"} {
		if _, err := s.Copy(ctx, name, to.Host()+"/x:1", image.CopyOptions{}); !errdefs.Is(err, errdefs.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Copy(ctx, from.Host()+"/app:1", to.Host()+"/x@"+top.Digest.String(), image.CopyOptions{From: registry.Auth{}}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
}
