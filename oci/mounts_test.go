package oci_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/oci"
)

// mounted mounts a tmpfs for the time of a test.
func mounted(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func bind(src, dst string, options ...string) specs.Mount {
	return specs.Mount{Destination: dst, Type: "bind", Source: src, Options: append([]string{"rbind", "rprivate"}, options...)}
}

// TestBindAttributes binds a file system that has attributes of its own.
func TestBindAttributes(t *testing.T) {
	vol := t.TempDir()
	mounted(t, vol, syscall.MS_NOSUID|syscall.MS_NODEV)
	if err := os.Mkdir(vol+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	mounted(t, vol+"/below", syscall.MS_NOEXEC)
	s := dockerSpec(t, rootfs(t))
	s.Mounts = append(s.Mounts, bind(vol, "/plain"), bind(vol, "/exact", "ro"), bind(vol, "/remount", "remount", "ro"), bind(vol, "/rec", "rro", "rnosuid", "rexec"), bind(vol, "/nosym", "nosymfollow", "noatime"), bind(vol, "/atime", "rnoatime"))
	expect(t, s, "grep -e ' /plain' -e ' /exact' -e ' /remount' -e ' /rec' -e ' /nosym' -e ' /atime' /proc/mounts | while read a b c d e; do echo $b ${d%,inode64}; done",
		strings.Join([]string{
			"/plain rw,nosuid,nodev,relatime", "/plain/below rw,noexec,relatime", "/exact ro,relatime", "/exact/below rw,noexec,relatime", "/remount ro,nosuid,nodev,relatime", "/remount/below rw,noexec,relatime",
			"/rec ro,nosuid,nodev,relatime", "/rec/below ro,nosuid,relatime", "/nosym rw,noatime,nosymfollow", "/nosym/below rw,noexec,relatime", "/atime rw,nosuid,nodev,noatime", "/atime/below rw,noexec,noatime", "",
		}, "\n"))
}

// TestCopyUp fills a tmpfs with what it hides.
func TestCopyUp(t *testing.T) {
	for _, user := range []bool{false, true} {
		root := rootfs(t)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(os.MkdirAll(root+"/data/sub", 0o750))
		must(os.WriteFile(root+"/data/sub/file", []byte("content\n"), 0o640))
		must(os.Symlink("sub/file", root+"/data/link"))
		s := dockerSpec(t, root)
		if user {
			s = userSpec(t, root)
		}
		must(os.Lchown(root+"/data/sub/file", ownerOf(user, 33), ownerOf(user, 34)))
		must(os.Chmod(root+"/data/sub/file", os.ModeSetuid|0o640))
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro"}}, specs.Mount{Destination: "/none", Type: "tmpfs", Options: []string{"tmpcopyup"}})
		expect(t, s, "cat /data/link; stat -c '%a %u %g' /data/sub /data/sub/file; touch /data/x; ls /none", "content\n750 0 0\n4640 33 34\ntouch: /data/x: Read-only file system\n")
		if data, err := os.ReadFile(root + "/data/sub/file"); err != nil || string(data) != "content\n" {
			t.Errorf("the original: %q, %v", data, err)
		}
	}
}

// TestMountsOfMounts has bind mounts, with owners mapped and not, of what the mounts listed before them made of the root file system.
func TestMountsOfMounts(t *testing.T) {
	for _, user := range []bool{false, true} {
		vol, root := t.TempDir(), rootfs(t)
		if err := errors.Join(os.Mkdir(vol+"/x", 0o755), os.WriteFile(vol+"/x/file", []byte("of the volume\n"), 0o644), os.MkdirAll(root+"/mnt", 0o755)); err != nil {
			t.Fatal(err)
		}
		chown(t, vol, 5)
		s := dockerSpec(t, root)
		if user {
			s = userSpec(t, root)
		}
		m := []specs.LinuxIDMapping{{ContainerID: 5, HostID: uint32(ownerOf(user, 77)), Size: 1}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: vol, Options: []string{"rbind"}},
			specs.Mount{Destination: "/plain", Type: "bind", Source: root + "/mnt/x", Options: []string{"rbind"}},
			specs.Mount{Destination: "/final", Type: "bind", Source: root + "/mnt", Options: []string{"rbind", "idmap"}, UIDMappings: m, GIDMappings: m},
			specs.Mount{Destination: "/again", Type: "bind", Source: root + "/final/x", Options: []string{"rbind"}})
		expect(t, s, "cat /plain/file /final/x/file /again/file; stat -c '%n %u' /final/x/file /again/file", "of the volume\nof the volume\nof the volume\n/final/x/file 77\n/again/file 77\n")
	}
}

func ownerOf(user bool, id int) int {
	if user {
		return subordinate + id
	}
	return id
}

// TestRootPropagation has a container's root shared and its volumes spread as the host's do.
func TestRootPropagation(t *testing.T) {
	host := t.TempDir()
	mounted(t, host, 0)
	if err := errors.Join(syscall.Mount("", host, "", syscall.MS_SHARED, ""), os.Mkdir(host+"/in", 0o755), os.Mkdir(host+"/out", 0o755)); err != nil {
		t.Fatal(err)
	}
	for propagation, want := range map[string]string{"rshared": "1\nshared\nseen", "rslave": "1\n\nunseen", "rprivate": "0\n\nunseen", "": "0\n\nunseen"} {
		s := dockerSpec(t, rootfs(t), "sleep", "1000")
		s.Linux.RootfsPropagation = propagation
		options := []string{"rbind"}
		if propagation == "" { // which is slave by default
			options = append(options, "rprivate")
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: host, Options: options})
		c := start(t, s)
		if err := syscall.Mount("late", host+"/in", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		p := process("sh", "-c", "grep -c '^late' /proc/mounts; grep ' / / .*shared:' /proc/self/mountinfo > /dev/null || grep -e ' / .* shared:.* - ' /proc/self/mountinfo | grep -q -e ' / rw.* shared:' && echo shared || echo; mount -t tmpfs inner /vol/out")
		admin := append(append([]string{}, dockerCaps...), "CAP_SYS_ADMIN")
		p.Capabilities = &specs.LinuxCapabilities{Bounding: admin, Effective: admin, Permitted: admin}
		out, _ := execIn(t, c, p)
		if err := syscall.Unmount(host+"/in", syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		got := out + "unseen"
		if syscall.Unmount(host+"/out", syscall.MNT_DETACH) == nil {
			got = out + "seen"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", propagation, got, want)
		}
	}
}

func TestNoPivot(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "sh", "-c", "ls / | grep -c -e '^work$'; hostname; cat /proc/self/cgroup > /dev/null && ls /../../.. | grep -c -e bin; touch /etc/x")
	var out strings.Builder
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s, NoPivot: true}, oci.Stdio{Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	r.Close()
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}
	if out.String() != "0\nc1\n1\n" {
		t.Errorf("%q", out.String())
	}
	if _, err := os.Stat(s.Root.Path + "/etc/x"); err != nil {
		t.Error(err)
	}
}

