package faults

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/registry/registrytest"
	"gantry/tests/fault"
	"gantry/tests/harness"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// operation is a verb whose every write site is tried.
type operation struct {
	name string
	do   func(e *harness.Env) harness.Result
	// done reports, of an operation that is repeated, that there is nothing left to do.
	done func(r harness.Result) bool
	some bool // what it does becomes visible step by step, each whole
	// wrong says what is wrong with a store in which only some of it was done; nil: all or nothing is.
	wrong func(got state) string
	// check says what is wrong with what it has made.
	check func(e *harness.Env) string
}

// bench is what the tests of all operations share.
type bench struct {
	*testing.T
	registry *registrytest.Registry
	super    *fault.Supervisor
	before   state
	index    []byte   // an archive of an index of two platforms
	fresh    [][]byte // layers of an image that is not settled, as they came
	recorded map[string]recording
}

// recording is what an operation does without a fault: its points in order, and what it makes of the store.
type recording struct {
	points []fault.Call
	after  state
}

// made is what the first test that needs a bench has made.
var made *bench

// state is what can be seen of a store.
type state struct {
	names map[string]string // IDs by name
	tree  map[string]int    // files, with stars for random names, and how many there are of each
	blobs map[string]string // in which form each blob is here: "blobs", "recipes", or both
}

const both = "blobsrecipes"

