package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/archive/confined"
	"gantry/archive/recipe"
	"gantry/content"
	"gantry/db"
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

// A layer is here twice after a pull: unpacked, and as the blob that came. Settling replaces the blob by its recipe, one blob at a time, when no verb is under way. A kill at any point leaves the blob,
// or the blob and its recipe, or the recipe; the next start goes on with the blobs that it finds.

const (
	// leastBlob is the size up to which a blob stays as it is: its recipe would take up a block of the disk, too.
	leastBlob = 4 << 10
	// settleAfter is how long after a verb settling begins: what is pulled is usually used at once.
	settleAfter = 2 * time.Second
	// recipeShare is what part of a blob its recipe may be.
	recipeShare = 4
	// recipeVersion says which predictors there are: blobs for which those of an older version did not do are tried again.
	recipeVersion = 3
)

// kept is a blob of which no recipe can be made.
type kept struct {
	Version int    `json:"version"`
	Why     string `json:"why"`
}

const keptRecords db.Bucket[kept] = "image-blob-kept"

// settler is the work in the background.
type settler struct {
	turn   chan struct{} // held, by having put something in, by who settles a blob
	wake   chan struct{} // has something in it when there may be work, or room for it
	cancel context.CancelFunc
	done   chan struct{}
	failed map[digest.Digest]bool // blobs that are let be until the next start
}

// Settled is what Settle has done.
type Settled struct {
	Layers         int   // that have a recipe now
	Kept           int   // whose blobs stay, since no recipe can be made of them
	SpaceReclaimed int64 // bytes
}

// Settle does at once, and to its end, what is else done when nothing else is: it replaces the blobs of layers by recipes. With Options.Keep nothing but this does.
func (s *Service) Settle(ctx context.Context) (Settled, error) {
	var done Settled
	var errs []error
	tried := map[digest.Digest]bool{}
	for {
		u, found := s.nextUnsettled(ctx, tried)
		if ctx.Err() != nil {
			return done, errdefs.With(errdefs.Canceled, context.Cause(ctx))
		}
		if !found {
			return done, errors.Join(errs...)
		}
		tried[u.blob] = true
		freed, err := s.attempt(ctx, u)
		switch {
		case errors.Is(err, recipe.ErrUnsupported):
			done.Kept++
		case err != nil:
			errs = append(errs, fmt.Errorf("settle blob %s: %w", u.blob, err))
		case freed > 0:
			done.Layers++
			done.SpaceReclaimed += freed
		}
	}
}

// settle begins the work in the background, until its end is called for.
func (s *Service) settle(ctx context.Context) {
	ctx, s.settler.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.settler.done, s.settler.failed = make(chan struct{}), map[digest.Digest]bool{}
	go func() {
		defer close(s.settler.done)
		for {
			if !s.quiet(ctx) {
				return
			}
			for s.idle() && s.settleOne(ctx) {
			}
		}
	}()
	s.stir()
}

// quiet waits until something has happened, and then nothing more for a while. It reports whether there is a reason to go on.
func (s *Service) quiet(ctx context.Context) bool {
	var over <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.settler.wake:
			over = time.After(settleAfter)
		case <-over:
			return true
		}
	}
}

// stir tells the settler to look.
func (s *Service) stir() {
	select {
	case s.settler.wake <- struct{}{}:
	default: // it will
	}
}

func (s *Service) idle() bool {
	s.work.Lock()
	defer s.work.Unlock()
	return s.busy == 0
}

// unsettled is a blob of a layer that is here as it is.
type unsettled struct {
	blob  digest.Digest
	size  int64
	layer digest.Digest // key
}

// settleOne makes one recipe, and reports whether there may be more to do.
func (s *Service) settleOne(ctx context.Context) bool {
	u, found := s.nextUnsettled(ctx, s.settler.failed)
	if !found || ctx.Err() != nil {
		return false
	}
	_, err := s.attempt(ctx, u)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		s.settler.failed[u.blob] = true
		if !errors.Is(err, recipe.ErrUnsupported) {
			s.log.Warn("the blob of a layer cannot be replaced by a recipe", "blob", u.blob, "error", err)
		}
	}
	return true
}

