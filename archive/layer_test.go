package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/dir"
)

// entry is one entry of a tar with its contents.
type entry struct {
	tar.Header
	data string
}

func reg(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func folder(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, ""}
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testLimits keep what is tried by the thousand from taking minutes each.
func testLimits() archive.Limits { return archive.Limits{Size: 2 << 30} }

// apply unpacks a layer in a folder beside a canary, and fails the test when the canary changed.
func apply(t testing.TB, layer []byte) (root string, applied archive.Applied, err error) {
	t.Helper()
	base := t.TempDir()
	root = filepath.Join(base, "a/b/root")
	canary := filepath.Join(base, "canary")
	for _, d := range []string{root, canary} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(canary, "file"), []byte("canary"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := fingerprint(t, base, root)
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	applied, err = archive.Apply(t.Context(), f, bytes.NewReader(layer), archive.ApplyOptions{Limits: testLimits()})
	if after := fingerprint(t, base, root); after != before {
		t.Errorf("the host changed:\n%s\n%s", before, after)
	}
	return root, applied, err
}

// fingerprint describes everything beneath base but root.
func fingerprint(t testing.TB, base, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(base, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == root {
			return fs.SkipDir
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		data, _ := os.ReadFile(name)
		_, err = fmt.Fprintf(&b, "%s %o %d:%d %d %v %x\n", name, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// attack is a layer that means harm.
type attack struct {
	name    string
	entries []entry
	kind    errdefs.Kind // InvalidParameter, NotFound; Internal: contained rather than refused
	inside  []string     // must be there afterwards
}

func hostile() []attack {
	long := strings.Repeat("d/", 2500)
	return []attack{
		{"dot dot", []entry{reg("../canary/file", "x")}, errdefs.InvalidParameter, nil},
		{"dot dot in the middle", []entry{reg("a/../../../canary/file", "x")}, errdefs.InvalidParameter, nil},
		{"dot dot folder", []entry{folder("..")}, errdefs.InvalidParameter, nil},
		{"absolute is inside", []entry{reg("/etc/passwd", "x")}, errdefs.Internal, []string{"etc/passwd"}},
		{"absolute dot dot", []entry{reg("/../../canary/file", "x")}, errdefs.InvalidParameter, nil},
		{"through an absolute symlink", []entry{symlink("l", "/"), reg("l/escaped", "x")}, errdefs.Internal, []string{"escaped"}},
		{"through a relative symlink", []entry{symlink("l", "../../../canary"), reg("l/file", "x")}, errdefs.NotFound, nil},
		{"symlink swapped for a folder", []entry{folder("d"), reg("d/f", "1"), symlink("d", "../../../canary"), reg("d/file", "x")}, errdefs.NotFound, nil},
		{"folder swapped for a symlink twice", []entry{folder("e"), folder("d"), reg("d/f", "1"), symlink("d", "e"), reg("d/g", "2"), folder("d"), reg("d/h", "3")}, errdefs.Internal, []string{"e/g", "d/h"}},
		{"symlink then file of the same name", []entry{symlink("f", "../../../canary/file"), reg("f", "x")}, errdefs.Internal, []string{"f"}},
		{"symlink then folder of the same name", []entry{symlink("d", "../../../canary"), {tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o777}, ""}}, errdefs.Internal, []string{"d"}},
		{"symlink loop", []entry{symlink("a", "b"), symlink("b", "a"), reg("a/f", "x")}, errdefs.InvalidParameter, nil},
		{"hard link out", []entry{hardlink("l", "../../../canary/file")}, errdefs.InvalidParameter, nil},
		{"hard link to an absolute path", []entry{hardlink("l", "/etc/passwd")}, errdefs.NotFound, nil},
		{"hard link through a symlink", []entry{symlink("s", "../../../canary"), hardlink("l", "s/file"), reg("l", "x")}, errdefs.NotFound, nil},
		{"hard link to a symlink, then written", []entry{symlink("s", "../../../canary/file"), hardlink("l", "s"), reg("l", "x")}, errdefs.Internal, []string{"l"}},
		{"hard link to a folder", []entry{folder("d"), hardlink("l", "d")}, errdefs.InvalidParameter, nil},
		{"hard link to the root", []entry{hardlink("l", ".")}, errdefs.InvalidParameter, nil},
		{"hard link to itself", []entry{hardlink("l", "l")}, errdefs.NotFound, nil},
		{"hard link to a whiteout", []entry{reg(".wh.f", ""), hardlink("l", "f")}, errdefs.InvalidParameter, nil},
		{"whiteout of dot dot", []entry{reg("a/.wh...", "")}, errdefs.InvalidParameter, nil},
		{"whiteout of dot", []entry{reg("a/.wh..", "")}, errdefs.InvalidParameter, nil},
		{"whiteout of nothing", []entry{reg("a/.wh.", "")}, errdefs.InvalidParameter, nil},
		{"whiteout out of the root", []entry{reg("../canary/.wh.file", "")}, errdefs.InvalidParameter, nil},
		{"whiteout through a symlink", []entry{symlink("s", "../../../canary"), reg("s/.wh.file", "")}, errdefs.NotFound, nil},
		{"opaque through a symlink", []entry{symlink("s", "../../../canary"), reg("s/.wh..wh..opq", "")}, errdefs.NotFound, nil},
		{"whiteout that is a device", []entry{{tar.Header{Typeflag: tar.TypeChar, Name: "f", Mode: 0o644}, ""}}, errdefs.InvalidParameter, nil},
		{"root is a file", []entry{reg(".", "x")}, errdefs.InvalidParameter, nil},
		{"root is a symlink", []entry{symlink("./", "../../../canary"), reg("file", "x")}, errdefs.InvalidParameter, nil},
		{"file as a folder", []entry{reg("f", "x"), reg("f/g", "y")}, errdefs.InvalidParameter, nil},
		{"device numbers out of range", []entry{{tar.Header{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 1 << 20, Devminor: 1}, ""}}, errdefs.InvalidParameter, nil},
		{"owner out of range", []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1 << 32}, ""}}, errdefs.InvalidParameter, nil},
		{"path too long", []entry{reg(long+"f", "x")}, errdefs.InvalidParameter, nil},
		{"element too long", []entry{reg(strings.Repeat("x", 300), "x")}, errdefs.InvalidParameter, nil},
		{"overlay attributes", []entry{{tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}}, ""}}, errdefs.Internal, []string{"d"}},
	}
}

