package registry_test

import (
	"fmt"
	"testing"
	"time"

	"gantry/registry"
	"gantry/registry/registrytest"
)

// discard is a sink that keeps nothing but where the gaps are.
type discard struct{ *sink }

func (d discard) Verify() error { return nil }

// BenchmarkBlob fetches from a registry that gives each connection 16 MB/s or so.
func BenchmarkBlob(b *testing.B) {
	for _, streams := range []int{1, 3, 6} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			reg := registrytest.New()
			defer reg.Close()
			d := reg.AddBlob("team/app", noise(48<<20))
			reg.Break(registrytest.Fault{Method: "GET", Path: "/blobs/", Do: registrytest.Drip(32<<10, 2*time.Millisecond)})
			r := repository(b, reg.Host(), registry.Auth{}, registry.Config{Streams: registry.NewStreams(streams), Chunk: 4 << 20})
			b.SetBytes(d.Size)
			for b.Loop() {
				if err := r.Blob(b.Context(), d, discard{newSink(d)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
