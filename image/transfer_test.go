package image_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/image"
	"gantry/registry"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const chunk = 256 << 10

// quick is a configuration whose patience is short.
func quick() registry.Config {
	return registry.Config{Pause: time.Millisecond, Stall: 10 * time.Second, Chunk: chunk, Attempts: 5}
}

func host() ocispec.Platform {
	return ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
}

// noise is a file's content that does not compress.
func noise(seed byte, n int) string {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return string(data)
}

// bigLayer is a layer of some megabytes.
func bigLayer(t *testing.T, seed byte, n int) []byte {
	t.Helper()
	return tarOf(t, text(fmt.Sprintf("big%d", seed), noise(seed, n)))
}

func slow(n int) registrytest.Fault {
	return registrytest.Fault{Method: "GET", Path: "/blobs/", Do: registrytest.Drip(n, 2*time.Millisecond)}
}

// A pull that is broken off goes on where it was: after a cancel, another one, and a restart. Less than a chunk comes twice.
func TestPullGoesOn(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	layers := [][]byte{bigLayer(t, 1, 4<<20), bigLayer(t, 2, 1<<20)}
	reg.AddImage("app", "1", host(), layers...)
	total := int64(len(layers[0]) + len(layers[1]))
	root := t.TempDir()
	s := openWith(t, root, quick())
	ref := reg.Host() + "/app:1"
	reg.Break(slow(2 << 10)) // so that a machine with much else to do breaks it off in time
	breakOff := func() {
		t.Helper()
		before := reg.Sent()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for reg.Sent() < before+total/5 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if _, err := s.Pull(ctx, ref, image.PullOptions{}); !errdefs.Is(err, errdefs.Canceled) {
			t.Fatal(err)
		}
		s.clean(t)
	}
	breakOff()
	breakOff()
	s.close(t)
	s = openWith(t, root, quick())
	defer func() { s.close(t) }()
	breakOff()
	i, err := s.Pull(t.Context(), ref, image.PullOptions{})
	if err != nil || len(i.DiffIDs) != 2 {
		t.Fatal(err)
	}
	// What the server counts may have stuck in a socket when the connection was closed: some buffers for each of three streams, three times.
	if twice := reg.Sent() - total; twice > 3*chunk {
		t.Errorf("%d bytes were sent beyond the %d that there are", twice, total)
	}
	s.clean(t)
	for _, folder := range []string{"partial", "ingest"} {
		if left, err := filepath.Glob(filepath.Join(root, "content", folder, "*")); err != nil || len(left) > 0 {
			t.Error(left, err)
		}
	}
}

const pullRef = "GANTRY_TEST_PULL_REF"

