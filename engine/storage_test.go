package engine

import (
	"os"
	"strings"
	"testing"

	"gantry/errdefs"
)

// TestStorageDriver switches between drivers: a data root with containers of one cannot be opened with another, and remembers the one it was used with.
func TestStorageDriver(t *testing.T) {
	o := options(t)
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	first, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if name := first.Snapshots.Name(); name != "erofs" && (name != "overlay2" || strings.Contains(string(known), "erofs")) {
		t.Logf("opened with %s without being told: this kernel has EROFS, but cannot stack images of files", name)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	o.StorageDriver = "native"
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Snapshots.Prepare(t.Context(), "k", nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	o.StorageDriver = "overlay2"
	if _, err := Open(t.Context(), o); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), "were made with storage driver vfs") {
		t.Errorf("another driver: %v", err)
	}
	o.StorageDriver = ""
	if e, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if name := e.Snapshots.Name(); name != "vfs" {
		t.Errorf("opened with %s", name)
	}
	if err := e.Close(); err != nil { // Open has swept the snapshot that no container has
		t.Fatal(err)
	}
	o.StorageDriver = "overlay2"
	if e, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
