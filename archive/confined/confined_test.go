package confined_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/archive"
	"gantry/archive/confined"
	"gantry/errdefs"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

func TestMain(m *testing.M) {
	confined.Main()
	os.Exit(m.Run())
}

// layer streams a tar that write makes.
func layer(write func(w *tar.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := write(tw)
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

func file(w *tar.Writer, name, data string) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := io.WriteString(w, data)
	return err
}

func header(h tar.Header) func(w *tar.Writer) error {
	return func(w *tar.Writer) error { return w.WriteHeader(&h) }
}

// unpack unpacks in a folder of its own and checks that nothing of the child is left.
func unpack(t testing.TB, r io.Reader, l archive.Limits) (string, archive.Unpacked, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	folder := t.TempDir()
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	result, err := confined.Unpack(t.Context(), r, confined.Job{Folder: folder, Lock: lock, Limits: l})
	mounts, merr := os.ReadFile("/proc/self/mountinfo")
	if merr != nil || strings.Contains(string(mounts), folder) {
		t.Errorf("a mount is left: %v", merr)
	}
	return folder, result, err
}

func TestUnpack(t *testing.T) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "d", Mode: 0o2750, Uid: 1, Gid: 2},
		{Typeflag: tar.TypeReg, Name: "d/suid", Mode: 0o6755, Uid: 1000, Gid: 1001, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1", "SCHILY.xattr.trusted.b": "2", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/etc/\xff"},
		{Typeflag: tar.TypeReg, Name: ".wh.gone"},
		{Typeflag: tar.TypeReg, Name: "d/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: "any\xff\n\x01"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(file(w, "data", strings.Repeat("data", 100000)), w.Close()); err != nil {
		t.Fatal(err)
	}
	plain.WriteString(strings.Repeat("\x00", 100<<10)) // padding counts for the digest
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{"plain": plain.Bytes(), "gzip": compressed.Bytes()} {
		folder, result, err := unpack(t, bytes.NewReader(data), archive.Limits{})
		if err != nil {
			t.Fatal(what, err)
		}
		if result.DiffID != digest.FromBytes(plain.Bytes()) || result.Size != 400000 {
			t.Errorf("%s: %+v", what, result)
		}
		for name, want := range map[string]uint32{
			"d": syscall.S_IFDIR | 0o2750, "d/suid": syscall.S_IFREG | 0o6755, "null": syscall.S_IFCHR | 0o666, "fifo": syscall.S_IFIFO | 0o600, "gone": syscall.S_IFCHR,
			"any\xff\n\x01": syscall.S_IFREG, "data": syscall.S_IFREG | 0o644,
		} {
			var st syscall.Stat_t
			if err := syscall.Lstat(filepath.Join(folder, name), &st); err != nil || st.Mode != want {
				t.Errorf("%s: %q: mode %o, %v", what, name, st.Mode, err)
			}
		}
		for name, attrs := range map[string][]string{"d/suid": {"user.a", "trusted.b", "security.capability"}, "d": {"trusted.overlay.opaque"}} {
			for _, a := range attrs {
				if _, err := syscall.Getxattr(filepath.Join(folder, name), a, make([]byte, 64)); err != nil {
					t.Errorf("%s: %s: %v", name, a, err)
				}
			}
		}
	}
}

