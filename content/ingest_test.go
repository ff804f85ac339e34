package content_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/content"
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

func noise(n int) []byte {
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	return data
}

func ingest(t *testing.T, s *content.Store, data []byte) *content.Ingest {
	t.Helper()
	i, err := s.Ingest(digest.FromBytes(data), int64(len(data)))
	must(t, err)
	return i
}

func put(t *testing.T, i *content.Ingest, data []byte, start, end int64) {
	t.Helper()
	if _, err := i.WriteAt(data[start:end], start); err != nil {
		t.Fatal(err)
	}
}

func TestIngestResumes(t *testing.T) {
	root := t.TempDir()
	data := noise(100_000)
	size := int64(len(data))
	s := open(t, root)
	i := ingest(t, s, data)
	if _, err := s.Ingest(digest.FromBytes(data), size); !errdefs.Is(err, errdefs.Conflict) {
		t.Error("a blob was begun twice:", err)
	}
	put(t, i, data, 0, 10_000)
	put(t, i, data, 50_000, 60_000)
	if err := i.Verify(); !errdefs.Is(err, errdefs.Unavailable) {
		t.Error(err)
	}
	if err := i.Commit(); err == nil {
		t.Error("half a blob was taken")
	}
	must(t, i.Close())
	for range 2 { // the same store, and another process
		i = ingest(t, s, data)
		if i.Size() != 10_000 || i.Received() != 20_000 {
			t.Fatal(i.Size(), i.Received())
		}
		if start, end := i.Gap(0); start != 10_000 || end != 50_000 {
			t.Error(start, end)
		}
		if start, end := i.Gap(55_000); start != 60_000 || end != size {
			t.Error(start, end)
		}
		must(t, i.Close())
		if p, err := s.Partials(); err != nil || len(p) != 1 || p[0].Size < 20_000 || p[0].Digest != digest.FromBytes(data) {
			t.Error(p, err)
		}
		s = open(t, root)
	}
	if strange, err := s.Strange(); err != nil || len(strange) != 0 {
		t.Error(strange, err)
	}
	i = ingest(t, s, data)
	put(t, i, data, 60_000, size)
	put(t, i, data, 10_000, 50_000)
	must(t, i.Verify())
	must(t, i.Close())
	i = ingest(t, s, data) // whole, and not yet named
	if start, _ := i.Gap(0); start != size {
		t.Error(start)
	}
	must(t, i.Commit())
	must(t, i.Commit())
	must(t, i.Close())
	must(t, i.Close())
	if got, err := s.ReadAll(digest.FromBytes(data), size); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "partial/*")); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

func TestIngestRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(1000)
	i := ingest(t, s, data)
	for _, c := range []struct {
		offset int64
		n      int
	}{{-1, 1}, {1000, 1}, {999, 2}, {1 << 62, 1}} {
		if _, err := i.WriteAt(make([]byte, c.n), c.offset); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Error(c, err)
		}
	}
	if _, err := i.WriteAt(make([]byte, 1000), 0); err != nil {
		t.Error(err)
	}
	if err := i.Commit(); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error("a blob of another digest was taken:", err)
	}
	must(t, i.Reset())
	put(t, i, data, 0, 1000)
	must(t, i.Verify())
	must(t, i.Drop())
	if p, err := s.Partials(); err != nil || len(p) != 0 {
		t.Error(p, err)
	}
	if _, err := s.Ingest("sha256:../../x", 1); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
	if _, err := s.Ingest(digest.FromBytes(data), -1); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
}

