package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gantry/archive"
	"gantry/linux/dir"
	"gantry/linux/mount"
)

// This file has what snapshotters share whose snapshots are whole trees.

// Merge copies layers, top first, into an empty folder, as overlayfs would show them together.
func Merge(ctx context.Context, folder string, lower []Lower) error {
	to, err := dir.Open(folder)
	if err != nil {
		return err
	}
	defer to.Close()
	for i := len(lower) - 1; i >= 0; i-- {
		from, err := dir.Open(lower[i].Path)
		if err != nil {
			return err
		}
		if err := errors.Join(archive.MergeLayer(ctx, to, from), from.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Whole is a Store whose snapshots are whole trees, each in a folder "fs".
type Whole struct{ *Store }

// Mount returns a detached bind mount of the tree.
func (s Whole) Mount(_ context.Context, key string, readOnly bool) (*os.File, error) {
	folder, _, err := s.Lookup(key)
	if err != nil {
		return nil, fmt.Errorf("mount snapshot: %w", err)
	}
	return bind(filepath.Join(folder, "fs"), readOnly)
}

// MountVolatile is Mount: the kernel has no such promise for a bind mount.
func (s Whole) MountVolatile(ctx context.Context, key string) (*os.File, error) {
	return s.Mount(ctx, key, false)
}

// Changes compares the tree with the layers.
func (s Whole) Changes(ctx context.Context, key string) (changes []archive.Change, err error) {
	err = s.compare(key, func(tree *dir.Dir, lower []*dir.Dir) (err error) {
		changes, err = archive.TreeChanges(ctx, tree, lower)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	return changes, nil
}

// Diff writes what the tree changes as a layer.
func (s Whole) Diff(ctx context.Context, key string, w io.Writer) error {
	err := s.compare(key, func(tree *dir.Dir, lower []*dir.Dir) error { return archive.PackTree(ctx, tree, lower, w) })
	if err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	return nil
}

// Paths returns the folder under Docker's name.
func (s Whole) Paths(_ context.Context, key string) (map[string]string, error) {
	folder, _, err := s.Lookup(key)
	if err != nil {
		return nil, err
	}
	return map[string]string{"UpperDir": filepath.Join(folder, "fs")}, nil
}

// compare calls with with the tree of a snapshot and the layers in it, top first.
func (s Whole) compare(key string, with func(tree *dir.Dir, lower []*dir.Dir) error) error {
	folder, lower, err := s.Lookup(key)
	if err != nil {
		return err
	}
	open, err := OpenAll(lower)
	defer CloseAll(open)
	if err != nil {
		return err
	}
	d, err := dir.Open(filepath.Join(folder, "fs"))
	if err != nil {
		return err
	}
	return errors.Join(with(d, open), d.Close())
}

// bind returns a detached mount of a folder.
func bind(folder string, readOnly bool) (*os.File, error) {
	m, err := mount.Bind(folder, false)
	if err != nil {
		return nil, err
	}
	var attr mount.Attr
	if readOnly {
		attr = mount.ReadOnly
	}
	if err := mount.SetAttr(m, attr, 0, mount.Private, false); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}
