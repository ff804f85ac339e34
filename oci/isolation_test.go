package oci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/oci"
)

// expect runs a shell script in a container made from s and compares what it prints.
func expect(t *testing.T, s *specs.Spec, script, want string) {
	t.Helper()
	s.Process.Args = []string{"sh", "-c", script}
	out, _ := run(t, s)
	if out != want {
		t.Errorf("%s\nprints  %q\nwant %q", script, out, want)
	}
}

func TestMaskedAndReadOnlyPaths(t *testing.T) {
	s := dockerSpec(t, rootfs(t))
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/passwd", "/tmp", "/no/such")
	expect(t, s, `ls /sys/firmware | wc -l; cat /proc/keys | wc -c; cat /etc/passwd | wc -c; ls /tmp | wc -l; touch /tmp/x 2>/dev/null || echo tmp is closed
		echo 1 > /proc/sys/kernel/panic; echo 1 > /proc/irq/default_smp_affinity; touch /sys/x`,
		"0\n0\n0\n0\ntmp is closed\n"+
			"sh: can't create /proc/sys/kernel/panic: Read-only file system\nsh: can't create /proc/irq/default_smp_affinity: Read-only file system\ntouch: /sys/x: Read-only file system\n")
}

func TestMounts(t *testing.T) {
	root, vol := rootfs(t), t.TempDir()
	if err := os.WriteFile(vol+"/file", []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(vol+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	if err := os.Symlink("../../../../../../.."+outside, root+"/way-out"); err != nil {
		t.Fatal(err)
	}
	s := dockerSpec(t, root)
	s.Root.Readonly = true
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/a/b/vol", Type: "bind", Source: vol, Options: []string{"rbind", "rprivate"}},
		specs.Mount{Destination: "/a/b/vol/sub/inner", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "mode=750", "noexec"}},
		specs.Mount{Destination: "/etc/file", Type: "bind", Source: vol + "/file", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/way-out/in", Type: "bind", Source: vol, Options: []string{"rbind", "ro"}},
	)
	expect(t, s, `cat /etc/file; echo x > /etc/file; touch /x; echo new > /a/b/vol/new; stat -c %a /a/b/vol/sub/inner
		dd if=/dev/zero of=/a/b/vol/sub/inner/big bs=1k count=100 2>&1 | grep -c 'No space'; cat /way-out/in/new; touch /way-out/in/y; touch /dev/x /dev/shm/x && echo ok`,
		"from the host\nsh: can't create /etc/file: Read-only file system\ntouch: /x: Read-only file system\n750\n1\nnew\ntouch: /way-out/in/y: Read-only file system\nok\n")
	if data, err := os.ReadFile(vol + "/new"); err != nil || string(data) != "new\n" {
		t.Errorf("written in the container: %q, %v", data, err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside the root there is %v, %v", left, err)
	}
	if _, err := os.Stat(root + outside + "/in"); err != nil {
		t.Errorf("the mount point behind the link: %v", err)
	}
}

// TestPropagation mounts something on the host while a container runs, and in the container.
func TestPropagation(t *testing.T) {
	host := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root := rootfs(t)
	must(syscall.Mount("tmpfs", host, "tmpfs", 0, ""))
	defer syscall.Unmount(host, syscall.MNT_DETACH)
	must(syscall.Mount("", host, "", syscall.MS_SHARED, ""))
	must(os.Mkdir(host+"/late", 0o755))
	must(os.Mkdir(host+"/inner", 0o755))
	must(os.Mkdir(host+"/ro", 0o755))
	must(syscall.Mount("tmpfs", host+"/ro", "tmpfs", 0, ""))
	s := dockerSpec(t, root, "sleep", "1000")
	for dst, options := range map[string][]string{"/private": {"rbind", "rprivate"}, "/default": {"rbind"}, "/slave": {"rbind", "rslave"}, "/shared": {"rbind", "rshared"}, "/top-ro": {"rbind", "ro"}, "/all-ro": {"rbind", "rro"}} {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dst, Type: "bind", Source: host, Options: options})
	}
	c := start(t, s)
	must(syscall.Mount("late", host+"/late", "tmpfs", 0, ""))
	defer syscall.Unmount(host+"/late", syscall.MNT_DETACH)
	p := process("sh", "-c", "mount | grep -c '^late on /private'; mount | grep -c '^late on /slave'; mount | grep -c '^late on /default'; mount | grep -c '^late on /shared'; touch /top-ro/ro/x && echo writable; touch /all-ro/ro/x; mount -t tmpfs inner /shared/inner; mount -t tmpfs private /private/late; mount -t tmpfs private /default/late")
	admin := append(append([]string{}, dockerCaps...), "CAP_SYS_ADMIN")
	p.Capabilities = &specs.LinuxCapabilities{Bounding: admin, Effective: admin, Permitted: admin}
	out, _ := execIn(t, c, p)
	if want := "0\n1\n1\n1\nwritable\ntouch: /all-ro/ro/x: Read-only file system\n"; out != want {
		t.Errorf("prints %q, want %q", out, want)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(err)
	if !strings.Contains(string(table), " inner ") || strings.Contains(string(table), " private ") {
		t.Errorf("the host sees\n%s", table)
	}
	must(syscall.Unmount(host+"/inner", syscall.MNT_DETACH))
}

func TestSysctlAndLimits(t *testing.T) {
	s := dockerSpec(t, rootfs(t))
	score := 321
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net/ipv4/ip_local_port_range": "2000 3000"}
	s.Process.OOMScoreAdj = &score
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	expect(t, s, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range; cat /proc/self/oom_score_adj; ulimit -n; ulimit -H -n; ulimit -c",
		"1\n1\n2000\t3000\n321\n100\n200\n0\n")
	s.Linux.Sysctl = map[string]string{"kernel/../../../etc/x": "1"}
	if _, _, err := tryRun(s); err == nil {
		t.Error("a sysctl outside /proc/sys was set")
	}
}

func TestClampedLimits(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "sleep", "1000")
	score := -1000
	s.Process.OOMScoreAdj = &score
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}}
	c, err := oci.Create(context.Background(), oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(context.Background())
	if len(c.Warnings()) == 0 { // with CAP_SYS_RESOURCE nothing is clamped, and the kernel refuses what is above its fs.nr_open
		if err := c.Start(context.Background()); !errors.Is(err, syscall.EPERM) {
			t.Errorf("a limit above fs.nr_open: %v", err)
		}
		return
	}
	if len(c.Warnings()) != 2 {
		t.Errorf("warnings: %q", c.Warnings())
	}
}