// Many parts at once, in any order; a follower sees them in order.
func TestIngestParallel(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(5 << 20)
	i := ingest(t, s, data)
	r, err := i.Follow(t.Context())
	must(t, err)
	var group sync.WaitGroup
	var got []byte
	group.Go(func() {
		if got, err = io.ReadAll(r); err != nil {
			t.Error(err)
		}
	})
	const part = 8192
	order := rand.Perm(len(data) / part)
	for w := range 4 {
		group.Go(func() {
			for k := w; k < len(order); k += 4 {
				start := order[k] * part
				if _, err := i.WriteAt(data[start:start+part], int64(start)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	must(t, r.Close())
	if !bytes.Equal(got, data) {
		t.Errorf("followed %d bytes", len(got))
	}
	must(t, i.Commit())
	after, err := i.Follow(t.Context()) // it has another name by now
	must(t, err)
	if got, err := io.ReadAll(after); err != nil || !bytes.Equal(got, data) {
		t.Error(len(got), err)
	}
	must(t, after.Close())
	must(t, i.Close())
}

func TestFollow(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(1000)
	i := ingest(t, s, data)
	read := func(ctx context.Context) chan error {
		r, err := i.Follow(ctx)
		must(t, err)
		c := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, r)
			c <- errors.Join(err, r.Close())
		}()
		return c
	}
	put(t, i, data, 0, 100)
	restarted := read(t.Context())
	must(t, i.Reset())
	if err := <-restarted; !errors.Is(err, content.ErrRestarted) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	canceled := read(ctx)
	cancel()
	if err := <-canceled; !errdefs.Is(err, errdefs.Canceled) {
		t.Error(err)
	}
	dropped := read(t.Context())
	must(t, i.Close())
	if err := <-dropped; !errdefs.Is(err, errdefs.Unavailable) {
		t.Error(err)
	}
	i = ingest(t, s, data)
	failed := read(t.Context())
	i.Fail(io.ErrUnexpectedEOF)
	if err := <-failed; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	must(t, i.Close())
}

// Whatever state a partial blob's files are in, the download begins anew or goes on right.
func TestDamagedPartial(t *testing.T) {
	data := noise(50_000)
	hex := digest.FromBytes(data).Encoded()
	for name, damage := range map[string]func(t *testing.T, base string){
		"no note":           func(t *testing.T, base string) { must(t, os.Remove(base+".synced")) },
		"no data":           func(t *testing.T, base string) { must(t, os.Remove(base)) },
		"data cut off":      func(t *testing.T, base string) { must(t, os.Truncate(base, 10)) },
		"note cut off":      func(t *testing.T, base string) { must(t, os.Truncate(base+".synced", 20)) },
		"empty note":        func(t *testing.T, base string) { must(t, os.Truncate(base+".synced", 0)) },
		"note of zeros":     func(t *testing.T, base string) { must(t, os.WriteFile(base+".synced", make([]byte, 300), 0o600)) },
		"another size":      func(t *testing.T, base string) { edit(t, base+".synced", `"size":50000`, `"size":60000`) },
		"overlapping spans": func(t *testing.T, base string) { edit(t, base+".synced", `[[0,30000]]`, `[[0,30000],[20000,40000]]`) },
		"too much hashed":   func(t *testing.T, base string) { edit(t, base+".synced", `"hashed":30000`, `"hashed":30001`) },
		"hash of nothing":   func(t *testing.T, base string) { edit(t, base+".synced", `"hash":"`, `"hash":"AAAA`) },
		"recent, other run of the machine": func(t *testing.T, base string) {
			must(t, os.Rename(base+".synced", base+".recent"))
			edit(t, base+".recent", `"boot":"`, `"boot":"x`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			i := ingest(t, open(t, root), data)
			put(t, i, data, 0, 30_000)
			must(t, i.Close())
			damage(t, filepath.Join(root, "partial", hex))
			s := open(t, root)
			if strange, err := s.Strange(); err != nil || len(strange) != 0 {
				t.Error(strange, err)
			}
			i = ingest(t, s, data)
			for at := int64(0); ; {
				start, end := i.Gap(at)
				if start == end {
					break
				}
				put(t, i, data, start, end)
				at = end
			}
			must(t, i.Commit())
			must(t, i.Close())
		})
	}
}

func edit(t *testing.T, path, old, now string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s has no %s", data, old)
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(string(data), old, now, 1)), 0o600))
}

func TestPartialsExpire(t *testing.T) {
	root := t.TempDir()
	data := noise(50_000)
	s := open(t, root)
	i := ingest(t, s, data)
	put(t, i, data, 0, 30_000)
	if freed, err := s.DropPartials(0); err != nil || freed != 0 {
		t.Error("a download under way was dropped:", freed, err)
	}
	must(t, i.Close())
	if freed, err := s.DropPartials(time.Hour); err != nil || freed != 0 {
		t.Error(freed, err)
	}
	if freed, err := s.DropPartials(0); err != nil || freed < 30_000 {
		t.Error(freed, err)
	}
	i = ingest(t, s, data)
	put(t, i, data, 0, 30_000)
	must(t, i.Close())
	old := time.Now().Add(-content.PartialLife - time.Hour)
	files, err := filepath.Glob(filepath.Join(root, "partial/*"))
	must(t, err)
	for _, f := range files {
		must(t, os.Chtimes(f, old, old))
	}
	s = open(t, root)
	if p, err := s.Partials(); err != nil || len(p) != 0 || len(files) != 2 {
		t.Error(p, files, err)
	}
	for _, name := range []string{"stranger", hexOf("x"), hexOf("y") + ".recent"} {
		must(t, os.WriteFile(filepath.Join(root, "partial", name), nil, 0o600))
	}
	if strange, err := s.Strange(); err != nil || len(strange) != 3 {
		t.Error(strange, err)
	}
}

