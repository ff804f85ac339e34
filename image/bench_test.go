package image_test

import (
	"bytes"
	"testing"

	"gantry/db"
	"gantry/image"
	"gantry/snapshot/layers"
	"gantry/snapshot/overlay"

	"errors"
	"path/filepath"
)

// BenchmarkGet is what a `run` asks of the image store.
func BenchmarkGet(b *testing.B) {
	root := b.TempDir()
	snapshots, err := overlay.Open(root, layers.Options{})
	if err != nil {
		b.Fatal(err)
	}
	d, err := db.Open(filepath.Join(root, "gantry.db"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := image.Open(b.Context(), image.Options{Root: root, DB: d, Snapshots: snapshots})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := errors.Join(s.Close(), d.Close(), snapshots.Close()); err != nil {
			b.Error(err)
		}
	}()
	if _, err := s.Import(b.Context(), bytes.NewReader(make([]byte, 1024)), image.ImportOptions{Repo: "busybox"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(b.Context(), "busybox"); err != nil {
			b.Fatal(err)
		}
	}
}
