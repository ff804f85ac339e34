package image

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// History returns how the image was made, newest step first. Sizes are those of the layers that the steps made.
func (s *Service) History(ctx context.Context, ref string) ([]HistoryEntry, error) {
	image, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	layers, err := s.o.Snapshots.Find(ctx, image.DiffIDs)
	if err != nil {
		return nil, err
	}
	var steps []HistoryEntry
	next := 0
	for _, h := range image.Config.History {
		e := HistoryEntry{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			e.Created = *h.Created
		}
		if !h.EmptyLayer && next < len(layers) {
			e.Size = layers[next].Size
			next++
		}
		steps = append([]HistoryEntry{e}, steps...)
	}
	// The newest step is the image itself; the ones before are its parents, as far as these were made here.
	for i, id := 0, image.ID; i < len(steps) && id != ""; i++ {
		step, ok := s.lookup(id)
		if !ok {
			break
		}
		steps[i].ID, steps[i].Tags = id.String(), step.RepoTags
		id = step.Parent
	}
	return steps, nil
}

func (s *Service) lookup(id digest.Digest) (*Image, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.images[id]
	if !ok {
		return nil, false
	}
	return e.image, true
}

// SharedSizes returns, by image ID, how many bytes of its layers' files other images have too.
func (s *Service) SharedSizes(ctx context.Context) (map[digest.Digest]int64, error) {
	images, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	shared := map[digest.Digest]int64{}
	count := map[digest.Digest]int{}
	for _, i := range images {
		for d := range unique(i.DiffIDs) {
			count[d]++
		}
	}
	for _, i := range images {
		layers, err := s.o.Snapshots.Find(ctx, i.DiffIDs)
		if err != nil {
			s.log.Error("usage of image", "image", i.ID, "error", err)
			continue
		}
		for n, l := range layers {
			if count[i.DiffIDs[n]] > 1 {
				shared[i.ID] += l.Size
			}
		}
	}
	return shared, nil
}

func unique(ids []digest.Digest) map[digest.Digest]bool {
	set := map[digest.Digest]bool{}
	for _, id := range ids {
		set[id] = true
	}
	return set
}
