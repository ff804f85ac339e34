package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/dir"
	"gantry/linux/mount"
	"gantry/snapshot/snapshottest"
)

// unpackImage unpacks a layer as an image and mounts that. root is empty after an error.
func unpackImage(t testing.TB, layer []byte) (root string, applied archive.Unpacked, err error) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "image"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	applied, err = archive.UnpackImage(t.Context(), f, bytes.NewReader(layer), archive.ApplyOptions{Limits: testLimits()})
	if err != nil {
		return "", applied, err
	}
	if fsck, err := exec.LookPath("fsck.erofs"); err == nil && !fuzzing() {
		if out, err := exec.CommandContext(t.Context(), fsck, f.Name()).CombinedOutput(); err != nil {
			t.Errorf("fsck: %v: %s", err, out)
		}
	}
	m, err := mount.Image(f.Name())
	if errdefs.Is(err, errdefs.NotImplemented) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return fmt.Sprintf("/proc/self/fd/%d/", m.Fd()), applied, nil
}

// fuzzing reports whether inputs are tried by the thousand.
func fuzzing() bool {
	f := flag.Lookup("test.fuzzworker")
	return f != nil && f.Value.String() == "true"
}

// describe lists a tree with all that overlayfs would see of it. Folders that no entry of the archive is about have the time of their making.
func describe(t testing.TB, root string, implied func(name string) bool) []string {
	t.Helper()
	list := snapshottest.Describe(t, root)
	for i, line := range list {
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			t.Fatal(err)
		}
		name, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		if implied(name) {
			list[i] = quoted + " " + strings.Join(strings.Fields(line[len(quoted):])[:2], " ")
		}
		path := filepath.Join(root, name)
		if st, err := os.Lstat(path); err != nil || !st.IsDir() {
			continue
		}
		if n, err := syscall.Getxattr(path, "trusted.overlay.opaque", make([]byte, 8)); err == nil && n == 1 {
			list[i] += " opaque"
		}
	}
	return list
}

// compare unpacks a layer as a folder and as an image and expects the same, error or tree.
func compare(t testing.TB, layer []byte) {
	t.Helper()
	begun := time.Now().Truncate(time.Second) // no time of an archive's is so late
	folder, applied, err := apply(t, layer)
	image, ofImage, ierr := unpackImage(t, layer)
	if (err == nil) != (ierr == nil) || errdefs.KindOf(err) != errdefs.KindOf(ierr) || errors.Is(err, fs.ErrNotExist) != errors.Is(ierr, fs.ErrNotExist) {
		t.Fatalf("folder: %v (%v)\nimage: %v (%v)", err, errdefs.KindOf(err), ierr, errdefs.KindOf(ierr))
	}
	if err != nil {
		return
	}
	if applied != ofImage.Applied {
		t.Errorf("folder: %+v, image: %+v", applied, ofImage.Applied)
	}
	implied := func(name string) bool {
		st, err := os.Lstat(filepath.Join(folder, name))
		return err == nil && (st.IsDir() && !st.ModTime().Before(begun) || st.Mode()&os.ModeCharDevice != 0 && st.Sys().(*syscall.Stat_t).Rdev == 0)
	}
	want, got := describe(t, folder, implied), describe(t, image, implied)
	if !slices.Equal(want, got) {
		for i := range max(len(want), len(got)) {
			var w, g string
			if i < len(want) {
				w = want[i]
			}
			if i < len(got) {
				g = got[i]
			}
			if w != g {
				t.Errorf("folder: %.300s\nimage:  %.300s", w, g)
				break
			}
		}
	}
}

func TestImage(t *testing.T) {
	for _, c := range hostile() {
		t.Run(c.name, func(t *testing.T) { compare(t, pack(t, c.entries...)) })
	}
	t.Run("special", func(t *testing.T) { compare(t, snapshottest.Special(t)) })
	t.Run("whiteouts", func(t *testing.T) { compare(t, whiteouts(t)) })
	t.Run("sparse", func(t *testing.T) { compare(t, sparseTar(t, 1<<26, "end")) })
	t.Run("empty", func(t *testing.T) { compare(t, pack(t)) })
}