// TestPullChild is the process that TestPullKilled kills.
func TestPullChild(t *testing.T) {
	root := os.Getenv(crashRoot)
	ref := os.Getenv(pullRef)
	if ref == "" {
		t.Skip("only as a child of TestPullKilled")
	}
	s := openWith(t, root, quick())
	fmt.Println("ready")
	if _, err := s.Pull(context.Background(), ref, image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("whole")
	s.close(t)
}

// A pull whose process is killed goes on in the next, whatever it was at.
func TestPullKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	reg := registrytest.New()
	defer reg.Close()
	layers := [][]byte{bigLayer(t, 1, 20<<20), bigLayer(t, 2, 6<<20), tarOf(t, text("name", "x"))}
	reg.AddImage("app", "1", host(), layers...)
	reg.Break(slow(64 << 10))
	var total int64
	for _, l := range layers {
		total += int64(len(l))
	}
	root := t.TempDir()
	kills := 0
	for whole := false; !whole; {
		if kills > 60 {
			t.Fatal("no pull is ever finished")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestPullChild$", "-test.v")
		cmd.Env = append(os.Environ(), crashRoot+"="+root, pullRef+"="+reg.Host()+"/app:1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var ended atomic.Bool
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch {
			case lines.Text() == "ready":
				go func(until int64) {
					for reg.Sent() < until && !ended.Load() {
						time.Sleep(time.Millisecond)
					}
					_ = cmd.Process.Kill()
				}(reg.Sent() + 1<<20 + rand.Int64N(8<<20))
			case lines.Text() == "whole":
				whole = true
			case strings.Contains(lines.Text(), "_test.go:"):
				t.Fatal(lines.Text())
			}
		}
		ended.Store(whole)
		if cmd.Wait() != nil {
			kills++
		}
	}
	s := open(t, root)
	defer s.close(t)
	s.clean(t)
	if _, err := s.Get(t.Context(), reg.Host()+"/app:1"); err != nil {
		t.Error(err)
	}
	// Each kill may cost a note's worth of each of three streams, and what stuck in their sockets.
	if twice := reg.Sent() - total; twice > int64(kills)*3*(2<<20) {
		t.Errorf("%d kills, %d bytes too many", kills, twice)
	}
	t.Logf("%d kills, %d of %d bytes were sent twice", kills, reg.Sent()-total, total)
}

// Pulls of the same layer share one download, also when the one that began it leaves, or has it from where it is not.
func TestPullsShare(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	layer := bigLayer(t, 1, 2<<20)
	reg.AddImage("app", "1", host(), layer)
	reg.AddImage("app", "2", host(), layer, tarOf(t, text("other", "x")))
	reg.AddImage("copy", "1", host(), layer, tarOf(t, text("copy", "x")))
	config := quick()
	config.Stall = time.Second
	s := openWith(t, t.TempDir(), config)
	defer s.close(t)
	var group sync.WaitGroup
	// The first one leaves, and its repository does not have the layer after all.
	reg.Break(registrytest.Fault{Method: "GET", Path: "/app/blobs/" + digest.FromBytes(layer).String(), Times: 1, Do: registrytest.Stall(chunk / 2)})
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() {
		if _, err := s.Pull(ctx, reg.Host()+"/app:1", image.PullOptions{}); !errdefs.Is(err, errdefs.Canceled) {
			t.Error(err)
		}
	})
	for reg.Count("GET", digest.FromBytes(layer).Encoded()) == 0 {
		time.Sleep(time.Millisecond)
	}
	for _, name := range []string{"/app:1", "/app:2", "/copy:1", "/copy:1"} {
		group.Go(func() {
			if _, err := s.Pull(t.Context(), reg.Host()+name, image.PullOptions{}); err != nil {
				t.Error(name, err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	reg.Break(registrytest.Fault{Method: "GET", Path: "/app/blobs/" + digest.FromBytes(layer).String(), Do: registrytest.Status(404, "")})
	cancel()
	group.Wait()
	s.clean(t)
	if sent := reg.Sent(); sent > int64(len(layer))+chunk+64<<10 {
		t.Errorf("%d bytes were sent of a layer of %d", sent, len(layer))
	}
}

// However many pulls there are, no more streams than allowed.
func TestPullLimit(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	if err := s.Configure(quick(), 2, 0); err != nil {
		t.Fatal(err)
	}
	layers := map[string]bool{}
	for n := range byte(3) {
		two := [][]byte{bigLayer(t, 2*n, 1<<20), bigLayer(t, 2*n+1, 700<<10)}
		reg.AddImage(fmt.Sprintf("app%d", n), "1", host(), two...)
		for _, l := range two {
			layers[digest.FromBytes(l).String()] = true
		}
	}
	waits, once, held := make(chan struct{}), sync.Once{}, make(chan struct{}, 2*len(layers))
	reg.Break(registrytest.Fault{Method: "GET", Path: "/blobs/", Do: func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if layers[path.Base(r.URL.Path)] { // the first streams are held until others wait for them
			held <- struct{}{}
			select {
			case <-waits:
			case <-time.After(20 * time.Second):
			}
		}
		registrytest.Drip(32<<10, 5*time.Millisecond)(w, r, serve)
	}})
	var group sync.WaitGroup
	var mu sync.Mutex
	var said []string
	for n := range 3 {
		if n == 1 { // once the first has all streams
			<-held
			<-held
		}
		group.Go(func() {
			_, err := s.Pull(t.Context(), fmt.Sprintf("%s/app%d:1", reg.Host(), n), image.PullOptions{Progress: func(p image.Progress) {
				mu.Lock()
				defer mu.Unlock()
				if said = append(said, p.Status); p.Status == "Waiting" {
					once.Do(func() { close(waits) })
				}
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	s.clean(t)
	// The small configs do not count: they do not wait for layers.
	if most := reg.Streams(); most > 2+3 {
		t.Errorf("%d streams at once", most)
	}
	for _, want := range []string{"Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"} {
		if !slices.Contains(said, want) {
			t.Errorf("nobody said %q", want)
		}
	}
}

func TestPullWithoutRoom(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	reg.AddImage("app", "1", host(), bigLayer(t, 1, 100))
	m := strings.Replace(string(reg.Manifest("app", "1")), `"size":2048`, `"size":2000000000000000`, 1)
	reg.AddManifest("app", "1", ocispec.MediaTypeImageManifest, []byte(m))
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	_, err := s.Pull(t.Context(), reg.Host()+"/app:1", image.PullOptions{})
	if !errdefs.Is(err, errdefs.Exhausted) || !strings.Contains(err.Error(), "2 PB are still to come, layers take at least 2 PB unpacked") {
		t.Errorf("%v\n%s", err, m)
	}
	if n := reg.Count("GET", digest.FromBytes(bigLayer(t, 1, 100)).String()); n > 0 {
		t.Error("a download began")
	}
	s.clean(t)
}

// What came of a pull that was broken off is kept for a while, and prune gives it back.
func TestPrunePartials(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	reg.AddImage("app", "1", host(), bigLayer(t, 1, 1<<20))
	reg.Break(registrytest.Fault{Method: "GET", Path: "/blobs/", Skip: 1, Do: registrytest.Cut(200 << 10)})
	root := t.TempDir()
	config := quick()
	config.Attempts = 1
	s := openWith(t, root, config)
	defer s.close(t)
	if _, err := s.Pull(t.Context(), reg.Host()+"/app:1", image.PullOptions{}); !errdefs.Is(err, errdefs.Unavailable) {
		t.Error(err)
	}
	s.clean(t)
	report, err := s.Prune(t.Context(), image.PruneOptions{})
	if err != nil || report.SpaceReclaimed < 100<<10 || report.SpaceReclaimed > 1<<20 {
		t.Error(report, err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "content/partial/*")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// A partial blob that changed on the disk makes one pull fail, not all.
func TestDamagedPartialLayer(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	layer := bigLayer(t, 1, 1<<20)
	reg.AddImage("app", "1", host(), layer)
	reg.Break(registrytest.Fault{Method: "GET", Path: digest.FromBytes(layer).String(), Times: 1, Do: registrytest.Cut(200 << 10)})
	root := t.TempDir()
	config := quick()
	config.Attempts = 1
	s := openWith(t, root, config)
	defer s.close(t)
	ref := reg.Host() + "/app:1"
	if _, err := s.Pull(t.Context(), ref, image.PullOptions{}); err == nil {
		t.Fatal("no error")
	}
	f, err := os.OpenFile(filepath.Join(root, "content/partial", digest.FromBytes(layer).Encoded()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 1000); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if _, err := s.Pull(t.Context(), ref, image.PullOptions{}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error("a damaged layer was taken:", err)
	}
	if _, err := s.Pull(t.Context(), ref, image.PullOptions{}); err != nil {
		t.Error(err)
	}
	s.clean(t)
}

// A disk that fills up during a pull is a clear error, leaves nothing amiss, and prune gives back what came.
func TestPullFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=12m"); err != nil {
		t.Skip("cannot mount a small tmpfs:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	reg := registrytest.New()
	defer reg.Close()
	reg.AddImage("huge", "1", host(), bigLayer(t, 1, 13<<20))
	reg.AddImage("large", "1", host(), bigLayer(t, 2, 8<<20))
	s := openWith(t, root, quick())
	defer s.close(t)
	if _, err := s.Pull(t.Context(), reg.Host()+"/huge:1", image.PullOptions{}); !errdefs.Is(err, errdefs.Exhausted) || !strings.Contains(err.Error(), "13.63 MB are still to come") {
		t.Error(err)
	}
	s.clean(t)
	requests := reg.Count("GET", "/blobs/")
	if _, err := s.Pull(t.Context(), reg.Host()+"/large:1", image.PullOptions{}); !errdefs.Is(err, errdefs.Exhausted) {
		t.Error(err)
	}
	if n := reg.Count("GET", "/blobs/") - requests; n > 40 {
		t.Errorf("%d requests for a disk that is full", n)
	}
	s.clean(t)
	fill, err := os.Create(filepath.Join(root, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	_ = fill.Close()
	if _, err := s.Prune(t.Context(), image.PruneOptions{}); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "content/partial/*")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	s.clean(t)
}

// A manifest that lies about the size of a layer fails, and does not spoil an honest pull at the same time.
func TestPullWrongSize(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	layer := bigLayer(t, 1, 1<<20)
	reg.AddImage("app", "1", host(), layer)
	reg.AddManifest("app", "lie", ocispec.MediaTypeImageManifest, []byte(strings.Replace(string(reg.Manifest("app", "1")), fmt.Sprintf(`"size":%d`, len(layer)), `"size":1000`, 1)))
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, err := s.Pull(t.Context(), reg.Host()+"/app:lie", image.PullOptions{}); err == nil {
				t.Error("a wrong size was taken")
			}
		})
		group.Go(func() {
			if _, err := s.Pull(t.Context(), reg.Host()+"/app:1", image.PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	s.clean(t)
}