func TestHostileLayers(t *testing.T) {
	for _, c := range hostile() {
		t.Run(c.name, func(t *testing.T) {
			root, _, err := apply(t, pack(t, c.entries...))
			switch {
			case c.kind == errdefs.Internal && err != nil:
				t.Fatal(err)
			case c.kind == errdefs.NotFound && errors.Is(err, fs.ErrNotExist):
			case c.kind != errdefs.Internal && !errdefs.Is(err, c.kind):
				t.Fatalf("got %v of kind %v, want %v", err, errdefs.KindOf(err), c.kind)
			}
			for _, name := range c.inside {
				if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
					t.Error(err)
				}
			}
			if c.name == "overlay attributes" {
				if n, err := syscall.Getxattr(filepath.Join(root, "d"), "trusted.overlay.opaque", nil); err == nil {
					t.Errorf("attribute of %d bytes was set", n)
				}
			}
		})
	}
}

func TestApplyAttributes(t *testing.T) {
	old := time.Unix(1e9, 123456789)
	any := "any\xff\xfe\n\x01 name"
	layer := pack(t,
		entry{tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o2750, Uid: 1, Gid: 2, ModTime: old, Format: tar.FormatPAX}, ""},
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "d/suid", Mode: 0o6755, Uid: 1000, Gid: 1001, ModTime: old, Format: tar.FormatPAX, PAXRecords: map[string]string{
			"SCHILY.xattr.user.test": "value\x00\xff", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}}, "data"},
		hardlink("d/hard", "./d/suid"),
		entry{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Typeflag: tar.TypeBlock, Name: "loop", Mode: 0o660, Devmajor: 7, Devminor: 300}, ""},
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, ""},
		symlink("link", "anywhere/\xff"),
		reg(any, "x"),
		reg("implied/parents/file", "x"),
		reg("dup", "first"), reg("dup", "second"),
		reg("large", strings.Repeat("x", 1<<20)),
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "ancient", ModTime: time.Unix(-1<<40, 0), Format: tar.FormatPAX}, ""},
	)
	root, applied, err := apply(t, layer)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(4 + 1 + 1 + 5 + 6 + 1<<20); applied.Size != want {
		t.Errorf("size %d, want %d", applied.Size, want)
	}
	stat := func(name string) (st syscall.Stat_t) {
		if err := syscall.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Error(err)
		}
		return st
	}
	for _, c := range []struct {
		name string
		mode uint32
		uid  uint32
		rdev uint64
	}{
		{"d", syscall.S_IFDIR | 0o2750, 1, 0},
		{"d/suid", syscall.S_IFREG | 0o6755, 1000, 0},
		{"d/hard", syscall.S_IFREG | 0o6755, 1000, 0},
		{"null", syscall.S_IFCHR | 0o666, 0, 1<<8 | 3},
		{"loop", syscall.S_IFBLK | 0o660, 0, 7<<8 | 300&0xff | 1<<20},
		{"fifo", syscall.S_IFIFO | 0o600, 0, 0},
		{"implied", syscall.S_IFDIR | 0o755, 0, 0},
		{any, syscall.S_IFREG | 0o644, 0, 0},
	} {
		if st := stat(c.name); st.Mode != c.mode || st.Uid != c.uid || st.Rdev != c.rdev {
			t.Errorf("%s: mode %o, owner %d, device %x", c.name, st.Mode, st.Uid, st.Rdev)
		}
	}
	for _, name := range []string{"d", "d/suid"} {
		if st := stat(name); time.Unix(st.Mtim.Unix()) != old {
			t.Errorf("%s: time %v", name, st.Mtim)
		}
	}
	if stat("d/hard").Ino != stat("d/suid").Ino {
		t.Error("not linked")
	}
	if data, err := os.ReadFile(filepath.Join(root, "dup")); string(data) != "second" {
		t.Error(string(data), err)
	}
	buf := make([]byte, 64)
	if n, err := syscall.Getxattr(filepath.Join(root, "d/suid"), "user.test", buf); err != nil || string(buf[:n]) != "value\x00\xff" {
		t.Error(string(buf[:max(0, n)]), err)
	}
	if n, err := syscall.Getxattr(filepath.Join(root, "d/suid"), "security.capability", buf); err != nil || n != 20 {
		t.Error(n, err)
	}
	// What was unpacked packs to a layer that unpacks to the same.
	again, _, err := apply(t, repack(t, root))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := repack(t, root), repack(t, again); !bytes.Equal(a, b) {
		t.Error("packing and unpacking loses something")
	}
}

