package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestWhiteouts(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("white:1", harness.ImageConfig{},
		harness.Layer(harness.Entry{Name: "a/"}, harness.Entry{Name: "a/gone", Body: "1"}, harness.Entry{Name: "a/stays", Body: "1"}, harness.Entry{Name: "o/"}, harness.Entry{Name: "o/hidden", Body: "1"}, harness.Entry{Name: "dir/"}, harness.Entry{Name: "dir/in", Body: "1"}, harness.Entry{Name: "f2d", Body: "1"}),
		harness.Layer(harness.Entry{Name: "a/.wh.gone"}, harness.Entry{Name: "o/"}, harness.Entry{Name: "o/.wh..wh..opq"}, harness.Entry{Name: "o/new", Body: "2"}, harness.Entry{Name: ".wh.dir"}, harness.Entry{Name: "f2d/"}, harness.Entry{Name: "f2d/x", Body: "2"}),
		harness.Layer(harness.Entry{Name: "a/gone", Body: "back"}))
	e.Is("a/gone\na/stays\nf2d/x\no/new", "run", "--rm", "white:1", "sh", "-c", "cd /; find a o dir f2d -type f 2>/dev/null | sort")
	e.Is("back", "run", "--rm", "white:1", "cat", "/a/gone")
}

func TestMetadata(t *testing.T) {
	e := harness.New(t, daemon)
	long := strings.Repeat("n", 200)
	e.LoadImage("meta:1", harness.ImageConfig{}, harness.Layer(
		harness.Entry{Name: "m/"}, harness.Entry{Name: "m/suid", Body: "x", Mode: 0o4755}, harness.Entry{Name: "m/owned", Body: "x", UID: 12345, GID: 54321},
		harness.Entry{Name: "m/hard", Type: '1', Link: "m/owned", UID: 12345, GID: 54321}, harness.Entry{Name: "m/sym", Type: '2', Link: "../nowhere"}, harness.Entry{Name: "m/fifo", Type: '6'},
		harness.Entry{Name: "m/chr", Type: '3', Major: 1, Minor: 3}, harness.Entry{Name: "m/cap", Body: "x", Mode: 0o755, Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		harness.Entry{Name: "m/" + long, Body: "long"}, harness.Entry{Name: "m/\xc3\xa4 \xe2\x82\xac\n", Body: "odd"}, harness.Entry{Name: "m/sticky/", Mode: 0o1777}))
	got := e.OK("run", "--rm", "meta:1", "sh", "-c", "cd /m; stat -c '%a %u:%g %h %F' suid owned hard sym fifo chr sticky; readlink sym; cat "+long+"; cat *€*; stat -c %t:%T chr")
	want := "4755 0:0 1 regular file\n644 12345:54321 2 regular file\n644 12345:54321 2 regular file\n777 0:0 1 symbolic link\n644 0:0 1 fifo\n644 0:0 1 character special file\n1777 0:0 2 directory\n../nowhere\nlongodd1:3"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Layers that try to leave their root: the image is refused or the entry stays inside, and the host is untouched.
func TestMaliciousLayers(t *testing.T) {
	e := harness.New(t, daemon)
	canary := filepath.Join(e.Config, "canary")
	if err := os.Mkdir(canary, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(canary, "f"), []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30) + canary[1:]
	for i, layers := range [][]harness.Entry{
		{{Name: up + "/made", Body: "x"}},
		{{Name: canary + "/made", Body: "x"}},
		{{Name: "l", Type: '2', Link: canary}, {Name: "l/made", Body: "x"}},
		{{Name: "l", Type: '2', Link: up}, {Name: "l/made", Body: "x"}},
		{{Name: "l", Type: '2', Link: "/"}, {Name: "l" + canary + "/made", Body: "x"}},
		{{Name: "h", Type: '1', Link: canary + "/f"}, {Name: "h", Body: "x"}},
		{{Name: "h", Type: '1', Link: up + "/f"}},
		{{Name: "l", Type: '2', Link: canary}, {Name: "l/.wh.f"}},
		{{Name: up + "/.wh.f"}},
		{{Name: "l", Type: '2', Link: canary}, {Name: "l/.wh..wh..opq"}},
		{{Name: "l", Type: '2', Link: canary}, {Name: "l/", Mode: 0o777}},
		{{Name: "l", Type: '2', Link: canary + "/f"}, {Name: "l", Mode: 0o777, Body: "x"}},
		{{Name: ".wh..", Body: ""}, {Name: ".wh...", Body: ""}},
	} {
		data, err := harness.BusyboxArchive(fmt.Sprintf("evil:%d", i), harness.ImageConfig{}, harness.Layer(layers...))
		if err != nil {
			t.Fatal(err)
		}
		if r := e.DoInput(string(data), "load"); r.Code == 0 {
			e.Do("run", "--rm", fmt.Sprintf("evil:%d", i), "true")
		}
		entries, err := os.ReadDir(canary)
		info, statErr := os.Stat(filepath.Join(canary, "f"))
		dirInfo, dirErr := os.Stat(canary)
		if err != nil || statErr != nil || dirErr != nil || len(entries) != 1 || info.Mode().Perm() != 0o600 || dirInfo.Mode().Perm() != 0o755 {
			t.Fatalf("layer %d changed the host: %v %v %v", i, entries, info, dirInfo)
		}
		if body, _ := os.ReadFile(filepath.Join(canary, "f")); string(body) != "safe" {
			t.Fatalf("layer %d wrote to the host", i)
		}
	}
	e.OK("run", "--rm", image, "true")
}

func TestWrongDigests(t *testing.T) {
	e := harness.New(t, daemon)
	good := harness.Archive("wrong:1", harness.ImageConfig{Cmd: []string{"x"}}, harness.Layer(harness.Entry{Name: "abcdef", Body: "0123456789"}))
	bad := strings.Replace(string(good), "0123456789", "9876543210", 1)
	if r := e.DoInput(bad, "load"); r.Code == 0 {
		t.Errorf("an archive whose layer has another digest was loaded: %v", r)
	}
	e.Fails(1, "No such image", "image", "inspect", "wrong:1")
	for _, data := range []string{"", "{}", "[]", `[{"Config":"../../../../etc/passwd","RepoTags":["evil:1"],"Layers":[]}]`, `[{"Config":"c.json","RepoTags":["evil:1"],"Layers":["/etc/passwd"]}]`} {
		if r := e.DoInput(string(harness.Layer(harness.Entry{Name: "manifest.json", Body: data})), "load"); r.Code == 0 && !strings.HasPrefix(data, "[]") {
			t.Errorf("manifest %q: %v", data, r)
		}
	}
}

// What grows without end is refused before it has filled the disk: as an archive of images, and as one of a file system.
func TestBombs(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd has no limits")
	}
	e := harness.New(t, daemon)
	var bomb bytes.Buffer
	z, err := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: 1200 << 20})
	for zeros := make([]byte, 1<<20); err == nil; {
		_, err = w.Write(zeros)
	}
	if err = errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	before := du(e, "content", "layers", "tmp")
	for _, args := range [][]string{{"load"}, {"import", "-"}} {
		r := e.DoInput(bomb.String(), args...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "grows to more than 256 times its compressed size: raise max-layer-ratio") {
			t.Errorf("%s: %v", args[0], r)
		}
		if after := du(e, "content", "layers", "tmp"); after > before {
			t.Errorf("%s: the store has grown from %d to %d bytes", args[0], before, after)
		}
	}
}

// A layer on more layers than a script of system calls has registers.
func TestLayerOnMany(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd takes 127 layers")
	}
	e := harness.New(t, daemon)
	layers := make([][]byte, 300)
	for i := range layers {
		layers[i] = harness.Layer(harness.Entry{Name: fmt.Sprint("f", i), Body: "x"})
	}
	e.LoadImage("many:1", harness.ImageConfig{}, layers...)
	e.OK("create", "--name", "onmany", "many:1")
	e.OK("cp", e.File("more", "x"), "onmany:/more")
	e.OK("commit", "onmany", "many:2")
}

func TestSparseAndHuge(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("run", "--name", "sparse", image, "sh", "-c", "truncate -s 3G /huge; printf end | dd of=/huge bs=1 seek=3221225469 conv=notrunc 2>/dev/null; printf x > /z")
	e.OK("commit", "sparse", "huge:1")
	e.Is("3221225472\nend", "run", "--rm", "huge:1", "sh", "-c", "stat -c %s /huge; tail -c 3 /huge")
}