// A layer that exceeds a limit is refused with the limit's name, early.
func TestLimits(t *testing.T) {
	endless := func(h tar.Header) func(w *tar.Writer) error {
		return func(w *tar.Writer) error {
			for i := range 10_000_000 {
				h := h
				h.Name = strings.ReplaceAll(h.Name, "#", fmt.Sprint(i))
				if err := w.WriteHeader(&h); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, c := range []struct {
		what   string
		layer  func(w *tar.Writer) error
		limits archive.Limits
		want   string
	}{
		{"ten million files", endless(tar.Header{Typeflag: tar.TypeReg, Name: "f#"}), archive.Limits{Entries: 2000}, "max-layer-entries"},
		{"ten million folders", endless(tar.Header{Typeflag: tar.TypeDir, Name: "d#", Mode: 0o755}), archive.Limits{Entries: 2000}, "max-layer-entries"},
		{"ten million times the same", endless(tar.Header{Typeflag: tar.TypeReg, Name: "f"}), archive.Limits{Entries: 2000}, "max-layer-entries"},
		{"ten million whiteouts", endless(tar.Header{Typeflag: tar.TypeReg, Name: ".wh.f#"}), archive.Limits{Entries: 2000}, "max-layer-entries"},
		{"ten million hard links", func(w *tar.Writer) error {
			return errors.Join(file(w, "f", "x"), endless(tar.Header{Typeflag: tar.TypeLink, Name: "l#", Linkname: "f"})(w))
		}, archive.Limits{Entries: 2000}, "max-layer-entries"},
		{"a large file", func(w *tar.Writer) error { return file(w, "f", strings.Repeat("x", 3<<20)) }, archive.Limits{Size: 1 << 20}, "max-layer-size"},
		{"a file that says it is large", func(w *tar.Writer) error {
			err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 1 << 50})
			for err == nil {
				_, err = w.Write(make([]byte, 1<<20))
			}
			return err
		}, archive.Limits{}, "max-layer-size"},
		{"attributes", endless(tar.Header{Typeflag: tar.TypeReg, Name: "f#", PAXRecords: map[string]string{"SCHILY.xattr.trusted.a": strings.Repeat("x", 1000)}}), archive.Limits{Size: 1 << 20}, "max-layer-size"},
		{"names", endless(tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat(strings.Repeat("x", 250)+"/", 15) + "#"}), archive.Limits{Size: 8 << 20}, "max-layer-size"},
		{"memory", endless(tar.Header{Typeflag: tar.TypeDir, Name: strings.Repeat(strings.Repeat("x", 250)+"/", 15) + "#", Mode: 0o755}), archive.Limits{Memory: 128 << 20, Entries: 300000, Size: 1 << 40}, "max-layer-memory"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if c.limits.Memory != 0 && (testing.Short() || !confined.Possible) {
				t.Skip("takes seconds, and a process of its own")
			}
			_, _, err := unpack(t, layer(c.layer), c.limits)
			if !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// A layer that grows a thousandfold is refused before it fills the disk.
func TestDecompressionBomb(t *testing.T) {
	if !confined.Possible {
		t.Skip("takes minutes with the race detector")
	}
	r, w := io.Pipe()
	go func() {
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Error(err)
			return
		}
		tw := tar.NewWriter(z)
		err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: 8 << 30})
		for zeros := make([]byte, 1<<20); err == nil; {
			_, err = tw.Write(zeros)
		}
		w.CloseWithError(err)
	}()
	_, _, err := unpack(t, r, archive.Limits{})
	if !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), "max-layer-ratio") {
		t.Error(err)
	}
	_ = r.Close()
}

// What the child finds wrong comes back as what it is.
func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		what  string
		layer io.Reader
		is    error
		kind  errdefs.Kind
	}{
		{"leads out", layer(func(w *tar.Writer) error { return file(w, "../x", "x") }), nil, errdefs.InvalidParameter},
		{"links to nothing", layer(header(tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "none"})), fs.ErrNotExist, errdefs.NotFound},
		{"no tar", strings.NewReader(strings.Repeat("no tar ", 1000)), nil, errdefs.InvalidParameter},
		{"a stream that breaks", layer(func(w *tar.Writer) error { return errors.Join(file(w, "f", "x"), broken) }), broken, errdefs.Internal},
		{"xz", strings.NewReader("\xfd7zXZ\x00\x00\x00\x00\x00\x00"), nil, errdefs.InvalidParameter},
	} {
		_, _, err := unpack(t, c.layer, archive.Limits{})
		if err == nil || errdefs.KindOf(err) != c.kind || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v of kind %v", c.what, err, errdefs.KindOf(err))
		}
	}
}

