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
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/oci"
)

// rootlessUser is nobody on this machine but the owner of what the tests make.
const rootlessUser = 54321

// TestRootlessHelper is what rootless runs as a normal user.
func TestRootlessHelper(t *testing.T) {
	script := os.Getenv("OCI_TEST_ROOTLESS")
	if script == "" {
		return // what TestRootless runs, in another process
	}
	if os.Getuid() == 0 { // become the user, and begin anew as what belongs to that user
		err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(rootlessUser, rootlessUser, rootlessUser), syscall.Setresuid(rootlessUser, rootlessUser, rootlessUser))
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		}
		t.Fatal(err)
	}
	root, variant, _ := strings.Cut(script, ",")
	s := rootlessSpec(root)
	ctx := context.Background()
	report := func(out string) { fmt.Printf("<<%s>>\n", out) }
	switch variant {
	case "run":
		s.Process.Args = []string{"sh", "-c", `id -u; id -g; hostname; echo $$; stat -c '%n %u' / /dev /dev/null /dev/shm /vol /run; echo x > /dev/null; head -c 2 /dev/zero | wc -c; touch /etc/new /vol/new /run/x; touch /ro/x
			cat /proc/sys/net/ipv4/ip_forward; cat /proc/keys | wc -c; test -d /sys/class && echo sys; ls /proc/self/fd | wc -l; grep -e NoNewPrivs /proc/self/status; ls /dev/mqueue | wc -l`}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: filepath.Dir(root) + "/vol", Options: []string{"rbind"}},
			specs.Mount{Destination: "/ro", Type: "bind", Source: filepath.Dir(root) + "/vol", Options: []string{"rbind", "ro"}},
			specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}})
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		out, _, err := tryRun(s)
		report(fmt.Sprint(out, err))
	case "hostnet":
		s.Linux.Namespaces = append(s.Linux.Namespaces[:1], s.Linux.Namespaces[2:]...) // without network
		s.Process.Args = []string{"sh", "-c", "test -d /sys/class && echo sys; touch /sys/x; id -u"}
		out, _, err := tryRun(s)
		report(fmt.Sprint(out, err))
	case "locked": // attributes of the host's mounts that a user namespace must not take away
		locked := func(dst string, options ...string) specs.Mount {
			return specs.Mount{Destination: dst, Type: "bind", Source: filepath.Dir(root) + "/locked", Options: append([]string{"rbind"}, options...)}
		}
		plain := s.Mounts
		s.Mounts = append(slices.Clone(plain), locked("/mnt1"), locked("/mnt2", "ro"), locked("/mnt3", "rro"))
		s.Process.Args = []string{"sh", "-c", "grep ' /mnt' /proc/mounts | while read a b c d e; do echo $b $d; done"}
		out, _, err := tryRun(s)
		for _, option := range []string{"dev", "noatime"} {
			s.Mounts = append(slices.Clone(plain), locked("/mnt4", option))
			if _, _, err := tryRun(s); !errors.Is(err, syscall.EPERM) {
				out += fmt.Sprint(option, err)
			}
		}
		report(fmt.Sprint(strings.ReplaceAll(out, ",inode64", ""), err))
	case "listener":
		a := newAgent(t)
		s.Linux.Seccomp = asking(a.socket, "mkdir", "mkdirat", "write", "read", "close", "execve", "prctl")
		_, _, err := tryRun(s)
		s.Linux.Seccomp = asking(a.socket, "mkdir", "mkdirat", "read", "close", "execve", "prctl", "sendmsg")
		_, _, err2 := tryRun(s)
		s.Linux.Seccomp = asking(a.socket, "mkdir", "mkdirat", "read", "close", "execve", "prctl")
		s.Process.Args = []string{"sh", "-c", "mkdir /tmp/x; sleep 1000"}
		c := start(t, s)
		first := <-a.states
		p := *s.Process
		p.Args = []string{"mkdir", "/tmp/x"}
		out, _ := execIn(t, c, &p)
		second := <-a.states
		report(fmt.Sprint(err != nil, err2 != nil, " ", out, first.Pid == c.Init().Pid, second.Pid != first.Pid))
	case "map":
		s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 300000, Size: 2000})
		s.Linux.GIDMappings = append(s.Linux.GIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 300000, Size: 2000})
		s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7}}
		s.Process.Args = []string{"sh", "-c", "id; cat /proc/self/uid_map"}
		out, _, err := tryRun(s)
		report(fmt.Sprint(out, err))
	case "terminal":
		s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 30, Width: 100}
		s.Process.Args = []string{"sh", "-c", "tty; stty size; stat -c %u /dev/console"}
		report(onTerminal(t, s))
	case "hooks":
		log := filepath.Dir(root) + "/vol/log"
		hook := func(name string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "read x; echo " + name + " $(id -u) >> " + log}}}
		}
		s.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"), StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "read x; /bin/hostname > /start"}}}}
		s.Process.Args = []string{"cat", "/start"}
		out, _, err := tryRun(s)
		data, _ := os.ReadFile(log)
		report(fmt.Sprint(string(data), out, err))
	case "exec":
		s.Process.Args = []string{"sleep", "1000"}
		c := start(t, s)
		fmt.Printf("pid %d\n", c.Init().Pid)
		out, code := execIn(t, c, process("sh", "-c", "id -u; hostname; for n in ipc mnt net pid user uts; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) || echo $n; done; ls /proc/self/fd | wc -l; exit 4"))
		p := process("sh", "-c", "tty; stty size")
		p.Terminal, p.ConsoleSize = true, &specs.Box{Height: 33, Width: 99}
		out2, _ := execIn(t, c, p)
		p = process("nosuch")
		_, err := c.Exec(ctx, p, oci.ExecOptions{})
		var e *oci.ExecError
		report(fmt.Sprint(out, code, out2, errors.As(err, &e)))
	case "copyup":
		vol := filepath.Dir(root) + "/vol"
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m"}}, specs.Mount{Destination: "/home", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro"}})
		s.Process.Args = []string{"sh", "-c", "grep -c ^web /etc/passwd; stat -c %u /etc/passwd; touch /etc/x; ls /home; touch /home/x"}
		out, _, err := tryRun(s)
		s.Mounts = append(s.Mounts[:len(s.Mounts)-2], specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: []string{"rbind", "idmap"}})
		_, _, err2 := tryRun(s)
		_, lerr := os.Stat(root + "/etc/x")
		report(fmt.Sprint(out, err, os.IsNotExist(lerr), err2))
	case "created": // and then a start by who comes next
		s.Process.Args = []string{"sleep", "1000"}
		c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s, Socket: filepath.Dir(root) + "/vol/s", DieWithParent: true}, oci.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Delete(ctx)
		state, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		state.Spec = s
		var all string
		for range 2 {
			p := process("sh", "-c", "id -u; hostname; readlink /proc/1/root || echo hidden")
			p.Capabilities.Permitted = append([]string{"CAP_SYS_PTRACE"}, dockerCaps...)
			c, err := oci.Load(state)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := execIn(t, c, p)
			all += out
		}
		if c, err = oci.Load(state); err == nil {
			err = c.Start(ctx)
		}
		report(fmt.Sprint(all, err))
	case "wait": // for an exec by root
		s.Process.Args = []string{"sleep", "1000"}
		c := start(t, s)
		state, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		report(fmt.Sprint(state.Pid, " ", state.Birth))
		_, _ = io.ReadAll(os.Stdin)
	}
}

