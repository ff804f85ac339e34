package btrfs_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/archive/confined"
	"gantry/errdefs"
	"gantry/snapshot"
	"gantry/snapshot/btrfs"
	"gantry/snapshot/layers"
	"gantry/snapshot/snapshottest"

	"github.com/opencontainers/go-digest"
)

func TestMain(m *testing.M) {
	confined.Main()
	os.Exit(m.Run())
}

// mounted returns a folder on a btrfs of its own.
func mounted(t *testing.T) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if known, _ := os.ReadFile("/proc/filesystems"); err != nil || os.Geteuid() != 0 || !strings.Contains(string(known), "btrfs") {
		t.Skip("needs root, a kernel with btrfs and Debian's btrfs-progs")
	}
	base := t.TempDir()
	image, root := filepath.Join(base, "image"), filepath.Join(base, "root")
	for _, err := range []error{os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<30), os.Mkdir(root, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range [][]string{{mkfs, "-q", image}, {"mount", "-o", "loop", image, root}} {
		if out, err := exec.CommandContext(t.Context(), c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	return root
}

func open(t *testing.T, root string) *btrfs.Snapshotter {
	t.Helper()
	s, err := btrfs.Open(root, layers.Options{})
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

func TestContract(t *testing.T) {
	where := mounted(t)
	n := 0
	roots := map[string]string{}
	snapshottest.Run(t, func(t *testing.T, root string) snapshot.Snapshotter {
		if roots[root] == "" {
			n++
			roots[root] = filepath.Join(where, strings.Repeat("x", n))
			if err := os.Mkdir(roots[root], 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return open(t, roots[root])
	})
}

// A snapshot of a large layer takes no space of its own, the chain's data is the layer's, and chains go with their layers.
func TestSharing(t *testing.T) {
	root := mounted(t)
	s := open(t, root)
	data := make([]byte, 64<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(data)
	layer := snapshottest.Commit(t, s, snapshottest.Tar(t, snapshottest.Entry{Name: "large", Data: string(data)}))
	top := snapshottest.Commit(t, s, snapshottest.Tar(t, snapshottest.Entry{Name: "small", Data: "x"}))
	before := free(t, root)
	for _, c := range []struct {
		key    string
		layers []digest.Digest
	}{{"a", []digest.Digest{layer}}, {"b", []digest.Digest{layer}}, {"c", []digest.Digest{layer, top}}} {
		if err := s.Prepare(t.Context(), c.key, c.layers); err != nil {
			t.Fatal(err)
		}
	}
	if used := before - free(t, root); used > 8<<20 {
		t.Errorf("three snapshots of 64 MiB take %d bytes", used)
	}
	got, err := os.ReadFile(filepath.Join(root, "snapshots/c/fs/large"))
	if err != nil || !bytes.Equal(got, data) {
		t.Error("the snapshot has other data", err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if err := s.Remove(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if err := s.RemoveLayer(t.Context(), top); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "chains/*")); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
	if err := s.RemoveLayer(t.Context(), layer); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "chains/*")); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

func free(t *testing.T, root string) int64 {
	t.Helper()
	syscall.Sync()
	var st syscall.Statfs_t
	if err := syscall.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

func TestElsewhere(t *testing.T) {
	root := t.TempDir()
	if _, err := btrfs.Open(root, layers.Options{}); err != nil && !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
}
