package oci_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/oci"
)

// onThread runs f on a thread that ends with it, so that what f changes of the thread's credentials goes nowhere else.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks it
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestKeyring gives the caller a key that only who has its session keyring sees. Without a new keyring the container would.
func TestKeyring(t *testing.T) {
	root := rootfs(t)
	const join, setperm, session = 1, 5, ^uintptr(2)
	text := func(s string) uintptr { p, _ := syscall.BytePtrFromString(s); return uintptr(unsafe.Pointer(p)) }
	see := func(c *oci.Container) bool {
		out, _ := execIn(t, c, process("cat", "/proc/keys"))
		return strings.Contains(out, "gantry-secret")
	}
	onThread(t, func() error {
		if _, _, errno := syscall.Syscall(syscall.SYS_KEYCTL, join, 0, 0); errno == syscall.ENOSYS {
			return nil // there are no keys
		} else if errno != 0 {
			return errno
		}
		key, _, errno := syscall.Syscall6(syscall.SYS_ADD_KEY, text("user"), text("gantry-secret"), text("x"), 1, session, 0)
		if errno != 0 {
			return errno
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_KEYCTL, setperm, key, 0x3f000000); errno != 0 { // to its possessors only
			return errno
		}
		for _, keep := range []bool{false, true} { // the second shows that the first could fail
			s := dockerSpec(t, root, "sh", "-c", "cat /proc/keys > /tmp/keys; exec sleep 1000")
			s.Linux.MaskedPaths = nil
			ctx := context.Background()
			c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s, NoNewKeyring: keep}, oci.Stdio{})
			if err != nil {
				return err
			}
			if err := c.Start(ctx); err != nil {
				return err
			}
			var keys []byte
			for end := time.Now().Add(5 * time.Second); len(keys) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
				if keys, err = os.ReadFile(root + "/tmp/keys"); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
			if got := strings.Contains(string(keys), "gantry-secret"); got != keep || len(keys) == 0 {
				t.Errorf("keyring kept %t: init sees the caller's key: %t", keep, got)
			}
			if got := see(c); got != keep {
				t.Errorf("keyring kept %t: a joining process sees the caller's key: %t", keep, got)
			}
			if err := c.Delete(ctx); err != nil {
				return err
			}
			_ = os.Remove(root + "/tmp/keys")
		}
		return nil
	})
}

// TestWaitingInit has a process of the container with all its capabilities, as root of its user namespace, look into the init that
// waits for its start with the host's files open.
func TestWaitingInit(t *testing.T) {
	s := userSpec(t, rootfs(t), "sleep", "1000")
	all := []string{"CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(ctx)
	p := process("sh", "-c", "for f in exe root cwd fd/3 ns/mnt; do readlink /proc/1/$f; done; ls /proc/1/fd /proc/1/map_files | wc -l; head -c 1 /proc/1/environ | wc -c; head -c 1 /proc/1/auxv | wc -c")
	p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	out, _ := execIn(t, c, p)
	out = strings.ReplaceAll(out, "\n", " ")
	for _, word := range strings.Fields(out) {
		if strings.HasPrefix(word, "/") && !strings.HasPrefix(word, "/proc/") || strings.HasPrefix(word, "mnt:") || word == "1" {
			t.Errorf("a process of the container sees into the waiting init: %q", out)
			break
		}
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestGroups compares what id says for users and groups of all kinds, started by somebody with groups of its own (CVE-2022-36109,
// CVE-2022-2995, CVE-2023-25173).
func TestGroups(t *testing.T) {
	before, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	root := rootfs(t)
	if err := syscall.Setgroups([]int{4, 24, 2000}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setgroups(before); err != nil {
			t.Error(err)
		}
	}()
	c := start(t, dockerSpec(t, root, "sleep", "1000"))
	s := dockerSpec(t, root, "id")
	s.Linux.CgroupsPath += "-id"
	for _, one := range []struct {
		user specs.User
		want string
	}{
		{specs.User{}, "uid=0(root) gid=0 groups=0"},
		{specs.User{UID: 1000, GID: 1000}, "uid=1000(web) gid=1000 groups=1000"},
		{specs.User{UID: 1000}, "uid=1000(web) gid=0 groups=0"},
		{specs.User{GID: 5}, "uid=0(root) gid=5 groups=5"},
		{specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7, 8}}, "uid=1000(web) gid=1001 groups=7,8"},
		{specs.User{UID: 4000000000, GID: 4000000001, AdditionalGids: []uint32{4000000002}}, "uid=4000000000 gid=4000000001 groups=4000000002"},
		{specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1001}}, "uid=1000(web) gid=1001 groups=1001"},
	} {
		want := one.want // of which busybox may leave the primary group out at the end
		if len(one.user.AdditionalGids) == 0 {
			want = want[:strings.Index(want, " groups")]
		}
		s.Process.User = one.user
		out, _ := run(t, s)
		if got := strings.TrimSpace(out); got != one.want && got != want {
			t.Errorf("run %+v: %q, want %q", one.user, got, one.want)
		}
		p := process("id")
		p.User = one.user
		out, _ = execIn(t, c, p)
		if got := strings.TrimSpace(out); got != one.want && got != want {
			t.Errorf("exec %+v: %q, want %q", one.user, got, one.want)
		}
	}
}