// rootlessSpec is what runc's `spec --rootless` makes.
func rootlessSpec(root string) *specs.Spec {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	return &specs.Spec{
		Version: "1.2.0", Root: &specs.Root{Path: root}, Hostname: "rootless",
		Process: &specs.Process{Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces:    []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "user"}, {Type: "cgroup"}},
			UIDMappings:   []specs.LinuxIDMapping{{ContainerID: 0, HostID: uid, Size: 1}},
			GIDMappings:   []specs.LinuxIDMapping{{ContainerID: 0, HostID: gid, Size: 1}},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/sys"},
		},
	}
}

// rootless returns a command that runs a variant of TestRootlessHelper as a normal user, in a mount namespace in which that user has
// subordinate numbers.
func rootless(t *testing.T, variant string) *exec.Cmd {
	t.Helper()
	root := rootfs(t)
	dir := filepath.Dir(root)
	if err := errors.Join(os.MkdirAll(dir+"/vol", 0o755), os.MkdirAll(dir+"/locked", 0o755)); err != nil {
		t.Fatal(err)
	}
	// Its own copy of this program: the one that is running may be where the user must not go.
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sub := fmt.Sprintf("%d:300000:2000\n", rootlessUser)
	if err := errors.Join(os.WriteFile(dir+"/oci.test", program, 0o755), os.WriteFile(dir+"/sub", []byte(sub), 0o644)); err != nil {
		t.Fatal(err)
	}
	chown(t, dir, rootlessUser)
	user := fmt.Sprint(rootlessUser)
	passwd := "root:x:0:0:root:/root:/bin/sh\nrootless:x:" + user + ":" + user + "::/tmp:/bin/sh\n"
	if err := os.WriteFile(dir+"/passwd", []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `mount --make-rprivate / && for f in /etc/subuid /etc/subgid; do test -e $f || touch $f; done && mount --bind "$0/sub" /etc/subuid && mount --bind "$0/sub" /etc/subgid && mount --bind "$0/passwd" /etc/passwd &&
		mount -t tmpfs -o nosuid,nodev,mode=777 tmpfs "$0/locked" && cd / &&
		exec "$0/oci.test" -test.run '^TestRootlessHelper$' -test.count 1 -test.v`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, dir)
	cmd.Env = append(os.Environ(), "OCI_TEST_ROOTLESS="+root+","+variant, "TMPDIR="+dir, "HOME="+dir)
	return cmd
}

