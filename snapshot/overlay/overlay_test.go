package overlay_test

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"gantry/archive/confined"
	"gantry/errdefs"
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
