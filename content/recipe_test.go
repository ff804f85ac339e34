package content

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

func draft(t *testing.T, s *Store, d digest.Digest) *Draft {
	t.Helper()
	w, err := s.Draft(d, 5, digest.FromString("layer"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.File.WriteString("how"); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	return w
}

func opened(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A recipe takes the place of its blob, or leaves it and nothing else.
func TestReplace(t *testing.T) {
	s := opened(t)
	d, err := s.Put([]byte("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	w := draft(t, s, d)
	if strange, err := s.Strange(); err != nil || len(strange) > 0 {
		t.Errorf("a recipe in the making is strange: %v %v", strange, err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	// A blob that cannot be deleted stays, and its recipe goes.
	blob, err := s.path(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(blob, blob+"-"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(blob, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.Replace(); err == nil {
		t.Error("a folder that is not empty was deleted")
	}
	if _, err := s.Recipe(d); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("the recipe is there: %v", err)
	}
	if err := os.RemoveAll(blob); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(blob+"-", blob); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	w = draft(t, s, d)
	if err := w.Replace(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if size, err := s.Size(d); s.Whole(d) || size != 5 || err != nil {
		t.Errorf("%d bytes, whole: %v, %v", size, s.Whole(d), err)
	}
}

// One that is here as it is and as a recipe counts once.
func TestUsageOfBoth(t *testing.T) {
	s := opened(t)
	d, err := s.Put([]byte("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	w := draft(t, s, d)
	if err := w.Replace(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put([]byte("bytes")); err != nil {
		t.Fatal(err)
	}
	_, blobs, err := s.DiskUsage(t.Context())
	if err != nil || len(blobs) != 1 || blobs[d] > 2*4096 {
		t.Errorf("%v %v", blobs, err)
	}
}

// What nobody has open any more goes.
func TestSweep(t *testing.T) {
	s := opened(t)
	hex := digest.FromString("other").Encoded()
	for _, left := range []string{"ingest/blob-1", "ingest/recipe-1", "partial/" + hex + ".recent", "partial/" + hex + ".synced.new"} {
		if err := os.WriteFile(filepath.Join(s.root, left), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := s.Ingest(digest.FromString("bytes"), 5)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if strange, err := s.Strange(); err != nil || len(strange) > 0 {
		t.Errorf("left: %v %v", strange, err)
	}
	if _, err := i.WriteAt([]byte("bytes"), 0); err != nil {
		t.Fatal(err)
	}
	if err := i.Commit(); err != nil {
		t.Error(err)
	}
}
