package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/oci"
)

// chown gives a tree to a user.
func chown(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) { // t.TempDir's parents are root's alone
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

const subordinate = 200000 // first of the host's users in the tests' user namespaces

// userSpec is dockerSpec in a user namespace.
func userSpec(t *testing.T, root string, args ...string) *specs.Spec {
	t.Helper()
	chown(t, root, subordinate)
	s := dockerSpec(t, root, args...)
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: subordinate, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	return s
}

func TestUserNamespace(t *testing.T) {
	vol := t.TempDir()
	chown(t, vol, subordinate+7)
	s := userSpec(t, rootfs(t))
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/new/vol", Type: "bind", Source: vol, Options: []string{"rbind", "rprivate"}},
		specs.Mount{Destination: "/run", Type: "tmpfs", Options: []string{"size=64k"}})
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	expect(t, s, `id -u; id -g; hostname; cat /proc/self/uid_map; stat -c '%n %u %g' /new /new/vol /dev /dev/null /dev/shm /run /dev/pts; echo x > /dev/null
		grep CapEff /proc/self/status; cat /proc/sys/net/ipv4/ip_forward; touch /run/x /dev/x /etc/x && stat -c '%u' /etc/x; ls /proc/self/fd | wc -l; cat /proc/keys | wc -c; mknod /tmp/n c 1 3 || echo no device; touch /sys/x`,
		"0\n0\nc1\n         0     200000      65536\n/new 0 0\n/new/vol 7 7\n/dev 0 0\n/dev/null 0 0\n/dev/shm 0 0\n/run 0 0\n/dev/pts 0 0\n"+
			"CapEff:\t00000000a80425fb\n1\n0\n4\n0\nmknod: /tmp/n: Operation not permitted\nno device\ntouch: /sys/x: Read-only file system\n")
	if st, err := os.Stat(s.Root.Path + "/etc/x"); err != nil || st.Sys().(*syscall.Stat_t).Uid != subordinate {
		t.Errorf("a file made by the container's root: %v, %v", st, err)
	}
}

func TestUserNamespaceExec(t *testing.T) {
	s := userSpec(t, rootfs(t), "sleep", "1000")
	s.Process.Terminal = false
	c := start(t, s)
	p := process("sh", "-c", "id; cat /proc/self/uid_map; grep -e CapPrm -e CapBnd /proc/self/status; touch /root/x")
	p.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7}}
	want := "uid=1000(web) gid=1000 groups=7\n         0     200000      65536\nCapPrm:\t0000000000000000\nCapBnd:\t00000000a80425fb\ntouch: /root/x: Permission denied\n"
	if out, _ := execIn(t, c, p); out != want {
		t.Errorf("prints %q, want %q", out, want)
	}
	if out, _ := execIn(t, c, process("sh", "-c", "id -u; for n in cgroup ipc mnt net pid user uts; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) || echo $n; done")); out != "0\n" {
		t.Errorf("as root: %q", out)
	}
	p = process("sh", "-c", "tty; test -w /dev/pts/0 && stat -c %u /dev/pts/0")
	p.Terminal = true
	p.User.UID = 1000
	if out, _ := execIn(t, c, p); out != "/dev/pts/0\r\n1000\r\n" {
		t.Errorf("terminal: %q", out)
	}
	p = process("id")
	p.User.UID = 70000
	if _, err := c.Exec(context.Background(), p, oci.ExecOptions{}); errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), "70000") {
		t.Errorf("a user without mapping: %v", err)
	}
}

func TestUserNamespaceTerminal(t *testing.T) {
	s := userSpec(t, rootfs(t), "sh", "-c", "tty; stat -c '%u %t' /dev/console; stty size")
	s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 40, Width: 120}
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	if out := onTerminal(t, s); out != "/dev/pts/0\r\n1000 88\r\n40 120\r\n" {
		t.Errorf("%q", out)
	}
}

// onTerminal runs a container on a terminal.
func onTerminal(t *testing.T, s *specs.Spec) string {
	t.Helper()
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
	var out bytes.Buffer
	_, _ = out.ReadFrom(console) // ends with EIO
	if _, err := c.Init().Wait(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}
	return out.String()
}

// TestRootOfOther has a root file system that the container's root has no access to.
func TestRootOfOther(t *testing.T) {
	root := rootfs(t)
	s := userSpec(t, root, "true")
	chown(t, root, 0)
	if err := os.Chmod(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tryRun(s); !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "must have access") {
		t.Errorf("no refusal but %v", err)
	}
}

