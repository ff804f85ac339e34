package mount_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gantry/linux/mount"
	"gantry/linux/safepath"
)

func TestTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	host := t.TempDir()
	for _, dir := range []string{"rw", "ro", "under"} {
		if err := os.Mkdir(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := mount.FS("tmpfs", "gantry-test-tree", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := safepath.Symlink(root, "way", "/deep"); err != nil {
		t.Fatal(err)
	}
	if err := safepath.Symlink(root, "out", "../../../../../../"+host); err != nil {
		t.Fatal(err)
	}
	bind := func(name string) *os.File {
		m, err := mount.Bind(filepath.Join(host, name), true)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	tree, err := mount.NewTree(root, []mount.Inner{
		{Mount: bind("rw"), Target: "/way/a"},                   // through a link
		{Mount: bind("under"), Target: "/deep/a/b"},             // within another
		{Mount: bind("ro"), Target: "/ro", ReadOnly: true},      // for reading
		{Mount: bind("file"), Target: "/etc/f", ReadOnly: true}, // a file
		{Mount: bind("rw"), Target: "/out/x"},                   // a link that leads nowhere but to the tree
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) error {
		f, err := safepath.Open(tree.Root, name, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	}
	for _, name := range []string{"/deep/a/one", "/way/a/b/two", "/out/x/three"} {
		if err := write(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"/ro/x", "/new", "/etc/f"} {
		if err := write(name); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write %s: %v", name, err)
		}
	}
	seen, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(seen), " gantry-test-tree ") || strings.Contains(string(seen), host) {
		t.Errorf("the tree is seen outside: %v\n%s", err, seen)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"rw/one", "rw/three", "under/two"} {
		if _, err := os.Stat(filepath.Join(host, name)); err != nil {
			t.Error(err)
		}
	}
	if list, err := os.ReadDir(host); err != nil || len(list) != 4 {
		t.Errorf("the host's folder has %v, %v", list, err)
	}
	// An error takes everything back.
	if root, err = mount.FS("tmpfs", "gantry-test-tree", nil); err != nil {
		t.Fatal(err)
	}
	if err := safepath.Symlink(root, "loop", "loop"); err != nil {
		t.Fatal(err)
	}
	if _, err := mount.NewTree(root, []mount.Inner{{Mount: bind("rw"), Target: "/loop/x"}}, false); err == nil {
		t.Error("a mount at the end of a circle")
	}
	if err := os.RemoveAll(filepath.Join(host, "rw")); err != nil { // nothing is mounted from it, or EBUSY
		t.Error(err)
	}
}

// However often trees are made, the process stays in its mount namespace.
func TestTreesLeaveTheMainThread(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	home, err := os.Readlink("/proc/self/ns/mnt") // the main thread's
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			root, err := mount.FS("tmpfs", "gantry-test-tree", nil)
			if err != nil {
				t.Error(err)
				return
			}
			tree, err := mount.NewTree(root, nil, false)
			if err == nil {
				err = tree.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != home {
		t.Errorf("the main thread is in %s, %v; it was in %s", now, err, home)
	}
}
