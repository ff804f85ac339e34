// Package native keeps snapshots as whole copies of their layers, for file systems and kernels without anything better. Where the file system shares data between files
// (XFS, btrfs) a copy costs only its names.
//
//	snapshots/<key>/fs   the snapshot
package native

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gantry/archive"
	"gantry/linux/dir"
	"gantry/snapshot"
	"gantry/snapshot/layers"

	"github.com/opencontainers/go-digest"
)

// Snapshotter keeps the layers and snapshots of one data root, which no other process may use meanwhile.
type Snapshotter struct{ *layers.Store }

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// Open drops what a killed process left behind and returns the snapshotter of a data root.
func Open(root string, o layers.Options) (*Snapshotter, error) {
	s, err := layers.Open(root, o)
	if err != nil {
		return nil, err
	}
	return &Snapshotter{s}, nil
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

// Mount returns a detached bind mount of the copy.
func (s *Snapshotter) Mount(_ context.Context, key string, readOnly bool) (*os.File, error) {
	folder, _, err := s.Lookup(key)
	if err != nil {
		return nil, fmt.Errorf("mount snapshot: %w", err)
	}
	return layers.Bind(filepath.Join(folder, "fs"), readOnly)
}

// MountVolatile is Mount: the kernel has no such promise for a bind mount.
func (s *Snapshotter) MountVolatile(ctx context.Context, key string) (*os.File, error) {
	return s.Mount(ctx, key, false)
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

// Changes compares the copy with the layers.
func (s *Snapshotter) Changes(ctx context.Context, key string) (changes []archive.Change, err error) {
	err = s.compare(key, func(tree *dir.Dir, lower []*dir.Dir) (err error) {
		changes, err = archive.TreeChanges(ctx, tree, lower)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	return changes, nil
}

// Diff writes what the copy changes as a layer.
func (s *Snapshotter) Diff(ctx context.Context, key string, w io.Writer) error {
	err := s.compare(key, func(tree *dir.Dir, lower []*dir.Dir) error { return archive.PackTree(ctx, tree, lower, w) })
	if err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	return nil
}

func (s *Snapshotter) compare(key string, with func(tree *dir.Dir, lower []*dir.Dir) error) error {
	folder, lower, err := s.Lookup(key)
	if err != nil {
		return err
	}
	return layers.Compare(filepath.Join(folder, "fs"), lower, with)
}

// Paths returns the folder under Docker's name.
func (s *Snapshotter) Paths(_ context.Context, key string) (map[string]string, error) {
	folder, _, err := s.Lookup(key)
	if err != nil {
		return nil, err
	}
	return map[string]string{"UpperDir": filepath.Join(folder, "fs")}, nil
}
