package zstandard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/archive/corrections"

	"github.com/klauspost/compress/zstd"
)

// contents returns a few megabytes of what is in a layer.
func contents(tb testing.TB) []byte {
	tb.Helper()
	if name := os.Getenv("ZSTANDARD_TEST_FILE"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		return data
	}
	var all bytes.Buffer
	for _, pattern := range []string{"/usr/bin/[a-g]*", "/usr/share/common-licenses/*", "/usr/include/linux/*.h", "/usr/lib/x86_64-linux-gnu/libc.so.*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			tb.Fatal(err)
		}
		for _, n := range names {
			if data, err := os.ReadFile(n); err == nil && all.Len()+len(data) < 10<<20 && len(data) < 2<<20 {
				all.Write(data)
			}
		}
	}
	return all.Bytes()
}

// roundTrip makes the recipe of a stream, rebuilds the stream, and returns the recipe.
func roundTrip(tb testing.TB, stream, contents []byte) []byte {
	tb.Helper()
	var plain, recipe, again bytes.Buffer
	start := cpu()
	if err := Describe(tb.Context(), bytes.NewReader(stream), &plain, &recipe); err != nil {
		tb.Fatal(err)
	}
	made := cpu() - start
	if contents != nil && !bytes.Equal(plain.Bytes(), contents) {
		tb.Fatalf("contents of %d bytes are not the %d that were compressed", plain.Len(), len(contents))
	}
	kind := corrections.NewReader(bytes.NewReader(recipe.Bytes())).Tree(corrections.NewTree(8), 0)
	start = cpu()
	if err := Rebuild(tb.Context(), bytes.NewReader(plain.Bytes()), bytes.NewReader(recipe.Bytes()), &again); err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), stream) {
		tb.Fatalf("%d bytes were rebuilt as %d others", len(stream), again.Len())
	}
	tb.Logf("predictor %d, recipe %7d of %8d: %.3f %%; processor time to make it %v, to rebuild %v", kind, recipe.Len(), len(stream), 100*float64(recipe.Len())/float64(len(stream)), made.Round(time.Millisecond), (cpu() - start).Round(time.Millisecond))
	return recipe.Bytes()
}

// cpu returns the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func pipe(tb testing.TB, in []byte, name string, args ...string) []byte {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return out
}

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
	data := contents(t)
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
		tests = append(tests, test{fmt.Sprintf("zstd -%d", level), func(tb testing.TB) []byte { return pipe(tb, data, "zstd", fmt.Sprintf("-%d", level)) }, 0.1})
	}
	for _, level := range []int{5, 9, 15, 19} {
		tests = append(tests, test{fmt.Sprintf("zstd -%d", level), func(tb testing.TB) []byte {
			return pipe(tb, data[:min(len(data), 1<<20)], "zstd", fmt.Sprintf("-%d", level))
		}, 50})
	}
	for _, one := range tests {
		t.Run(one.name, func(t *testing.T) {
			stream := one.stream(t)
			recipe := roundTrip(t, stream, nil)
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
			roundTrip(t, klauspost(t, data, level, nil), data)
			roundTrip(t, whole(t, data, level, zstd.WithSingleSegment(true)), data)
			roundTrip(t, klauspost(t, data, level, nil, zstd.WithEncoderPadding(1000)), data)
		}
		roundTrip(t, pipe(t, data, "zstd", "-3", "--no-check"), data)
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
		"large window":  pipe(t, []byte("window"), "zstd", "-3", "--ultra", "--long=27"),
		"header alone":  stream[:6],
		"skipped frame": []byte("\x55\x2a\x4d\x18\xff\x00\x00\x00what is skipped."),
	} {
		if err := Describe(t.Context(), bytes.NewReader(stream), io.Discard, io.Discard); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
