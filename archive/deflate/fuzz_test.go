package deflate

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzDescribe gives Describe any stream: it is refused, or comes back as it was.
func FuzzDescribe(f *testing.F) {
	data := []byte("the quick brown fox, the quick brown fox, and the lazy dog; the quick brown fox jumps over the lazy dog")
	for level := -2; level <= 9; level++ {
		f.Add(goGzip(f, data, level))
		f.Add(klauspost(f, bytes.Repeat(data, 100), level))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var plain, recipe, again bytes.Buffer
		if err := Describe(t.Context(), bytes.NewReader(stream), &limited{w: &plain, left: 32 << 20}, &recipe); err != nil {
			return
		}
		if err := Rebuild(t.Context(), &plain, &recipe, &again); err != nil || !bytes.Equal(again.Bytes(), stream) {
			t.Fatalf("%d bytes became %d: %v", len(stream), again.Len(), err)
		}
	})
}

// FuzzRebuild gives Rebuild a recipe of a stranger's: it ends.
func FuzzRebuild(f *testing.F) {
	data := bytes.Repeat([]byte("the quick brown fox, the quick brown fox, and the lazy dog"), 300)
	for level := -2; level <= 9; level++ {
		var recipe bytes.Buffer
		if err := Describe(f.Context(), bytes.NewReader(klauspost(f, data, level)), io.Discard, &recipe); err != nil {
			f.Fatal(err)
		}
		f.Add(recipe.Bytes(), data)
	}
	f.Fuzz(func(t *testing.T, recipe, plain []byte) {
		_ = Rebuild(t.Context(), bytes.NewReader(plain), bytes.NewReader(recipe), &limited{w: io.Discard, left: 32 << 20}) // an error is fine
	})
}

// limited ends what does not end by itself.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("enough")
	}
	return l.w.Write(p)
}
