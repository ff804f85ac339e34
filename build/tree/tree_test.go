package tree

import (
	"archive/tar"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"gantry/archive"
)

// packed makes a tar: a name that ends with a slash is a folder, "a -> b" a symbolic link, "a => b" a hard link, and all else a file with its name as its contents.
func packed(t testing.TB, names ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(name)), Typeflag: tar.TypeReg}
		if from, to, ok := strings.Cut(name, " -> "); ok {
			h = &tar.Header{Name: from, Linkname: to, Typeflag: tar.TypeSymlink}
		} else if from, to, ok := strings.Cut(name, " => "); ok {
			h = &tar.Header{Name: from, Linkname: to, Typeflag: tar.TypeLink}
		} else if strings.HasSuffix(name, "/") {
			h = &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func read(t testing.TB, data []byte) (*Tree, error) {
	tree, err := Read(t.Context(), bytes.NewReader(data), archive.Limits{Entries: 10000, Size: 1 << 20}, t.TempDir())
	if err == nil {
		t.Cleanup(func() { _ = tree.Close() })
	}
	return tree, err
}

// Paths and patterns are looked for within the tree, whatever links say.
func TestFind(t *testing.T) {
	tree, err := read(t, packed(t, "a", "d/", "d/x", "d/y.txt", "d/z.txt", "up -> ../../../a", "abs -> /d", "round -> round", "deep/in -> ../d/x", "hard => d/x", "gone -> nowhere"))
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"a": "a", "/a": "a", "./d/../a": "a", "d": "d/", ".": "/", "d/*.txt": "y.txt z.txt", "up": "up", "abs/x": "x", "*s": "abs/", "deep/in": "in", "hard": "hard", "no*": "", "[": "error", "missing": "error", "round": "error", "gone": "error", "a/b": "error",
	} {
		found, err := tree.Find(source)
		var names []string
		for _, e := range found {
			if e.IsDir() {
				e.Name += "/"
			}
			names = append(names, e.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %q %v, want %q", source, got, err, want)
		}
	}
	if data, err := tree.ReadFile("up", 10); err != nil || string(data) != "a" {
		t.Errorf("through a link: %q %v", data, err)
	}
	if _, err := tree.ReadFile("hard", 1); err == nil {
		t.Error("a file beyond the limit is read")
	}
}

func TestHostile(t *testing.T) {
	for _, names := range [][]string{{"../x"}, {"a/../../x"}, {"l -> /etc", "l/passwd"}, {"a", "a/b"}, {"h => ../../etc/passwd"}, {"h => missing"}, {"d/", "h => d"}} {
		if _, err := read(t, packed(t, names...)); err == nil {
			t.Errorf("%q is taken", names)
		}
	}
	if _, err := Read(t.Context(), bytes.NewReader(packed(t, "a", "b", "c")), archive.Limits{Entries: 2}, t.TempDir()); err == nil || !strings.Contains(err.Error(), "max-layer-entries") {
		t.Errorf("beyond the limit: %v", err)
	}
}

// A sum says what is copied, and nothing else.
func TestSum(t *testing.T) {
	sum := func(source string, names ...string) string {
		tree, err := read(t, packed(t, names...))
		if err != nil {
			t.Fatal(err)
		}
		found, err := tree.Find(source)
		if err != nil {
			t.Fatal(err)
		}
		return tree.Sum(found[0]).String()
	}
	same := sum("d", "d/", "d/a", "d/b", "c")
	if sum("d", "d/b", "other", "d/a") != same {
		t.Error("the order counts, or what is not copied")
	}
	for _, names := range [][]string{{"d/a"}, {"d/a", "d/b", "d/c"}, {"d/a", "d/b -> a"}, {"d/a", "d/b/"}, {"d/a", "d/b => d/a"}} {
		if sum("d", names...) == same {
			t.Errorf("%q has the same sum", names)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(packed(f, "a", "d/", "d/x", "l -> d", "h => d/x"), "l/*")
	f.Add([]byte("\x1f\x8b\x08"), "a")
	f.Fuzz(func(t *testing.T, data []byte, source string) {
		tree, err := read(t, data)
		if err != nil {
			return
		}
		found, err := tree.Find(source)
		if err != nil {
			return
		}
		var out bytes.Buffer
		w := NewWriter(&out)
		for _, e := range found {
			_ = tree.Sum(e)
			if err := w.Entry(tree, e, "to"); err != nil {
				return // what tar cannot say
			}
		}
		for r := tar.NewReader(&out); ; {
			h, err := r.Next()
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(h.Name, "/"), "..") {
				t.Errorf("%q leads out", h.Name)
			}
		}
	})
}