func TestDevices(t *testing.T) {
	s := dockerSpec(t, rootfs(t))
	n := func(n int64) *int64 { return &n }
	mode := os.FileMode(0o640)
	gid := uint32(44)
	caps := append(append([]string{}, dockerCaps...), "CAP_SYSLOG") // so that only the cgroup stands before the kernel's log
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sub/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, GID: &gid}}
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(10), Minor: n(229), Access: "rwm"})
	expect(t, s, `stat -c '%a %g %t %T' /dev/sub/fuse; mknod /tmp/log c 1 11 && echo made; cat /tmp/log; head -c 3 /dev/zero | wc -c; echo x > /dev/null; echo ok`,
		"640 44 a e5\nmade\ncat: can't open '/tmp/log': Operation not permitted\n3\nok\n")
}

// TestDevicesElsewhere has devices that are not in the tmpfs at /dev, some of them in a file system that is mounted.
func TestDevicesElsewhere(t *testing.T) {
	root := rootfs(t)
	s := dockerSpec(t, root)
	mode, uid := os.FileMode(0o600), uint32(7)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs"})
	s.Linux.Devices = []specs.LinuxDevice{
		{Path: "/srv/a/null", Type: "c", Major: 1, Minor: 3}, {Path: "/run/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &uid, GID: &uid}, {Path: "/srv/pipe", Type: "p"},
		{Path: "/etc/passwd", Type: "c", Major: 1, Minor: 3},
	}
	expect(t, s, `stat -c '%n %F %a %u %t:%T' /srv/a/null /run/zero /srv/pipe /etc/passwd; echo x >/srv/a/null; head -c 3 /run/zero | wc -c; mkdir /srv/b; stat -c %a /srv/b`,
		"/srv/a/null character special file 666 0 1:3\n/run/zero character special file 600 7 1:5\n/srv/pipe fifo 666 0 0:0\n/etc/passwd regular file 644 0 0:0\n3\n755\n")

	s = dockerSpec(t, rootfs(t)) // nothing at /dev
	s.Mounts = s.Mounts[:1]
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: 1, Minor: 3}}
	expect(t, s, `stat -c '%n %t:%T' /dev/null /dev/tty /dev/mine; readlink /dev/stdin; umask`, "/dev/null 1:3\n/dev/tty 5:0\n/dev/mine 1:3\n/proc/self/fd/0\n0022\n")

	host := filepath.Join(t.TempDir(), "null") // a user namespace has the host's device of that name
	s = userSpec(t, rootfs(t), "true")
	s.Linux.Devices = []specs.LinuxDevice{{Path: host, Type: "c", Major: 1, Minor: 3}}
	if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), "linux.devices[0]") {
		t.Errorf("a device that the host does not have: %v", err)
	}
	if err := syscall.Mknod(host, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(host, 0o666); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "stat -c '%F %t:%T' "+host+"; echo x >"+host+"; echo $?", "character special file 1:3\n0\n")
}

