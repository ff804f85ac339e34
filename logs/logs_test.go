package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/logs"
)

var all = logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}

func collect(t *testing.T, c logs.Config, o logs.ReadOptions) []string {
	t.Helper()
	return collectUntil(t, c, o, nil)
}

func collectUntil(t *testing.T, c logs.Config, o logs.ReadOptions, done <-chan struct{}) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var lines []string
	for e, err := range logs.Read(ctx, c, o, done) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, e.Stream.String()[3:]+":"+string(e.Line))
	}
	if ctx.Err() != nil {
		t.Fatal("reading took too long")
	}
	return lines
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) == len(want) {
		equal := true
		for i := range got {
			equal = equal && got[i] == want[i]
		}
		if equal {
			return
		}
	}
	if len(got) > 40 || len(want) > 40 {
		t.Fatalf("got %d entries, want %d; first %.100q, want %.100q", len(got), len(want), head(got), head(want))
	}
	t.Fatalf("got  %.400q\nwant %.400q", got, want)
}

func head(s []string) []string { return s[:min(3, len(s))] }

// kinds are the drivers that can be read, each also with compression and small files.
func kinds(t *testing.T) map[string]logs.Config {
	dir := t.TempDir()
	m := map[string]logs.Config{}
	for _, driver := range []string{logs.JSONFile, logs.Local} {
		for _, compress := range []string{"true", "false"} {
			name := driver + " compress=" + compress
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			m[name] = logs.Config{Driver: driver, Path: filepath.Join(sub, "c.log"), Options: map[string]string{
				"max-size": "20k", "max-file": "4", "compress": compress}}
		}
	}
	return m
}

func open(t *testing.T, c logs.Config) *logs.Writer {
	t.Helper()
	d, err := logs.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return logs.NewWriter(d)
}

func shut(t *testing.T, w *logs.Writer) {
	t.Helper()
	if lost, err := w.Close(); err != nil {
		t.Fatal(lost, err)
	}
}

func TestRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 16384)
	for name, c := range kinds(t) {
		c.Options["max-size"] = "10m"
		t.Run(name, func(t *testing.T) {
			if got := collect(t, c, all); len(got) != 0 {
				t.Fatal(got)
			}
			w := open(t, c)
			out, err := w.Output(logs.Stdout), w.Output(logs.Stderr)
			at := time.Now()
			out.Write([]byte("one\ntw"), at)
			err.Write([]byte("oops\n"), at)
			out.Write([]byte("o\n\n"), at)
			out.Write([]byte(long+"tail\n"+long+"\n"), at)
			out.Write([]byte("quote\" back\\slash <&> tab\t nul\x00 é \u2028 😀\r\n"), at)
			out.Write([]byte("no end"), at)
			out.Close(at)
			err.Close(at)
			shut(t, w)
			want := []string{"out:one\n", "err:oops\n", "out:two\n", "out:\n", "out:" + long, "out:tail\n", "out:" + long, "out:\n",
				"out:quote\" back\\slash <&> tab\t nul\x00 é \u2028 😀\r\n", "out:no end"}
			same(t, collect(t, c, all), want)
			o := all
			o.Stdout = false
			same(t, collect(t, c, o), want[1:2])
			for n := range len(want) + 2 {
				o := all
				o.Tail = n
				same(t, collect(t, c, o), want[max(0, len(want)-n):])
			}
		})
	}
}

func TestRotationTailSince(t *testing.T) {
	for name, c := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			w := open(t, c)
			out := w.Output(logs.Stdout)
			base := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
			const n = 5000
			for i := range n {
				out.Write(fmt.Appendf(nil, "line %d\n", i), base.Add(time.Duration(i)*time.Second))
			}
			out.Close(base)
			shut(t, w)
			got := collect(t, c, all)
			if len(got) < 300 || len(got) >= n {
				t.Fatalf("%d lines left", len(got))
			}
			for i, line := range got {
				if want := fmt.Sprintf("out:line %d\n", n-len(got)+i); line != want {
					t.Fatalf("line %d: %q, want %q", i, line, want)
				}
			}
			for _, k := range []int{0, 1, 100, 400, 5000} {
				o := all
				o.Tail = k
				same(t, collect(t, c, o), got[max(0, len(got)-k):])
			}
			for _, k := range []int{1, 37, 200, 299} {
				o := all
				o.Since = base.Add((n - time.Duration(k)) * time.Second)
				same(t, collect(t, c, o), got[len(got)-k:])
				o.Until = base.Add(n * time.Second).Add(-10 * time.Second)
				same(t, collect(t, c, o), got[len(got)-k:max(len(got)-k, len(got)-9)])
			}
			o := all
			o.Since = base.Add(-time.Hour)
			same(t, collect(t, c, o), got)
			entries, err := os.ReadDir(filepath.Dir(c.Path))
			if err != nil || len(entries) > 4 {
				t.Fatal(err, entries)
			}
		})
	}
}

