package registry_test

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/registry"
	"gantry/registry/registrytest"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sink keeps a blob in memory, counts how often each byte came, and notes in which order.
type sink struct {
	d ocispec.Descriptor

	mu       sync.Mutex // guards all below
	data     []byte
	times    []byte // how often each byte came
	here     []byte // 1 for each byte that came
	received int
	resets   int
	wrote    func(received int) // called after each part; may be nil
}

func newSink(d ocispec.Descriptor) *sink {
	return &sink{d: d, data: make([]byte, d.Size), times: make([]byte, d.Size), here: make([]byte, d.Size)}
}

func (s *sink) WriteAt(p []byte, offset int64) (int, error) {
	s.mu.Lock()
	n := copy(s.data[offset:], p)
	for i := range n {
		s.here[int(offset)+i] = 1
		if s.times[int(offset)+i]++; s.times[int(offset)+i] == 1 {
			s.received++
		}
	}
	received := s.received
	s.mu.Unlock()
	if s.wrote != nil {
		s.wrote(received)
	}
	return n, nil
}

func (s *sink) Gap(from int64) (start, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, end = s.d.Size, s.d.Size
	if i := bytes.IndexByte(s.here[from:], 0); i >= 0 {
		start = from + int64(i)
	}
	if i := bytes.IndexByte(s.here[start:], 1); i >= 0 {
		end = start + int64(i)
	}
	return start, end
}

func (s *sink) Verify() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if digest.FromBytes(s.data) != s.d.Digest {
		return errdefs.New(errdefs.InvalidParameter, "another digest")
	}
	return nil
}

func (s *sink) Reset() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resets++
	s.received = 0
	clear(s.times)
	clear(s.here)
	return nil
}

// twice returns how many bytes came more than once.
func (s *sink) twice() int {
	n := 0
	for _, t := range s.times {
		if t > 1 {
			n++
		}
	}
	return n
}

const chunk = 64 << 10

// quick is a configuration whose patience is short.
func quick() registry.Config {
	return registry.Config{Pause: time.Millisecond, Stall: time.Second, Chunk: chunk, Attempts: 4}
}

func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