func TestPrivileged(t *testing.T) {
	s := dockerSpec(t, rootfs(t))
	all := []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	for i := range s.Mounts {
		s.Mounts[i].Options = append(s.Mounts[i].Options, "rw")
	}
	expect(t, s, `mount -t tmpfs x /mnt 2>/dev/null || mount -t tmpfs x /tmp && echo mounted; mknod /tmp/log c 1 11; head -c 1 /tmp/log | wc -c; echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward`, "mounted\n1\n1\n")
}

func TestHostNamespaces(t *testing.T) {
	s := dockerSpec(t, rootfs(t))
	s.Hostname = ""
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}}
	var want strings.Builder
	for _, n := range []string{"cgroup", "ipc", "net", "pid", "uts"} {
		l, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		want.WriteString(l + "\n")
	}
	expect(t, s, "for n in cgroup ipc net pid uts; do readlink /proc/self/ns/$n; done", want.String())
}

func TestJoinedNamespaces(t *testing.T) {
	first := start(t, dockerSpec(t, rootfs(t), "sleep", "1000"))
	s := dockerSpec(t, rootfs(t))
	s.Hostname = ""
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}}
	var want strings.Builder
	for _, n := range []string{"ipc", "net", "pid", "uts"} {
		path := fmt.Sprintf("/proc/%d/ns/%s", first.Init().Pid, n)
		l, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		want.WriteString(l + "\n")
		kind := n
		if n == "net" {
			kind = "network"
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(kind), Path: path})
	}
	expect(t, s, "for n in ipc net pid uts; do readlink /proc/self/ns/$n; done; ps -o comm | grep -c sleep; hostname", want.String()+"1\nc1\n")
}

func TestCapabilities(t *testing.T) {
	s := dockerSpec(t, rootfs(t))
	s.Process.User.UID = 1000
	net := []string{"CAP_NET_RAW", "CAP_CHOWN"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: net, Effective: net, Permitted: net, Inheritable: net[:1], Ambient: net[:1]}
	expect(t, s, "grep Cap /proc/self/status", "CapInh:\t0000000000002000\nCapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapBnd:\t0000000000002001\nCapAmb:\t0000000000002000\n")
	s.Process.Capabilities = nil
	s.Process.User.UID = 0
	expect(t, s, "grep Cap /proc/self/status | grep -v 0000000000000000", "")
}

// TestDescriptors leaves a descriptor open without close-on-exec, as a careless library would.
func TestDescriptors(t *testing.T) {
	n, err := syscall.Open("/", syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(n)
	expect(t, dockerSpec(t, rootfs(t)), "for f in /proc/self/fd/*; do test -e $f && echo ${f##*/}; done", "0\n1\n2\n")
	c := start(t, dockerSpec(t, rootfs(t), "sleep", "1000"))
	if out, _ := execIn(t, c, process("sh", "-c", "for f in /proc/self/fd/*; do test -e $f && echo ${f##*/}; done; for f in /proc/1/fd/*; do test -e $f && echo ${f##*/}; done")); out != "0\n1\n2\n0\n1\n2\n" {
		t.Errorf("descriptors %q", out)
	}
}

// TestForgedProc has an image whose /proc is a link: what is written to /proc/self/attr must not go where an image says.
func TestForgedProc(t *testing.T) {
	root := rootfs(t)
	if err := errors.Join(os.Remove(root+"/proc"), os.Symlink("/tmp", root+"/proc")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tryRun(dockerSpec(t, root, "true")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("no refusal but %v", err)
	}
}

func TestBadSpecs(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"no process":         func(s *specs.Spec) { s.Process = nil },
		"no program":         func(s *specs.Spec) { s.Process.Args = nil },
		"no linux":           func(s *specs.Spec) { s.Linux = nil },
		"zero byte":          func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} },
		"relative directory": func(s *specs.Spec) { s.Process.Cwd = "x" },
		"twice": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "pid"})
		},
		"namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "x"})
		},
		"rlimit":      func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"limits":      func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} },
		"uid":         func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 1 },
		"file system": func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs"}) },
	} {
		s := dockerSpec(t, rootfs(t), "true")
		change(s)
		if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := dockerSpec(t, rootfs(t), "true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such", Options: []string{"bind"}})
	if _, _, err := tryRun(s); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing source: %v", err)
	}
}

