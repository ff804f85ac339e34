package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/archive/erofs"
	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/linux/mount"
)

// tree writes an image of many directories and files of all sizes around a block's.
func tree(t *testing.T, f erofs.File) {
	t.Helper()
	w := erofs.NewWriter(f)
	root := &erofs.Dir{Inode: erofs.Inode{Mode: syscall.S_IFDIR | 0o711, Xattrs: []erofs.Xattr{{Name: "user.root", Value: strings.Repeat("r", 1000)}}}}
	for d := range 60 {
		dir := &erofs.Dir{Inode: erofs.Inode{Mode: syscall.S_IFDIR | 0o755, Seconds: int64(d) - 30, Nanos: uint32(d)}}
		for n := range 3 * d {
			size := 4096*(n%3) + []int{0, 1, 31, 32, 2000, 3999, 4000, 4032, 4033, 4095}[n%10]
			nid, err := w.Regular(erofs.Inode{Mode: syscall.S_IFREG | 0o644, UID: uint32(n), Links: 1, Xattrs: []erofs.Xattr{{Name: "user.n", Value: strings.Repeat("v", 37*n)}}}, int64(size), strings.NewReader(strings.Repeat(string(rune('a'+n%26)), size)), n%2 == 0)
			if err != nil {
				t.Fatal(err)
			}
			dir.Entries = append(dir.Entries, erofs.Entry{Name: fmt.Sprintf("%s%d", strings.Repeat("n", n%200), n), NID: nid, Mode: syscall.S_IFREG})
		}
		root.Entries = append(root.Entries, erofs.Entry{Name: fmt.Sprint("d", d), Dir: dir})
	}
	if err := w.Close(root, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestWriter(t *testing.T) {
	f, again := create(t), create(t)
	tree(t, f)
	tree(t, again)
	a, err := os.ReadFile(f.Name())
	b, berr := os.ReadFile(again.Name())
	if err = errors.Join(err, berr); err != nil || !bytes.Equal(a, b) || len(a)%4096 != 0 || !erofs.Is(f) {
		t.Error("the same tree gives another image", len(a), len(b), err)
	}
	m, err := mount.Image(f.Name())
	if errdefs.Is(err, errdefs.NotImplemented) || errors.Is(err, syscall.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if st, err := m.Stat(); err != nil || st.Mode().Perm() != 0o711 || st.Sys().(*syscall.Stat_t).Nlink != 62 {
		t.Error(st, err)
	}
	for d := range 60 {
		dir := fmt.Sprintf("%s/d%d", fd.Path(m), d)
		if st, err := os.Stat(dir); err != nil || st.ModTime().Unix() != int64(d)-30 || st.ModTime().Nanosecond() != d {
			t.Error(st, err)
		}
		for n := range 3 * d {
			name := fmt.Sprintf("%s/%s%d", dir, strings.Repeat("n", n%200), n)
			size := 4096*(n%3) + []int{0, 1, 31, 32, 2000, 3999, 4000, 4032, 4033, 4095}[n%10]
			data, err := os.ReadFile(name)
			if err != nil || string(data) != strings.Repeat(string(rune('a'+n%26)), size) {
				t.Fatalf("%s: %d of %d bytes, %v", name, len(data), size, err)
			}
			if got, err := syscall.Getxattr(name, "user.n", make([]byte, 1<<16)); err != nil || got != 37*n {
				t.Errorf("%s: attribute of %d bytes, %v", name, got, err)
			}
		}
	}
}

type broken struct{ erofs.File }

func (broken) WriteAt([]byte, int64) (int, error) { return 0, syscall.ENOSPC }

func TestErrors(t *testing.T) {
	regular := erofs.Inode{Mode: syscall.S_IFREG, Links: 1}
	w := erofs.NewWriter(create(t))
	if _, err := w.Regular(regular, 5000, strings.NewReader("short"), false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	if _, err := w.Regular(regular, 1<<50, strings.NewReader(""), false); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
	for _, target := range []string{"", strings.Repeat("x", 4096), "a\x00b"} {
		if _, err := w.Symlink(erofs.Inode{Mode: syscall.S_IFLNK, Links: 1}, target); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%.10q: %v", target, err)
		}
	}
	large := regular
	for i := range 5 {
		large.Xattrs = append(large.Xattrs, erofs.Xattr{Name: fmt.Sprint("user.", i), Value: strings.Repeat("x", 65000)})
	}
	if _, err := w.Special(large); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
	for _, root := range []*erofs.Dir{
		{Inode: erofs.Inode{Mode: syscall.S_IFDIR, Xattrs: []erofs.Xattr{{Name: "user.a", Value: strings.Repeat("x", 3000)}}}},
		{Inode: erofs.Inode{Mode: syscall.S_IFDIR}, Entries: []erofs.Entry{{Name: strings.Repeat("x", 256), Mode: syscall.S_IFREG}}},
		{Inode: erofs.Inode{Mode: syscall.S_IFDIR}, Entries: []erofs.Entry{{Name: "", Mode: syscall.S_IFREG}}},
	} {
		if err := erofs.NewWriter(create(t)).Close(root, [16]byte{}); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Error(err)
		}
	}
	w = erofs.NewWriter(broken{create(t)})
	_, err := w.Regular(regular, 3<<20, bytes.NewReader(make([]byte, 3<<20)), false)
	if err == nil {
		err = w.Close(&erofs.Dir{Inode: erofs.Inode{Mode: syscall.S_IFDIR}}, [16]byte{})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
}