func here(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func template() string { return filepath.Join(harness.Dir(), "template") }

func noise(n int, seed byte) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

func archiveOf(tag string, layers ...[]byte) []byte {
	return harness.Archive(tag, harness.ImageConfig{Cmd: []string{"/x"}}, layers...)
}

func file(name, body string) harness.Entry { return harness.Entry{Name: name, Body: body} }

// base is the layer that all images share.
func base() []byte {
	return harness.Layer(file("base", noise(100_000, 1)), harness.Entry{Name: "dir/"})
}

func operations(b *bench) []operation {
	docker := func(args ...string) func(*harness.Env) harness.Result {
		return func(e *harness.Env) harness.Result { return e.Do(args...) }
	}
	input := func(data []byte, args ...string) func(*harness.Env) harness.Result {
		return func(e *harness.Env) harness.Result { return e.DoInput(string(data), args...) }
	}
	loaded := archiveOf("loaded:1", base(), harness.Layer(file("a", noise(300_000, 4)), file("dir/.wh.x", "")), harness.Layer(file("b", "b")))
	return []operation{
		{name: "pull", do: docker("pull", b.registry.Host()+"/app:1")},
		{name: "push", do: func(e *harness.Env) harness.Result {
			b.registry.Drop("keep")
			return e.Do("push", b.registry.Host()+"/keep:1")
		}},
		{name: "load", do: input(loaded, "load")},
		{name: "load-index", do: input(b.index, "load")},
		{name: "commit", do: docker("commit", "made", "committed:1")},
		{name: "rmi", do: docker("rmi", "gone:1"), done: func(r harness.Result) bool { return strings.Contains(r.Stderr, "No such image") }},
		{name: "prune", do: docker("image", "prune", "-af"), some: true},
		{name: "tag", do: docker("tag", "keep:1", "tagged:1")},
		{name: "import", do: input(harness.Layer(file("i", noise(200_000, 5))), "import", "-", "imported:1")},
		{name: "squash", do: func(e *harness.Env) harness.Result {
			status, body, err := e.D.Do("POST", "/gantry/images/squash?image=keep:1&repo=squashed&tag=1", "")
			r := harness.Result{Args: []string{"squash"}, Stdout: string(body)}
			if err != nil || status != 201 {
				r.Code, r.Stderr = 1, fmt.Sprintf("%d %s %v", status, body, err)
			}
			return r
		}},
		{name: "settle", do: settle, wrong: b.halfSettled, check: b.asTheyCame},
	}
}

// settle has all compressed layers replaced by recipes.
func settle(e *harness.Env) harness.Result {
	status, body, err := e.D.Do("POST", "/gantry/images/settle", "")
	r := harness.Result{Args: []string{"settle"}, Stdout: string(body)}
	if err != nil || status != 200 {
		r.Code, r.Stderr = 1, fmt.Sprintf("%d %s %v", status, body, err)
	}
	return r
}

// halfSettled says what is wrong with a store in which settling was broken off: every blob is there, as it came or as a recipe, of one there may be both, and nothing else has changed.
func (b *bench) halfSettled(got state) string {
	twice := 0
	for d := range b.before.blobs {
		switch got.blobs[d] {
		case "":
			return "blob " + d + " is lost"
		case both:
			twice++
		}
	}
	if twice > 1 || len(got.blobs) != len(b.before.blobs) {
		return fmt.Sprintf("%d blobs are there twice: %v", twice, got.blobs)
	}
	rest := func(s state) map[string]int {
		others := maps.Clone(s.tree)
		maps.DeleteFunc(others, func(name string, _ int) bool {
			return strings.HasPrefix(name, "content/blobs/sha256/*") || strings.HasPrefix(name, "content/recipes/sha256/*")
		})
		return others
	}
	return differ(rest(got), rest(b.before))
}

// asTheyCame saves the image that is settled, and looks for its layers.
func (b *bench) asTheyCame(e *harness.Env) string {
	status, body, err := e.D.Get("/images/fresh:1/get")
	if err != nil || status != 200 {
		return fmt.Sprintf("save: %d %.200s %v", status, body, err)
	}
	for n, l := range b.fresh {
		if !bytes.Contains(body, l) {
			return fmt.Sprintf("layer %d is not saved as it came", n)
		}
	}
	return ""
}

// words is content that compresses.
func words(n int, seed byte) string {
	var w strings.Builder
	for rest := noise(n, seed); w.Len() < n; rest = rest[16:] {
		w.WriteString(rest[:16] + " layers are unpacked once, and pushed as they came; "[:20+rest[0]%32])
	}
	return w.String()[:n]
}

// addFresh gives the registry an image of layers of which recipes can be made, compressed and not, and one of which none can: most of it is not in the layer, but replaced later on.
func (b *bench) addFresh() {
	b.Helper()
	plain := [][]byte{
		harness.Layer(file("words", words(200_000, 9)), file("more/words", words(90_000, 10))),
		harness.Layer(file("plain", noise(60_000, 11))),
		harness.Layer(file("twice", noise(80_000, 12)), file("twice", noise(1000, 13))),
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(plain[0]); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.fresh = [][]byte{zipped.Bytes(), plain[1], plain[2]}
	b.registry.AddImage("fresh", "1", ocispec.Platform{OS: "linux", Architecture: "amd64"}, b.fresh...)
}

// saveIndex has the daemon make an archive of an index, and keep nothing of it.
func (b *bench) saveIndex(e *harness.Env) {
	b.Helper()
	var all []ocispec.Descriptor
	for _, arch := range []string{"amd64", "riscv64"} {
		all = append(all, b.registry.AddImage("multi", "", ocispec.Platform{OS: "linux", Architecture: arch}, base(), harness.Layer(file("arch", arch+noise(60_000, 14)))))
	}
	b.registry.AddIndex("multi", "1", ocispec.MediaTypeImageIndex, all...)
	path := filepath.Join(e.Config, "index")
	e.OK("pull", "--all-platforms", b.registry.Host()+"/multi:1")
	e.OK("save", "-o", path, b.registry.Host()+"/multi:1")
	e.OK("image", "prune", "-af")
	var err error
	if b.index, err = os.ReadFile(path); err != nil {
		b.Fatal(err)
	}
}

// newBench makes the store that every operation begins with: its layers are recipes, but for those of one image.
func newBench(t *testing.T) *bench {
	t.Helper()
	if made != nil {
		b := *made
		b.T, b.super = t, fault.New(daemon.DataRoot())
		return &b
	}
	b := &bench{T: t, registry: registrytest.New(), super: fault.New(daemon.DataRoot())} // for as long as there are tests
	b.recorded = map[string]recording{}
	b.addFresh()
	b.registry.AddImage("app", "1", ocispec.Platform{OS: "linux", Architecture: "amd64"}, base(), harness.Layer(file("big", noise(3<<20, 2))), harness.Layer(file("c", "c")))
	empty(t)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	e := &harness.Env{T: t, D: daemon, Config: t.TempDir()}
	b.saveIndex(e)
	e.Load(archiveOf(b.registry.Host()+"/keep:1", base(), harness.Layer(file("dir/kept", noise(50_000, 3)))))
	e.OK("tag", b.registry.Host()+"/keep:1", "keep:1")
	e.Load(archiveOf("gone:1", base(), harness.Layer(file("gone", noise(70_000, 6)), file("dir/gone", "x")), harness.Layer(file("gone2", "y"))))
	e.Load(archiveOf("gone2:1", harness.Layer(file("alone", noise(70_000, 7)))))
	e.OK("create", "--name", "made", "keep:1")
	e.OK("cp", e.File("changed", noise(40_000, 8)), "made:/changed")
	if r := settle(e); r.Code != 0 {
		t.Fatal(r)
	}
	e.OK("pull", b.registry.Host()+"/fresh:1")
	e.OK("tag", b.registry.Host()+"/fresh:1", "fresh:1")
	b.before = b.look()
	if err := daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	copyTree(t, daemon.DataRoot(), template())
	made = b
	return b
}

// empty takes away what a daemon that has ended left.
func empty(t *testing.T) {
	t.Helper()
	for _, dir := range []string{daemon.DataRoot(), daemon.ExecRoot()} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// begin starts the daemon over a copy of the store, under the supervisor.
func (b *bench) begin() *harness.Env {
	b.Helper()
	e, err := b.start(template())
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// start starts the daemon over a copy of a data root, under the supervisor.
func (b *bench) start(from string) (*harness.Env, error) {
	b.Helper()
	empty(b.T)
	copyTree(b.T, from, daemon.DataRoot())
	daemon.Wrap = b.super.Wrap
	defer func() { daemon.Wrap = nil }()
	return &harness.Env{T: b.T, D: daemon, Config: b.TempDir()}, daemon.Start()
}

// end ends the daemon and waits for all that was under the supervisor.
func (b *bench) end() {
	daemon.Kill()
	b.super.Wait()
}

// look drops what may be kept for a download that goes on, and describes the store.
func (b *bench) look() state {
	b.Helper()
	if status, body, err := daemon.Do("POST", "/images/prune", ""); err != nil || status != 200 {
		b.Errorf("prune: %d %s %v", status, body, err)
	}
	s := state{names: map[string]string{}, tree: map[string]int{}, blobs: map[string]string{}}
	_, body, err := daemon.Get("/images/json")
	var images []struct {
		ID       string `json:"Id"`
		RepoTags []string
	}
	if err == nil {
		err = json.Unmarshal(body, &images)
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, i := range images {
		for _, tag := range i.RepoTags {
			s.names[tag] = i.ID
		}
	}
	if err := harness.Within(10*time.Second, func() error { // snapshots are deleted in the background
		if left, _ := filepath.Glob(filepath.Join(daemon.DataRoot(), "tmp", "layer-of-*")); len(left) > 0 {
			return fmt.Errorf("%v are still being deleted", left)
		}
		return nil
	}); err != nil {
		b.Error(err)
	}
	for _, part := range []string{"content", "layers", "snapshots", "tmp", "quarantine"} {
		err := filepath.WalkDir(filepath.Join(daemon.DataRoot(), part), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(daemon.DataRoot(), path)
			if form, digest, ok := strings.Cut(strings.TrimPrefix(rel, "content/"), "/sha256/"); ok && strings.HasPrefix(rel, "content/") {
				s.blobs[digest] += form
				if form == "blobs" && here(strings.Replace(path, "/blobs/", "/recipes/", 1)) {
					return nil // it is replaced by its recipe once more
				}
			}
			if entry.IsDir() {
				s.tree[fault.Mask(rel)+"/"]++
			} else { // times in configurations have more digits or fewer
				s.tree[fmt.Sprintf("%s of %d kB", fault.Mask(rel), (info.Size()+4095)/4096*4)]++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// differ lists what is in one tree and not in the other.
func differ(a, b map[string]int) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if a[name] != b[name] {
			lines = append(lines, fmt.Sprintf("%d instead of %d: %s", a[name], b[name], name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			lines = append(lines, fmt.Sprintf("0 instead of %d: %s", b[name], name))
		}
	}
	return strings.Join(lines, "; ")
}

// record does the operation without a fault, unless that was done before.
func (b *bench) record(op operation) (points []fault.Call, after state) {
	b.Helper()
	if r, done := b.recorded[op.name]; done {
		return r.points, r.after
	}
	e := b.begin()
	b.super.Watch(func(c fault.Call) syscall.Errno {
		points = append(points, c)
		return 0
	})
	r := op.do(e)
	b.super.Watch(nil)
	if r.Code != 0 {
		b.Fatalf("%s: %v", op.name, r)
	}
	after = b.look()
	b.end()
	b.recorded[op.name] = recording{points, after}
	return points, after
}

// allowed says what is wrong with a state in which an operation may have left the store; empty: nothing.
func (b *bench) allowed(op operation, got, after state) string {
	for name, id := range got.names {
		if old, kept := b.before.names[name]; kept && old != id {
			return name + " is another image"
		}
		if _, isNew := after.names[name]; !isNew && b.before.names[name] == "" {
			return name + " came from nowhere"
		}
	}
	for name := range b.before.names {
		if _, stays := after.names[name]; stays && got.names[name] == "" {
			return name + " is lost"
		}
	}
	switch {
	case op.some:
		return ""
	case op.wrong != nil:
		return op.wrong(got)
	}
	want := after
	if len(got.names) == len(b.before.names) && len(got.names) != len(after.names) {
		want = b.before
	}
	return differ(got.tree, want.tree)
}

// spots are the occurrences of points that are tried.
func spots(points []fault.Call, wanted func(fault.Call) bool) (all []spot) {
	count := map[string]int{}
	var order []string
	named := regexp.MustCompile(*only)
	for _, c := range points {
		if !wanted(c) || !named.MatchString(c.Point) {
			continue
		}
		if count[c.Point]++; count[c.Point] == 1 {
			order = append(order, c.Point)
		}
	}
	for _, p := range order {
		n := count[p]
		switch {
		case *full && n <= 50:
			for i := 1; i <= n; i++ {
				all = append(all, spot{p, i, n})
			}
		case *full:
			for i := 1; i <= n; i += n / 25 {
				all = append(all, spot{p, i, n})
			}
			all = append(all, spot{p, n, n})
		case n == 1:
			all = append(all, spot{p, 1, 1})
		default:
			all = append(all, spot{p, []int{1, n}[rand.IntN(2)], n})
		}
	}
	if !*full {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return all
}

// kindsOf counts spots by point.
func kindsOf(all []spot) map[string]int {
	count := map[string]int{}
	for _, s := range all {
		count[s.point]++
	}
	return count
}

type spot struct {
	point     string
	which, of int
}

func (s spot) String() string { return fmt.Sprintf("%s (%d of %d)", s.point, s.which, s.of) }

// each runs a test for every spot, or, in a sample, for as many as there is time for.
func (b *bench) each(op operation, budget time.Duration, all []spot, f func(spot)) {
	b.Helper()
	begun, tried := time.Now(), 0
	if *full {
		b.Logf("%s: %d points: %v", op.name, len(all), kindsOf(all))
	}
	for _, s := range all {
		if !*full && time.Since(begun) > budget {
			break
		}
		f(s)
		tried++
	}
	b.Logf("%s: %d of %d points tried, in %v", op.name, tried, len(all), time.Since(begun).Round(time.Millisecond))
}

// sound says what fsck finds; now and then, or always, it compares every layer with its archive, which takes several times as long as the rest.
func sound(e *harness.Env, always bool) string {
	path := "/gantry/fsck"
	if always || rand.IntN(5) == 0 {
		path += "?layers=1"
	}
	status, body, err := e.D.Get(path)
	if err != nil || status != 200 {
		return fmt.Sprintf("fsck: %d %s %v", status, body, err)
	}
	if found := bytes.TrimSpace(body); string(found) != "[]" && string(found) != "null" {
		return "fsck: " + string(found)
	}
	return ""
}
