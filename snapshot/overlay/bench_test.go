package overlay_test

import (
	"fmt"
	"os"
	"testing"

	"gantry/snapshot/layers"
	"gantry/snapshot/overlay"
	"gantry/snapshot/snapshottest"

	"github.com/opencontainers/go-digest"
)

// BenchmarkSnapshot is what a `run --rm` asks of the snapshotter.
func BenchmarkSnapshot(b *testing.B) {
	s, err := overlay.Open(b.TempDir(), layers.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var layers []digest.Digest
	for i := range 5 {
		layers = append(layers, snapshottest.Commit(b, s, snapshottest.Tar(b, snapshottest.Entry{Name: fmt.Sprint("f", i), Data: "x"})))
	}
	var m *os.File
	steps := map[string]func() error{
		"Prepare": func() error { return s.Prepare(b.Context(), "k", layers) },
		"Mount": func() (err error) {
			m, err = s.Mount(b.Context(), "k", false)
			return err
		},
		"Close":  func() error { return m.Close() },
		"Remove": func() error { return s.Remove(b.Context(), "k") },
	}
	order := []string{"Prepare", "Mount", "Close", "Remove"}
	for _, timed := range order {
		b.Run(timed, func(b *testing.B) {
			b.StopTimer()
			for range b.N {
				for _, name := range order {
					if name == timed {
						b.StartTimer()
					}
					err := steps[name]()
					if name == timed {
						b.StopTimer()
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
