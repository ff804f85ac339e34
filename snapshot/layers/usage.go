package layers

import (
	"context"
	"fmt"
	"path/filepath"

	"gantry/linux/dir"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// DiskUsage measures the folders of the store. A layer, which never changes, is measured once.
func (s *Store) DiskUsage(ctx context.Context) (snapshot.DiskUsage, error) {
	s.mu.Lock()
	names, keys := make([]string, 0, len(s.known)), make([]string, 0, len(s.snapshots))
	for name := range s.known {
		names = append(names, name)
	}
	for key := range s.snapshots {
		keys = append(keys, key)
	}
	s.mu.Unlock()
	u := snapshot.DiskUsage{Layers: make(map[digest.Digest]int64, len(names)), Snapshots: make(map[string]int64, len(keys))}
	for _, name := range names {
		bytes, err := s.layerUsage(ctx, name)
		if err != nil {
			return u, fmt.Errorf("measure layer %s: %w", name, err)
		}
		u.Layers[digest.NewDigestFromEncoded(digest.SHA256, name)] = bytes
		u.Total += bytes
	}
	for _, key := range keys {
		bytes, err := dir.Usage(ctx, filepath.Join(s.Root, "snapshots", key))
		if err != nil {
			return u, fmt.Errorf("measure snapshot %s: %w", key, err)
		}
		u.Snapshots[key] = bytes
	}
	info, err := s.layers.Stat() // the folder itself
	if err != nil {
		return u, fmt.Errorf("measure layers: %w", err)
	}
	u.Total += dir.Allocated(info)
	for _, rest := range []string{s.Base(), filepath.Join(s.Root, "tmp"), s.quarantine()} {
		bytes, err := dir.Usage(ctx, rest)
		if err != nil {
			return u, fmt.Errorf("measure %s: %w", rest, err)
		}
		u.Total += bytes
	}
	return u, nil
}

func (s *Store) layerUsage(ctx context.Context, name string) (int64, error) {
	s.mu.Lock()
	known := s.known[name].disk
	s.mu.Unlock()
	if known > 0 {
		return known, nil
	}
	bytes, err := dir.Usage(ctx, filepath.Join(s.Root, "layers", name))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, stays := s.known[name]; stays {
		l.disk = bytes
		s.known[name] = l
	}
	return bytes, nil
}
