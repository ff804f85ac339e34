package overlay_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/archive/confined"
	"gantry/errdefs"
	"gantry/linux/mount"
	"gantry/snapshot"
	"gantry/snapshot/layers"
	"gantry/snapshot/overlay"
	"gantry/snapshot/snapshottest"

	"github.com/opencontainers/go-digest"
)

func TestMain(m *testing.M) {
	confined.Main()
	os.Exit(m.Run())
}

// A folder of a layer is not moved by reference, whatever the kernel's defaults are: a layer made of the upper folder would lose it.
func TestRename(t *testing.T) {
	s, err := overlay.Open(t.TempDir(), layers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := snapshottest.Commit(t, s, snapshottest.Tar(t, snapshottest.Entry{Name: "d/"}, snapshottest.Entry{Name: "d/f", Data: "x"}))
	if err := s.Prepare(t.Context(), "k", []digest.Digest{a}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Mount(t.Context(), "k", false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	root := fmt.Sprintf("/proc/self/fd/%d/", m.Fd())
	if err := syscall.Rename(root+"d", root+"e"); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("a folder of a layer was renamed: %v", err)
	}
}

// Containers stack overlays on their own files, as an engine within a container does: the kernel allows for two levels, which images must not use up.
func TestNested(t *testing.T) {
	for _, images := range []bool{false, true} {
		s, err := overlay.Open(t.TempDir(), layers.Options{Images: images})
		if errdefs.Is(err, errdefs.NotImplemented) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a := snapshottest.Commit(t, s, snapshottest.Tar(t, snapshottest.Entry{Name: "d/f", Data: "x"}))
		if err := s.Prepare(t.Context(), "k", []digest.Digest{a}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Mount(t.Context(), "k", false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		base := t.TempDir()
		if err := errors.Join(os.Mkdir(base+"/upper", 0o755), os.Mkdir(base+"/work", 0o755)); err != nil {
			t.Fatal(err)
		}
		inner, err := mount.Overlay(mount.OverlayOptions{Lower: []string{fmt.Sprintf("/proc/self/fd/%d/d", m.Fd())}, Upper: base + "/upper", Work: base + "/work"})
		if err != nil {
			t.Errorf("images %v: %v", images, err)
			continue
		}
		defer inner.Close()
	}
}

// A data root with folders goes on with images, and back: snapshots stand on both.
func TestMixed(t *testing.T) {
	root := t.TempDir()
	var stack []digest.Digest
	open := func(images bool) *overlay.Snapshotter {
		s, err := overlay.Open(root, layers.Options{Images: images})
		if errdefs.Is(err, errdefs.NotImplemented) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(s *overlay.Snapshotter, key, want string) {
		t.Helper()
		m, err := s.Mount(t.Context(), key, false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for _, name := range []string{"old", "new"} {
			if _, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", m.Fd(), name)); (err == nil) != strings.Contains(want, name) {
				t.Errorf("%s: %s: %v", key, name, err)
			}
		}
	}
	for i, images := range []bool{false, true, false, true} {
		s := open(images)
		name := []string{"old", "new", ".wh.old", "d/x"}[i]
		stack = append(stack, snapshottest.Commit(t, s, snapshottest.Tar(t, snapshottest.Entry{Name: name, Data: "x"})))
		if err := s.Prepare(t.Context(), fmt.Sprint("k", i), stack); err != nil {
			t.Fatal(err)
		}
		for n := range i + 1 {
			check(s, fmt.Sprint("k", n), []string{"old", "old new", "new", "new"}[n])
		}
		if found, err := s.Check(t.Context()); err != nil || len(found) > 0 {
			t.Error(found, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(root, "layers", stack[1].Encoded(), "layer.erofs")
	if err := os.WriteFile(image, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(true)
	defer s.Close()
	if found, err := s.Check(t.Context()); err != nil || len(found) != 1 || !strings.Contains(found[0].Problem, "its image is none") {
		t.Error(found, err)
	}
}

func TestContract(t *testing.T) { contract(t, layers.Options{}) }

func TestContractImages(t *testing.T) { contract(t, layers.Options{Images: true}) }

func contract(t *testing.T, o layers.Options) {
	snapshottest.Run(t, func(t *testing.T, root string) snapshot.Snapshotter {
		s, err := overlay.Open(root, o)
		if errdefs.Is(err, errdefs.NotImplemented) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
