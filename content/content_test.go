package content_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/content"
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

func open(t *testing.T, root string) *content.Store {
	t.Helper()
	s, err := content.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPutReadDelete(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	d, err := s.Put([]byte("hello"))
	must(t, err)
	must(t, s.Sync())
	if again, err := s.Put([]byte("hello")); err != nil || again != d {
		t.Error(again, err)
	}
	if data, err := s.ReadAll(d, 5); err != nil || string(data) != "hello" {
		t.Error(string(data), err)
	}
	if _, err := s.ReadAll(d, 4); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error("a blob over the limit was read:", err)
	}
	file := filepath.Join(root, "blobs/sha256", d.Encoded())
	must(t, os.WriteFile(file, []byte("hellx"), 0o600))
	if _, err := s.ReadAll(d, 5); !errdefs.Is(err, errdefs.Internal) {
		t.Error("a damaged blob was read:", err)
	}
	must(t, os.WriteFile(filepath.Join(root, "blobs/sha256/stranger"), nil, 0o600))
	if strange, err := s.Strange(); err != nil || len(strange) != 1 {
		t.Error(strange, err)
	}
	if blobs, err := s.List(); err != nil || len(blobs) != 1 || blobs[d] != 5 {
		t.Error(blobs, err)
	}
	must(t, s.Delete(d))
	must(t, s.Delete(d))
	if _, err := s.Open(d); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
	for _, bad := range []digest.Digest{"", "x", "sha256:../../x", "sha512:" + digest.Digest(strings.Repeat("0", 128)), "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if _, err := s.Open(bad); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWriter(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	w, err := s.Writer()
	must(t, err)
	for _, part := range []string{"some ", "thing"} {
		_, err = w.Write([]byte(part))
		must(t, err)
	}
	d := digest.FromString("some thing")
	if err := w.Commit(digest.FromString("other"), -1); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error("a blob of another digest was taken:", err)
	}
	if err := w.Commit(d, 9); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error("a blob of another size was taken:", err)
	}
	must(t, w.Commit(d, 10))
	must(t, w.Close())
	if size, err := s.Size(d); err != nil || size != 10 {
		t.Error(size, err)
	}
	dropped, err := s.Writer()
	must(t, err)
	_, err = dropped.Write([]byte("x"))
	must(t, err)
	must(t, dropped.Close())
	if left, err := filepath.Glob(filepath.Join(root, "ingest/*")); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

func TestOpenSweeps(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, err := s.Writer(); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	if left, err := filepath.Glob(filepath.Join(root, "ingest/*")); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}