func hexOf(s string) string { return digest.FromString(s).Encoded() }

func TestRoom(t *testing.T) {
	s := open(t, t.TempDir())
	must(t, s.Room(0))
	const none = "no space left on device: "
	refuses := func(elsewhere int64, want string) {
		t.Helper()
		if err := s.Room(elsewhere); !errdefs.Is(err, errdefs.Exhausted) || !strings.HasPrefix(err.Error(), want) {
			t.Error(err)
		}
	}
	refuses(3<<60, none+"0 B are still to come, layers take at least 3.459 EB unpacked, ")
	i, err := s.Ingest(digest.FromString("huge"), 3<<60)
	must(t, err)
	refuses(0, none+"3.459 EB are still to come, layers take at least 0 B unpacked, ")
	refuses(3<<61, none+"3.459 EB are still to come, layers take at least 6.918 EB unpacked, ") // more than 63 bits have
	must(t, i.Close())
	body := []byte("it unpacks to a lot")
	i, err = s.Ingest(digest.FromBytes(body), int64(len(body)))
	must(t, err)
	must(t, s.Room(0))
	i.Takes(3 << 60)
	refuses(0, none+"19 B are still to come, layers take at least 3.459 EB unpacked, ")
	_, err = i.WriteAt(body, 0)
	must(t, err)
	must(t, s.Room(0)) // by now it is unpacked
	must(t, i.Close())
}

const ingestRoot = "GANTRY_TEST_INGEST_ROOT"

// TestIngestChild is the process that TestIngestKilled kills: it writes on in parts, and says how far it has come.
func TestIngestChild(t *testing.T) {
	root := os.Getenv(ingestRoot)
	if root == "" {
		t.Skip("only as a child of TestIngestKilled")
	}
	s := open(t, root)
	data := noise(12 << 20)
	if _, err := s.Size(digest.FromBytes(data)); err == nil { // killed between its name and the word
		fmt.Println("whole")
		return
	}
	i := ingest(t, s, data)
	fmt.Println("resumed", i.Received())
	for {
		start, end := i.Gap(0)
		if start == end {
			break
		}
		put(t, i, data, start, min(end, start+16<<10))
		fmt.Println("received", i.Received())
	}
	must(t, i.Commit())
	must(t, i.Close())
	fmt.Println("whole")
}

// A process that is killed loses less than two notes' worth of what came.
func TestIngestKilled(t *testing.T) {
	root := t.TempDir()
	said := int64(0)
	for range 100 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestIngestChild$", "-test.v")
		cmd.Env = append(os.Environ(), ingestRoot+"="+root)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		left := 64 + rand.IntN(300) // parts until it is killed
		whole := false
		for lines.Scan() {
			verb, number, _ := strings.Cut(lines.Text(), " ")
			n, _ := strconv.ParseInt(number, 10, 64)
			switch verb {
			case "resumed":
				if lost := said - n; lost > 2<<20 {
					t.Errorf("%d bytes were lost", lost)
				}
			case "received":
				said = n
				if left--; left == 0 {
					_ = cmd.Process.Kill()
				}
			case "whole":
				whole = true
			}
			if strings.Contains(lines.Text(), "_test.go:") {
				t.Fatal(lines.Text())
			}
		}
		_ = cmd.Wait()
		if whole {
			break
		}
	}
	s := open(t, root)
	data := noise(12 << 20)
	if got, err := s.ReadAll(digest.FromBytes(data), int64(len(data))); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
}

// What has been committed is the store's: an ingest that is dropped afterwards, because somebody else who shared it was not content, takes nothing away.
func TestDropCommitted(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(1000)
	i := ingest(t, s, data)
	put(t, i, data, 0, 1000)
	must(t, i.Commit())
	must(t, i.Drop())
	must(t, s.Forget(digest.FromBytes(data)))
	if got, err := s.ReadAll(digest.FromBytes(data), 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
