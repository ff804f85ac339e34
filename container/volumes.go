package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"gantry/archive"
	"gantry/linux/safepath"

	"github.com/moby/moby/api/types/mount"
)

// mountVolumes brings bind sources and volumes in place for a start and fills in their paths.
func (s *Service) mountVolumes(ctx context.Context, r *Record, mounts []Mount) error {
	if err := prepareSources(mounts); err != nil {
		return err
	}
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		source, err := s.volumes.Mount(ctx, m.Name, r.ID)
		if err != nil {
			return fmt.Errorf("mount volume %s: %w", m.Name, err)
		}
		m.Source = source
	}
	return nil
}

// fillVolumes copies what the image has at a volume's destination into a volume that is still empty, as Docker does
// when a container is created.
func (s *Service) fillVolumes(ctx context.Context, r *Record) error {
	var root *os.File
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.Type != mount.TypeVolume || m.NoCopy || m.Subpath != "" {
			continue
		}
		if root == nil {
			var err error
			if root, err = s.snapshots.Mount(ctx, r.ID, true); err != nil {
				return fmt.Errorf("mount the file system of container %s: %w", r.ID, err)
			}
			defer func() { _ = root.Close() }() // a mount that nothing else holds
		}
		if err := s.fillVolume(ctx, r, m, root); err != nil {
			return fmt.Errorf("copy the image's %s to volume %s: %w", m.Destination, m.Name, err)
		}
	}
	return nil
}

func (s *Service) fillVolume(ctx context.Context, r *Record, m *Mount, root *os.File) error {
	from, err := safepath.Open(root, m.Destination, syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil //nolint:nilerr // the image has no such folder: nothing to copy
	}
	defer func() { _ = from.Close() }() // a folder's handle
	source, err := s.volumes.Mount(ctx, m.Name, r.ID)
	if err != nil {
		return err
	}
	defer func() { _ = s.volumes.Unmount(context.WithoutCancel(ctx), m.Name, r.ID) }() // idempotent; the start mounts again
	to, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }() // a folder's handle
	if names, err := to.Readdirnames(1); len(names) > 0 {
		return nil
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return archive.CopyContents(ctx, to, from) // the folder's own owner and mode too
}