// TestInheritedCapabilities is called by somebody who has inheritable and ambient capabilities (CVE-2022-24769, CVE-2022-29162).
func TestInheritedCapabilities(t *testing.T) {
	root := rootfs(t)
	onThread(t, func() error {
		head := [2]uint32{0x20080522, 0}
		var data [6]uint32 // effective, permitted, inheritable, twice
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
			return errno
		}
		data[2] = data[1]
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
			return errno
		}
		const ambient, raise, netRaw = 47, 2, 13
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, ambient, raise, netRaw, 0, 0, 0); errno != 0 {
			return errno
		}
		for _, uid := range []uint32{0, 1000} {
			s := dockerSpec(t, root, "grep", "-e", "CapInh", "-e", "CapAmb", "/proc/self/status")
			s.Linux.CgroupsPath += "-run"
			s.Process.User.UID = uid
			const want = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n"
			if out, _, err := tryRun(s); out != want || err != nil {
				t.Errorf("run as %d: %q, %v", uid, out, err)
			}
			c := start(t, dockerSpec(t, rootfs(t), "sleep", "1000"))
			p := process(s.Process.Args...)
			p.User.UID = uid
			if out, _ := execIn(t, c, p); out != want {
				t.Errorf("exec as %d: %q", uid, out)
			}
		}
		return nil
	})
}

// TestPasswd has images whose /etc/passwd is not what it should be (CVE-2024-9676, CVE-2025-4437, CVE-2022-4318): each is looked at as a
// file of the image's, for a bounded time, or not at all.
func TestPasswd(t *testing.T) {
	outside := t.TempDir() + "/passwd"
	if err := os.WriteFile(outside, []byte("x:x:1000:1000::/from/the/host:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(etc string) error
		want string
	}{
		"FIFO":       {func(etc string) error { return syscall.Mkfifo(etc+"/passwd", 0o644) }, "/"},
		"directory":  {func(etc string) error { return os.Mkdir(etc+"/passwd", 0o755) }, "/"},
		"device":     {func(etc string) error { return syscall.Mknod(etc+"/passwd", syscall.S_IFCHR|0o644, 1<<8|5) }, "/"}, // /dev/zero
		"socket":     {func(etc string) error { return syscall.Mknod(etc+"/passwd", syscall.S_IFSOCK|0o644, 0) }, "/"},
		"link out":   {func(etc string) error { return os.Symlink("../../../../../../../.."+outside, etc+"/passwd") }, "/"},
		"link":       {func(etc string) error { return os.Symlink(outside, etc+"/passwd") }, "/"},
		"link to fd": {func(etc string) error { return os.Symlink("/proc/self/fd/0", etc+"/passwd") }, "/"},
		"loop":       {func(etc string) error { return os.Symlink("passwd", etc+"/passwd") }, "/"},
		"folder out": {func(etc string) error { return errors.Join(os.Remove(etc), os.Symlink(outside[:len(outside)-7], etc)) }, "/"},
		"giant": {func(etc string) error {
			f, err := os.Create(etc + "/passwd")
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("\nx:x:1000:1000::/late:/bin/sh\n"), 1<<40)
			return err
		}, "/"},
		"long line": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte(strings.Repeat("x", 1<<20)+"\nx:x:1000:1000::/late:/bin/sh\n"), 0o644)
		}, "/"},
		"many lines": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte(strings.Repeat("x:x:1:1::/x:/bin/sh\n", 1<<16)+"x:x:1000:1000::/late:/bin/sh\n"), 0o644)
		}, "/"},
		"number as name": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte("1000:x:0:0::/wrong:/bin/sh\nx:x:1000:1000::/right:/bin/sh\n"), 0o644)
		}, "/right"},
		"sign": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte("x:x:+1000:0::/a:\nx:x:01000:0::/b:\nx:x: 1000:0::/c:\n"), 0o644)
		}, "/"},
		"relative": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte("x:x:1000:1000::x/../../y:/bin/sh\n"), 0o644)
		}, "/"},
		"zero": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte("x:x:1000:1000::/a\x00b:/bin/sh\n"), 0o644)
		}, "/"},
	} {
		root := rootfs(t)
		if err := errors.Join(os.Remove(root+"/etc/passwd"), c.make(root+"/etc")); err != nil {
			t.Fatal(err)
		}
		s := dockerSpec(t, root, "sh", "-c", "echo $HOME")
		s.Process.User.UID = 1000
		began := time.Now()
		if out, _, err := tryRun(s); out != c.want+"\n" || err != nil {
			t.Errorf("%s: home %q, %v, want %q", name, out, err, c.want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}

// TestDevicesAreDenied has specifications that say nothing of devices: nothing but the usual ones is open then.
func TestDevicesAreDenied(t *testing.T) {
	for name, resources := range map[string]*specs.LinuxResources{"no resources": nil, "no rules": {}, "a rule for another": {Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: ptr(10), Minor: ptr(229), Access: "rwm"}}}} {
		s := dockerSpec(t, rootfs(t))
		caps := append(append([]string{}, dockerCaps...), "CAP_SYSLOG")
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		s.Linux.Resources = resources
		s.Process.Args = []string{"sh", "-c", "mknod /tmp/log c 1 11; mknod /tmp/mem c 1 1; busybox timeout 2 cat /tmp/log; head -c 1 /tmp/mem; head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo ok"}
		out, _ := run(t, s)
		if strings.Count(out, "Operation not permitted") < 2 || !strings.HasSuffix(out, "3\nok\n") {
			t.Errorf("%s: %q", name, out)
		}
	}
}

func ptr(n int64) *int64 { return &n }