// TestImageRandom compares layers of random entries, many of which meet one another.
func TestImageRandom(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	names := []string{"a", "b", "c", "a/b", "a/b/c", "b/a", "b/a/c", "c/a", "c/a/b/a", "./a", "/b", "a/../b"}
	targets := append([]string{"/", "..", "../..", "/a/b", "b", "../c", "none", "a", "."}, names...)
	name := func() string { return names[r.IntN(len(names))] }
	for range 60 {
		var entries []entry
		for range 1 + r.IntN(25) {
			switch r.IntN(9) {
			case 0, 1:
				entries = append(entries, reg(name(), strings.Repeat("x", []int{0, 1, 100, 4000, 4096, 5000, 9000, 8192}[r.IntN(8)])))
			case 2, 3:
				entries = append(entries, entry{tar.Header{Typeflag: tar.TypeDir, Name: name(), Mode: int64(r.IntN(0o10000)), PAXRecords: map[string]string{"SCHILY.xattr.user.n": fmt.Sprint(r.IntN(3))}}, ""})
			case 4:
				entries = append(entries, symlink(name(), targets[r.IntN(len(targets))]))
			case 5:
				entries = append(entries, hardlink(name(), name()))
			case 6:
				n := name()
				entries = append(entries, reg(filepath.Join(filepath.Dir(n), ".wh."+filepath.Base(n)), ""))
			case 7:
				entries = append(entries, reg(filepath.Join(name(), ".wh..wh..opq"), ""))
			default:
				entries = append(entries, entry{tar.Header{Typeflag: tar.TypeFifo, Name: name(), Mode: 0o600}, ""})
			}
		}
		// What one has to refuse would end the comparison, so it is left out.
		var kept []entry
		for _, e := range entries {
			if _, _, err := apply(t, pack(t, append(slices.Clone(kept), e)...)); err == nil {
				kept = append(kept, e)
			} else if r.IntN(4) == 0 {
				compare(t, pack(t, append(slices.Clone(kept), e)...))
			}
		}
		compare(t, pack(t, kept...))
		if t.Failed() {
			for _, e := range kept {
				t.Logf("%c %q %q %o %d", e.Typeflag, e.Name, e.Linkname, e.Mode, len(e.data))
			}
			t.Fatalf("seed %d", seed)
		}
	}
}

// A hard link into the layers beneath brings a copy.
func TestImageCopyUp(t *testing.T) {
	lower, _, err := apply(t, pack(t, reg("d/f", "below")))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "image"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	applied, err := archive.UnpackImage(t.Context(), f, bytes.NewReader(pack(t, hardlink("l", "d/f"))), archive.ApplyOptions{Lower: func(name string) (*dir.Dir, string, error) {
		d, err := dir.Open(lower)
		if err != nil {
			return nil, "", err
		}
		defer d.Close()
		return archive.FindLower([]*dir.Dir{d}, name)
	}})
	if err != nil || !applied.UsesLower {
		t.Fatal(applied, err)
	}
	m, err := mount.Image(f.Name())
	if errdefs.Is(err, errdefs.NotImplemented) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, name := range []string{"l", "d/f"} {
		if data, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", m.Fd(), name)); string(data) != "below" {
			t.Error(name, string(data), err)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add(pack(f, folder("d"), reg("d/f", "x"), symlink("l", "../.."), hardlink("h", "d/f"), reg("d/.wh.x", ""), reg("d/.wh..wh..opq", "")))
	f.Add(pack(f, symlink("d", "/"), reg("d/etc/passwd", strings.Repeat("x", 5000))))
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, data) })
}

// FuzzHeader has one entry, with whatever PAX records and names, meet another.
func FuzzHeader(f *testing.F) {
	f.Add("d/f", "", "SCHILY.xattr.user.a", "1", byte('0'), "d", "", byte('5'))
	f.Add("l", "../../canary", "GNU.sparse.realsize", "9999999999", byte('2'), "l/f", "", byte('0'))
	f.Add(".wh.x", "", "path", "../../canary/file", byte('0'), "x/.wh..wh..opq", "", byte('0'))
	f.Add("a", "b", "linkpath", "/etc/passwd", byte('1'), "b", "", byte('0'))
	f.Add("a", "", "size", "99999999999999999999", byte('0'), "\xff\n", "", byte('6'))
	f.Fuzz(func(t *testing.T, name, link, key, value string, kind byte, name2, link2 string, kind2 byte) {
		var b bytes.Buffer
		raw := func(name, link string, kind byte, body string) {
			h := make([]byte, 512)
			copy(h[:100], name)
			copy(h[100:], "0000755\x000000000\x000000000\x00")
			copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", len(body)))
			h[156] = kind
			copy(h[157:257], link)
			copy(h[257:], "ustar\x0000")
			copy(h[148:], "        ")
			sum := 0
			for _, c := range h {
				sum += int(c)
			}
			copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
			b.Write(h)
			b.WriteString(body)
			b.Write(make([]byte, -len(body)&511))
		}
		record := " " + key + "=" + value + "\n"
		n := len(record)
		for n != len(record)+len(fmt.Sprint(n)) {
			n = len(record) + len(fmt.Sprint(n))
		}
		raw("PaxHeaders/x", "", 'x', fmt.Sprint(n)+record)
		raw(name, link, kind, "")
		raw(name2, link2, kind2, "")
		b.Write(make([]byte, 1024))
		compare(t, b.Bytes())
	})
}

// FuzzLayerStream reads streams of whatever framing within limits.
func FuzzLayerStream(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 4, 0, 1, 0, 0})
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4, 0x28, 0xb5, 0x2f, 0xfd, 4, 0, 1, 0, 0})
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := archive.DecompressLayer(bytes.NewReader(data), archive.Limits{Size: 1 << 16})
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, r)
		if n > 1<<16+1<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = r.Close()
	})
}