// TestJoinedMountNamespace builds a container in a mount namespace that is there already.
func TestJoinedMountNamespace(t *testing.T) {
	holder := held(t, "-m")
	s := dockerSpec(t, rootfs(t))
	s.Linux.Namespaces[0].Path = path(holder, "mnt")
	expect(t, s, "readlink /proc/self/ns/mnt; hostname; ls / | grep -c -e '^work$'", link(t, path(holder, "mnt"))+"c1\n0\n")
}

// TestRootsOfAllKinds has roots on a read-only and on a shared mount, and that are mounts of their own.
func TestRootsOfAllKinds(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(dir string){
		"read-only": func(dir string) {
			must(syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY|syscall.MS_BIND, ""))
		},
		"shared": func(dir string) { must(syscall.Mount("", dir, "", syscall.MS_SHARED, "")) },
		"plain":  func(string) {},
	} {
		dir := t.TempDir()
		mounted(t, dir, 0)
		must(exec.Command("cp", "-a", rootfs(t)+"/.", dir).Run())
		must(os.Mkdir(dir+"/dev/shm", 0o755))
		change(dir)
		out, _ := run(t, dockerSpec(t, dir, "sh", "-c", "hostname; touch /x && echo written"))
		want := "c1\nwritten\n"
		if name == "read-only" {
			want = "c1\ntouch: /x: Read-only file system\n"
		}
		if out != want {
			t.Errorf("%s: %q", name, out)
		}
	}
}

