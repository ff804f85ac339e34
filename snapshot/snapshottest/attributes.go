package snapshottest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Describe lists everything in a folder with all that can be seen of it, a line each but for mount points.
func Describe(t testing.TB, root string) []string {
	t.Helper()
	var list []string
	must(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil || slices.ContainsFunc(mountPoints, func(m string) bool { m, _, _ = strings.Cut(m, "="); m, _, _ = strings.Cut(m, "-"); return m == rel }) || rel == "." {
			return err
		}
		line := fmt.Sprintf("%q %o %d:%d %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links %d %s", st.Nlink, digest.FromBytes(data).Encoded()[:16])
		case syscall.S_IFLNK:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" -> %q", target)
		case syscall.S_IFCHR, syscall.S_IFBLK:
			line += fmt.Sprintf(" device %x", st.Rdev)
		}
		attrs, err := attributes(name)
		list = append(list, line+attrs)
		return err
	}))
	return list
}

func attributes(name string) (string, error) {
	buf := make([]byte, 64<<10)
	path, err := syscall.BytePtrFromString(name)
	if err != nil {
		return "", err
	}
	n, err := llistxattr(path, buf)
	if err != nil {
		return "", err
	}
	var list []string
	for attr := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if attr == "" || strings.HasPrefix(attr, "trusted.overlay.") || attr == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := syscall.Getxattr(name, attr, value)
		if err != nil {
			return "", err
		}
		list = append(list, fmt.Sprintf(" %s=%q", attr, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, ""), nil
}

// Special is a layer of everything that a layer can hold.
func Special(t testing.TB) []byte {
	t.Helper()
	old := time.Unix(1e9, 0)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	large := strings.Repeat("0123456789abcdef", 5000)
	for _, e := range []struct {
		h    tar.Header
		data string
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o2750, Uid: 1, Gid: 2}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "d/suid", Mode: 0o6755, Uid: 1000, Gid: 1001, PAXRecords: map[string]string{
			"SCHILY.xattr.user.a": "1", "SCHILY.xattr.trusted.b": "\x00\xff", "SCHILY.xattr.user.empty.not": "x",
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}}, "suid"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "d/suid"}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "large", Mode: 0o600, Uid: 1 << 20, Gid: 1 << 30}, large},
		{tar.Header{Typeflag: tar.TypeReg, Name: "page", Mode: 0o600}, large[:4096]},
		{tar.Header{Typeflag: tar.TypeReg, Name: "pages", Mode: 0o600}, large[:8192+100]},
		{tar.Header{Typeflag: tar.TypeReg, Name: "almost", Mode: 0o600}, large[:4095]},
		{tar.Header{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o644}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "d/../\xff"}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "long", Linkname: strings.Repeat("x/", 2000)}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "loop", Mode: 0o660, Devmajor: 7, Devminor: 300}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "many", Mode: 0o755}, ""},
	} {
		e.h.Size, e.h.ModTime, e.h.Format = int64(len(e.data)), old, tar.FormatPAX
		must(t, w.WriteHeader(&e.h))
		_, err := io.WriteString(w, e.data)
		must(t, err)
	}
	for i := range 700 { // a folder of several blocks, of which names sort by their bytes
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("many/%c%s-%d\xfe", byte(1+i%46), strings.Repeat("n", i%200), i), ModTime: old, Format: tar.FormatPAX}))
	}
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "many", Mode: 0o755, ModTime: old, Format: tar.FormatPAX}))
	must(t, w.Close())
	return b.Bytes()
}

// show describes a snapshot.
func show(t testing.TB, s snapshot.Snapshotter, key string) []string {
	t.Helper()
	m, err := s.Mount(t.Context(), key, true)
	must(t, err)
	defer m.Close()
	return Describe(t, fmt.Sprintf("/proc/self/fd/%d/", m.Fd()))
}

// testAttributes has a snapshot show all that a layer says, and a layer of what changed say all of that.
func testAttributes(t *testing.T, open opener) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	a := Commit(t, s, Special(t))
	must(t, s.Prepare(ctx, "one", []digest.Digest{a}))
	before := show(t, s, "one")
	for _, want := range []string{
		`"d" 42750 1:2 1000000000`,
		`"d/suid" 106755 1000:1001 1000000000 links 2 ` + digest.FromString("suid").Encoded()[:16] + ` security.capability="\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" trusted.b="\x00\xff" user.a="1" user.empty.not="x"`,
		`"link" 120777 0:0 1000000000 -> "d/../\xff"`, `"fifo" 10600 0:0 1000000000`, `"null" 20666 0:0 1000000000 device 103`, `"loop" 60660 0:0 1000000000 device 10072c`,
		`"many" 40755 0:0 1000000000`, `"large" 100600 1048576:1073741824 1000000000 links 1 ` + digest.FromString(strings.Repeat("0123456789abcdef", 5000)).Encoded()[:16],
	} {
		if !slices.Contains(before, want) {
			t.Errorf("missing %s", want)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(before[:15], "\n"))
	}
	if changes, err := s.Changes(ctx, "one"); err != nil || len(changes) != 0 {
		t.Error("changes of nothing:", changes, err)
	}
	edit(t, s, "one", func(root string) {
		root += "/"
		must(t, errors.Join(
			os.Chmod(root+"d", 0o700), os.Chown(root+"large", 5, 6), os.Remove(root+"hard"), os.RemoveAll(root+"many"), os.WriteFile(root+"many", []byte("a file now"), 0o644),
			os.Remove(root+"page"), os.Mkdir(root+"page", 0o711), os.WriteFile(root+"page/in", nil, 0o600), syscall.Setxattr(root+"d/suid", "user.new", []byte("n"), 0),
			os.Remove(root+"fifo"), os.Symlink("elsewhere", root+"fifo"), syscall.Mkfifo(root+"d/fifo", 0o640), os.Link(root+"large", root+"d/hard"), os.Truncate(root+"pages", 3),
		))
	})
	after := show(t, s, "one")
	var diff bytes.Buffer
	must(t, s.Diff(ctx, "one", &diff))
	b := Commit(t, s, diff.Bytes(), a)
	must(t, s.Prepare(ctx, "two", []digest.Digest{a, b}))
	same(t, show(t, s, "two"), after...)
	must(t, s.Prepare(ctx, "three", []digest.Digest{a}))
	same(t, show(t, s, "three"), before...)
	for _, key := range []string{"one", "two", "three"} {
		must(t, s.Remove(ctx, key))
	}
	clean(t, s)
}
