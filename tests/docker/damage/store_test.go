package damage

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

// kindsOfFiles are the files of a store of images.
var kindsOfFiles = []struct {
	name, pattern string
	noted         bool // fsck must name the file, or what it belongs to
}{
	{"blob", "content/blobs/sha256/*", true},
	{"index", "content/index.json", false},
	{"record of a layer", "layers/*/layer.json", true},
	{"image of a layer", "layers/*/layer.erofs", true},
	{"file of a layer", "layers/*/fs/*/*", true},
	{"database", "gantry.db", false},
	{"database's log", "gantry.db-wal", false},
}

var damages = []struct {
	name string
	do   func([]byte) []byte
}{
	{"truncated", func(b []byte) []byte { return b[:len(b)/2] }},
	{"zeroed", func(b []byte) []byte { return make([]byte, len(b)) }},
	{"with a bit flipped", func(b []byte) []byte {
		c := append([]byte(nil), b...)
		c[len(c)*2/3] ^= 4
		return c
	}},
}

var most = flag.Int("files", 1, "how many files of each kind are damaged")

// source is where the images of a damaged store come from.
type source struct {
	archives [][]byte // they can be loaded anew from; none: they came from a registry that is still there
	victims  []string // images that were brought in
}

// Whatever happens to one file of a store, the daemon starts, fsck names the damage, and its repair repairs it: from what is there, or from the registry that the image came from. Without one what works
// without the file goes on working, nothing else is touched, and the image can be loaded anew.
func TestDamagedStore(t *testing.T) {
	for _, driver := range []string{"erofs", "overlay2"} {
		for _, kind := range []string{"archive", "registry"} {
			if *most == 1 && (driver == "erofs") == (kind == "archive") {
				continue // a sample: each driver once, and each kind
			}
			t.Run(driver+"/"+kind, func(t *testing.T) {
				e := own(t, "st"+driver[:1]+kind[:1], func(d *harness.Daemon) { d.Flags = append(d.Flags, "--storage-driver", driver) })
				archive := harness.Archive("victim:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "d/"}, harness.Entry{Name: "d/one", Body: strings.Repeat("one", 5000)}),
					harness.Layer(harness.Entry{Name: "d/two", Body: strings.Repeat("two", 3000)}))
				base, err := harness.BusyboxArchive(image, harness.ImageConfig{})
				if err != nil {
					t.Fatal(err)
				}
				from := source{archives: [][]byte{base, archive}, victims: []string{image, "victim:1"}}
				for _, a := range from.archives {
					e.Load(a)
				}
				if kind == "registry" {
					from.archives = nil
					from.pulled(e, harness.Registry(t, ""))
				}
				store(t, e, from)
			})
		}
	}
}

// pulled has images come from a registry.
func (s *source) pulled(e *harness.Env, registry string) {
	for n, name := range s.victims {
		ref := fmt.Sprintf("%s/image%d:1", registry, n)
		e.OK("tag", name, ref)
		e.OK("push", ref)
		e.OK("rmi", "-f", name, ref)
		e.OK("pull", ref)
		e.OK("tag", ref, name)
	}
}

func store(t *testing.T, e *harness.Env, from source) {
	for _, kind := range kindsOfFiles {
		files, err := filepath.Glob(filepath.Join(e.D.DataRoot(), kind.pattern))
		if err != nil {
			t.Fatal(err)
		}
		tried := 0
		for _, file := range files {
			st, err := os.Lstat(file)
			if err != nil || !st.Mode().IsRegular() || st.Size() < 8 || tried == *most {
				continue
			}
			tried++
			damaged(t, e, file, kind.noted, from)
		}
	}
}

// damaged damages a file in every way.
func damaged(t *testing.T, e *harness.Env, file string, noted bool, from source) {
	t.Helper()
	rel, _ := filepath.Rel(e.D.DataRoot(), file)
	for _, damage := range damages {
		what := rel + " " + damage.name
		if err := e.D.Stop(); err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(file)
		if err != nil {
			if !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := e.D.Start(); err != nil {
				t.Fatal(err)
			}
			continue // a repair has taken it away, and what came anew has another name
		}
		anew := damage.do(body)
		if string(anew) == string(body) {
			continue
		}
		if err := os.WriteFile(file, anew, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.D.Start(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		found := check(t, e, "layers=1")
		if noted && !names(found, rel) {
			t.Errorf("%s: fsck says %v", what, found)
		}
		first := check(t, e, "layers=1&repair=1")
		for _, a := range from.archives {
			if r := e.DoInput(string(a), "load"); r.Code != 0 {
				t.Errorf("%s: load: %v", what, r)
			}
		}
		if len(from.archives) > 0 {
			check(t, e, "layers=1&repair=1") // with what was loaded
		}
		for _, line := range check(t, e, "layers=1") {
			t.Errorf("%s: after repair: %s\nfound %q\nrepaired %q", what, line, found, first)
		}
		for _, name := range from.victims {
			e.OK("image", "inspect", name)
		}
		e.Is("hi", "run", "--rm", image, "echo", "hi")
		e.OK("save", "-o", filepath.Join(t.TempDir(), "saved"), from.victims[0], from.victims[1])
	}
}

// names reports whether a finding is about a file, by a digest in its path, which stands for what it belongs to, too.
func names(found []string, rel string) bool {
	for part := range strings.SplitSeq(rel, "/") {
		if len(part) != 64 {
			continue
		}
		for _, line := range found {
			if strings.Contains(line, part) {
				return true
			}
		}
	}
	return false
}

func check(t *testing.T, e *harness.Env, query string) []string {
	t.Helper()
	status, body, err := e.D.Get("/gantry/fsck?" + query)
	var found []struct{ Area, Object, Problem, Error string }
	if err == nil {
		err = json.Unmarshal(body, &found)
	}
	if err != nil || status != 200 {
		t.Errorf("fsck: %d %s %v", status, body, err)
	}
	var lines []string
	for _, f := range found {
		lines = append(lines, fmt.Sprintf("%s %s: %s %s", f.Area, f.Object, f.Problem, f.Error))
	}
	return lines
}
