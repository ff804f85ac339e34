package layers

import (
	"context"
	"errors"
	"os"

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

// Compare calls with with a whole tree and the layers in it, top first.
func Compare(tree string, lower []Lower, with func(tree *dir.Dir, lower []*dir.Dir) error) error {
	open, err := OpenAll(lower)
	defer CloseAll(open)
	if err != nil {
		return err
	}
	d, err := dir.Open(tree)
	if err != nil {
		return err
	}
	return errors.Join(with(d, open), d.Close())
}

// Bind returns a detached mount of a folder.
func Bind(folder string, readOnly bool) (*os.File, error) {
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