func repack(t testing.TB, root string) []byte {
	t.Helper()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b bytes.Buffer
	if err := archive.PackUpper(t.Context(), d, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func whiteouts(t *testing.T) []byte {
	return pack(t,
		reg("d/.wh.gone", ""),
		folder("full"), reg("full/f", "x"), reg("full/.wh..wh..opq", ""),
		reg(".wh.anew", ""), folder("anew"), reg("anew/f", "x"),
		reg(".wh.implied", ""), reg("implied/f", "x"),
		reg(".wh.file", ""), reg("file", "x"),
		folder("late"), reg(".wh.late", ""),
		reg("kept", "x"), reg(".wh.kept", ""),
		reg(".wh..wh.plnk", ""), reg(".wh..wh..opq", ""),
	)
}

func TestWhiteouts(t *testing.T) {
	root, applied, err := apply(t, whiteouts(t))
	if err != nil {
		t.Fatal(err)
	}
	if !applied.Opaque {
		t.Error("the layer is not opaque")
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(root, "d/gone"), &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != 0 {
		t.Error(st, err)
	}
	for name, want := range map[string]bool{"full": true, "anew": true, "implied": true, "late": true, "d": false} {
		var b [1]byte
		n, err := syscall.Getxattr(filepath.Join(root, name), "trusted.overlay.opaque", b[:])
		if got := err == nil && n == 1 && b[0] == 'y'; got != want {
			t.Errorf("%s: opaque %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"file", "kept", "implied/f", "anew/f"} {
		if st, err := os.Lstat(filepath.Join(root, name)); err != nil || !st.Mode().IsRegular() {
			t.Error(st, err)
		}
	}
	if entries, err := filepath.Glob(filepath.Join(root, ".wh*")); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
}

func TestSparse(t *testing.T) {
	if err := os.WriteFile(filepath.Join(t.TempDir(), "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	layer := sparseTar(t, 1<<30, "end")
	root, applied, err := apply(t, layer)
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(root, "sparse"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 1<<30 || st.Blocks > 64 || applied.Size != 1<<30 {
		t.Errorf("size %d, blocks %d, counted %d", st.Size, st.Blocks, applied.Size)
	}
	f, err := os.Open(filepath.Join(root, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tail := make([]byte, 3)
	if _, err := f.ReadAt(tail, 1<<30-3); err != nil || string(tail) != "end" {
		t.Error(string(tail), err)
	}
	if _, _, err := apply(t, sparseTar(t, 1<<50, "end")); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error("a sparse bomb was taken:", err)
	}
}

// sparseTar makes a tar (GNU sparse format 1.0) of one file of the given size that has only its last bytes.
func sparseTar(t testing.TB, size int64, tail string) []byte {
	t.Helper()
	spans := fmt.Sprintf("1\n%d\n%d\n", size-int64(len(tail)), len(tail))
	data := spans + strings.Repeat("\x00", 512-len(spans)) + tail
	record := func(k, v string) string {
		for n := len(k) + len(v) + 3; ; n++ {
			if s := fmt.Sprintf("%d %s=%s\n", n, k, v); len(s) == n {
				return s
			}
		}
	}
	pax := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "sparse") + record("GNU.sparse.realsize", fmt.Sprint(size))
	var b bytes.Buffer
	raw := func(name string, flag byte, body string) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x00")
		copy(h[108:], "0000000\x00")
		copy(h[116:], "0000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00", len(body)))
		copy(h[136:], "00000000000\x00")
		h[156] = flag
		copy(h[257:], "ustar\x0000")
		copy(h[148:], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h)
		b.WriteString(body)
		b.Write(make([]byte, (512-len(body)%512)%512))
	}
	raw("PaxHeaders.0/sparse", 'x', pax)
	raw("GNUSparseFile.0/sparse", '0', data)
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func TestPAXBomb(t *testing.T) {
	layer := pack(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.big": strings.Repeat("x", 900<<10)}}, ""})
	if _, _, err := apply(t, layer); err == nil {
		t.Error("an attribute larger than the kernel takes was taken")
	}
	var b bytes.Buffer
	h := pack(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{"comment": "x"}}, ""})
	copy(h[124:], "77777777777\x00") // the extended header says that it has 8 GiB
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	b.Write(h)
	if _, _, err := apply(t, b.Bytes()); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(pack(f, folder("d"), reg("d/f", "x"), symlink("l", "../.."), hardlink("h", "d/f"), reg("d/.wh.x", ""), reg("d/.wh..wh..opq", "")))
	f.Add(pack(f, symlink("d", "/"), reg("d/etc/passwd", "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = apply(t, data) // the canary must stay
	})
}

func FuzzDecompress(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 4, 0, 1, 0, 0})
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte("\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x00\x78\x00\x00\x00\x00\x45\xae\xef\x83\xf8\xee\x16\x0a\x00\x01\x19\x01\xa5\x2c\x81\xcc\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a")) // xz
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := archive.Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, r, 1<<20)
		_ = r.Close()
	})
}