// attempt settles a blob, and returns how many bytes that frees: none where another has done it, or its image was removed meanwhile. That no recipe can be made of it is remembered.
func (s *Service) attempt(ctx context.Context, u unsettled) (freed int64, err error) {
	select {
	case s.settler.turn <- struct{}{}:
		defer func() { <-s.settler.turn }()
	case <-ctx.Done():
		return 0, errdefs.With(errdefs.Canceled, context.Cause(ctx))
	}
	switch { // who had the turn before may have found out
	case s.keeps(u.blob):
		return 0, recipe.ErrUnsupported
	case !s.content.Whole(u.blob):
		return 0, nil
	}
	freed, err = s.settleBlob(ctx, u)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, recipe.ErrUnsupported):
		s.log.Info("the blob of a layer is kept as it is", "blob", u.blob, "why", err)
		if uerr := s.o.DB.Update(func(tx *db.Tx) error {
			return keptRecords.Put(tx, u.blob.String(), kept{recipeVersion, err.Error()})
		}); uerr != nil {
			return 0, uerr // it is found out again
		}
	case err != nil && !s.content.Whole(u.blob):
		return 0, nil
	}
	return freed, err
}

// nextUnsettled returns a blob to be settled, but for some.
func (s *Service) nextUnsettled(ctx context.Context, not map[digest.Digest]bool) (unsettled, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, e := range joined(s.images, s.ghosts) {
		for n, l := range e.layers {
			if not[l.Digest] || l.Size <= leastBlob || l.Digest == id || l.Digest == e.image.Manifest.Digest || !s.content.Whole(l.Digest) || s.keeps(l.Digest) {
				continue
			}
			layers, err := s.o.Snapshots.Find(ctx, e.image.DiffIDs[:n+1])
			if err != nil {
				continue // Check says so
			}
			return unsettled{l.Digest, l.Size, layers[n].Key}, true
		}
	}
	return unsettled{}, false
}

// keeps reports whether it is known that no recipe can be made of a blob.
func (s *Service) keeps(d digest.Digest) bool {
	k, found := s.keptRecord(d)
	return found && k.Version == recipeVersion
}

// keptRecord returns what any version has found out about a blob of which it could make no recipe.
func (s *Service) keptRecord(d digest.Digest) (k kept, found bool) {
	_ = s.o.DB.View(func(tx *db.Tx) (err error) { // if it cannot be read, it is found out again
		k, err = keptRecords.Get(tx, d.String())
		found = err == nil
		return err
	})
	return k, found
}

// forgetKept forgets that no recipe can be made of a blob, which is gone.
func (s *Service) forgetKept(d digest.Digest) error {
	if _, found := s.keptRecord(d); !found {
		return nil
	}
	return s.o.DB.Update(func(tx *db.Tx) error { return keptRecords.Delete(tx, d.String()) })
}

// settleBlob returns how many bytes a recipe is smaller than its blob.
func (s *Service) settleBlob(ctx context.Context, u unsettled) (freed int64, err error) {
	draft, err := s.content.Draft(u.blob, u.size, u.layer)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, draft.Close()) }()
	if err := s.draftOf(ctx, u, draft); err != nil {
		return 0, err
	}
	if err := draft.Sync(); err != nil {
		return 0, err
	}
	if err := s.proof(ctx, u, draft); err != nil {
		return 0, s.blame(ctx, err, u.blob)
	}
	return u.size - draft.Length, s.exclusively(ctx, draft.Replace)
}

// draftOf writes the recipe of a blob.
func (s *Service) draftOf(ctx context.Context, u unsettled, draft *content.Draft) (err error) {
	blob, err := s.content.Open(u.blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	layer, err := s.o.Snapshots.Open(ctx, u.layer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, layer.Close()) }()
	return confined.Describe(ctx, blob, layer, draft.File, u.size/recipeShare)
}

// proof makes the blob anew of its recipe, to see that it comes out right.
func (s *Service) proof(ctx context.Context, u unsettled, draft *content.Draft) error {
	again, err := draft.Reopen()
	if err != nil {
		return err
	}
	layer, err := s.o.Snapshots.Open(ctx, u.layer)
	if err != nil {
		return errors.Join(err, again.Close())
	}
	r := rebuild(ctx, u.blob, again, layer, true)
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// exclusively waits until no verb is under way, and has none begin while f does something short.
func (s *Service) exclusively(ctx context.Context, f func() error) error {
	for {
		s.work.Lock()
		if s.busy == 0 {
			defer s.work.Unlock()
			return f()
		}
		calm := s.calm
		s.work.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("settle: %w", errdefs.With(errdefs.Canceled, ctx.Err()))
		case <-calm:
		}
	}
}

// settled ends the work in the background, if there is any.
func (s *Service) settled() {
	if s.settler.cancel != nil {
		s.settler.cancel()
		<-s.settler.done
	}
}
