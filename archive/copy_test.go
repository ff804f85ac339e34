package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gantry/archive"
	"gantry/errdefs"
)

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// names lists the entries of a tar with their link targets.
func names(t *testing.T, data []byte) []string {
	t.Helper()
	var list []string
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		name := h.Name
		if h.Linkname != "" {
			name += " -> " + h.Linkname
		}
		list = append(list, name)
	}
}

func sample(t *testing.T) *os.File {
	t.Helper()
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a/b/file"), []byte("hello"), 0o640))
	must(t, os.Link(filepath.Join(root, "a/b/file"), filepath.Join(root, "a/b/hard")))
	must(t, os.Symlink("/a/b", filepath.Join(root, "link")))
	must(t, os.Symlink("/nowhere/x", filepath.Join(root, "a/dangling")))
	must(t, os.WriteFile(filepath.Join(root, "a/any\xff\x01name"), nil, 0o600))
	return openDir(t, root)
}

func TestStat(t *testing.T) {
	root := sample(t)
	for _, c := range []struct {
		path, name, target string
		mode               os.FileMode
		kind               errdefs.Kind
	}{
		{path: "/a/b", name: "b", mode: os.ModeDir | 0o755},
		{path: "/a/b/", name: "b", mode: os.ModeDir | 0o755},
		{path: "a/b/file", name: "file", mode: 0o640},
		{path: "/link", name: "link", mode: os.ModeSymlink | 0o777, target: "/a/b"},
		{path: "/link/", name: "link", mode: os.ModeDir | 0o755},
		{path: "/a/dangling", name: "dangling", mode: os.ModeSymlink | 0o777, target: "/nowhere/x"},
		{path: "/", name: "/", mode: os.ModeDir | 0o700},
		{path: "/../../a/b/file", name: "file", mode: 0o640},
		{path: "/none", kind: errdefs.NotFound},
		{path: "/a/b/file/", kind: errdefs.InvalidParameter},
	} {
		st, err := archive.Stat(root, c.path)
		if errdefs.KindOf(err) != c.kind {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if err == nil && (st.Name != c.name || st.LinkTarget != c.target || (st.Mode != c.mode && c.path != "/")) {
			t.Errorf("%s: %+v, want %+v", c.path, st, c)
		}
	}
}

func TestTarAndExtract(t *testing.T) {
	root := sample(t)
	for _, c := range []struct {
		path string
		o    archive.TarOptions
		want []string
	}{
		{"/a/b", archive.TarOptions{}, []string{"b/", "b/file", "b/hard -> b/file"}},
		{"/a/b/", archive.TarOptions{}, []string{"b/", "b/file", "b/hard -> b/file"}},
		{"/a/b/.", archive.TarOptions{}, []string{"./", "./file", "./hard -> ./file"}},
		{"/a/b", archive.TarOptions{Contents: true}, []string{"file", "hard -> file"}},
		{"/a/b", archive.TarOptions{Name: "new"}, []string{"new/", "new/file", "new/hard -> new/file"}},
		{"/a/b/file", archive.TarOptions{}, []string{"file"}},
		{"/link", archive.TarOptions{}, []string{"link -> /a/b"}},
		{"/link/", archive.TarOptions{}, []string{"link/", "link/file", "link/hard -> link/file"}},
		{"/", archive.TarOptions{}, []string{"/", "/a/", "/a/any\xff\x01name", "/a/b/", "/a/b/file", "/a/b/hard -> /a/b/file", "/a/dangling -> /nowhere/x", "/link -> /a/b"}},
	} {
		var b bytes.Buffer
		must(t, archive.Tar(t.Context(), root, c.path, &b, c.o))
		if got := names(t, b.Bytes()); !slices.Equal(got, c.want) {
			t.Errorf("%s %+v: %q, want %q", c.path, c.o, got, c.want)
		}
		to := t.TempDir()
		must(t, os.Mkdir(filepath.Join(to, "into"), 0o755))
		must(t, archive.Extract(t.Context(), openDir(t, to), "/into", &b, archive.ExtractOptions{}))
	}
	if err := archive.Tar(t.Context(), root, "/none", io.Discard, archive.TarOptions{}); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
}

func TestExtractStaysInside(t *testing.T) {
	outside := t.TempDir()
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "to"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(root, "to/abs")))
	must(t, os.Symlink("/etc", filepath.Join(root, "to/etc")))
	must(t, os.MkdirAll(filepath.Join(root, outside), 0o755)) // the same path inside
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"abs/file", "etc/passwd"} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 1}))
		_, err := w.Write([]byte("x"))
		must(t, err)
	}
	must(t, w.Close())
	f := openDir(t, root)
	must(t, archive.Extract(t.Context(), f, "/to", &b, archive.ExtractOptions{Owner: &archive.Owner{UID: 7, GID: 8}}))
	for _, name := range []string{filepath.Join(root, outside, "file"), filepath.Join(root, "etc/passwd")} {
		st, err := os.Stat(name)
		must(t, err)
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 7 || sys.Gid != 8 {
			t.Errorf("%s belongs to %d:%d", name, sys.Uid, sys.Gid)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "file")); err == nil {
		t.Error("written outside of the root")
	}
	b.Reset()
	w = tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "to", Typeflag: tar.TypeReg, Mode: 0o644}))
	must(t, w.Close())
	err := archive.Extract(t.Context(), f, "/", bytes.NewReader(b.Bytes()), archive.ExtractOptions{NoOverwriteDirNonDir: true})
	if !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), "cannot overwrite directory") {
		t.Error(err)
	}
	if err := archive.Extract(t.Context(), f, "/etc/passwd", &b, archive.ExtractOptions{}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
	if err := archive.Extract(t.Context(), f, "/none", &b, archive.ExtractOptions{}); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
}

func TestCopyContents(t *testing.T) {
	from, to := sample(t), t.TempDir()
	must(t, archive.CopyContents(t.Context(), openDir(t, to), from))
	var a, b bytes.Buffer
	must(t, archive.Tar(t.Context(), from, "/", &a, archive.TarOptions{Contents: true}))
	must(t, archive.Tar(t.Context(), openDir(t, to), "/", &b, archive.TarOptions{Contents: true}))
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("%q\n%q", names(t, a.Bytes()), names(t, b.Bytes()))
	}
}
