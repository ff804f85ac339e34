package image_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"gantry/db"
	"gantry/errdefs"
	"gantry/fsck"
	"gantry/image"
	"gantry/snapshot/overlay"

	"github.com/opencontainers/go-digest"
)

// everything is what a check with layers finds.
func (s *store) everything(t *testing.T) []fsck.Difference {
	t.Helper()
	found, err := s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []func(context.Context) ([]fsck.Difference, error){s.snapshots.Check, s.CheckLayers} {
		more, err := check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, more...)
	}
	return found
}

// anew closes and opens a store.
func (s *store) anew(t *testing.T) {
	t.Helper()
	s.close(t)
	s.Service, s.db, s.snapshots = again(t, s)
}

func again(t *testing.T, s *store) (*image.Service, *db.DB, *overlay.Snapshotter) {
	t.Helper()
	n := openOptions(t, image.Options{Root: s.root, Registry: quick(), Keep: true}, true)
	return n.Service, n.db, n.snapshots
}

// TestMend flips a bit of each blob of an index with two images and an attestation, in turn, and has it repaired from the registry.
func TestMend(t *testing.T) {
	from, top, _ := family(t)
	ctx := t.Context()
	s := openOptions(t, image.Options{Root: t.TempDir(), Registry: quick(), Keep: true}, true)
	defer func() { s.close(t) }()
	source := from.Host() + "/app:1"
	if _, err := s.Pull(ctx, source, image.PullOptions{AllPlatforms: true}); err != nil {
		t.Fatal(err)
	}
	archive := s.saved(t, source)
	all := blobs(t, s.root, "blobs")
	if len(all) < 9 {
		t.Fatalf("%d blobs", len(all))
	}
	for n, file := range all {
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		flip(t, file, st.Size()/2)
		if n%2 == 0 {
			s.anew(t)
		}
		if found := s.everything(t); len(found) == 0 {
			t.Errorf("damage of %s was not found", filepath.Base(file))
		}
		if n%3 == 0 { // a pull brings what a check has found
			if _, err := s.Pull(ctx, source, image.PullOptions{AllPlatforms: true}); err != nil {
				t.Errorf("pull with a damaged %s: %v", filepath.Base(file), err)
			}
		}
		for range 2 {
			for _, d := range s.everything(t) {
				if d.Repair == nil {
					t.Errorf("%s %s: %s: no repair", d.Area, d.Object, d.Problem)
				} else if err := d.Repair(ctx); err != nil {
					t.Errorf("%s %s: %s: %v", d.Area, d.Object, d.Problem, err)
				}
			}
		}
		for _, d := range s.everything(t) {
			t.Errorf("damage of %s: after the repair: %s %s: %s", filepath.Base(file), d.Area, d.Object, d.Problem)
		}
		if again := s.saved(t, source); string(again) != string(archive) {
			t.Errorf("damage of %s: the archive is another", filepath.Base(file))
		}
	}
	// Without the registry the image works, is named, and is not forgotten.
	i, err := s.Get(ctx, source)
	if err != nil {
		t.Fatal(err)
	}
	from.Close()
	for _, name := range []digest.Digest{i.DiffIDs[0], top.Digest} {
		flip(t, filepath.Join(s.root, "content/blobs/sha256", name.Encoded()), 10)
	}
	failed := 0
	for _, d := range s.everything(t) {
		if d.Repair == nil || d.Repair(ctx) != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Error("a repair did without the registry")
	}
	s.anew(t)
	if again, err := s.Get(ctx, source); err != nil || again.ID != i.ID {
		t.Errorf("after a repair without the registry: %v, %v", again, err)
	}
	if len(s.everything(t)) == 0 {
		t.Error("what could not be repaired is not named any more")
	}
	if _, err := s.Pull(ctx, source, image.PullOptions{}); err == nil || errdefs.Is(err, errdefs.Internal) {
		t.Errorf("pull without the registry: %v", err)
	}
}
