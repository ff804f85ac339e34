package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"gantry/content"
	"gantry/errdefs"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// source is a layer that may have to be unpacked.
type source struct {
	diffID digest.Digest
	// open returns the layer's blob as it is, compressed or not, after waiting for it where it is still under way.
	open func(context.Context) (io.ReadCloser, error)
	done func() // called when it is unpacked; nil: nobody cares
}

// unpack unpacks the layers that are not here yet, several at once, verifies their diffIDs and makes them durable. They are given bottom first.
func (s *Service) unpack(ctx context.Context, sources []source) error {
	here, err := s.unpacked(ctx)
	if err != nil {
		return err
	}
	var (
		mu     sync.Mutex // guards the two below
		staged []*snapshot.Staged
		later  = map[int]bool{} // need the layers beneath
	)
	seen := map[digest.Digest]bool{}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(2, min(runtime.GOMAXPROCS(0), 6)))
	for i, src := range sources {
		if seen[src.diffID] || here[src.diffID] || here[chainID(diffIDs(sources[:i+1]))] {
			continue
		}
		seen[src.diffID] = true
		group.Go(func() error {
			g, err := s.stage(groupCtx, src, nil)
			for errors.Is(err, content.ErrRestarted) { // the download began anew
				g, err = s.stage(groupCtx, src, nil)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				staged = append(staged, g)
			case i > 0 && errdefs.Is(err, errdefs.NotFound):
				later[i] = true
			default:
				return err
			}
			return nil
		})
	}
	err = group.Wait()
	if err == nil {
		err = s.o.Snapshots.Commit(ctx, staged)
	}
	if err != nil {
		for _, g := range staged {
			err = errors.Join(err, s.o.Snapshots.Discard(g))
		}
		return err
	}
	for i, src := range sources {
		if !later[i] {
			continue
		}
		g, err := s.stage(ctx, src, diffIDs(sources[:i]))
		if err != nil {
			return err
		}
		if err := s.o.Snapshots.Commit(ctx, []*snapshot.Staged{g}); err != nil {
			return errors.Join(err, s.o.Snapshots.Discard(g))
		}
	}
	return nil
}

func diffIDs(sources []source) []digest.Digest {
	ids := make([]digest.Digest, len(sources))
	for i, s := range sources {
		ids[i] = s.diffID
	}
	return ids
}

// unpacked returns the keys of the layers that are here.
func (s *Service) unpacked(ctx context.Context) (map[digest.Digest]bool, error) {
	layers, err := s.o.Snapshots.Layers(ctx)
	if err != nil {
		return nil, err
	}
	here := make(map[digest.Digest]bool, len(layers))
	for _, l := range layers {
		here[l.Key] = true
	}
	return here, nil
}

// stage unpacks one layer and verifies its diffID.
func (s *Service) stage(ctx context.Context, src source, parents []digest.Digest) (staged *snapshot.Staged, err error) {
	blob, err := src.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	staged, err = s.o.Snapshots.Stage(ctx, blob, parents)
	if err != nil {
		return nil, fmt.Errorf("failed to register layer: %s: %w", src.diffID, err)
	}
	if staged.DiffID != src.diffID {
		err := errdefs.New(errdefs.InvalidParameter, "invalid diffID for layer: expected %q, got %q", src.diffID, staged.DiffID)
		return nil, errors.Join(err, s.o.Snapshots.Discard(staged))
	}
	if src.done != nil {
		src.done()
	}
	return staged, nil
}

// size adds up the layers of an image.
func (s *Service) size(ctx context.Context, layers []digest.Digest) (int64, error) {
	found, err := s.o.Snapshots.Find(ctx, layers)
	if err != nil {
		return 0, err
	}
	var size int64
	for _, l := range found {
		size += l.Size
	}
	return size, nil
}
