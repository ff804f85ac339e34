package deflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/gzip"

	"gantry/archive/corrections/correctionstest"
)

var format = correctionstest.Format{Describe: Describe, Rebuild: Rebuild}

func goGzip(tb testing.TB, data []byte, level int) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&b, level)
	if err == nil {
		_, err = io.Copy(w, struct{ io.Reader }{bytes.NewReader(data)})
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func klauspost(tb testing.TB, data []byte, level int) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestEncoders(t *testing.T) {
	data := correctionstest.Contents(t, "DEFLATE_TEST_FILE", 12<<20)
	for _, one := range []struct {
		name   string
		stream func(testing.TB) []byte
		most   float64 // percent of the stream
	}{
		{"go -1", func(tb testing.TB) []byte { return goGzip(tb, data, 1) }, 0.1},
		{"go -2", func(tb testing.TB) []byte { return goGzip(tb, data, 2) }, 0.1},
		{"go -3", func(tb testing.TB) []byte { return goGzip(tb, data, 3) }, 0.1},
		{"go -4", func(tb testing.TB) []byte { return goGzip(tb, data, 4) }, 0.1},
		{"go -5", func(tb testing.TB) []byte { return goGzip(tb, data, 5) }, 0.1},
		{"go -6", func(tb testing.TB) []byte { return goGzip(tb, data, 6) }, 0.1},
		{"go -9", func(tb testing.TB) []byte { return goGzip(tb, data, 9) }, 0.1},
		{"gzip -1", func(tb testing.TB) []byte { return correctionstest.Pipe(tb, data, "gzip", "-1") }, 0.1},
		{"gzip -3", func(tb testing.TB) []byte { return correctionstest.Pipe(tb, data, "gzip", "-3") }, 0.1},
		{"gzip -6", func(tb testing.TB) []byte { return correctionstest.Pipe(tb, data, "gzip", "-6") }, 0.1},
		{"gzip -9", func(tb testing.TB) []byte { return correctionstest.Pipe(tb, data, "gzip", "-9") }, 0.1},
		{"zlib -6", func(tb testing.TB) []byte {
			return correctionstest.Pipe(tb, data, "python3", "-c", "import sys,gzip; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(),6))")
		}, 0.1},
		{"klauspost -1", func(tb testing.TB) []byte { return klauspost(tb, data, 1) }, 0.1},
		{"klauspost -2", func(tb testing.TB) []byte { return klauspost(tb, data, 2) }, 0.1},
		{"klauspost -3", func(tb testing.TB) []byte { return klauspost(tb, data, 3) }, 0.1},
		{"klauspost -4", func(tb testing.TB) []byte { return klauspost(tb, data, 4) }, 0.1},
		{"klauspost -5", func(tb testing.TB) []byte { return klauspost(tb, data, 5) }, 0.1},
		{"klauspost -6", func(tb testing.TB) []byte { return klauspost(tb, data, 6) }, 0.1},
		{"klauspost -9", func(tb testing.TB) []byte { return klauspost(tb, data, 9) }, 25},
	} {
		t.Run(one.name, func(t *testing.T) {
			stream := one.stream(t)
			recipe := format.RoundTrip(t, stream, data)
			if share := 100 * float64(len(recipe)) / float64(len(stream)); share > one.most {
				t.Errorf("the recipe is %.2f %% of the stream: more than %.2f %%", share, one.most)
			}
		})
	}
}

func TestSmall(t *testing.T) {
	random := make([]byte, 3000)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(random)
	for _, data := range [][]byte{nil, {1}, []byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), random, bytes.Repeat([]byte("gantry"), 5000)} {
		for level := -2; level <= 9; level++ {
			format.RoundTrip(t, goGzip(t, data, level), data)
			format.RoundTrip(t, klauspost(t, data, level), data)
		}
		one := goGzip(t, data, 6)
		format.RoundTrip(t, append(append(append([]byte{}, one...), klauspost(t, random, 5)...), one...), nil)
		format.RoundTrip(t, append(append([]byte{}, one...), "what is this\x1f"...), data)
	}
}