func TestPlacesInProc(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/stat", []byte("own view\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := dockerSpec(t, rootfs(t))
	s.Mounts = append(s.Mounts, bind(dir+"/stat", "/proc/stat"))
	expect(t, s, "cat /proc/stat", "own view\n")
	for dst, m := range map[string]specs.Mount{
		"/proc/sys":        {Type: "tmpfs", Source: "tmpfs"},
		"/proc/1/../self/": {Type: "bind", Source: dir, Options: []string{"bind"}},
		"/proc":            {Type: "bind", Source: dir, Options: []string{"bind"}},
	} {
		s := dockerSpec(t, rootfs(t), "true")
		m.Destination = dst
		s.Mounts = append(s.Mounts, m)
		if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter {
			t.Errorf("%s: %v", dst, err)
		}
	}
	// By a link of the image's, too.
	root := rootfs(t)
	if err := os.Symlink("/proc/sys", root+"/settings"); err != nil {
		t.Fatal(err)
	}
	s = dockerSpec(t, root, "true")
	s.Mounts = append(s.Mounts, bind(dir, "/settings"))
	if _, _, err := tryRun(s); !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a link into /proc: %v", err)
	}
}

// TestDevIsALink has an image whose /dev leads elsewhere in the image.
func TestDevIsALink(t *testing.T) {
	root := rootfs(t)
	if err := errors.Join(os.Remove(root+"/dev"), os.Symlink("../../tmp/else", root+"/dev"), os.Mkdir(root+"/tmp/else", 0o755)); err != nil {
		t.Fatal(err)
	}
	expect(t, dockerSpec(t, root), "stat -c %t:%T /tmp/else/null /dev/null; echo x > /dev/null", "1:3\n1:3\n")
	if left, err := os.ReadDir(root + "/tmp/else"); err != nil || len(left) != 0 {
		t.Errorf("on the host: %v, %v", left, err)
	}
}

// TestSwappedTargets creates containers while someone swaps a mount's target, in a volume they share, for links to the host's
// directories (CVE-2021-30465, CVE-2025-52565, ...): nothing may ever be mounted or made outside.
func TestSwappedTargets(t *testing.T) {
	canary, vol, evil := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(evil+"/file", []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, target := range []string{canary, up + canary[1:], "/proc/sys", "/proc/self/attr", "/etc"} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name := vol + "/place"
				_ = os.Symlink(target, name+".new") // any of these may lose a race against the others
				_ = os.Rename(name+".new", name)
				_ = os.RemoveAll(name)
				_ = os.Mkdir(name, 0o755)
			}
		})
	}
	root := rootfs(t)
	mounts := mountTable(t)
	rounds, ran := 0, 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); rounds++ {
		s := dockerSpec(t, root, "sh", "-c", "cat /proc/sys/file /proc/sys/place/made /proc/self/attr/file 2>/dev/null; ls /")
		s.Mounts = append(s.Mounts, bind(vol, "/vol"), bind(evil, "/vol/place/deeper/made"), bind(evil, "/vol/place"), specs.Mount{Destination: "/vol/place/t", Type: "tmpfs", Source: "tmpfs"})
		s.Process.Cwd = "/vol/place"
		out, _, err := tryRun(s)
		if err == nil {
			ran++
		}
		if strings.Contains(out, "evil") {
			t.Fatalf("something is mounted in /proc: %q", out)
		}
	}
	close(stop)
	wg.Wait()
	if now := mountTable(t); now != mounts {
		t.Errorf("the host's mount table has changed:\n%s\n%s", mounts, now)
	}
	if left, err := os.ReadDir(canary); err != nil || len(left) != 0 {
		t.Errorf("outside there is %v, %v", left, err)
	}
	if rounds < 5 {
		t.Errorf("only %d rounds", rounds)
	}
	t.Logf("%d rounds, %d of which ran", rounds, ran)
}