func TestHooks(t *testing.T) {
	dir := t.TempDir()
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("read state; echo %s $(readlink /proc/self/ns/uts) >> %s/log; echo \"$state\" > %s/%s", name, dir, dir, name)}}}
	}
	root := rootfs(t)
	inside := hook("startContainer")
	inside[0].Args[2] = "read state; /bin/hostname > /tmp/start"
	s := dockerSpec(t, root, "sh", "-c", "cat /tmp/start")
	//lint:ignore SA1019 prestart hooks are deprecated and in use
	s.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"), StartContainer: inside, Poststart: hook("poststart"), Poststop: hook("poststop")}
	out, code := run(t, s)
	if out != "c1\n" || code != 0 {
		t.Errorf("exit code %d, output %q", code, out)
	}
	data, err := os.ReadFile(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	own, _ := os.Readlink("/proc/self/ns/uts")
	var names []string
	for _, l := range lines {
		name, ns, _ := strings.Cut(l, " ")
		names = append(names, name)
		if (ns == own) == (name == "createContainer") {
			t.Errorf("%s ran in %s", name, ns)
		}
	}
	if got := strings.Join(names, " "); got != "prestart createRuntime createContainer poststart poststop" {
		t.Errorf("hooks ran: %s", got)
	}
	state, err := os.ReadFile(dir + "/createRuntime")
	if err != nil || !strings.Contains(string(state), `"status":"creating"`) || !strings.Contains(string(state), `"id":"c1"`) {
		t.Errorf("state %q, %v", state, err)
	}
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo went wrong >&2; exit 3"}}}}
	if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "went wrong") {
		t.Errorf("failed hook: %v", err)
	}
}

// descriptors counts this process's open files.
func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// mountTable returns where this test, or nobody's, mounts are: other tests have theirs in temporary folders of their own.
func mountTable(t *testing.T) string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(table)) {
		at := strings.Fields(line)[4]
		foreign := slices.ContainsFunc([]string{os.TempDir(), "/run", "/var"}, func(dir string) bool { return strings.HasPrefix(at, dir+"/") })
		if !foreign || strings.Contains(at, t.Name()) {
			list = append(list, at)
		}
	}
	return strings.Join(list, "\n")
}

func TestNothingIsLeft(t *testing.T) {
	root := rootfs(t)
	run(t, dockerSpec(t, root, "true")) // what is opened once
	before := descriptors(t)
	mounts := mountTable(t)
	s := dockerSpec(t, root, "true")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 10 {
				s := dockerSpec(t, root, "sh", "-c", "sleep 1000 & exit 0")
				s.Linux.CgroupsPath += fmt.Sprint("-", i)
				if err := runSilent(s); err != nil {
					t.Error(err)
				}
				s.Process.Args = []string{"nosuch"}
				if err := runSilent(s); err == nil {
					t.Error("no error")
				}
			}
		})
	}
	wg.Wait()
	if after := descriptors(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
	if now := mountTable(t); now != mounts {
		t.Errorf("the mount table has changed:\n%s\n%s", mounts, now)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + s.Linux.CgroupsPath + "*"); len(left) != 0 {
		t.Errorf("cgroups left: %v", left)
	}
}

// runSilent is tryRun without output.
func runSilent(s *specs.Spec) error {
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
	if err != nil {
		return err
	}
	err = c.Start(ctx)
	_, werr := c.Init().Wait(ctx)
	return errors.Join(err, werr, c.Delete(ctx))
}

// TestDieWithParent kills a process that has a container.
func TestDieWithParent(t *testing.T) {
	if root := os.Getenv("OCI_TEST_PARENT"); root != "" {
		s := dockerSpec(t, root, "sleep", "1000")
		s.Process.User.UID = 1000
		s.Linux.CgroupsPath = "/gantry-die-with-parent"
		c, err := oci.Create(context.Background(), oci.Bundle{ID: "die-with-parent", Dir: "/", Spec: s, DieWithParent: true}, oci.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("pid %d\n", c.Init().Pid)
		os.Stdout.Close()
		select {}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestDieWithParent$")
	cmd.Env = append(os.Environ(), "OCI_TEST_PARENT="+rootfs(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "pid %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for end := time.Now().Add(5 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the container lives on")
		}
	}
	for _, dir := range []string{"", "cpuacct/", "memory/", "devices/", "blkio/", "pids/"} {
		_ = os.Remove("/sys/fs/cgroup/" + dir + "gantry-die-with-parent") // its remover was killed
	}
}