func TestFollow(t *testing.T) {
	for name, c := range kinds(t) {
		c.Options["max-file"] = "100" // nothing may get lost
		for _, single := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s shared=%v", name, !single), func(t *testing.T) {
				c := c
				dir := filepath.Join(filepath.Dir(c.Path), fmt.Sprint(single))
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				c.Path = filepath.Join(dir, "c.log")
				o := all
				o.Follow = true
				if !single {
					w, err := logs.NewWatcher()
					if err != nil {
						t.Fatal(err)
					}
					defer w.Close()
					o.Watcher = w
				}
				done := make(chan struct{})
				const n = 3000
				go func() {
					defer close(done)
					d, err := logs.Open(c)
					if err != nil {
						t.Error(err)
						return
					}
					w := logs.NewWriter(d)
					out := w.Output(logs.Stdout)
					for i := range n {
						out.Write(fmt.Appendf(nil, "line %d\n", i), time.Now())
						if i%100 == 0 {
							time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
						}
					}
					out.Close(time.Now())
					if lost, err := w.Close(); err != nil {
						t.Error(lost, err)
					}
				}()
				got := collectUntil(t, c, o, done)
				for i := range min(n, len(got)) {
					if got[i] != fmt.Sprintf("out:line %d\n", i) {
						t.Fatalf("line %d of %d is %q", i, len(got), got[i])
					}
				}
				if len(got) != n {
					t.Fatalf("%d lines, want %d", len(got), n)
				}
			})
		}
	}
}

// TestReadDuringRotation reads at the moment when a rotation has moved one generation up and not yet the younger one.
func TestReadDuringRotation(t *testing.T) {
	for name, c := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			w := open(t, c)
			out := w.Output(logs.Stdout)
			for i := range 700 {
				out.Write(fmt.Appendf(nil, "line %d\n", i), time.Now())
			}
			out.Close(time.Now())
			shut(t, w)
			whole := collect(t, c, all)
			for i := 3; i >= 0; i-- { // the steps of a rotation, without their end
				for _, suffix := range []string{"", ".gz"} {
					from := c.Path + suffix
					if i > 0 {
						from = fmt.Sprintf("%s.%d%s", c.Path, i, suffix)
					}
					if err := os.Rename(from, fmt.Sprintf("%s.%d%s", c.Path, i+1, suffix)); err != nil && !os.IsNotExist(err) {
						t.Fatal(err)
					}
				}
				same(t, collect(t, c, all), whole)
			}
		})
	}
}

func TestFollowSingleFile(t *testing.T) {
	dir := t.TempDir()
	c := logs.Config{Path: filepath.Join(dir, "c.log"), Options: map[string]string{"max-size": "5k"}}
	w := open(t, c)
	out := w.Output(logs.Stdout)
	o := all
	o.Follow = true
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	i := 0
	out.Write([]byte("line 0\n"), time.Now())
	for e, err := range logs.Read(ctx, c, o, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("line %d\n", i); string(e.Line) != want {
			t.Fatalf("%q, want %q", e.Line, want)
		}
		if i++; i == 500 {
			break
		}
		out.Write(fmt.Appendf(nil, "line %d\n", i), time.Now())
	}
	if i != 500 {
		t.Fatal("only", i)
	}
	shut(t, w)
}

func TestTornEnd(t *testing.T) {
	for name, c := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			w := open(t, c)
			out := w.Output(logs.Stdout)
			out.Write([]byte("one\ntwo\nthree\n"), time.Now())
			shut(t, w)
			info, err := os.Stat(c.Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(c.Path, info.Size()-3); err != nil {
				t.Fatal(err)
			}
			o := all
			o.Tail = 1
			_ = collect(t, c, o) // no error, no endless loop
			w = open(t, c)
			w.Output(logs.Stderr).Write([]byte("four\n"), time.Now())
			shut(t, w)
			same(t, collect(t, c, all), []string{"out:one\n", "out:two\n", "err:four\n"})
		})
	}
}

