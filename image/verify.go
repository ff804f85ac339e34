package image

import (
	"context"
	"errors"
	"fmt"

	"gantry/fsck"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// CheckLayers unpacks every layer of every image anew and compares it with the one that is used. It takes as long as loading all images. A repair puts the new one in the
// place of the damaged one, which is kept aside.
func (s *Service) CheckLayers(ctx context.Context) ([]fsck.Difference, error) {
	end := s.hold(false)
	defer end(ctx)
	s.mu.RLock()
	var all []*entry
	for _, e := range joined(s.images, s.ghosts) {
		all = append(all, e)
	}
	s.mu.RUnlock()
	var found []fsck.Difference
	seen := map[digest.Digest]bool{}
	for _, e := range all {
		layers, err := s.o.Snapshots.Find(ctx, e.image.DiffIDs)
		if err != nil {
			continue // Check says so
		}
		for n, l := range layers {
			if seen[l.Key] {
				continue
			}
			seen[l.Key] = true
			l.DiffID = e.image.DiffIDs[n] // what it is to be, whatever its record says
			d, err := s.checkLayer(ctx, l, e.layers[n].Digest, e.image.DiffIDs[:n])
			if err != nil {
				return found, fmt.Errorf("check layers: %w", err)
			}
			if d != nil {
				found = append(found, *d)
			}
		}
	}
	return found, nil
}

// checkLayer compares one layer with its blob. What is wrong with the blob is a difference, too.
func (s *Service) checkLayer(ctx context.Context, l snapshot.Layer, blob digest.Digest, parents []digest.Digest) (*fsck.Difference, error) {
	anew, differs, err := s.verify(ctx, l, blob, parents)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return &fsck.Difference{Area: "blob", Object: blob.String(), Problem: "the layer cannot be unpacked from it: " + err.Error()}, nil //nolint:nilerr // that is the finding
	}
	if anew == nil {
		return nil, nil
	}
	if err := s.o.Snapshots.Discard(anew); err != nil {
		return nil, err
	}
	return &fsck.Difference{
		Area: "layer", Object: l.Key.String(), Problem: "the layer is not what its archive says, from " + differs + " on",
		Repair: func(ctx context.Context) error {
			anew, _, err := s.verify(ctx, l, blob, parents)
			if err != nil || anew == nil {
				return err
			}
			return s.o.Snapshots.Replace(ctx, anew)
		},
	}, nil
}

func (s *Service) verify(ctx context.Context, l snapshot.Layer, blob digest.Digest, parents []digest.Digest) (*snapshot.Staged, string, error) {
	f, err := s.content.Open(blob)
	if err != nil {
		return nil, "", err
	}
	anew, differs, err := s.o.Snapshots.Verify(ctx, f, l, parents)
	return anew, differs, errors.Join(err, f.Close())
}