// reported cuts what a helper reports out of its output.
func reported(t *testing.T, out []byte) string {
	t.Helper()
	a, b := bytes.Index(out, []byte("<<")), bytes.LastIndex(out, []byte(">>"))
	if a < 0 || b < a {
		t.Fatalf("no report in\n%s", out)
	}
	return string(out[a+2 : b])
}

func TestRootless(t *testing.T) {
	for variant, want := range map[string]string{
		"run":      "0\n0\nrootless\n1\n/ 0\n/dev 0\n/dev/null 65534\n/dev/shm 0\n/vol 0\n/run 0\n2\ntouch: /ro/x: Read-only file system\n1\n0\nsys\n4\nNoNewPrivs:\t1\n0\n<nil>",
		"locked":   "/mnt1 rw,nosuid,nodev,relatime,mode=777\n/mnt2 ro,nosuid,nodev,relatime,mode=777\n/mnt3 ro,nosuid,nodev,relatime,mode=777\n<nil>",
		"hostnet":  "sys\ntouch: /sys/x: Read-only file system\n0\n<nil>",
		"map":      fmt.Sprintf("uid=1000(web) gid=1000 groups=7\n         0 %10d          1\n         1     300000       2000\n<nil>", rootlessUser),
		"terminal": "/dev/pts/0\r\n30 100\r\n0\r\n",
		"listener": "true true mkdir: can't create directory '/tmp/x': No medium found\ntrue true",
		"hooks":    fmt.Sprintf("createRuntime %d\ncreateContainer 0\nrootless\n<nil>", rootlessUser),
		"copyup":   "1\n0\nweb\ntouch: /home/x: Read-only file system\n<nil> true create container c1: mount /vol: option idmap, uidMappings, gidMappings: the kernel maps owners for the host's root only",
		"created":  "0\nrootless\nhidden\n0\nrootless\nhidden\n<nil>",
		"exec":     "0\nrootless\n4\n4/dev/pts/0\r\n33 99\r\ntrue",
	} {
		t.Run(variant, func(t *testing.T) {
			cmd := rootless(t, variant)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got := reported(t, out); got != want {
				t.Errorf("prints %q\nwant   %q", got, want)
			}
		})
	}
}

// TestRootlessExecByRoot has root run a process in a user's container.
func TestRootlessExecByRoot(t *testing.T) {
	cmd := rootless(t, "wait")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	var out []byte
	for buf := make([]byte, 4096); !bytes.Contains(out, []byte(">>")); {
		n, err := stdout.Read(buf)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out = append(out, buf[:n]...)
	}
	state := oci.State{ID: "c1", Spec: rootlessSpec("/")}
	if _, err := fmt.Sscan(reported(t, out), &state.Pid, &state.Birth); err != nil {
		t.Fatal(err)
	}
	c, err := oci.Load(state)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Init().Close()
	want := fmt.Sprintf("0\nrootless\n         0 %10d          1\n", rootlessUser)
	if out, _ := execIn(t, c, process("sh", "-c", "id -u; hostname; cat /proc/self/uid_map")); out != want {
		t.Errorf("prints %q, want %q", out, want)
	}
}