func TestDetails(t *testing.T) {
	for name, c := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			c.Attributes = map[string]string{"tag": "a \"b\"", "com.example": "x"}
			w := open(t, c)
			w.Output(logs.Stdout).Write([]byte("one\n"), time.Now())
			shut(t, w)
			o := all
			o.Details = true
			n := 0
			for e, err := range logs.Read(context.Background(), c, o, nil) {
				if err != nil {
					t.Fatal(err)
				}
				n++
				if fmt.Sprint(e.Attributes) != `[{com.example x} {tag a "b"}]` {
					t.Fatal(e.Attributes)
				}
			}
			if n != 1 {
				t.Fatal(n)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		driver, key, value, want string
	}{
		{"", "max-size", "10m", ""},
		{"json-file", "tag", "{{.Name}}", ""},
		{"local", "compress", "false", ""},
		{"none", "anything", "goes", ""},
		{"nope", "", "", "logger: no log driver named 'nope' is registered"},
		{"json-file", "foo", "1", "unknown log opt 'foo' for json-file log driver"},
		{"local", "foo", "1", "unknown log opt 'foo' for log driver local"},
		{"json-file", "max-file", "0", "max-file cannot be less than 1"},
		{"json-file", "max-size", "x", "log opt max-size: invalid size: 'x'"},
		{"json-file", "mode", "x", "logger: logging mode not supported: x"},
		{"json-file", "max-buffer-size", "1m", "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
	} {
		c := logs.Config{Driver: test.driver, Options: map[string]string{}}
		if test.key != "" {
			c.Options[test.key] = test.value
		}
		err := logs.Validate(c)
		if got := fmt.Sprint(err); test.want != "" && (got != test.want || !errdefs.Is(err, errdefs.InvalidParameter)) || test.want == "" && err != nil {
			t.Errorf("%v: %v", test, err)
		}
	}
	for _, err := range logs.Read(context.Background(), logs.Config{Driver: "none"}, all, nil) {
		if !errdefs.Is(err, errdefs.NotImplemented) {
			t.Error(err)
		}
	}
}

func TestNonBlocking(t *testing.T) {
	for name, c := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			c.Options["mode"], c.Options["max-size"] = "non-blocking", "10m"
			w := open(t, c)
			out := w.Output(logs.Stdout)
			var want []string
			for i := range 1000 {
				line := fmt.Sprintf("line %d\n", i)
				out.Write([]byte(line), time.Now())
				want = append(want, "out:"+line)
			}
			shut(t, w)
			same(t, collect(t, c, all), want)
		})
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add(bytes.Repeat([]byte("\"\\\x00\xff\u2028\n"), 9), 7)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		if len(data) > 40_000 {
			return
		}
		for _, driver := range []string{logs.JSONFile, logs.Local} {
			c := logs.Config{Driver: driver, Path: filepath.Join(t.TempDir(), "c.log")}
			w := open(t, c)
			out := w.Output(logs.Stdout)
			cut := 1 + int(uint(cut)%uint(len(data)+1))
			for rest := data; len(rest) > 0; {
				n := min(cut, len(rest))
				out.Write(rest[:n], time.Now())
				rest = rest[n:]
			}
			out.Close(time.Now())
			shut(t, w)
			var got []byte
			for e, err := range logs.Read(context.Background(), c, all, nil) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Line...)
			}
			want := data
			if driver == logs.JSONFile {
				want = []byte(strings.ToValidUTF8(string(data), "")) // compared without what JSON cannot hold
				got = bytes.ReplaceAll(got, []byte("\ufffd"), nil)
				want = bytes.ReplaceAll(want, []byte("\ufffd"), nil)
			}
			if len(data) < 16384 && !bytes.Equal(got, want) {
				t.Fatalf("%s: %q, want %q", driver, got, want)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2020-01-01T00:00:00Z"}`+"\n"), 1)
	f.Add([]byte("GANTRYL1\x02\x00\x00\x00{}\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a\x0a\x00\x00\x00"), 2)
	f.Fuzz(func(t *testing.T, data []byte, tail int) {
		path := filepath.Join(t.TempDir(), "c.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, driver := range []string{logs.JSONFile, logs.Local} {
			for _, o := range []logs.ReadOptions{{Tail: tail % 100, Stdout: true}, {Tail: -1, Stderr: true, Details: true, Since: time.Unix(1577836800, 0)}} {
				for range logs.Read(context.Background(), logs.Config{Driver: driver, Path: path}, o, nil) {
				}
			}
			w, err := logs.Open(logs.Config{Driver: driver, Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	line := append(bytes.Repeat([]byte("y"), 78), '\n')
	chunk := bytes.Repeat(line, 65536/79)
	for _, driver := range []string{logs.JSONFile, logs.Local} {
		b.Run(driver, func(b *testing.B) {
			d, err := logs.Open(logs.Config{Driver: driver, Path: filepath.Join(b.TempDir(), "c.log")})
			if err != nil {
				b.Fatal(err)
			}
			w := logs.NewWriter(d)
			out := w.Output(logs.Stdout)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				out.Write(chunk, time.Now())
			}
			if _, err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
