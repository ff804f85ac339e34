// Package btrfs keeps snapshots as subvolumes of a btrfs: a snapshot is made and removed at once, whatever its size.
//
//	chains/<hex>/fs       a subvolume with a stack of layers merged, of which snapshots are copies; its data is shared with the layers
//	chains/<hex>/layers   hex names of the layers, top first, one a line; <hex> is the digest of this file
//	snapshots/<key>/fs    the snapshot, a subvolume
//
// A chain is made when the first snapshot of it is, in tmp, and gets its name when it is durable. It goes with the first of its layers that goes.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/btrfs"
	"gantry/linux/dir"
	"gantry/snapshot"
	"gantry/snapshot/layers"

	"github.com/opencontainers/go-digest"
)

// Snapshotter keeps the layers and snapshots of one data root, which no other process may use meanwhile.
type Snapshotter struct {
	layers.Whole
	chains *os.File

	making sync.Mutex // held by who makes a chain, or removes one
}

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// Open drops what a killed process left behind and returns the snapshotter of a data root. Errors: InvalidParameter when it is not on a btrfs.
func Open(root string, o layers.Options) (_ *Snapshotter, err error) {
	chains := filepath.Join(root, "chains")
	if err := os.MkdirAll(chains, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	is, err := btrfs.Is(chains)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if !is {
		return nil, errdefs.New(errdefs.InvalidParameter, "open snapshots: %s is not on a btrfs: choose another storage driver, or put the data root on one", root)
	}
	o.Delete = remove
	s := &Snapshotter{}
	if s.Store, err = layers.Open(root, o); err != nil {
		return nil, err
	}
	if s.chains, err = os.Open(chains); err == nil {
		err = s.sweep(context.Background())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshots: %w", err), s.Store.Close())
	}
	return s, nil
}

// remove deletes a folder with the subvolume in it.
func remove(path string) error {
	if sub := filepath.Join(path, "fs"); btrfs.IsSubvolume(sub) {
		_ = btrfs.Delete(sub) // what is not empty, for a container has made subvolumes of its own, goes file by file
	}
	return os.RemoveAll(path)
}

// Close waits for deletions under way and releases the snapshotter.
func (s *Snapshotter) Close() error { return errors.Join(s.Store.Close(), s.chains.Close()) }

// Name returns Docker's word for it.
func (s *Snapshotter) Name() string { return "btrfs" }

// Prepare copies the chain of the layers.
func (s *Snapshotter) Prepare(ctx context.Context, key string, diffIDs []digest.Digest) error {
	return s.Store.Prepare(key, diffIDs, func(folder string, lower []layers.Lower) error {
		chain, err := s.chain(ctx, lower)
		if err != nil {
			return err
		}
		return btrfs.Snapshot(filepath.Join(folder, "fs"), chain)
	})
}

// list is the content of a chain's file "layers".
func list(lower []layers.Lower) string {
	var b strings.Builder
	for _, l := range lower {
		b.WriteString(l.Name + "\n")
	}
	return b.String()
}

func (s *Snapshotter) folder(lower []layers.Lower) string {
	return filepath.Join(s.Root, "chains", digest.FromString(list(lower)).Encoded())
}

// chain returns the subvolume that has the layers, top first, merged. They are in use.
func (s *Snapshotter) chain(ctx context.Context, lower []layers.Lower) (string, error) {
	name := s.folder(lower)
	sub := filepath.Join(name, "fs")
	if btrfs.IsSubvolume(sub) {
		return sub, nil
	}
	s.making.Lock()
	defer s.making.Unlock()
	if btrfs.IsSubvolume(sub) {
		return sub, nil
	}
	temp, err := s.Temp("chain-")
	if err != nil {
		return "", err
	}
	if err := s.make(ctx, temp, name, lower); err != nil {
		return "", errors.Join(err, s.Discard(&snapshot.Staged{Path: temp}))
	}
	s.Named(temp)
	return sub, nil
}

// make makes a chain in a temporary folder, of the largest part of it that is there already, and gives it its name.
func (s *Snapshotter) make(ctx context.Context, temp, name string, lower []layers.Lower) error {
	sub := filepath.Join(temp, "fs")
	rest := lower
	for i := 1; i < len(lower); i++ {
		if beneath := filepath.Join(s.folder(lower[i:]), "fs"); btrfs.IsSubvolume(beneath) {
			if err := btrfs.Snapshot(sub, beneath); err != nil {
				return err
			}
			rest = lower[:i]
			break
		}
	}
	if len(rest) == len(lower) {
		if err := errors.Join(btrfs.Create(sub), os.Chmod(sub, 0o755)); err != nil {
			return err
		}
	}
	if err := layers.Merge(ctx, sub, rest); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "layers"), []byte(list(lower)), 0o600); err != nil {
		return err
	}
	if err := dir.SyncFS(s.chains); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

