package oci_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// withoutMounts makes a bundle whose container has no mount namespace of its own, and takes away what is mounted for it.
func withoutMounts(t *testing.T, args ...string) *runtime {
	r := setup(t, args...)
	r.edit(func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	})
	t.Cleanup(r.unmountRoot)
	return r
}

// mounted returns how many mounts there are in the bundle.
func (r *runtime) mounted() int {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Count(string(data), " "+r.bundle+"/rootfs")
}

func (r *runtime) unmountRoot() {
	for r.mounted() > 0 {
		if err := syscall.Unmount(filepath.Join(r.bundle, "rootfs"), syscall.MNT_DETACH); err != nil {
			r.t.Error(err)
			return
		}
	}
}

func TestHostMounts(t *testing.T) {
	r := withoutMounts(t, "sh", "-c", "readlink /proc/self/ns/mnt; ls /; grep -c . /proc/self/mountinfo >/dev/null; echo $$; sleep 1000")
	out := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := r.command("create", "h")
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if n := r.mounted(); n < 5 {
		t.Errorf("%d mounts on the host", n)
	}
	r.must("start", "h")
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	want := ns + "\nbin\ndev\netc\nproc\nsys\ntmp\n1\n"
	eventually(t, "the program's output", func() bool {
		data, _ := os.ReadFile(out)
		return string(data) == want
	})
	if got := r.must("exec", "h", "sh", "-c", "readlink /proc/self/ns/mnt; ls /; pwd"); got != strings.TrimSuffix(want, "1\n")+"/\n" {
		t.Errorf("exec: %q", got)
	}
	r.must("delete", "--force", "h")
	if n := r.mounted(); n == 0 {
		t.Error("what is mounted in the host's mount namespace has gone; runc leaves it")
	}
}

func TestHostMountsHooks(t *testing.T) {
	r := withoutMounts(t, "true")
	r.edit(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{
			CreateRuntime:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "touch " + r.bundle + "/runtime"}}},
			StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", ": >/inside"}}},
		}
	})
	r.must("run", "h")
	for _, name := range []string{"runtime", "rootfs/inside"} {
		if _, err := os.Stat(filepath.Join(r.bundle, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestHostMountsRefused(t *testing.T) {
	r := withoutMounts(t, "true")
	r.edit(func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/proc/kcore"} })
	r.fails(1, "unable to restrict sys entries without a private MNT namespace", "run", "h")
	r.edit(func(s *specs.Spec) {
		s.Linux.MaskedPaths = nil
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 1000}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	})
	r.fails(1, "linux.namespaces: with a user namespace a container needs a mount namespace", "run", "h")
	r.edit(func(s *specs.Spec) { // one that fails when all has been mounted
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		s.Process.Args = []string{"/no/such"}
	})
	r.fails(1, "no such file", "create", "h")
	if n := r.mounted(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}
