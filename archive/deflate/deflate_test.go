package deflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/flate"
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

// pgzip compresses blocks of a megabyte side by side, as klauspost/pgzip does: each knows the end of the one before.
func pgzip(tb testing.TB, data []byte, level int) []byte {
	tb.Helper()
	var b bytes.Buffer
	b.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	w, err := flate.NewWriterDict(&b, level, nil)
	for at := 0; at < len(data) && err == nil; at += 1 << 20 {
		w.ResetDict(&b, data[max(0, at-16<<10):at])
		_, err = w.Write(data[at:min(at+1<<20, len(data))])
		err = errors.Join(err, w.Flush())
	}
	if err = errors.Join(err, w.Close()); err != nil {
		tb.Fatal(err)
	}
	sum := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(data))
	return append(b.Bytes(), binary.LittleEndian.AppendUint32(sum, uint32(len(data)))...)
}

// mostShare is how much of a stream a recipe may have, in percent, if its encoder is imitated.
const mostShare = 0.1

// mostOlder is the same for a stream of a few blocks, in bytes.
const mostOlder = 150

func TestEncoders(t *testing.T) {
	data := correctionstest.Contents(t, "DEFLATE_TEST_FILE", 12<<20)
	few := data[:min(len(data), 5<<20)]
	try := func(name string, contents []byte, stream func(testing.TB) []byte) {
		t.Run(name, func(t *testing.T) {
			stream := stream(t)
			recipe := format.RoundTrip(t, stream, contents)
			if share := 100 * float64(len(recipe)) / float64(len(stream)); share > mostShare {
				t.Errorf("the recipe is %.2f %% of the stream: more than %.2f %%", share, mostShare)
			}
		})
	}
	for _, level := range []int{1, 2, 3, 4, 5, 6, 9} {
		try(fmt.Sprint("go ", -level), data, func(tb testing.TB) []byte { return goGzip(tb, data, level) })
	}
	for _, level := range []int{1, 3, 6, 9} {
		try(fmt.Sprint("gzip ", -level), data, func(tb testing.TB) []byte { return correctionstest.Pipe(tb, data, "gzip", fmt.Sprint(-level)) })
	}
	try("zlib -6", data, func(tb testing.TB) []byte {
		return correctionstest.Pipe(tb, data, "python3", "-c", "import sys,gzip; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(),6))")
	})
	for _, level := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, gzip.HuffmanOnly} {
		try(fmt.Sprint("klauspost ", -level), data, func(tb testing.TB) []byte { return klauspost(tb, data, level) })
	}
	for _, level := range []int{1, 4, 6, 7, 9} {
		try(fmt.Sprint("pgzip ", -level), few, func(tb testing.TB) []byte { return pgzip(tb, few, level) })
	}
}

// TestOlder has streams of older versions of klauspost/compress, which did otherwise: 156 kB of words that come again, changed a little.
func TestOlder(t *testing.T) {
	names, err := filepath.Glob("testdata/older/*.gz")
	if err != nil || len(names) == 0 {
		t.Fatal("no streams: ", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			stream, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if recipe := format.RoundTrip(t, stream, nil); len(recipe) > mostOlder {
				t.Errorf("the recipe has %d bytes: more than %d", len(recipe), mostOlder)
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
