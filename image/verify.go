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
			d, err := s.checkLayer(ctx, l, e, n)
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
func (s *Service) checkLayer(ctx context.Context, l snapshot.Layer, e *entry, n int) (*fsck.Difference, error) {
	blob, parents := e.layers[n].Digest, e.image.DiffIDs[:n]
	anew, differs, err := s.verify(ctx, l, blob, parents)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		d := &fsck.Difference{Area: "blob", Object: blob.String(), Problem: "the layer cannot be unpacked from it: " + err.Error()}
		if len(e.image.RepoDigests) > 0 {
			d.Repair = func(ctx context.Context) error {
				if err := s.refetch(ctx, e.image, e.layers[n]); err != nil {
					return err
				}
				return s.replace(ctx, l, blob, parents)
			}
		}
		return d, nil
	}
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

// refetch brings a layer's blob anew from where the image came from, if that takes no password.
func (s *Service) refetch(ctx context.Context, i *Image, d ocispec.Descriptor) error {
	end := s.begin()
	defer end(ctx)
	var errs []error
	for _, name := range i.RepoDigests {
		err := s.refetchFrom(ctx, name, d)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("fetch blob %s again: %w", d.Digest, errors.Join(errs...))
}

func (s *Service) refetchFrom(ctx context.Context, name string, d ocispec.Descriptor) (err error) {
	named, err := parseName(name)
	if err != nil {
		return err
	}
	from, err := s.registry.Load().Repository(named, registry.Auth{}, false)
	if err != nil {
		return err
	}
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
	f, err := s.blob(ctx, blob)
	if err != nil {
		return nil, "", err
	}
	anew, differs, err := s.o.Snapshots.Verify(ctx, f, l, parents)
	return anew, differs, errors.Join(err, f.Close())
}
