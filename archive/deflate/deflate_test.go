package deflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"gantry/archive/corrections"
)

// contents returns a few megabytes of what is in a layer.
func contents(tb testing.TB) []byte {
	tb.Helper()
	if name := os.Getenv("DEFLATE_TEST_FILE"); name != "" {
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
			if data, err := os.ReadFile(n); err == nil && all.Len()+len(data) < 12<<20 && len(data) < 2<<20 {
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
	kind := -1
	if recipe.Len() > 5 {
		kind = corrections.NewReader(bytes.NewReader(recipe.Bytes())).Tree(corrections.NewTree(8), 0)
	}
	start = cpu()
	if err := Rebuild(tb.Context(), bytes.NewReader(plain.Bytes()), bytes.NewReader(recipe.Bytes()), &again); err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), stream) {
		tb.Fatalf("%d bytes were rebuilt as %d others", len(stream), again.Len())
	}
	tb.Logf("predictor %2d, recipe %7d of %8d: %.3f %%; processor time to make it %v, to rebuild %v", kind, recipe.Len(), len(stream), 100*float64(recipe.Len())/float64(len(stream)), made.Round(time.Millisecond), (cpu() - start).Round(time.Millisecond))
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
	data := contents(t)
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
		{"gzip -1", func(tb testing.TB) []byte { return pipe(tb, data, "gzip", "-1") }, 0.1},
		{"gzip -3", func(tb testing.TB) []byte { return pipe(tb, data, "gzip", "-3") }, 0.1},
		{"gzip -6", func(tb testing.TB) []byte { return pipe(tb, data, "gzip", "-6") }, 0.1},
		{"gzip -9", func(tb testing.TB) []byte { return pipe(tb, data, "gzip", "-9") }, 0.1},
		{"zlib -6", func(tb testing.TB) []byte {
			return pipe(tb, data, "python3", "-c", "import sys,gzip; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(),6))")
		}, 0.1},
		{"klauspost -5", func(tb testing.TB) []byte { return klauspost(tb, data, 5) }, 0.1},
		{"klauspost -6", func(tb testing.TB) []byte { return klauspost(tb, data, 6) }, 25},
		{"klauspost -9", func(tb testing.TB) []byte { return klauspost(tb, data, 9) }, 25},
	} {
		t.Run(one.name, func(t *testing.T) {
			stream := one.stream(t)
			recipe := roundTrip(t, stream, data)
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
			roundTrip(t, goGzip(t, data, level), data)
			roundTrip(t, klauspost(t, data, level), data)
		}
		one := goGzip(t, data, 6)
		roundTrip(t, append(append(append([]byte{}, one...), klauspost(t, random, 5)...), one...), nil)
		roundTrip(t, append(append([]byte{}, one...), "what is this\x1f"...), data)
	}
}
