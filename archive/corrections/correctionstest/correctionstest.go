// Package correctionstest has what the tests of the compressions that recipes are made of share.
package correctionstest

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/archive/corrections"
)

// Contents returns at most so many bytes of what is in a layer, or the file that an environment variable names.
func Contents(tb testing.TB, variable string, most int) []byte {
	tb.Helper()
	if name := os.Getenv(variable); name != "" {
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
			if data, err := os.ReadFile(n); err == nil && all.Len()+len(data) < most && len(data) < 2<<20 {
				all.Write(data)
			}
		}
	}
	return all.Bytes()
}

// Format is a compression that is taken apart and made anew.
type Format struct {
	Describe func(ctx context.Context, r io.Reader, plain, recipe io.Writer) error
	Rebuild  func(ctx context.Context, plain, recipe io.Reader, w io.Writer) error
}

// RoundTrip makes the recipe of a stream, whose contents are compared unless they are nil, rebuilds the stream, and returns the recipe.
func (f Format) RoundTrip(tb testing.TB, stream, contents []byte) []byte {
	tb.Helper()
	var plain, recipe, again bytes.Buffer
	start := processorTime()
	if err := f.Describe(tb.Context(), bytes.NewReader(stream), &plain, &recipe); err != nil {
		tb.Fatal(err)
	}
	made := processorTime() - start
	if contents != nil && !bytes.Equal(plain.Bytes(), contents) {
		tb.Fatalf("contents of %d bytes are not the %d that were compressed", plain.Len(), len(contents))
	}
	kind := -1
	if recipe.Len() > 5 {
		kind = corrections.NewReader(bytes.NewReader(recipe.Bytes())).Tree(corrections.NewTree(8), 0)
	}
	start = processorTime()
	if err := f.Rebuild(tb.Context(), bytes.NewReader(plain.Bytes()), bytes.NewReader(recipe.Bytes()), &again); err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), stream) {
		tb.Fatalf("%d bytes were rebuilt as %d others", len(stream), again.Len())
	}
	tb.Logf("predictor %2d, recipe %7d of %8d: %.3f %%; processor time to make it %v, to rebuild %v", kind, recipe.Len(), len(stream), 100*float64(recipe.Len())/float64(len(stream)),
		made.Round(time.Millisecond), (processorTime() - start).Round(time.Millisecond))
	return recipe.Bytes()
}

// processorTime is that of this process so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Pipe returns what a program makes of in.
func Pipe(tb testing.TB, in []byte, name string, args ...string) []byte {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return out
}
