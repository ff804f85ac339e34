package images

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gantry/archive"
	"gantry/registry/registrytest"
	"gantry/tests/harness"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// programs is a layer of some of this machine's programs, other ones for each seed.
func programs(t *testing.T, seed uint64) []byte {
	t.Helper()
	names, err := filepath.Glob("/usr/bin/*")
	if err != nil {
		t.Fatal(err)
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var entries []harness.Entry
	size := 0
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil || len(data) > 1<<20 {
			continue
		}
		entries = append(entries, harness.Entry{Name: fmt.Sprintf("p%d/%s", seed, filepath.Base(n)), Body: string(data), Mode: 0o755})
		if size += len(data); size > 3<<20 {
			break
		}
	}
	return harness.Layer(entries...)
}

// compressor is a program that a layer may have been compressed by.
type compressor struct {
	name string
	run  func(*testing.T, []byte) []byte
}

func through(args ...string) func(*testing.T, []byte) []byte {
	return func(t *testing.T, data []byte) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return out
	}
}

func goGzip(level int) func(*testing.T, []byte) []byte {
	return func(t *testing.T, data []byte) []byte {
		t.Helper()
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, level)
		if err == nil {
			_, err = w.Write(data)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
}

// klauspost compresses by zstd as BuildKit, podman and our own push do.
func klauspost(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func compressors() []compressor {
	list := []compressor{
		{"go1", goGzip(1)}, {"go6", goGzip(6)}, {"go9", goGzip(9)},
		{"gzip1", through("gzip", "-1")}, {"gzip6", through("gzip", "-6")}, {"gzip9", through("gzip", "-9")},
		{"zstd1", through("zstd", "-1")}, {"zstd3", through("zstd", "-3")}, {"klauspost", klauspost},
		{"plain", func(_ *testing.T, data []byte) []byte { return data }},
	}
	if _, err := exec.LookPath("pigz"); err == nil {
		list = append(list, compressor{"pigz", through("pigz", "-p", "2")})
	}
	return list
}

// push gives a registry an image of one layer, as the compressor made it, and returns the digest of its manifest.
func push(t *testing.T, reg *registrytest.Registry, name string, plain, layer []byte) digest.Digest {
	t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{reg.AddBlob(name, layer)}}
	m.Layers[0].MediaType = ocispec.MediaTypeImageLayerGzip
	switch archive.Detect(layer) { //nolint:exhaustive // there are no others here
	case archive.Zstd:
		m.Layers[0].MediaType = ocispec.MediaTypeImageLayerZstd
	case archive.Plain:
		m.Layers[0].MediaType = ocispec.MediaTypeImageLayer
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = reg.AddBlob(name, data)
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return reg.AddManifest(name, "1", m.MediaType, data).Digest
}

// whole lists the blobs of at least 100 kB that the daemon keeps as they came, and recipes its recipes.
func whole(t *testing.T) (list []string) {
	t.Helper()
	for _, f := range files(t, "blobs") {
		if st, err := os.Stat(f); err == nil && st.Size() > 100_000 {
			list = append(list, f)
		}
	}
	return list
}

func files(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(daemon.DataRoot(), "content", folder, "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func awaitSettled(e *harness.Env) {
	e.Helper()
	e.Eventually(5*time.Minute, func() error {
		if status, body, err := daemon.Do("POST", "/gantry/images/settle", ""); err != nil || status != 200 {
			return fmt.Errorf("settle: %d %s %w", status, body, err)
		}
		if left := whole(e.T); len(left) > 0 {
			return fmt.Errorf("these blobs are still whole: %q", left)
		}
		return nil
	})
}

// TestSettle has images that all kinds of programs have made settled, by a daemon that is killed meanwhile, and pushes and saves them.
func TestSettle(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd keeps no blobs")
	}
	e := harness.New(t, daemon)
	reg := registrytest.New()
	t.Cleanup(reg.Close)
	target := harness.Registry(t, "")
	digests, blobs := map[string]digest.Digest{}, map[string][]byte{}
	var size int
	for n, c := range compressors() {
		plain := programs(t, uint64(n))
		blobs[c.name] = c.run(t, plain)
		size += len(blobs[c.name])
		digests[c.name] = push(t, reg, c.name, plain, blobs[c.name])
		e.OK("pull", "-q", reg.Host()+"/"+c.name+":1")
	}
	time.Sleep(2500 * time.Millisecond) // by then it has begun by itself
	for range 4 {
		daemon.Kill()
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		go daemon.Do("POST", "/gantry/images/settle", "") //nolint:errcheck // it is cut off
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	}
	awaitSettled(e)
	var kept int64
	for _, f := range files(t, "recipes") {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		kept += st.Size()
	}
	if n := len(files(t, "recipes")); n < len(blobs) || kept > int64(size)/50 {
		t.Errorf("%d recipes have %d bytes, for %d of %d blobs", n, kept, size, len(blobs))
	}
	t.Logf("recipes of %d bytes for %d", kept, size)
	for name, want := range digests {
		ref := target + "/" + name + ":1"
		e.OK("tag", reg.Host()+"/"+name+":1", ref)
		if name != "plain" { // which came from a registry, too, and is sent as it came
			e.Match(`digest: `+want.String(), "push", ref)
		}
		saved := filepath.Join(t.TempDir(), "saved.tar")
		e.OK("save", "-o", saved, ref)
		data, err := os.ReadFile(saved)
		if err != nil || !bytes.Contains(data, blobs[name]) {
			t.Errorf("%s: the saved archive has another layer: %v", name, err)
		}
		e.OK("rmi", ref, reg.Host()+"/"+name+":1")
	}
	if left := whole(t); len(left) > 0 {
		t.Errorf("after the push these are whole: %q", left)
	}
}

// TestSettleClients has images settled that real clients have pushed: skopeo, podman, buildah.
func TestSettleClients(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd keeps no blobs")
	}
	e := harness.New(t, daemon)
	from, to := harness.Registry(t, ""), harness.Registry(t, "")
	dir := t.TempDir()
	image := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(image, harness.Archive("from:1", harness.ImageConfig{}, programs(t, 100), programs(t, 101)), 0o600); err != nil {
		t.Fatal(err)
	}
	store := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
	for _, client := range []struct {
		name  string
		lines [][]string
	}{
		{"skopeo", [][]string{{"skopeo", "copy", "--dest-tls-verify=false", "docker-archive:" + image, "docker://" + from + "/skopeo:1"}}},
		{"skopeo-zstd", [][]string{{"skopeo", "copy", "--dest-tls-verify=false", "--format", "oci", "--dest-compress-format", "zstd", "docker-archive:" + image, "docker://" + from + "/skopeo-zstd:1"}}},
		{"skopeo-chunked", [][]string{{"skopeo", "copy", "--dest-tls-verify=false", "--format", "oci", "--dest-compress-format", "zstd:chunked", "docker-archive:" + image, "docker://" + from + "/skopeo-chunked:1"}}},
		{"podman", [][]string{append(append([]string{"podman"}, store...), "load", "-q", "-i", image), append(append([]string{"podman"}, store...), "push", "-q", "--tls-verify=false", "localhost/from:1", from+"/podman:1")}},
		{"buildah", [][]string{append(append([]string{"buildah"}, store...), "push", "-q", "--tls-verify=false", "localhost/from:1", from+"/buildah:1")}},
	} {
		if _, err := exec.LookPath(client.lines[0][0]); err != nil {
			t.Logf("%s is not installed", client.name)
			continue
		}
		failed := false
		for _, line := range client.lines {
			if out, err := exec.CommandContext(t.Context(), line[0], line[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%q: %v: %s", line, err, out)
				failed = true
			}
		}
		if failed {
			continue
		}
		ref := from + "/" + client.name + ":1"
		e.OK("pull", "-q", ref)
		awaitSettled(e)
		want := e.Inspect(ref, "{{index .RepoDigests 0}}")
		_, want, _ = strings.Cut(want, "@")
		copied := to + "/" + client.name + ":1"
		e.OK("tag", ref, copied)
		e.Match("digest: "+want, "push", copied)
		e.OK("rmi", ref, copied)
	}
}
