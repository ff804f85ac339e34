package image

import (
	"context"
	"fmt"
)

// Prune removes images that nothing uses: dangling ones, or all; and what came of pulls that were broken off.
func (s *Service) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	var report PruneReport
	before, err := s.diskUsage(ctx)
	if err != nil {
		return report, fmt.Errorf("prune images: %w", err)
	}
	if report.Removed, err = s.pruneAll(ctx, o); err != nil {
		return report, fmt.Errorf("prune images: %w", err)
	}
	if err := s.collect(context.WithoutCancel(ctx)); err != nil {
		return report, fmt.Errorf("prune images: %w", err)
	}
	if _, err := s.content.DropPartials(0); err != nil {
		return report, fmt.Errorf("prune images: %w", err)
	}
	after, err := s.diskUsage(ctx)
	if err != nil {
		return report, fmt.Errorf("prune images: %w", err)
	}
	report.SpaceReclaimed = max(0, before-after)
	return report, nil
}

// pruneAll removes images as long as there are any to remove.
func (s *Service) pruneAll(ctx context.Context, o PruneOptions) ([]Removed, error) {
	var all []Removed
	for again := true; again; { // a parent can go once its child has
		again = false
		images, err := s.List(ctx)
		if err != nil {
			return all, err
		}
		for _, i := range images {
			if ctx.Err() != nil {
				break
			}
			removed, err := s.prune(i, o)
			if err != nil {
				return all, err
			}
			all = append(all, removed...)
			again = again || len(removed) > 0
		}
	}
	return all, nil
}

// prune removes one image if the options want it gone and nothing uses it.
func (s *Service) prune(i *Image, o PruneOptions) ([]Removed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.images[i.ID]
	if !ok {
		return nil, nil
	}
	names := s.namesOf(i.ID)
	if len(names) > 0 && !o.All || len(s.uses(o.InUse, i.ID)) > 0 || s.child(i.ID) != "" || o.Filter != nil && !o.Filter(e.image) {
		return nil, nil
	}
	removed, _, err := s.removeImage(e.image, names, RemoveOptions{InUse: o.InUse, NoPrune: true})
	return removed, err
}

// diskUsage returns what images take up on disk.
func (s *Service) diskUsage(ctx context.Context) (int64, error) {
	u, err := s.DiskUsage(ctx)
	return u.Total, err
}
