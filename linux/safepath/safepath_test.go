package safepath_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/linux/safepath"
)

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestMkdirAll(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for _, d := range []string{"real/deep", "var"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "../../../..", "abs": "/real", "var/run": "/run", "var/log": "../journal/log", "chain": "chain2", "chain2": "/end", "loop": "loop2", "loop2": "loop", "out": top,
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := open(t, root)
	for name, want := range map[string]string{
		"a/b/c": "a/b/c", "/real/deep/x": "real/deep/x", "up/escape": "escape", "../../e2": "e2", "abs/y": "real/y", "var/run/docker": "run/docker",
		"/var/log/x": "journal/log/x", "chain/z": "end/z", "out/q": top[1:] + "/q", "": "", "/": "", "a/./b//d": "a/b/d",
	} {
		f, err := safepath.MkdirAll(r, name, 0o751)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		got, err := f.Stat()
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(root, want))
		if err != nil || !os.SameFile(got, st) {
			t.Errorf("%q is not %q: %v", name, want, err)
		}
	}
	if st, err := os.Stat(filepath.Join(root, "a/b/c")); err != nil || st.Mode().Perm() != 0o751 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for name, want := range map[string]error{"loop/x": syscall.ELOOP, "file/x": syscall.ENOTDIR, "file": syscall.ENOTDIR} {
		if f, err := safepath.MkdirAll(r, name, 0o755); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
			if err == nil {
				f.Close()
			}
		}
	}
	if left, err := os.ReadDir(top); err != nil || len(left) != 1 {
		t.Errorf("beside the root: %v, %v", left, err)
	}
}

func TestOpen(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "passwd")); err != nil {
		t.Fatal(err)
	}
	r := open(t, root)
	if _, err := safepath.Open(r, "passwd", os.O_RDONLY, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link out of the root: %v", err)
	}
	if _, err := safepath.Open(r, "a\x00b", os.O_RDONLY, 0); err == nil {
		t.Error("a zero byte: no error")
	}
	if _, _, err := safepath.Parent(r, "a/.."); err == nil {
		t.Error("parent of ..: no error")
	}
	d, base, err := safepath.Parent(r, "/x/")
	if err != nil || base != "x" {
		t.Errorf("parent: %q, %v", base, err)
	} else {
		d.Close()
	}
}
