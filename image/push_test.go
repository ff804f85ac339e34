package image_test

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"gantry/image"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
)

// cutting stands before an address and resets the first connections that bring as many bytes as are given; it returns its own address.
func cutting(t *testing.T, addr string, cuts ...int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex // guards cuts
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				server, err := net.Dial("tcp", addr)
				if err != nil {
					_ = client.Close()
					return
				}
				go func() {
					_, _ = io.Copy(client, server)
					_ = client.Close()
				}()
				buf := make([]byte, 32<<10)
				for sum := int64(0); ; {
					n, err := client.Read(buf)
					sum += int64(n)
					mu.Lock()
					cut := len(cuts) > 0 && sum >= cuts[0]
					if cut {
						cuts = cuts[1:]
					}
					mu.Unlock()
					if _, werr := server.Write(buf[:n]); err != nil || werr != nil || cut {
						if tcp, ok := client.(*net.TCPConn); ok && cut {
							_ = tcp.SetLinger(0)
						}
						_ = client.Close()
						_ = server.Close()
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A push to Debian's registry whose connections are reset ends well, and gives the digest that was pulled. That registry forgets an upload that broke off.
func TestPushCut(t *testing.T) {
	behind := startRegistry(t, "")
	addr := cutting(t, behind, 3<<20, 5<<20)
	from := registrytest.New()
	defer from.Close()
	from.AddImage("app", "1", host(), bigLayer(t, 1, 12<<20), bigLayer(t, 2, 100<<10), tarOf(t, text("x", "y")))
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	ctx := t.Context()
	if _, err := s.Pull(ctx, from.Host()+"/app:1", image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	ref := addr + "/team/app:1"
	if err := s.Tag(ctx, from.Host()+"/app:1", ref); err != nil {
		t.Fatal(err)
	}
	var statuses []string
	var last image.Progress
	listen := func(p image.Progress) {
		statuses = append(statuses, p.Status)
		last = p
	}
	if err := s.Push(ctx, ref, image.PushOptions{Progress: listen}); err != nil {
		t.Fatal(err)
	}
	pushed, ok := last.Aux.(image.PushResult)
	if !ok || !slices.Contains(statuses, "Pushing") || !slices.Contains(statuses, "Pushed") {
		t.Fatalf("%v %+v", statuses, last)
	}
	// Another store pulls it from the registry itself, and gets the same image.
	other := openWith(t, t.TempDir(), quick())
	defer other.close(t)
	i, err := other.Pull(ctx, behind+"/team/app:1", image.PullOptions{})
	if err != nil || i.Manifest.Digest.String() != pushed.Digest {
		t.Fatal(i, err)
	}
	// A second push sends nothing but the manifest.
	statuses = nil
	if err := s.Push(ctx, ref, image.PushOptions{Progress: listen}); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(statuses, "Pushed") || !slices.Contains(statuses, "Layer already exists") {
		t.Error(statuses)
	}
	s.clean(t)
}

// What was pulled is pushed with the same digests, to a registry that is in pieces half of the time; layers go at once, but no more than allowed.
func TestPushHostile(t *testing.T) {
	from, to := registrytest.New(), registrytest.New()
	defer from.Close()
	defer to.Close()
	var layers [][]byte
	for n := range byte(6) {
		layers = append(layers, bigLayer(t, n, 600<<10))
	}
	top := from.AddImage("app", "1", host(), layers...)
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	if err := s.Configure(quick(), 0, 3); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := s.Pull(ctx, from.Host()+"/app:1", image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	ref := to.Host() + "/app:1"
	if err := s.Tag(ctx, from.Host()+"/app:1", ref); err != nil {
		t.Fatal(err)
	}
	to.AddBlob("app", layers[5])
	to.Break(
		registrytest.Fault{Method: "PATCH", Times: 3, Do: registrytest.Swallow(300 << 10)},
		registrytest.Fault{Method: "HEAD", Times: 2, Do: registrytest.Status(503, "")},
		registrytest.Fault{Method: "POST", Times: 2, Do: registrytest.Status(429, "0")},
		registrytest.Fault{Method: "PUT", Path: "/manifests/", Times: 1, Do: registrytest.Status(500, "")},
	)
	if err := s.Push(ctx, ref, image.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := digest.FromBytes(to.Manifest("app", "1")); got != top.Digest {
		t.Errorf("pushed %s, was %s", got, top.Digest)
	}
	for _, l := range layers {
		if !bytes.Equal(to.Blob("app", digest.FromBytes(l)), l) {
			t.Error("a layer is missing")
		}
	}
	for _, q := range to.Requests() {
		if q.Method == "PATCH" && strings.Contains(q.ContentRange, "-") && strings.HasPrefix(q.ContentRange, "0-") {
			t.Error("begun anew", q)
		}
	}
	s.clean(t)
}
