package recipe

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"gantry/archive"
	"gantry/linux/dir"
)

// layer returns a layer tar with all that is strange about them, files of one, two and three times unit bytes, and the folder that it unpacks to.
func layer(t testing.TB, unit int) ([]byte, *dir.Dir) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it unpacks owners and devices")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	random := rand.NewChaCha8([32]byte{7})
	add := func(h tar.Header, size int) {
		data := make([]byte, size)
		_, _ = random.Read(data)
		h.Size, h.Mode = int64(size), 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "usr/lib/"}, 0)
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}, 0)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./lib/through-a-link"}, 2*unit+1)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "usr/lib/twice"}, 3*unit)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "usr/lib/twice"}, unit)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "usr/lib/empty"}, 0)
	add(tar.Header{Typeflag: tar.TypeLink, Name: "usr/lib/hard", Linkname: "usr/lib/twice"}, 0)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "gone/.wh.file"}, 0)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "gone/.wh..wh..opq"}, 0)
	add(tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 60) + "name", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}, Format: tar.FormatPAX}, 511)
	add(tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, 0)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteString(strings.Repeat("\x00", 9*512) + "and what nobody reads")
	folder := filepath.Join(t.TempDir(), "layer")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := archive.Unpack(t.Context(), root, bytes.NewReader(b.Bytes()), archive.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return b.Bytes(), d
}

func compress(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compressZstd(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func TestRoundTrip(t *testing.T) {
	plain, d := layer(t, 100_000)
	for name, blob := range map[string][]byte{"plain": plain, "gzip": compress(t, plain), "zstd": compressZstd(t, plain)} {
		var recipe, again bytes.Buffer
		if err := Describe(t.Context(), bytes.NewReader(blob), d, &recipe, 1<<30); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if recipe.Len() < 300_000 || recipe.Len() > 310_000 { // the file that was replaced is in it, and no other
			t.Errorf("%s: a recipe of %d bytes", name, recipe.Len())
		}
		if err := Rebuild(t.Context(), bytes.NewReader(recipe.Bytes()), int64(recipe.Len()), d, &again, int64(len(blob))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(again.Bytes(), blob) {
			t.Errorf("%s: rebuilt as another", name)
		}
		again.Reset()
		if err := Check(t.Context(), bytes.NewReader(recipe.Bytes()), int64(recipe.Len()), d, &again); err != nil || !bytes.Equal(again.Bytes(), plain) {
			t.Errorf("%s: check: another tar, %v", name, err)
		}
		err := Rebuild(t.Context(), bytes.NewReader(recipe.Bytes()), int64(recipe.Len()), d, io.Discard, int64(len(blob))-1)
		if err == nil || !strings.Contains(err.Error(), "more than the blob had") {
			t.Errorf("%s: beyond the limit: %v", name, err)
		}
		if err := Describe(t.Context(), bytes.NewReader(blob), d, io.Discard, 100_000); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: a recipe that is too large: %v", name, err)
		}
	}
	for _, blob := range []string{"\x28\xb5\x2f\xfd0123456789", "BZh91AY&SY"} {
		if err := Describe(t.Context(), strings.NewReader(blob), d, io.Discard, 1<<20); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %v", blob, err)
		}
	}
}

// TestDamaged turns bits of a recipe over: what comes is an error or another blob, and an end.
func TestDamaged(t *testing.T) {
	plain, d := layer(t, 100_000)
	for _, blob := range [][]byte{compress(t, plain), compressZstd(t, plain)} {
		damage(t, blob, d)
	}
}

func damage(t *testing.T, blob []byte, d *dir.Dir) {
	t.Helper()
	var b bytes.Buffer
	if err := Describe(t.Context(), bytes.NewReader(blob), d, &b, 1<<30); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		recipe := bytes.Clone(b.Bytes())
		if n%4 == 0 {
			recipe = recipe[:r.IntN(len(recipe))]
		} else {
			at := r.IntN(len(recipe))
			if n%2 == 0 {
				at = r.IntN(200)
			}
			recipe[at] ^= 1 << r.IntN(8)
		}
		var again bytes.Buffer
		err := Rebuild(t.Context(), bytes.NewReader(recipe), int64(len(recipe)), d, &again, int64(len(blob)))
		if err == nil && bytes.Equal(again.Bytes(), blob) && !bytes.Equal(recipe, b.Bytes()) && n%4 == 0 {
			t.Errorf("a recipe that is cut off gives the blob")
		}
		var tar bytes.Buffer
		if err := Check(t.Context(), bytes.NewReader(recipe), int64(len(recipe)), d, &tar); err == nil && !bytes.Equal(recipe, b.Bytes()) {
			t.Errorf("recipe %d of %d bytes is said to be as it was made", n, len(recipe))
		}
	}
}

// FuzzRebuild takes the frames and the tar's record for what a stranger may have written: it ends, within its limit.
func FuzzRebuild(f *testing.F) {
	plain, d := layer(f, 10)
	for _, blob := range [][]byte{plain, compress(f, plain), compressZstd(f, plain)} {
		var b bytes.Buffer
		if err := Describe(f.Context(), bytes.NewReader(blob), d, &b, 1<<30); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{kindPlain, streamTar, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, recipe []byte) {
		var again bytes.Buffer
		_ = Rebuild(t.Context(), bytes.NewReader(recipe), int64(len(recipe)), d, &again, 4<<20) // an error is fine
		if again.Len() > 4<<20 {
			t.Fatalf("%d bytes", again.Len())
		}
	})
}

// FuzzReplay is FuzzRebuild for a record that is not compressed yet: changes within zstd are mostly found out.
func FuzzReplay(f *testing.F) {
	_, d := layer(f, 10)
	f.Add([]byte{6, 'a', 'b', 'c', 3, 4, 'n', 'u', 'l', 'l'})
	f.Add([]byte("\x03\x0dusr/lib/empty\x81\x80\x18\x0dusr/lib/twice"))
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		out := &limitedWriter{w: io.Discard, left: 4 << 20}
		_ = replay(t.Context(), bytes.NewReader(z.EncodeAll(record, nil)), d, out) // an error is fine
	})
}
