package oci_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestMountOrder has the kernel list bind mounts and file systems of all kinds in the specification's order, and none of them beside.
func TestMountOrder(t *testing.T) {
	r := setup(t, "cat", "/proc/self/mountinfo")
	vol := t.TempDir()
	file := filepath.Join(vol, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var want []string
	r.edit(func(s *specs.Spec) {
		add := func(dst, fsType, source string, options ...string) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dst, Type: fsType, Source: source, Options: options})
		}
		add("/mnt/1", "bind", vol, "rbind", "rshared")
		add("/mnt/2", "tmpfs", "tmpfs", "unbindable")
		add("/mnt/3", "bind", file, "bind", "private")
		add("/mnt/4", "bind", vol, "bind", "unbindable")
		add("/mnt/5", "tmpfs", "tmpfs", "private")
		add("/mnt/6", "bind", vol, "rbind", "runbindable")
		for _, m := range s.Mounts {
			want = append(want, m.Destination)
		}
	})
	kinds := map[string]string{"/mnt/1": "shared:", "/mnt/2": "unbindable", "/mnt/4": "unbindable", "/mnt/6": "unbindable"}
	var got []string
	for line := range strings.Lines(r.must("run", "m")) {
		f := strings.Fields(line)
		if slices.Contains(want, f[4]) {
			got = append(got, f[4])
		}
		if strings.Contains(line, r.bundle) && f[4] != "/" {
			t.Errorf("a mount that is not the container's: %s", line)
		}
		if strings.HasPrefix(f[4], "/mnt/") && !strings.HasPrefix(f[6], kinds[f[4]]) || kinds[f[4]] == "" && strings.HasPrefix(f[4], "/mnt/") && f[6] != "-" {
			t.Errorf("propagation of %s: %s", f[4], f[6])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the kernel lists %q, want %q", got, want)
	}
}
