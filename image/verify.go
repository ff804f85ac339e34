package image

import (
	"context"
	"errors"
	"fmt"

	"gantry/errdefs"
	"gantry/fsck"
	"gantry/registry"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CheckLayers reads every blob, unpacks every layer of every image anew and compares it with the one that is used. It takes as long as loading all images. A repair puts the new one in the
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
	seen, compared := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, e := range all {
		layers, err := s.o.Snapshots.Find(ctx, e.image.DiffIDs)
		for n, b := range e.layers {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				d, err := s.checkBlob(ctx, b.Digest, func(ctx context.Context) error { return s.mend(ctx, e.image.ID) })
				if err != nil {
					return found, err
				}
				found = append(found, d...)
			}
			if err != nil || compared[layers[n].Key] { // Check says so
				continue
			}
			compared[layers[n].Key] = true
			layers[n].DiffID = e.image.DiffIDs[n] // what it is to be, whatever its record says
			d, err := s.checkLayer(ctx, layers[n], e, n)
			if err != nil {
				return found, fmt.Errorf("check layers: %w", err)
			}
			if d != nil {
				found = append(found, *d)
			}
		}
	}
	more, err := s.checkBeside(ctx, seen)
	return append(found, more...), err
}

// checkBlob reads a blob that is here as it is.
func (s *Service) checkBlob(ctx context.Context, d digest.Digest, repair func(context.Context) error) ([]fsck.Difference, error) {
	if s.suspect(d) {
		return nil, nil // Check says so
	}
	err := s.examine(ctx, d)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil || errdefs.Is(err, errdefs.NotFound): // Check says so
		return nil, nil
	case !s.suspect(d):
		return nil, err
	}
	return []fsck.Difference{{Area: "blob", Object: d.String(), Problem: err.Error(), Repair: repair}}, nil
}

// checkBeside reads what indexes have that no image has.
func (s *Service) checkBeside(ctx context.Context, seen map[digest.Digest]bool) ([]fsck.Difference, error) {
	var found []fsck.Difference
	for _, index := range s.allIndexes() {
		blobs := map[digest.Digest]bool{}
		s.keep(blobs, index, 0)
		for b := range blobs {
			if seen[b] || b == index.Digest { // Check reads the index itself
				continue
			}
			seen[b] = true
			d, err := s.checkBlob(ctx, b, func(ctx context.Context) error { return s.mendIndex(ctx, index, b) })
			if err != nil {
				return found, err
			}
			found = append(found, d...)
		}
	}
	return found, nil
}

// allIndexes returns the indexes that names or images stand for, each once.
func (s *Service) allIndexes() map[digest.Digest]ocispec.Descriptor {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := map[digest.Digest]ocispec.Descriptor{}
	for _, d := range s.indexes {
		all[d.Digest] = d
	}
	for _, e := range s.images {
		if e.index.Digest != "" {
			all[e.index.Digest] = e.index
		}
	}
	return all
}

// checkLayer compares one layer with its blob. What is wrong with the blob is a difference, too.
func (s *Service) checkLayer(ctx context.Context, l snapshot.Layer, e *entry, n int) (*fsck.Difference, error) {
	blob, parents := e.layers[n].Digest, e.image.DiffIDs[:n]
	if s.suspect(blob) && s.content.Whole(blob) {
		return &fsck.Difference{
			Area: "layer", Object: l.Key.String(), Problem: "the layer cannot be compared with its damaged blob " + blob.String(),
			Repair: func(ctx context.Context) error { return s.replace(ctx, l, blob, parents) }, // the blob's comes before
		}, nil
	}
	anew, differs, err := s.verify(ctx, l, blob, parents)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if lacking(err) {
		return nil, err
	}
	if err != nil {
		if _, serr := s.content.Size(blob); errdefs.Is(serr, errdefs.NotFound) {
			return nil, nil //nolint:nilerr // Check says so
		}
		return &fsck.Difference{
			Area: "blob", Object: blob.String(), Problem: fmt.Sprintf("layer %s cannot be unpacked from it: %v", l.Key, err),
			Repair: func(ctx context.Context) error {
				if err := s.mend(ctx, e.image.ID); err != nil {
					return err
				}
				return s.replace(ctx, l, blob, parents)
			},
		}, nil
	}
	s.acquit(blob)
	if anew == nil {
		return nil, nil
	}
	if err := s.o.Snapshots.Discard(anew); err != nil {
		return nil, err
	}
	return &fsck.Difference{
		Area: "layer", Object: l.Key.String(), Problem: "the layer is not what its archive says, from " + differs + " on",
		Repair: func(ctx context.Context) error { return s.replace(ctx, l, blob, parents) },
	}, nil
}

// replace puts a layer unpacked anew in the place of one that differs from it.
func (s *Service) replace(ctx context.Context, l snapshot.Layer, blob digest.Digest, parents []digest.Digest) error {
	anew, _, err := s.verify(ctx, l, blob, parents)
	if err != nil || anew == nil {
		return err
	}
	return s.o.Snapshots.Replace(ctx, anew)
}

// refetchFrom brings a blob anew.
func (s *Service) refetchFrom(ctx context.Context, from *registry.Repository, d ocispec.Descriptor) (err error) {
	t, err := s.join(ctx, d, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.leave(t)) }()
	t.start()
	select {
	case <-t.over:
	case <-ctx.Done():
		return errdefs.With(errdefs.Canceled, ctx.Err())
	}
	if t.err != nil {
		return t.err
	}
	return s.commit([]*transfer{t})
}

func (s *Service) verify(ctx context.Context, l snapshot.Layer, blob digest.Digest, parents []digest.Digest) (*snapshot.Staged, string, error) {
	f, err := s.sound(ctx, blob)
	if err != nil {
		return nil, "", err
	}
	anew, differs, err := s.o.Snapshots.Verify(ctx, f, l, parents)
	return anew, differs, errors.Join(err, f.Close())
}
