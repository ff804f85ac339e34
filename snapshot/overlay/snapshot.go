// Package overlay keeps snapshots as upper folders on top of layers, stacked by overlayfs. A stack may have both folders and images.
//
//	snapshots/<key>/upper     what the snapshot changes
//	snapshots/<key>/work      overlayfs's own
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/dir"
	"gantry/linux/mount"
	"gantry/snapshot"
	"gantry/snapshot/layers"

	"github.com/opencontainers/go-digest"
)

// Snapshotter keeps the layers and snapshots of one data root, which no other process may use meanwhile.
type Snapshotter struct {
	*layers.Store
	name string
}

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// Open drops what a killed process left behind and returns the snapshotter of a data root.
func Open(root string, o layers.Options) (*Snapshotter, error) {
	s, err := layers.Open(root, o)
	if err != nil {
		return nil, err
	}
	name := "overlay2"
	if o.Images {
		name = "erofs"
	}
	return &Snapshotter{s, name}, nil
}

// Name returns Docker's word for it, "overlay2", or "erofs" when new layers become images.
func (s *Snapshotter) Name() string { return s.name }

// Prepare makes a snapshot: three folders and a file.
func (s *Snapshotter) Prepare(_ context.Context, key string, diffIDs []digest.Digest) error {
	return s.Store.Prepare(key, diffIDs, func(folder string, _ []layers.Lower) error {
		upper := filepath.Join(folder, "upper")
		err := errors.Join(os.Mkdir(filepath.Join(folder, "work"), 0o700), os.Mkdir(upper, 0o755))
		if st, serr := os.Lstat(upper); err == nil && (serr != nil || st.Mode().Perm() != 0o755) {
			err = os.Chmod(upper, 0o755) // it becomes the container's root, whatever our umask is
		}
		return err
	})
}

// Mount returns a detached overlay. A read-only one has the upper folder as its topmost layer, so that it may be used beside a writable one.
func (s *Snapshotter) Mount(_ context.Context, key string, readOnly bool) (*os.File, error) {
	return s.mount(key, readOnly, false)
}

// MountVolatile returns an overlay that does not sync the disk when it goes, as others do.
func (s *Snapshotter) MountVolatile(_ context.Context, key string) (*os.File, error) {
	return s.mount(key, false, true)
}

func (s *Snapshotter) mount(key string, readOnly, volatile bool) (*os.File, error) {
	folder, lower, err := s.Lookup(key)
	if err != nil {
		return nil, fmt.Errorf("mount snapshot: %w", err)
	}
	upper, work := filepath.Join(folder, "upper"), filepath.Join(folder, "work")
	o := mount.OverlayOptions{Volatile: volatile}
	for _, l := range lower {
		o.Lower = append(o.Lower, l.Path)
	}
	if readOnly {
		o.Lower = append([]string{upper}, o.Lower...)
		o.ReadOnly = true
	} else {
		o.Upper, o.Work = upper, work
	}
	f, err := mount.Overlay(o)
	if errors.Is(err, syscall.EINVAL) && !readOnly {
		// After a volatile mount the kernel leaves a mark, lest somebody trust what a power cut may have torn. Nobody does: there was none since Prepare.
		if rerr := os.RemoveAll(filepath.Join(work, "work", "incompat")); rerr != nil {
			return nil, fmt.Errorf("mount snapshot %s: %w", key, errors.Join(err, rerr))
		}
		f, err = mount.Overlay(o)
	}
	if err != nil {
		return nil, fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	if !readOnly {
		// The kernel makes do with a read-only mount when it cannot make its work folder, and that is for want of space.
		var st syscall.Statfs_t
		if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil || st.Flags&syscall.MS_RDONLY != 0 {
			if err == nil {
				err = errdefs.With(errdefs.Exhausted, syscall.ENOSPC)
			}
			return nil, errors.Join(fmt.Errorf("mount snapshot %s: %w", key, err), f.Close())
		}
	}
	return f, nil
}

// Usage adds up the upper folder.
func (s *Snapshotter) Usage(ctx context.Context, key string) (bytes, inodes int64, err error) {
	folder, _, err := s.Lookup(key)
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot: %w", err)
	}
	bytes, inodes, err = layers.Usage(ctx, filepath.Join(folder, "upper"))
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return bytes, inodes, nil
}

// Changes compares the upper folder with the layers.
func (s *Snapshotter) Changes(ctx context.Context, key string) ([]archive.Change, error) {
	folder, lower, err := s.Lookup(key)
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot: %w", err)
	}
	open, err := layers.OpenAll(lower)
	defer layers.CloseAll(open)
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	upper, err := dir.Open(filepath.Join(folder, "upper"))
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	changes, err := archive.UpperChanges(ctx, upper, open)
	if err = errors.Join(err, upper.Close()); err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	return changes, nil
}

// Diff writes the upper folder as a layer.
func (s *Snapshotter) Diff(ctx context.Context, key string, w io.Writer) error {
	folder, _, err := s.Lookup(key)
	if err != nil {
		return fmt.Errorf("diff of snapshot: %w", err)
	}
	upper, err := dir.Open(filepath.Join(folder, "upper"))
	if err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	if err := errors.Join(archive.PackUpper(ctx, upper, w), upper.Close()); err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	return nil
}

// Paths returns the folders under Docker's names. There is no merged one on the host; it is named where Docker would have it.
func (s *Snapshotter) Paths(_ context.Context, key string) (map[string]string, error) {
	folder, lower, err := s.Lookup(key)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, l := range lower {
		files = append(files, l.File)
	}
	return map[string]string{
		"LowerDir":  strings.Join(files, ":"),
		"UpperDir":  filepath.Join(folder, "upper"),
		"WorkDir":   filepath.Join(folder, "work"),
		"MergedDir": filepath.Join(folder, "merged"),
	}, nil
}
