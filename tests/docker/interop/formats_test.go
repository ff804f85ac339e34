package interop

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/archive"
	"gantry/tests/harness"
)

// stargz makes an eStargz layer: each file is a member of the gzip stream by itself, the last is the table of contents, and an empty one says where that begins.
// https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md
func stargz(t *testing.T, files ...harness.Entry) (layer, plain []byte) {
	t.Helper()
	type item struct {
		Name   string `json:"name"`
		Type   string `json:"type"`
		Size   int    `json:"size,omitempty"`
		Offset int    `json:"offset"`
		Mode   int64  `json:"mode"`
		Digest string `json:"digest,omitempty"`
	}
	toc := struct {
		Version int    `json:"version"`
		Entries []item `json:"entries"`
	}{Version: 1}
	var out bytes.Buffer
	member := func(data []byte) {
		z, err := gzip.NewWriterLevel(&out, 9)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		plain = append(plain, data...)
	}
	const end = 1024 // of a tar: two empty blocks
	for _, f := range files {
		toc.Entries = append(toc.Entries, item{Name: f.Name, Type: "reg", Size: len(f.Body), Offset: out.Len(), Mode: 0o644, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(f.Body)))})
		data := harness.Layer(f)
		member(data[:len(data)-end])
	}
	text, err := json.Marshal(toc)
	if err != nil {
		t.Fatal(err)
	}
	begin := out.Len()
	member(harness.Layer(harness.Entry{Name: "stargz.index.json", Body: string(text)}))
	z, err := gzip.NewWriterLevel(&out, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	z.Extra = fmt.Appendf(binary.LittleEndian.AppendUint16([]byte("SG"), 22), "%016xSTARGZ", begin)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), plain
}

// chunked makes a zstd:chunked layer: frames of files, and what is no data, table of contents and footer, in frames that readers skip.
// https://github.com/containers/storage/blob/main/docs/containers-storage-zstd-chunked.md
func chunked(t *testing.T, files ...harness.Entry) (layer, plain []byte) {
	t.Helper()
	var out bytes.Buffer
	frame := func(data []byte) {
		z, err := archive.Packing{Kind: archive.Zstd}.Writer(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	plain = harness.Layer(files...)
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), 700) // within headers, too
		frame(rest[:n])
		rest = rest[n:]
	}
	skipped := func(data []byte) {
		out.Write(binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(data))))
		out.Write(data)
	}
	skipped([]byte(strings.Repeat("no zstd, and not to be read as such ", 1000)))
	skipped(append(make([]byte, 56), "GNUlInUx"...))
	return out.Bytes(), plain
}

// TestSeekable has layers of formats that can be read in parts: they unpack to what plain readers make of them, and to what podman does.
func TestSeekable(t *testing.T) {
	w := newWorld(t, "podman")
	base, err := harness.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	files := []harness.Entry{{Name: ".no.prefetch.landmark", Body: "\x0f"}, {Name: "from", Body: says}, {Name: "large", Body: strings.Repeat("large", 100_000)}, {Name: "set", Body: "x", Mode: 0o4755, UID: 1, GID: 2}}
	for name, format := range map[string]struct {
		mediaType string
		layer     func(*testing.T, ...harness.Entry) ([]byte, []byte)
		index     bool
	}{
		"stargz":  {"application/vnd.oci.image.layer.v1.tar+gzip", stargz, true},
		"chunked": {zstdType, chunked, false},
	} {
		layer, plain := format.layer(t, files...)
		first := harness.Layer(base...)
		ref := w.addr + "/" + name + ":1"
		w.Load(layout(t, ref, []blob{{"application/vnd.oci.image.layer.v1.tar", first, first}, {format.mediaType, layer, plain}}))
		w.OK("push", ref)
		if m := w.manifest(name + ":1"); m.Layers[1].Digest != fmt.Sprintf("sha256:%x", sha256.Sum256(layer)) {
			t.Errorf("%s: the layer was not pushed as it is", name)
		}
		w.pulls(name+":1", says)
		w.OK("pull", ref)
		w.Is(fmt.Sprintf("%x", sha256.Sum256([]byte(files[2].Body))), "run", "--rm", ref, "sh", "-c", "sha256sum /large | cut -c1-64")
		ours := w.Do("run", "--rm", ref, "test", "-e", "/stargz.index.json").Code == 0
		podman := func(args ...string) string {
			return w.tool("podman", append([]string{"--root", w.file("podman"), "--runroot", w.file("run"), "--storage-driver", "vfs"}, args...)...)
		}
		podman("pull", "-q", "--tls-verify=false", ref)
		_, err := os.Stat(filepath.Join(podman("image", "mount", ref), "stargz.index.json"))
		if theirs := err == nil; ours != theirs || ours != format.index {
			t.Errorf("%s: has the table of contents in its root: here %v, with podman %v", name, ours, theirs)
		}
		podman("image", "umount", "-f", ref)
		w.OK("rmi", ref)
	}
}

// blob is a layer as it is and as it is when plain.
type blob struct {
	mediaType   string
	data, plain []byte
}

// layout makes an OCI layout of one image, in a tar.
func layout(t *testing.T, ref string, layers []blob) []byte {
	t.Helper()
	var files []harness.Entry
	add := func(mediaType string, data []byte) map[string]any {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		files = append(files, harness.Entry{Name: "blobs/sha256/" + sum, Body: string(data)})
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum, "size": len(data)}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var ids, descriptors []any
	for _, l := range layers {
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(l.plain)))
		descriptors = append(descriptors, add(l.mediaType, l.data))
	}
	config := add("application/vnd.oci.image.config.v1+json", encode(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		"config": map[string]any{"Cmd": []string{"cat", "/from"}, "Env": []string{"PATH=/bin"}}}))
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	m := add(manifestType, encode(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": descriptors}))
	m["annotations"] = map[string]string{"io.containerd.image.name": ref}
	return harness.Layer(append(files, harness.Entry{Name: "oci-layout", Body: `{"imageLayoutVersion":"1.0.0"}`},
		harness.Entry{Name: "index.json", Body: string(encode(map[string]any{"schemaVersion": 2, "manifests": []any{m}}))})...)
}
