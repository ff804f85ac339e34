package image

import (
	"context"
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"
)

// RehearseRemove returns what Remove would do and how many bytes of the disk that would give back. It changes nothing.
func (s *Service) RehearseRemove(ctx context.Context, ref string, o RemoveOptions) (PruneReport, error) {
	r := s.rehearsal(o.InUse)
	removed, _, err := r.remove(ref, o)
	if err != nil {
		return PruneReport{}, err
	}
	freed, err := s.without(ctx, r)
	return PruneReport{Removed: removed, SpaceReclaimed: freed}, err
}

// RehearsePrune returns what Prune would do. It changes nothing.
func (s *Service) RehearsePrune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	r := s.rehearsal(o.InUse)
	removed, err := r.pruneAll(ctx, o)
	if err != nil {
		return PruneReport{}, fmt.Errorf("prune images: %w", err)
	}
	freed, err := s.without(ctx, r)
	if err != nil {
		return PruneReport{}, fmt.Errorf("prune images: %w", err)
	}
	partials, err := s.content.Partials()
	if err != nil {
		return PruneReport{}, fmt.Errorf("prune images: %w", err)
	}
	for _, p := range partials {
		freed += p.Size
	}
	return PruneReport{Removed: removed, SpaceReclaimed: freed}, nil
}

// rehearsal returns a service with the same images, whose removals go no further than its own index. Containers that users does not know of do not count.
func (s *Service) rehearsal(users func(digest.Digest) []ContainerUse) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := &Service{
		o: Options{Snapshots: s.o.Snapshots}, content: s.content, log: s.log, rehearses: true, users: users,
		images: maps.Clone(s.images), names: maps.Clone(s.names), indexes: maps.Clone(s.indexes), ghosts: maps.Clone(s.ghosts), held: maps.Clone(s.held), damaged: maps.Clone(s.damaged),
	}
	maps.DeleteFunc(r.ghosts, func(_ digest.Digest, e *entry) bool { return !r.stoodOn(e.image) })
	return r
}

// without returns how many bytes of the disk the blobs and layers take up that no image of a rehearsal has.
func (s *Service) without(ctx context.Context, r *Service) (int64, error) {
	if len(s.damaged) > 0 {
		return 0, nil // then nothing is collected
	}
	_, blobs, err := s.content.DiskUsage(ctx)
	if err != nil {
		return 0, err
	}
	unpacked, err := s.o.Snapshots.DiskUsage(ctx)
	if err != nil {
		return 0, err
	}
	keptBlobs, keptLayers, told := r.named()
	if !told {
		return 0, nil // nor then
	}
	return notIn(blobs, keptBlobs) + notIn(unpacked.Layers, keptLayers), nil
}

func notIn(sizes map[digest.Digest]int64, kept map[digest.Digest]bool) (sum int64) {
	for d, size := range sizes {
		if !kept[d] {
			sum += size
		}
	}
	return sum
}
