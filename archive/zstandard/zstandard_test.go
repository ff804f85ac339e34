package zstandard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"gantry/archive/corrections/correctionstest"

	"github.com/klauspost/compress/zstd"
)

var format = correctionstest.Format{Describe: Describe, Rebuild: Rebuild}

// klauspost compresses a stream, which is flushed here and there if pieces has sizes.
func klauspost(tb testing.TB, data []byte, level zstd.EncoderLevel, pieces []int, options ...zstd.EOption) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, append([]zstd.EOption{zstd.WithEncoderLevel(level)}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	for _, n := range pieces {
		n = min(n, len(data))
		_, err = w.Write(data[:n])
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			tb.Fatal(err)
		}
		data = data[n:]
	}
	if _, err = w.Write(data); err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// whole compresses at once.
func whole(tb testing.TB, data []byte, level zstd.EncoderLevel, options ...zstd.EOption) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderLevel(level)}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// frames compresses pieces of data as frames of their own, as zstd:chunked does files.
func frames(tb testing.TB, data []byte, level zstd.EncoderLevel) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level))
	if err != nil {
		tb.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for len(data) > 0 {
		n := min(len(data), 1<<r.IntN(20)+r.IntN(100))
		w.Reset(&b)
		if _, err = w.Write(data[:n]); err == nil {
			err = w.Close()
		}
		if err != nil {
			tb.Fatal(err)
		}
		data = data[n:]
	}
	b.WriteString("\x55\x2a\x4d\x18\x10\x00\x00\x00what is skipped.")
	return b.Bytes()
}

func TestEncoders(t *testing.T) {
	data := correctionstest.Contents(t, "ZSTANDARD_TEST_FILE", 10<<20)
	type test struct {
		name   string
		stream func(testing.TB) []byte
		most   float64 // percent of the stream
	}
	var tests []test
	for level := zstd.SpeedFastest; level <= zstd.SpeedBestCompression; level++ {
		tests = append(tests,
			test{level.String(), func(tb testing.TB) []byte { return klauspost(tb, data, level, nil) }, 0.1},
			test{level.String() + ", frames", func(tb testing.TB) []byte { return frames(tb, data[:min(len(data), 5<<20)], level) }, 0.1},
		)
		if level == zstd.SpeedBestCompression {
			continue // the rest is the same code
		}
		tests = append(tests,
			test{level.String() + ", all at once", func(tb testing.TB) []byte { return whole(tb, data, level) }, 0.1},
			test{level.String() + ", a small window", func(tb testing.TB) []byte { return klauspost(tb, data, level, nil, zstd.WithWindowSize(64<<10)) }, 0.2},
			test{level.String() + ", one at a time", func(tb testing.TB) []byte {
				return klauspost(tb, data, level, nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
			}, 0.1},
			test{level.String() + ", flushed", func(tb testing.TB) []byte { return klauspost(tb, data, level, []int{1, 2, 70_000, 300_000, 5}) }, 0.1},
		)
	}
	for _, level := range []int{1, 2, 3, 4} {
		tests = append(tests, test{fmt.Sprintf("zstd -%d", level), func(tb testing.TB) []byte { return correctionstest.Pipe(tb, data, "zstd", fmt.Sprintf("-%d", level)) }, 0.1})
	}
	for _, level := range []int{5, 9, 15, 19} {
		tests = append(tests, test{fmt.Sprintf("zstd -%d", level), func(tb testing.TB) []byte {
			return correctionstest.Pipe(tb, data[:min(len(data), 1<<20)], "zstd", fmt.Sprintf("-%d", level))
		}, 50})
	}
	for _, one := range tests {
		t.Run(one.name, func(t *testing.T) {
			stream := one.stream(t)
			recipe := format.RoundTrip(t, stream, nil)
			if share := 100 * float64(len(recipe)) / float64(len(stream)); share > one.most {
				t.Errorf("the recipe is %.2f %% of the stream: more than %.2f %%", share, one.most)
			}
		})
	}
}

func TestSmall(t *testing.T) {
	random := make([]byte, 300_000)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(random)
	for _, data := range [][]byte{nil, {1}, random[:16], random[:17], []byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), random, bytes.Repeat([]byte("gantry"), 50_000), make([]byte, 1<<20)} {
		for level := zstd.SpeedFastest; level <= zstd.SpeedBestCompression; level++ {
			format.RoundTrip(t, klauspost(t, data, level, nil), data)
			format.RoundTrip(t, whole(t, data, level, zstd.WithSingleSegment(true)), data)
			format.RoundTrip(t, klauspost(t, data, level, nil, zstd.WithEncoderPadding(1000)), data)
		}
		format.RoundTrip(t, correctionstest.Pipe(t, data, "zstd", "-3", "--no-check"), data)
	}
}

// TestRefused has streams that no recipe is made of.
func TestRefused(t *testing.T) {
	stream := klauspost(t, bytes.Repeat([]byte("what is in it. "), 1000), zstd.SpeedDefault, []int{3000})
	for name, stream := range map[string][]byte{
		"cut off":       stream[:len(stream)-5],
		"no checksum":   stream[:len(stream)-4],
		"goes on":       append(bytes.Clone(stream), "more"...),
		"checksum":      append(bytes.Clone(stream[:len(stream)-1]), stream[len(stream)-1]^1),
		"large window":  correctionstest.Pipe(t, []byte("window"), "zstd", "-3", "--ultra", "--long=27"),
		"header alone":  stream[:6],
		"skipped frame": []byte("\x55\x2a\x4d\x18\xff\x00\x00\x00what is skipped."),
	} {
		if err := Describe(t.Context(), bytes.NewReader(stream), io.Discard, io.Discard); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