func repository(t testing.TB, host string, auth registry.Auth, c registry.Config) *registry.Repository {
	t.Helper()
	client, err := registry.New(c)
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(host + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Repository(named, auth, false)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whatever a registry does, a blob comes whole or with an error that says where it failed, in bounded time.
func TestHostileBlob(t *testing.T) {
	data := noise(10*chunk + 123)
	for _, c := range []struct {
		name   string
		faults []registrytest.Fault
		fails  errdefs.Kind // Internal: it does not
		resets int
		spare  int64 // bytes that may be sent beyond the blob's
	}{
		{name: "good"},
		{name: "cut off twice", faults: []registrytest.Fault{{Times: 2, Do: registrytest.Cut(chunk / 2)}}, spare: chunk},
		{name: "cut off after little, each time", faults: []registrytest.Fault{{Do: registrytest.Cut(100)}}, fails: errdefs.Unavailable},
		{name: "stalls once", faults: []registrytest.Fault{{Times: 1, Do: registrytest.Stall(chunk / 2)}}, spare: chunk},
		{name: "stalls in the midst", faults: []registrytest.Fault{{Skip: 3, Times: 2, Do: registrytest.Stall(1000)}}, spare: 3 * chunk},
		{name: "stalls always", faults: []registrytest.Fault{{Do: registrytest.Stall(10)}}, fails: errdefs.Unavailable},
		{name: "says nothing", faults: []registrytest.Fault{{Do: registrytest.Hang()}}, fails: errdefs.Unavailable},
		{name: "drips", faults: []registrytest.Fault{{Do: registrytest.Drip(1, 20*time.Millisecond)}}, fails: errdefs.Unavailable},
		{name: "no ranges", faults: []registrytest.Fault{{Do: registrytest.NoRanges()}}},
		{name: "no ranges, cut off", faults: []registrytest.Fault{{Times: 1, Do: registrytest.Cut(chunk / 2)}, {Do: registrytest.NoRanges()}}, spare: 1 << 30},
		{name: "refuses ranges", faults: []registrytest.Fault{{Do: registrytest.RefuseRanges()}}},
		{name: "loses its ranges", faults: []registrytest.Fault{{Skip: 4, Do: registrytest.NoRanges()}}, spare: 1 << 30},
		{name: "another range", faults: []registrytest.Fault{{Do: registrytest.LieRange("bytes 0-9/10")}}},
		{name: "a range of another blob", faults: []registrytest.Fault{{Do: registrytest.LieRange("bytes 0-65535/65536")}}},
		{name: "another range in the midst", faults: []registrytest.Fault{{Skip: 2, Times: 1, Do: registrytest.LieRange("bytes 1-2/3")}}, spare: 1 << 30},
		{name: "wrong bytes", faults: []registrytest.Fault{{Do: registrytest.Corrupt(5)}}, fails: errdefs.InvalidParameter, resets: 1},
		{name: "too short", faults: []registrytest.Fault{{Do: registrytest.Short(10)}}, fails: errdefs.Unavailable},
		{name: "too long", faults: []registrytest.Fault{{Do: registrytest.Short(len(data) + 1)}}, fails: errdefs.InvalidParameter},
		{name: "endless", faults: []registrytest.Fault{{Do: registrytest.Endless()}}, fails: errdefs.InvalidParameter},
		{name: "busy at first", faults: []registrytest.Fault{{Times: 3, Do: registrytest.Status(429, "0")}}},
		{name: "busy at first, without a word when", faults: []registrytest.Fault{{Times: 3, Do: registrytest.Status(429, "")}}},
		{name: "busy always", faults: []registrytest.Fault{{Do: registrytest.Status(429, "")}}, fails: errdefs.Unavailable},
		{name: "busy for long", faults: []registrytest.Fault{{Do: registrytest.Status(429, "7200")}}, fails: errdefs.Unavailable},
		{name: "busy for the second stream", faults: []registrytest.Fault{{Skip: 1, Times: 4, Do: registrytest.Status(503, "")}}},
		{name: "fails in the midst", faults: []registrytest.Fault{{Skip: 2, Times: 3, Do: registrytest.Status(500, "")}}},
		{name: "fails always", faults: []registrytest.Fault{{Do: registrytest.Status(502, "")}}, fails: errdefs.Unavailable},
		{name: "gone", faults: []registrytest.Fault{{Do: registrytest.Status(404, "")}}, fails: errdefs.NotFound},
		{name: "forbidden in the midst", faults: []registrytest.Fault{{Skip: 3, Do: registrytest.Status(403, "")}}, fails: errdefs.Forbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			defer reg.Close()
			d := reg.AddBlob("team/app", data)
			for _, f := range c.faults {
				f.Path = "/blobs/"
				reg.Break(f)
			}
			var log bytes.Buffer
			config := quick()
			config.Log = slog.New(slog.NewTextHandler(&log, nil))
			to := newSink(d)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			err := repository(t, reg.Host(), registry.Auth{}, config).Blob(ctx, d, to)
			if ctx.Err() != nil {
				t.Fatal("it takes too long")
			}
			if to.resets != c.resets {
				t.Errorf("begun anew %d times", to.resets)
			}
			if c.fails != errdefs.Internal {
				if !errdefs.Is(err, c.fails) || !strings.Contains(err.Error(), d.Digest.String()) || !strings.Contains(err.Error(), reg.Host()) {
					t.Errorf("%v: %v", errdefs.KindOf(err), err)
				}
				return
			}
			if err != nil || !bytes.Equal(to.data, data) {
				t.Error(err)
			}
			if n := to.twice(); n > 0 {
				t.Errorf("%d bytes were stored twice", n)
			}
			if extra := reg.Sent() - d.Size; extra > c.spare {
				t.Errorf("%d bytes too many were sent", extra)
			}
		})
	}
}

// A large blob comes in ranges, several at once, but never more than are allowed over all.
func TestRanges(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	reg.Break(registrytest.Fault{Path: "/blobs/", Do: registrytest.Drip(8<<10, 2*time.Millisecond)})
	config := quick()
	config.Stall = 5 * time.Second
	for _, limit := range []int{1, 2, 4} {
		config.Streams = registry.NewStreams(limit)
		r := repository(t, reg.Host(), registry.Auth{}, config)
		reg2 := func(n int) ocispec.Descriptor { return reg.AddBlob("team/app", noise(n)) }
		blobs := []ocispec.Descriptor{reg2(20 * chunk), reg2(21 * chunk), reg2(100)}
		var group sync.WaitGroup
		for _, d := range blobs {
			group.Go(func() {
				to := newSink(d)
				if err := r.Blob(t.Context(), d, to); err != nil || to.twice() > 0 {
					t.Error(err, to.twice())
				}
			})
		}
		group.Wait()
		if most := reg.Streams(); most > limit || limit > 1 && most < 2 {
			t.Errorf("limit %d: %d streams at once", limit, most)
		}
	}
	// Alone, a blob has all streams; the first bytes come first.
	config.Streams = registry.NewStreams(4)
	reg.Forget()
	reg.Break(registrytest.Fault{Path: "/blobs/", Do: registrytest.Drip(8<<10, 2*time.Millisecond)})
	d := reg.AddBlob("team/app", noise(40*chunk))
	to := newSink(d)
	to.wrote = func(received int) {
		if start, _ := to.Gap(0); received > int(start)+5*chunk {
			t.Errorf("%d bytes are here, and the first gap is at %d", received, start)
		}
	}
	if err := repository(t, reg.Host(), registry.Auth{}, config).Blob(t.Context(), d, to); err != nil {
		t.Error(err)
	}
	if most := reg.Streams(); most < 3 || most > 4 {
		t.Errorf("%d streams", most)
	}
}

// What the sink has is not fetched again, even from a registry that sends the whole.
func TestBlobGoesOn(t *testing.T) {
	data := noise(10 * chunk)
	for _, whole := range []bool{false, true} {
		reg := registrytest.New()
		d := reg.AddBlob("team/app", data)
		if whole {
			reg.Break(registrytest.Fault{Path: "/blobs/", Do: registrytest.NoRanges()})
		}
		to := newSink(d)
		for _, p := range [][2]int{{0, 1000}, {3 * chunk, 5 * chunk}, {9*chunk + 5, 10 * chunk}} {
			_, _ = to.WriteAt(data[p[0]:p[1]], int64(p[0]))
		}
		if err := repository(t, reg.Host(), registry.Auth{}, quick()).Blob(t.Context(), d, to); err != nil || !bytes.Equal(to.data, data) {
			t.Error(err)
		}
		if to.twice() > 0 || to.resets > 0 || !whole && reg.Sent() > int64(8*chunk) {
			t.Errorf("%d bytes came twice, %d were sent, %d resets", to.twice(), reg.Sent(), to.resets)
		}
		reg.Close()
	}
	// What was there before was of another blob: all comes anew, once.
	reg := registrytest.New()
	defer reg.Close()
	d := reg.AddBlob("team/app", data)
	to := newSink(d)
	_, _ = to.WriteAt(make([]byte, 1000), 0)
	if err := repository(t, reg.Host(), registry.Auth{}, quick()).Blob(t.Context(), d, to); err != nil || !bytes.Equal(to.data, data) || to.resets != 1 {
		t.Error(err, to.resets)
	}
	// A second time, there is nothing to be fetched.
	reg.Forget()
	if err := repository(t, reg.Host(), registry.Auth{}, quick()).Blob(t.Context(), d, to); err != nil || reg.Sent() > 0 {
		t.Error(err, reg.Sent())
	}
}

func TestRetryAfter(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	reg.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	r := repository(t, reg.Host(), registry.Auth{}, quick())
	reg.Break(registrytest.Fault{Path: "/manifests/", Times: 1, Do: registrytest.Status(503, "1")})
	begun := time.Now()
	if _, _, err := r.Manifest(t.Context(), "latest"); err != nil || time.Since(begun) < time.Second || time.Since(begun) > 3*time.Second {
		t.Error(time.Since(begun), err)
	}
	// A date has the resolution of a second, and may be over when it comes.
	reg.Break(registrytest.Fault{Path: "/manifests/", Times: 1, Do: registrytest.Status(429, time.Now().Add(2*time.Second).UTC().Format(http.TimeFormat))})
	begun = time.Now()
	if _, _, err := r.Manifest(t.Context(), "latest"); err != nil || time.Since(begun) < 900*time.Millisecond || time.Since(begun) > 4*time.Second {
		t.Error(time.Since(begun), err)
	}
	reg.Break(registrytest.Fault{Path: "/manifests/", Do: registrytest.Status(429, "21600")})
	begun = time.Now()
	if _, _, err := r.Manifest(t.Context(), "latest"); err == nil || !strings.Contains(err.Error(), "try again in 6h0m0s") || time.Since(begun) > time.Second {
		t.Error(time.Since(begun), err)
	}
}

// Cancelling ends everything at once, whatever is being waited for.
func TestCancelAnywhere(t *testing.T) {
	for name, f := range map[string]registrytest.Fault{
		"ping":  {Path: "/v2/", Do: registrytest.Hang()},
		"head":  {Path: "/blobs/", Do: registrytest.Hang()},
		"body":  {Path: "/blobs/", Do: registrytest.Stall(10)},
		"pause": {Path: "/blobs/", Do: registrytest.Status(503, "30")},
	} {
		reg := registrytest.New()
		d := reg.AddBlob("team/app", noise(1000))
		reg.Break(f)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begun := time.Now()
		err := repository(t, reg.Host(), registry.Auth{}, registry.Config{}).Blob(ctx, d, newSink(d))
		if !errdefs.Is(err, errdefs.Canceled) || time.Since(begun) > 2*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(begun))
		}
		cancel()
		reg.Close()
	}
	streams := registry.NewStreams(1)
	reg := registrytest.New()
	defer reg.Close()
	d := reg.AddBlob("team/app", noise(1000))
	reg.Break(registrytest.Fault{Path: "/blobs/", Times: 1, Do: registrytest.Stall(10)})
	config := registry.Config{Streams: streams}
	first, cancelFirst := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- repository(t, reg.Host(), registry.Auth{}, config).Blob(first, d, newSink(d)) }()
	for !streams.Full() {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := repository(t, reg.Host(), registry.Auth{}, config).Blob(ctx, d, newSink(d)); !errdefs.Is(err, errdefs.Canceled) {
		t.Error(err)
	}
	cancelFirst()
	if err := <-done; !errdefs.Is(err, errdefs.Canceled) {
		t.Error(err)
	}
	if err := repository(t, reg.Host(), registry.Auth{}, config).Blob(t.Context(), d, newSink(d)); err != nil {
		t.Error("a stream was not given back:", err)
	}
}

func TestReadBlob(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	d := reg.AddBlob("team/app", noise(1000))
	r := repository(t, reg.Host(), registry.Auth{}, quick())
	reg.Break(registrytest.Fault{Path: "/blobs/", Times: 1, Do: registrytest.Cut(500)}, registrytest.Fault{Path: "/blobs/", Times: 1, Do: registrytest.NoRanges()})
	if data, err := r.ReadBlob(t.Context(), d, 1000); err != nil || digest.FromBytes(data) != d.Digest {
		t.Error(len(data), err)
	}
	large := reg.AddBlob("team/app", noise(20*chunk)) // larger than what usually comes in ranges
	if data, err := r.ReadBlob(t.Context(), large, large.Size); err != nil || digest.FromBytes(data) != large.Digest {
		t.Error(len(data), err)
	}
	if _, err := r.ReadBlob(t.Context(), d, 999); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
}
