package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gantry/db"
	"gantry/errdefs"
	"gantry/snapshot"
	"gantry/snapshot/btrfs"
	"gantry/snapshot/layers"
	"gantry/snapshot/native"
	"gantry/snapshot/overlay"
)

// drivers open the snapshotters, by docker's names for them, the best first. What one of a family keeps others of it can use.
var drivers = []struct { //nolint:gochecknoglobals // a constant
	names  []string
	family string
	open   func(root string, o layers.Options) (snapshot.Snapshotter, error)
}{
	{[]string{"erofs"}, "overlay", func(root string, o layers.Options) (snapshot.Snapshotter, error) {
		o.Images = true
		return overlay.Open(root, o)
	}},
	{[]string{"overlay2", "overlay", "overlayfs"}, "overlay", func(root string, o layers.Options) (snapshot.Snapshotter, error) { return overlay.Open(root, o) }},
	{[]string{"vfs", "native"}, "native", func(root string, o layers.Options) (snapshot.Snapshotter, error) { return native.Open(root, o) }},
	{[]string{"btrfs"}, "btrfs", func(root string, o layers.Options) (snapshot.Snapshotter, error) { return btrfs.Open(root, o) }},
}

// openSnapshots opens the snapshotter of docker's name for it. Without a name that is the one that the data root was used with before, or, which is the same to
// overlayfs, the best of its family that the kernel has. Errors: InvalidParameter for an unknown name, Conflict when there are snapshots of another family.
func openSnapshots(ctx context.Context, d *db.DB, o Options) (snapshot.Snapshotter, error) {
	before, err := used(d)
	if err != nil {
		return nil, err
	}
	name := o.StorageDriver
	if name == "" && family(before) != drivers[0].family {
		name = before
	}
	var known []string
	for i, one := range drivers {
		known = append(known, one.names[0])
		if !slices.Contains(one.names, name) && (name != "" || one.family != drivers[0].family) {
			continue
		}
		s, err := one.open(o.DataRoot, layers.Options{Limits: o.Limits})
		if err != nil && name == "" && i == 0 {
			if o.Log != nil {
				o.Log.Info("layers become folders, since this kernel or file system has no EROFS images in files", "error", err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("storage driver %s: %w", one.names[0], err)
		}
		keys, err := s.List(ctx)
		if err == nil && len(keys) > 0 && family(before) != one.family {
			err = errdefs.New(errdefs.Conflict, "%d containers in %s were made with storage driver %s: start with that, or with another data root", len(keys), o.DataRoot, before)
		}
		if err == nil {
			err = d.Update(func(tx *db.Tx) error { return setting.Put(tx, "storage-driver", one.names[0]) })
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	return nil, errdefs.New(errdefs.InvalidParameter, "storage driver %s is not supported: choose one of %s", name, strings.Join(known, ", "))
}

// used returns the driver that a data root was used with before.
func used(d *db.DB) (name string, err error) {
	err = d.View(func(tx *db.Tx) (err error) {
		name, err = setting.Get(tx, "storage-driver")
		return err
	})
	if errdefs.Is(err, errdefs.NotFound) {
		return drivers[0].names[0], nil // all there was, in its family
	}
	return name, err
}

// family returns that of a driver.
func family(name string) string {
	for _, one := range drivers {
		if slices.Contains(one.names, name) {
			return one.family
		}
	}
	return ""
}
