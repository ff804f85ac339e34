package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/errdefs"
	"gantry/network"
)

// options are those of an engine of its own, without a default network.
func options(t *testing.T) Options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "gantry-shim")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "gantry/cmd/gantry-shim")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shim: %v\n%s", err, out)
	}
	o := Options{DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "run"), ShimExe: exe, WarmShims: 1, Network: network.Options{Bridge: "none", Pool: 1}}
	o.Containers.InitPath = exe
	return o
}

func TestOpenClose(t *testing.T) {
	o := options(t)
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{o.DataRoot, o.ExecRoot} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, info, err)
		}
	}
	second := o
	second.ExecRoot += "2"
	if _, err := Open(t.Context(), second); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), "is in use by another daemon") {
		t.Errorf("a second engine on the same data: %v", err)
	}
	found, err := e.Check(t.Context())
	if err != nil || len(found) > 0 {
		t.Errorf("check: %v %v", found, err)
	}
	id := e.ID
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if e.ID != id || len(id) != 36 {
		t.Errorf("ID %q, then %q", id, e.ID)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenFails(t *testing.T) {
	o := options(t)
	o.StorageDriver = "aufs"
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "storage driver aufs is not supported") {
		t.Errorf("%v", err)
	}
	o.StorageDriver, o.ShimExe = "", filepath.Join(t.TempDir(), "nothing")
	if _, err := Open(t.Context(), o); err == nil {
		t.Error("opened without a shim")
	}
	o.ShimExe = o.Containers.InitPath // and the failed attempts hold no lock
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
