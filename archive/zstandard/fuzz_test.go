package zstandard

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"gantry/archive/corrections/correctionstest"
)

// seeds are streams with all that the format has.
func seeds(tb testing.TB) (streams [][]byte, data []byte) {
	tb.Helper()
	data = []byte("the quick brown fox, the quick brown fox, and the lazy dog; the quick brown fox jumps over the lazy dog")
	data = append(bytes.Repeat(data, 30), make([]byte, 300)...)
	for level := zstd.SpeedFastest; level <= zstd.SpeedBestCompression; level++ {
		streams = append(streams, whole(tb, data, level), klauspost(tb, data, level, []int{1000, 20}), frames(tb, data, level))
	}
	for _, level := range []string{"-1", "-3", "-9", "-19"} {
		streams = append(streams, correctionstest.Pipe(tb, data, "zstd", level), correctionstest.Pipe(tb, data[:100], "zstd", level))
	}
	return streams, data
}

// FuzzDescribe gives Describe any stream: it is refused, or comes back as it was.
func FuzzDescribe(f *testing.F) {
	streams, _ := seeds(f)
	for _, s := range streams {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, summed := range []bool{true, false} {
			if stream = bytes.Clone(stream); !summed && len(stream) > 4 {
				stream[4] &^= 4 // a checksum would refuse nearly all
			}
			var plain, recipe, again bytes.Buffer
			err := Describe(t.Context(), bytes.NewReader(stream), &limited{w: &plain, left: 32 << 20}, &recipe)
			if err != nil {
				if !errors.Is(err, ErrUnsupported) && !errors.Is(err, errEnough) {
					t.Fatal(err)
				}
				continue
			}
			if err := Rebuild(t.Context(), &plain, &recipe, &again); err != nil || !bytes.Equal(again.Bytes(), stream) {
				t.Fatalf("%d bytes became %d: %v", len(stream), again.Len(), err)
			}
		}
	})
}

// FuzzRebuild gives Rebuild a recipe of a stranger's: it ends.
func FuzzRebuild(f *testing.F) {
	streams, data := seeds(f)
	for _, s := range streams {
		var recipe bytes.Buffer
		if err := Describe(f.Context(), bytes.NewReader(s), io.Discard, &recipe); err != nil {
			f.Fatal(err)
		}
		f.Add(recipe.Bytes(), data)
	}
	f.Fuzz(func(t *testing.T, recipe, plain []byte) {
		_ = Rebuild(t.Context(), bytes.NewReader(plain), bytes.NewReader(recipe), &limited{w: io.Discard, left: 32 << 20}) // an error is fine
	})
}

var errEnough = errors.New("enough")

// limited ends what does not end by itself.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errEnough
	}
	return l.w.Write(p)
}
