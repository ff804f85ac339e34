package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	profile "github.com/moby/profiles/seccomp"
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
	t.Cleanup(func() {
		parents, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-oci-package")
		for _, p := range parents {
			_ = os.Remove(p) // the last test's succeeds
		}
	})
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
			CgroupsPath:   "/gantry-oci-package/" + filepath.Base(filepath.Dir(root)) + filepath.Base(root),
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
	if err := os.Symlink("loop", root+"/bin/loop"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]syscall.Errno{"nosuch": syscall.ENOENT, "/etc/passwd": syscall.EACCES, "/bin": syscall.EISDIR, "/bin/loop": syscall.ELOOP, "/no/such": syscall.ENOENT} {
		_, _, err := tryRun(dockerSpec(t, root, name))
		var e *oci.ExecError
		if !errors.As(err, &e) || e.Errno != want || e.Path != name {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// start makes and starts a container whose init sleeps.
func start(t *testing.T, s *specs.Spec) *oci.Container {
	t.Helper()
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s, DieWithParent: true}, oci.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// execIn runs a process in a container and returns its output and exit code.
func execIn(t *testing.T, c *oci.Container, p *specs.Process) (string, int) {
	t.Helper()
	ctx := context.Background()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	proc, err := c.Exec(ctx, p, oci.ExecOptions{Stdio: oci.Stdio{Stdout: w, Stderr: w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if proc.Console != nil {
		r.Close()
		r = proc.Console
	}
	out, _ := io.ReadAll(r) // a terminal ends with EIO
	st, err := proc.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Close(); err != nil {
		t.Error(err)
	}
	return string(out), st.Code
}

func process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps}}
}

func TestExec(t *testing.T) {
	c := start(t, dockerSpec(t, rootfs(t), "sleep", "1000"))
	out, code := execIn(t, c, process("sh", "-c", "hostname; for n in cgroup ipc mnt net pid uts; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) || echo $n; done; test -d /proc/1 && ls /proc/self/fd | wc -l; exit 3"))
	if out != "c1\n4\n" || code != 3 {
		t.Errorf("exit code %d, output %q", code, out)
	}
	p := process("sh", "-c", "id; echo $HOME; pwd; grep -e CapPrm -e CapBnd -e CapInh -e CapAmb /proc/self/status; touch /root/x")
	p.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}}
	p.Cwd = "/tmp"
	out, code = execIn(t, c, p)
	want := "uid=1000(web) gid=1001 groups=7\n/home/web\n/tmp\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\ntouch: /root/x: Permission denied\n"
	if out != want || code != 1 {
		t.Errorf("exit code %d, output %q, want %q", code, out, want)
	}
	_, err := c.Exec(context.Background(), process("nosuch"), oci.ExecOptions{})
	var e *oci.ExecError
	if !errors.As(err, &e) || e.Errno != syscall.ENOENT {
		t.Errorf("missing program: %v", err)
	}
	p = process("sh", "-c", "tty; stty size; test -t 0 && echo terminal")
	p.Terminal, p.ConsoleSize = true, &specs.Box{Height: 33, Width: 99}
	if out, code = execIn(t, c, p); out != "/dev/pts/0\r\n33 99\r\nterminal\r\n" || code != 0 {
		t.Errorf("terminal: exit code %d, output %q", code, out)
	}
	if out, code = execIn(t, c, process("sh", "-c", "kill -9 $$")); code != 137 {
		t.Errorf("killed: exit code %d, output %q", code, out)
	}
}

func TestTerminal(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "sh", "-c", "tty; stty size; ls -l /dev/console; cat")
	s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 40, Width: 120}
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	console := c.Init().Console
	defer console.Close()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := console.WriteString("hello\n\x04"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(console)
	if st, err := c.Init().Wait(ctx); err != nil || st.Code != 0 {
		t.Errorf("status %v, %v", st, err)
	}
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"/dev/pts/0", "40 120", "136,   0", "hello"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in the output %q", want, out)
		}
	}
}

func TestSeccomp(t *testing.T) {
	for _, nnp := range []bool{false, true} {
		for _, uid := range []uint32{0, 1000} {
			s := dockerSpec(t, rootfs(t), "sh", "-c", "grep -e Seccomp: -e NoNewPrivs /proc/self/status; mount -t tmpfs x /tmp; exit 0")
			p, err := profile.GetDefaultProfile(s)
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Seccomp = p
			s.Process.NoNewPrivileges = nnp
			s.Process.User.UID = uid
			out, code := run(t, s)
			want := "NoNewPrivs:\t0\nSeccomp:\t2\n"
			if nnp {
				want = "NoNewPrivs:\t1\nSeccomp:\t2\n"
			}
			if !strings.HasPrefix(out, want) || code != 0 {
				t.Errorf("exit code %d, output %q", code, out)
			}
		}
	}
}

func TestWorkingDirectory(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "pwd")
	s.Process.Cwd = "/srv/new/dir"
	if out, code := run(t, s); out != "/srv/new/dir\n" || code != 0 {
		t.Errorf("exit code %d, output %q", code, out)
	}
	for n := range 30 { // a leaked descriptor must not be a way out (CVE-2024-21626)
		for _, of := range []string{"self", "1", "thread-self"} {
			s := dockerSpec(t, rootfs(t), "pwd")
			s.Process.Cwd = fmt.Sprintf("/proc/%s/fd/%d", of, n)
			if out, code, err := tryRun(s); err == nil {
				t.Errorf("working directory %s: exit code %d, output %q", s.Process.Cwd, code, out)
			}
		}
	}
}
