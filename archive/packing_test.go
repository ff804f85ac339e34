package archive

import (
	"bytes"
	"io"
	"testing"

	"gantry/errdefs"
)

func TestPacking(t *testing.T) {
	for _, text := range []string{"gzip", "gzip:1", "gzip:9", "zstd", "zstd:1", "zstd:22"} {
		p, err := ParsePacking(text)
		if err != nil || p.String() != text {
			t.Fatalf("%s: %v, %v", text, p, err)
		}
		var packed bytes.Buffer
		w, err := p.Writer(&packed)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("layer "), 10_000)
		if _, err := w.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, kind, err := Decompress(&packed)
		if err != nil || kind != p.Kind {
			t.Fatalf("%s: is %s, %v", text, kind, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", text, len(got), err)
		}
	}
	if p, err := ParsePacking(""); err != nil || p != (Packing{}) {
		t.Error(p, err)
	}
	for _, text := range []string{"lz4", "gzip:0", "gzip:10", "zstd:23", "zstd:", "zstd:fast", "none", ":3"} {
		if _, err := ParsePacking(text); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