// RemoveLayer deletes a layer and the chains that it is in.
func (s *Snapshotter) RemoveLayer(ctx context.Context, key digest.Digest) error {
	if err := s.Store.RemoveLayer(ctx, key); err != nil {
		return err
	}
	return s.sweep(ctx)
}

// Replace replaces a layer, and deletes the chains that were made of the damaged one.
func (s *Snapshotter) Replace(ctx context.Context, g *snapshot.Staged) error {
	if err := s.Store.Replace(ctx, g); err != nil {
		return err
	}
	return s.drop(func(name string) bool { return name == g.Key.Encoded() })
}

// sweep deletes the chains whose layers are not all here.
func (s *Snapshotter) sweep(ctx context.Context) error {
	known, err := s.Layers(ctx)
	if err != nil {
		return err
	}
	here := map[string]bool{filepath.Base(s.Base()): true}
	for _, l := range known {
		here[l.Key.Encoded()] = true
	}
	return s.drop(func(name string) bool { return !here[name] })
}

// drop deletes the chains with a layer that is to go.
func (s *Snapshotter) drop(goes func(layer string) bool) error {
	s.making.Lock()
	defer s.making.Unlock()
	entries, err := os.ReadDir(filepath.Join(s.Root, "chains"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.Root, "chains", e.Name())
		data, err := os.ReadFile(filepath.Join(path, "layers"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		whole := digest.FromBytes(data).Encoded() == e.Name()
		for name := range strings.Lines(string(data)) {
			whole = whole && !goes(strings.TrimSuffix(name, "\n"))
		}
		if whole {
			continue
		}
		if err := remove(path); err != nil {
			return fmt.Errorf("remove a chain of layers: %w", err)
		}
	}
	return nil
}

// Usage adds up the files that differ from the layers.
func (s *Snapshotter) Usage(ctx context.Context, key string) (bytes, inodes int64, err error) {
	changes, err := s.Changes(ctx, key)
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot: %w", err)
	}
	folder, _, err := s.Lookup(key)
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot: %w", err)
	}
	root, err := os.OpenRoot(filepath.Join(folder, "fs"))
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	defer root.Close()
	for _, c := range changes {
		if c.Kind == archive.Deleted {
			continue
		}
		inodes++
		if st, err := root.Lstat(strings.TrimPrefix(c.Path, "/")); err == nil && st.Mode().IsRegular() {
			bytes += st.Size()
		}
	}
	return bytes, inodes, nil
}

// DiskUsage counts of a snapshot what Usage does: blocks do not tell what it shares with its layers.
func (s *Snapshotter) DiskUsage(ctx context.Context) (snapshot.DiskUsage, error) {
	u, err := s.Whole.DiskUsage(ctx)
	for key := range u.Snapshots {
		if err == nil {
			if u.Snapshots[key], _, err = s.Usage(ctx, key); errdefs.Is(err, errdefs.NotFound) { // removed meanwhile
				delete(u.Snapshots, key)
				err = nil
			}
		}
	}
	return u, err
}