// A canary that lies wherever a path could lead to stays as it is.
func TestCanary(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := func() string {
		data, err := os.ReadFile(canary)
		st, serr := os.Stat(canary)
		if err = errors.Join(err, serr); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x %v %v", sha256.Sum256(data), st.Mode(), st.ModTime())
	}
	before := sum()
	up := strings.Repeat("../", 20)
	for _, target := range []string{canary, up[:len(up)-1] + canary, "/proc/self/root" + canary, "/proc/1/cwd" + canary, "/proc/self/fd/0"} {
		for _, attack := range [][]tar.Header{
			{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: target}, {Typeflag: tar.TypeReg, Name: "l", Mode: 0o777}},
			{{Typeflag: tar.TypeSymlink, Name: "d", Linkname: filepath.Dir(target)}, {Typeflag: tar.TypeReg, Name: "d/canary", Mode: 0o777}},
			{{Typeflag: tar.TypeSymlink, Name: "d", Linkname: filepath.Dir(target)}, {Typeflag: tar.TypeReg, Name: "d/.wh.canary"}},
			{{Typeflag: tar.TypeLink, Name: "l", Linkname: target}, {Typeflag: tar.TypeReg, Name: "l", Mode: 0o777}},
			{{Typeflag: tar.TypeSymlink, Name: "s", Linkname: target}, {Typeflag: tar.TypeLink, Name: "l", Linkname: "s"}, {Typeflag: tar.TypeDir, Name: "l", Mode: 0o777}},
			{{Typeflag: tar.TypeReg, Name: target, Mode: 0o777}},
		} {
			_, _, _ = unpack(t, layer(func(w *tar.Writer) error {
				for _, h := range attack {
					if err := w.WriteHeader(&h); err != nil {
						return err
					}
				}
				return nil
			}), archive.Limits{})
			if after := sum(); after != before {
				t.Fatalf("%+v changed the canary: %s, %s", attack, before, after)
			}
		}
	}
}

func BenchmarkUnpack(b *testing.B) {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	if err := errors.Join(file(w, "f", "x"), w.Close()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		folder, err := os.MkdirTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		lock, err := os.Open(os.DevNull)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := confined.Unpack(b.Context(), bytes.NewReader(data.Bytes()), confined.Job{Folder: folder, Lock: lock}); err != nil {
			b.Fatal(err)
		}
	}
}

// The recipe of a layer that zstd's encoders compress with the largest window that there are recipes for takes no more memory than a child has, and neither does the layer's blob.
func TestRecipeOfLargeWindow(t *testing.T) {
	if !confined.Possible {
		t.Skip("without a child there is no limit")
	}
	part := make([]byte, 12<<20) // comes again within the window
	_, _ = rand.NewChaCha8([32]byte{1}).Read(part)
	var blob bytes.Buffer
	z, err := zstd.NewWriter(&blob, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(32<<20))
	if err != nil {
		t.Fatal(err)
	}
	plain := layer(func(w *tar.Writer) error {
		for n := range 7 {
			part[n<<20]++
			if err := file(w, fmt.Sprint("file", n), string(part)); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := io.Copy(z, plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if blob.Len() > 20<<20 {
		t.Fatalf("a blob of %d bytes: the window is not used", blob.Len())
	}
	folder, _, err := unpack(t, bytes.NewReader(blob.Bytes()), archive.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer unpacked.Close()
	recipe, err := os.Create(filepath.Join(t.TempDir(), "recipe"))
	if err != nil {
		t.Fatal(err)
	}
	defer recipe.Close()
	if err := confined.Describe(t.Context(), bytes.NewReader(blob.Bytes()), unpacked, recipe, int64(blob.Len()/4)); err != nil {
		t.Fatal(err)
	}
	st, err := recipe.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := confined.Rebuild(t.Context(), recipe, 0, st.Size(), unpacked, &again, int64(blob.Len()), false); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), blob.Bytes()) {
		t.Error("another blob was made")
	}
	t.Logf("a recipe of %d bytes for a blob of %d", st.Size(), blob.Len())
}
