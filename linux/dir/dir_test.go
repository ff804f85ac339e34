package dir_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/linux/dir"
)

func TestStaysInside(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, d := range []string{"root/a/b", "out"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"abs": "/a", "up": "../../../../a", "leave": "../out", "loop": "loop", "magic": "/proc/self/root"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for path, want := range map[string]error{
		"": nil, "/": nil, "a/b": nil, "/a/b": nil, "abs/b": nil, "up/b": nil, "a/../../../a": nil, "../..": nil,
		"leave": syscall.ENOENT, "loop": syscall.ELOOP, "magic": syscall.ENOENT, "none": syscall.ENOENT,
	} {
		s, err := d.Sub(path)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
		if err == nil {
			_ = s.Close()
		}
	}
	if got, err := d.Resolve("up/../abs/b"); err != nil || got != "/a/b" {
		t.Error(got, err)
	}
	for _, link := range []string{"abs", "up"} {
		if _, err := d.Child(link); err == nil {
			t.Errorf("%s was followed", link)
		}
		if st, err := d.Stat(link); err != nil || !st.IsSymlink() {
			t.Error(st, err)
		}
	}
	if err := d.Mknod("fifo", syscall.S_IFIFO|0o600, 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fifo", "a", "abs"} {
		if _, err := d.File(name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s was opened: %v", name, err)
		}
	}
}

func TestNode(t *testing.T) {
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n, err := d.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("f"); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if err := errors.Join(n.Setxattr("user.a", "1"), n.Setxattr("user.b", ""), n.Chown(3, 4), n.Chmod(0o4711), n.Close()); err != nil {
		t.Fatal(err)
	}
	if err := d.Symlink("nowhere", "l"); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"f": syscall.S_IFREG | 0o4711, "l": syscall.S_IFLNK | 0o777} {
		n, err := d.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Chown(5, 6); err != nil {
			t.Error(err)
		}
		if name == "f" {
			if err := n.Chmod(0o4711); err != nil { // the owner's change took set-ID bits off
				t.Error(err)
			}
			names, err := n.Listxattr()
			value, found, gerr := n.Getxattr("user.a")
			if len(names) != 2 || value != "1" || !found || err != nil || gerr != nil {
				t.Error(names, value, found, err, gerr)
			}
		}
		if st, err := n.Stat(); err != nil || st.Mode != mode || st.UID != 5 || st.GID != 6 {
			t.Errorf("%s: %+v %v", name, st, err)
		}
		if _, found, err := n.Getxattr("user.none"); found || err != nil {
			t.Error(found, err)
		}
		_ = n.Close()
	}
	for range 2 {
		if err := d.RemoveAll("f"); err != nil {
			t.Error(err)
		}
	}
}
