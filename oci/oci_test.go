package oci_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/oci"
)

// rootfs makes a root file system with busybox in it.
func rootfs(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "ls", "true", "false", "id", "ps", "mount", "sleep", "hostname", "env", "tty", "stat", "touch", "echo", "kill", "test", "grep", "readlink", "ulimit", "mkdir", "dd", "head", "pwd", "mknod", "ip", "stty", "nohup"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

var dockerCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// dockerSpec is what Docker's daemon makes of `docker run` without options.
func dockerSpec(t testing.TB, root string, args ...string) *specs.Spec {
	n := func(n int64) *int64 { return &n }
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		},
		Hostname: "c1",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			CgroupsPath:   "/gantry-test/" + filepath.Base(filepath.Dir(root)) + filepath.Base(root),
			Namespaces:    []specs.LinuxNamespace{{Type: "mount"}, {Type: "network"}, {Type: "uts"}, {Type: "pid"}, {Type: "ipc"}, {Type: "cgroup"}},
			MaskedPaths:   []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{
					{Allow: false, Access: "rwm"},
					{Allow: true, Type: "c", Major: n(1), Minor: n(5), Access: "rwm"}, {Allow: true, Type: "c", Major: n(1), Minor: n(3), Access: "rwm"},
					{Allow: true, Type: "c", Major: n(1), Minor: n(9), Access: "rwm"}, {Allow: true, Type: "c", Major: n(1), Minor: n(8), Access: "rwm"},
					{Allow: true, Type: "c", Major: n(5), Minor: n(0), Access: "rwm"}, {Allow: true, Type: "c", Major: n(5), Minor: n(1), Access: "rwm"},
					{Allow: true, Type: "c", Major: n(136), Access: "rwm"}, {Allow: true, Type: "c", Major: n(5), Minor: n(2), Access: "rwm"},
					{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"},
				},
				Pids: &specs.LinuxPids{Limit: n(512)},
			},
		},
	}
}

// run creates, starts, waits for and deletes a container, and returns its output and exit code.
func run(t testing.TB, s *specs.Spec) (string, int) {
	t.Helper()
	out, code, err := tryRun(s)
	if err != nil {
		t.Fatal(err)
	}
	return out, code
}

func tryRun(s *specs.Spec) (string, int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		return "", 0, err
	}
	err = c.Start(ctx)
	var out bytes.Buffer
	if err == nil {
		_, err = io.Copy(&out, r)
	}
	st, werr := c.Init().Wait(ctx)
	return out.String(), st.Code, errors.Join(err, werr, c.Delete(ctx))
}

func TestRun(t *testing.T) {
	root := rootfs(t)
	out, code := run(t, dockerSpec(t, root, "sh", "-c", "id -u; hostname; echo $HOME; echo $$; ls /proc/self/fd | wc -l; mount; cat /proc/self/cgroup; cat /proc/self/status | grep -i -e cap -e sec -e nnp; ls -la /dev; exit 7"))
	if code != 7 || !strings.HasPrefix(out, "0\nc1\n/root\n1\n") {
		t.Errorf("exit code %d, output:\n%s", code, out)
	}
}

func TestExecErrors(t *testing.T) {
	root := rootfs(t)
	for name, want := range map[string]syscall.Errno{"nosuch": syscall.ENOENT, "/etc/passwd": syscall.EACCES, "/bin": syscall.EACCES, "/no/such": syscall.ENOENT} {
		_, _, err := tryRun(dockerSpec(t, root, name))
		var e *oci.ExecError
		if !errors.As(err, &e) || e.Errno != want || e.Path != name {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