// held starts a process in namespaces of its own, of unshare's flags, and returns its number.
func held(t *testing.T, flags ...string) int {
	t.Helper()
	cmd := exec.Command("unshare", append(flags, "sh", "-c", "echo; exec sleep 1000")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func path(pid int, ns string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, ns) }

func link(t *testing.T, path string) string {
	t.Helper()
	l, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return l + "\n"
}

// TestNewUserOldNetwork makes a user namespace beside a network namespace that belongs to the host.
func TestNewUserOldNetwork(t *testing.T) {
	holder := held(t, "-n", "-u")
	s := userSpec(t, rootfs(t))
	s.Hostname = ""
	for i, n := range s.Linux.Namespaces {
		switch n.Type {
		case "network":
			s.Linux.Namespaces[i].Path = path(holder, "net")
		case "uts":
			s.Linux.Namespaces[i].Path = path(holder, "uts")
		}
	}
	s.Linux.ReadonlyPaths, s.Linux.MaskedPaths = nil, nil
	expect(t, s, "id -u; echo $$; readlink /proc/self/ns/net; readlink /proc/self/ns/uts; cat /proc/self/uid_map; test -d /sys/class && echo sys", "0\n1\n"+link(t, path(holder, "net"))+link(t, path(holder, "uts"))+"         0     200000      65536\nsys\n")
}

func TestJoinedUser(t *testing.T) {
	first := start(t, userSpec(t, rootfs(t), "sleep", "1000"))
	pid := first.Init().Pid
	for _, joined := range [][]string{{"user"}, {"user", "network"}, {"user", "pid", "network", "ipc", "uts"}} {
		s := userSpec(t, rootfs(t))
		s.Hostname = ""
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		var want strings.Builder
		want.WriteString("0\n")
		script := "id -u; "
		for i, n := range s.Linux.Namespaces {
			for _, j := range joined {
				if string(n.Type) == j {
					file := strings.ReplaceAll(j, "network", "net")
					s.Linux.Namespaces[i].Path = path(pid, file)
					script += "readlink /proc/self/ns/" + file + "; "
					want.WriteString(link(t, path(pid, file)))
				}
			}
		}
		expect(t, s, script+"stat -c %u /dev/null", want.String()+"0\n")
	}
}

func TestKindOfNamespace(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "true")
	s.Linux.Namespaces[1].Path = "/proc/self/ns/pid"
	if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), "is a pid namespace, not a network namespace") {
		t.Errorf("%v", err)
	}
	s.Linux.Namespaces[1].Path = "/etc/passwd"
	if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), "not a namespace") {
		t.Errorf("%v", err)
	}
}

func TestTimeNamespace(t *testing.T) {
	for _, user := range []bool{false, true} {
		s := dockerSpec(t, rootfs(t))
		if user {
			s = userSpec(t, rootfs(t))
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000000}, "monotonic": {Secs: 5}}
		script := "test $(cut -d. -f1 /proc/uptime) -gt 1000000000 && echo late; test $(readlink /proc/self/ns/time) != " + strings.TrimSpace(link(t, "/proc/self/ns/time")) + " && echo own"
		s.Process.Args = []string{"sleep", "1000"}
		addBusybox(t, s.Root.Path, "cut")
		c := start(t, s)
		if out, _ := execIn(t, c, process("sh", "-c", script)); out != "late\nown\n" {
			t.Errorf("user %v: exec: %q", user, out)
		}
		s2 := *s
		linux := *s.Linux
		s2.Linux = &linux
		s2.Process = process("sh", "-c", script+"; read up rest </proc/uptime; test ${up%.*} -gt 1000000000 && echo itself")
		s2.Linux.CgroupsPath += "-2"
		if out, _ := run(t, &s2); out != "late\nown\nitself\n" {
			t.Errorf("user %v: %q", user, out)
		}
		linux.TimeOffsets = nil
		linux.Namespaces = append([]specs.LinuxNamespace{}, linux.Namespaces...)
		for i, n := range linux.Namespaces {
			if n.Type == "time" {
				linux.Namespaces[i].Path = path(c.Init().Pid, "time")
			}
			if n.Type == "user" {
				linux.Namespaces[i].Path = path(c.Init().Pid, "user")
				linux.UIDMappings, linux.GIDMappings = nil, nil
			}
		}
		if out, _ := run(t, &s2); out != "late\nown\nitself\n" {
			t.Errorf("user %v: joined: %q", user, out)
		}
	}
}

func addBusybox(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIDMappedMount shows a volume of one user to a container as another's.
func TestIDMappedMount(t *testing.T) {
	for name, c := range map[string]struct {
		user    bool
		options []string
		maps    []specs.LinuxIDMapping
		owner   int
	}{
		"own mappings": {false, []string{"rbind"}, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 10}}, 5003},
		"container's":  {true, []string{"rbind", "idmap"}, nil, 3},
		"recursive":    {true, []string{"rbind", "ridmap"}, nil, 3},
	} {
		vol := t.TempDir()
		if err := errors.Join(os.WriteFile(vol+"/file", nil, 0o644), os.Lchown(vol+"/file", 3, 3)); err != nil {
			t.Fatal(err)
		}
		s := dockerSpec(t, rootfs(t))
		if c.user {
			s = userSpec(t, rootfs(t))
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: c.options, UIDMappings: c.maps, GIDMappings: c.maps})
		t.Run(name, func(t *testing.T) {
			expect(t, s, "stat -c %u /vol/file", fmt.Sprintln(c.owner))
		})
	}
	s := dockerSpec(t, rootfs(t), "true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/tmp", Options: []string{"bind", "idmap"}})
	if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter {
		t.Errorf("idmap without mappings: %v", err)
	}
}

// TestNullStaysTheHosts gives a container of another user a null device of its own (the host's is not to be put at risk) as its input.
func TestNullStaysTheHosts(t *testing.T) {
	name := t.TempDir() + "/null"
	if err := syscall.Mknod(name, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := dockerSpec(t, rootfs(t), "true")
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{Stdin: f, Stdout: f, Stderr: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Start(ctx), c.Delete(ctx)); err != nil {
		t.Error(err)
	}
	if st, err := f.Stat(); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("it belongs to %v, %v", st.Sys(), err)
	}
}
