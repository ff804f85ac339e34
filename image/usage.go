package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// DiskUsage measures what images and snapshots take up on disk.
func (s *Service) DiskUsage(ctx context.Context) (DiskUsage, error) {
	total, blobs, err := s.content.DiskUsage(ctx)
	if err != nil {
		return DiskUsage{}, fmt.Errorf("measure images: %w", err)
	}
	unpacked, err := s.o.Snapshots.DiskUsage(ctx)
	if err != nil {
		return DiskUsage{}, fmt.Errorf("measure images: %w", err)
	}
	u := DiskUsage{Total: total + unpacked.Total, Images: map[digest.Digest]ImageUsage{}, Snapshots: unpacked.Snapshots}
	parts := s.parts(unpacked.Layers)
	count := map[part]int{}
	for _, all := range parts {
		for p := range all {
			count[p]++
		}
	}
	for id, all := range parts {
		var one ImageUsage
		for p := range all {
			size := blobs[p.key]
			if p.layer {
				size = unpacked.Layers[p.key]
			}
			one.Size += size
			if count[p] > 1 {
				one.Shared += size
			}
		}
		u.Images[id] = one
	}
	return u, nil
}

// part is a blob or an unpacked layer of an image.
type part struct {
	key   digest.Digest
	layer bool
}

// parts returns what each image consists of. layers has the keys of those that there are.
func (s *Service) parts(layers map[digest.Digest]int64) map[digest.Digest]map[part]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	parts := map[digest.Digest]map[part]bool{}
	for id, e := range s.images {
		all := map[part]bool{{key: id}: true, {key: e.image.Manifest.Digest}: true}
		for i, l := range e.layers {
			all[part{key: l.Digest}] = true
			key := e.image.DiffIDs[i]
			if _, here := layers[key]; !here {
				key = chainID(e.image.DiffIDs[:i+1])
			}
			all[part{key: key, layer: true}] = true
		}
		parts[id] = all
	}
	return parts
}
