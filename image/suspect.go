package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"

	"gantry/archive/confined"
	"gantry/db"
	"gantry/errdefs"
	"gantry/fsck"
	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

// suspectRecords has what is wrong with the blobs that were found damaged, until they are replaced or read once more and found sound: who found out may be a daemon before this one. A mark goes after the blob that takes the
// damaged one's place has its name. A kill in between leaves one on a sound blob, which a pull fetches once more, and anything else reads and clears.
const suspectRecords db.Bucket[string] = "image-blob-damaged"

// suspect reports whether a blob counts as damaged.
func (s *Service) suspect(d digest.Digest) bool {
	_, found := s.suspects.Load(d)
	return found
}

// accuse has a blob count as damaged.
func (s *Service) accuse(d digest.Digest, why error) {
	if recorded, known := s.suspects.Swap(d, false); !known {
		s.log.Error("a blob is damaged", "blob", d, "error", why)
	} else if recorded.(bool) {
		s.suspects.Store(d, true)
		return
	}
	if err := s.o.DB.Update(func(tx *db.Tx) error { return suspectRecords.Put(tx, d.String(), why.Error()) }); err != nil {
		s.log.Error("a damaged blob is forgotten at the end of the daemon", "blob", d, "error", err)
		return
	}
	s.suspects.Store(d, true)
}

// acquit has a blob count as sound, or as gone.
func (s *Service) acquit(d digest.Digest) {
	if _, known := s.suspects.LoadAndDelete(d); !known {
		return
	}
	if err := s.o.DB.Update(func(tx *db.Tx) error { return suspectRecords.Delete(tx, d.String()) }); err != nil {
		s.log.Error("a blob that is sound again counts as damaged from the next start on", "blob", d, "error", err)
	}
}

// recall reads which blobs were found damaged before. Those that are gone need no mark.
func (s *Service) recall(context.Context) error {
	err := s.o.DB.View(func(tx *db.Tx) error {
		for d := range suspectRecords.All(tx) {
			s.suspects.Store(digest.Digest(d), true)
		}
		return nil
	})
	s.suspects.Range(func(d, _ any) bool {
		if _, err := s.content.Size(d.(digest.Digest)); errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.InvalidParameter) {
			s.acquit(d.(digest.Digest))
		}
		return true
	})
	return err
}

// isDamaged has a blob count as damaged for an error that reading it ended with, and says what to do. It is no damage when its reader was told to stop, or lacked something.
func (s *Service) isDamaged(ctx context.Context, d digest.Digest, err error) error {
	if ctx.Err() != nil || lacking(err) {
		return err
	}
	s.accuse(d, err)
	return errdefs.New(errdefs.Internal, "blob %s is damaged: %w: run \"gantry system fsck --repair\", or pull or load the image again", d, err)
}

// lacking reports whether an error is the machine's want of something, which may pass.
func lacking(err error) bool {
	return errdefs.Is(err, errdefs.Exhausted) || dir.Lacking(err)
}

// examine reads a blob that is here as it is, and one that counts as damaged, which it may not any more then. Errors: NotFound; Internal when it is damaged, which is remembered.
func (s *Service) examine(ctx context.Context, d digest.Digest) error {
	if !s.suspect(d) && !s.content.Whole(d) {
		return nil // it is verified when it is made anew
	}
	return s.read(ctx, d)
}

// read reads a blob to its end.
func (s *Service) read(ctx context.Context, d digest.Digest) error {
	r, err := s.sound(ctx, d)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, &cancelReader{ctx, r}, make([]byte, 256<<10))
	if err = errors.Join(err, r.Close()); err == nil {
		s.acquit(d)
	}
	return err
}

// canRebuild looks whether a blob that is here as a recipe can be made anew: whether recipe and layer give the tar that the blob compresses, and the rest of the recipe is as it was made. That takes about as long as reading the
// unpacked layer, and a tenth of making the blob. When it does not look so the blob is made, which decides. Errors: Internal when it is damaged, which is remembered.
func (s *Service) canRebuild(ctx context.Context, d, diffID digest.Digest) error {
	if s.suspect(d) || s.content.Whole(d) {
		return nil // examine reads it
	}
	if err := s.replay(ctx, d, diffID); err == nil || lacking(err) || ctx.Err() != nil {
		return err
	}
	return s.read(ctx, d)
}

// replay has a recipe and its layer give the layer's tar, and compares its digest.
func (s *Service) replay(ctx context.Context, d, diffID digest.Digest) (err error) {
	r, err := s.content.Recipe(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	layer, err := s.o.Snapshots.Open(ctx, r.Layer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, layer.Close()) }()
	hash := sha256.New()
	if err := confined.Check(ctx, r.File, r.Offset, r.Length, layer, hash); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, hash); got != diffID {
		return errdefs.New(errdefs.Internal, "recipe and layer give a tar of digest %s instead of %s", got, diffID)
	}
	return nil
}

// blame says which of the blobs that did not do is damaged, if one is; else it returns err, which is what was wrong with them.
func (s *Service) blame(ctx context.Context, err error, blobs ...digest.Digest) error {
	if ctx.Err() != nil || !errdefs.Is(err, errdefs.InvalidParameter) && !errdefs.Is(err, errdefs.Internal) {
		return err
	}
	for _, d := range blobs {
		if found := s.examine(ctx, d); found != nil && !errdefs.Is(found, errdefs.NotFound) {
			return found
		}
	}
	return err
}

// checkSuspects reads the blobs that count as damaged once more, and reports those that are.
func (s *Service) checkSuspects(ctx context.Context) (found []fsck.Difference, err error) {
	s.suspects.Range(func(key, _ any) bool {
		d := key.(digest.Digest)
		wrong := s.examine(ctx, d)
		if err = ctx.Err(); err != nil {
			return false
		}
		if wrong != nil && s.suspect(d) && !errdefs.Is(wrong, errdefs.NotFound) { // what is not here, checkRecords says
			found = append(found, fsck.Difference{Area: "blob", Object: d.String(), Problem: wrong.Error(), Repair: s.remedy(d)})
		}
		return true
	})
	return found, err
}

// remedy returns what brings a damaged blob anew; nil where nobody has it.
func (s *Service) remedy(d digest.Digest) func(context.Context) error {
	if id, found := s.ownerOf(d); found {
		return func(ctx context.Context) error { return s.mend(ctx, id) }
	}
	for _, index := range s.allIndexes() {
		blobs := map[digest.Digest]bool{}
		if s.keep(blobs, index, 0); blobs[d] {
			return func(ctx context.Context) error { return s.mendIndex(ctx, index, d) }
		}
	}
	return nil
}

// ownerOf returns an image that has a blob.
func (s *Service) ownerOf(d digest.Digest) (id digest.Digest, found bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, e := range joined(s.images, s.ghosts) {
		if d == id || d == e.image.Manifest.Digest || slices.Contains(digests(e.layers), d) {
			return id, true
		}
	}
	return "", false
}
