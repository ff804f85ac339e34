// Package native keeps snapshots as whole copies of their layers, for file systems and kernels without anything better. Where the file system shares data between files
// (XFS, btrfs) a copy costs only its names.
//
//	snapshots/<key>/fs   the snapshot
package native

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"gantry/snapshot"
	"gantry/snapshot/layers"

	"github.com/opencontainers/go-digest"
)

// Snapshotter keeps the layers and snapshots of one data root, which no other process may use meanwhile.
type Snapshotter struct{ layers.Whole }

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// Open drops what a killed process left behind and returns the snapshotter of a data root.
func Open(root string, o layers.Options) (*Snapshotter, error) {
	s, err := layers.Open(root, o)
	if err != nil {
		return nil, err
	}
	return &Snapshotter{layers.Whole{Store: s}}, nil
}

// Name returns Docker's word for it.
func (s *Snapshotter) Name() string { return "vfs" }

// Prepare copies the layers into one folder. A killed process leaves half a copy, which no record names.
func (s *Snapshotter) Prepare(ctx context.Context, key string, diffIDs []digest.Digest) error {
	return s.Store.Prepare(key, diffIDs, func(folder string, lower []layers.Lower) error {
		whole := filepath.Join(folder, "fs")
		if err := os.Mkdir(whole, 0o755); err != nil {
			return err
		}
		return layers.Merge(ctx, whole, lower)
	})
}

// Usage adds up the copy.
func (s *Snapshotter) Usage(ctx context.Context, key string) (bytes, inodes int64, err error) {
	folder, _, err := s.Lookup(key)
	if err == nil {
		bytes, inodes, err = layers.Usage(ctx, filepath.Join(folder, "fs"))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return bytes, inodes, nil
}
