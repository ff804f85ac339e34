package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gantry/db"
	"gantry/fsck"

	"github.com/opencontainers/go-digest"
)

// Check lists where records and disk disagree; what the snapshotter finds is its own Check. While a verb is under way, what it has not recorded yet is not judged.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) {
	if err := s.collect(ctx); err != nil { // garbage that waits for its collection is no difference
		return nil, fmt.Errorf("check images: %w", err)
	}
	found, err := s.checkSuspects(ctx)
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	records, err := s.checkRecords(ctx)
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	found = append(found, records...)
	for _, index := range s.allIndexes() {
		if _, err := s.content.ReadAll(index.Digest, maxManifest); err != nil {
			found = append(found, fsck.Difference{Area: "index", Object: index.Digest.String(), Problem: err.Error(), Repair: func(ctx context.Context) error { return s.mendIndex(ctx, index, index.Digest) }})
		}
	}
	files, err := s.checkFiles(ctx)
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	return append(found, files...), nil
}

func (s *Service) checkRecords(ctx context.Context) ([]fsck.Difference, error) {
	blobs, err := s.content.List()
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []fsck.Difference
	report := func(id digest.Digest, problem string, repair func(context.Context) error) {
		found = append(found, fsck.Difference{Area: "image", Object: id.String(), Problem: problem, Repair: repair})
	}
	for id, err := range s.damaged {
		report(id, "the image is damaged: "+err.Error(), func(ctx context.Context) error { return s.restore(ctx, id) })
	}
	for id, e := range s.images {
		mend := func(ctx context.Context) error { return s.mend(ctx, id) }
		for d, limit := range map[digest.Digest]int64{id: maxConfig, e.image.Manifest.Digest: maxManifest} {
			if _, err := s.content.ReadAll(d, limit); err != nil {
				report(id, "its "+err.Error(), mend)
			}
		}
		for _, d := range e.layers {
			if size, ok := blobs[d.Digest]; !ok {
				report(id, "its blob "+d.Digest.String()+" is gone: pull or load the image again", mend)
			} else if s.suspect(d.Digest) {
				continue // checkSuspects says so
			} else if size < 0 {
				s.accuse(d.Digest, errors.New("its recipe is damaged"))
				found = append(found, fsck.Difference{Area: "blob", Object: d.Digest.String(), Problem: "its recipe is damaged: pull the image " + id.String() + " again", Repair: mend})
			} else if size != d.Size {
				s.accuse(d.Digest, fmt.Errorf("it has %d bytes instead of %d", size, d.Size))
				report(id, fmt.Sprintf("its blob %s has %d bytes instead of %d", d.Digest, size, d.Size), mend)
			}
		}
		if _, err := s.o.Snapshots.Find(ctx, e.image.DiffIDs); err != nil {
			report(id, err.Error(), mend)
		}
	}
	for name, id := range s.names {
		if _, ok := s.images[id]; !ok && s.damaged[id] == nil {
			found = append(found, fsck.Difference{Area: "image", Object: name, Problem: "the name leads to no image", Repair: func(context.Context) error { return s.forgetName(name) }})
		}
	}
	return found, nil
}

// checkFiles reports blobs and layers that are nobody's.
func (s *Service) checkFiles(ctx context.Context) ([]fsck.Difference, error) {
	s.work.Lock()
	defer s.work.Unlock()
	if s.busy > 0 {
		return nil, nil
	}
	var found []fsck.Difference
	strange, err := s.content.Strange()
	if err != nil {
		return nil, err
	}
	for _, f := range strange {
		found = append(found, fsck.Difference{Area: "blob", Object: f, Problem: "is no blob", Repair: func(context.Context) error { return os.RemoveAll(f) }})
	}
	named, layers, told := s.named()
	blobs, err := s.content.List()
	if err != nil {
		return nil, err
	}
	aside, err := s.content.Quarantined()
	if err != nil {
		return nil, err
	}
	for _, f := range aside {
		d := fsck.Difference{Area: "blob", Object: f, Problem: "a damaged blob was moved aside here"}
		of := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(filepath.Base(f), ".recipe"))
		if _, again := blobs[of]; again || !named[of] { // else it is all that there is
			d.Repair = func(context.Context) error { return os.RemoveAll(f) }
		}
		found = append(found, d)
	}
	s.mu.RLock()
	told = told && len(s.damaged) == 0
	s.mu.RUnlock()
	if !told {
		return found, nil // what belongs to what is damaged cannot be told from what is nobody's
	}
	for d := range blobs {
		if !named[d] {
			found = append(found, fsck.Difference{Area: "blob", Object: d.String(), Problem: "no image has it", Repair: func(context.Context) error { return s.content.Delete(d) }})
		}
	}
	unpacked, err := s.o.Snapshots.Layers(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range unpacked {
		if !layers[l.Key] && !s.o.Snapshots.InUse(l.Key) {
			found = append(found, fsck.Difference{Area: "layer", Object: l.Key.String(), Problem: "no image and no snapshot has it", Repair: func(ctx context.Context) error { return s.o.Snapshots.RemoveLayer(ctx, l.Key) }})
		}
	}
	return found, nil
}

// restore takes a damaged image in again that can be read now, or brings it anew from where it came from. Where nobody knows that it is forgotten: what is left of it is of no use, and hinders the collection of garbage.
func (s *Service) restore(ctx context.Context, id digest.Digest) error {
	if s.reread(id) {
		return nil
	}
	err := s.mend(ctx, id)
	if err == nil || ctx.Err() != nil {
		return err
	}
	s.mu.RLock()
	known := len(origins(s.namesOf(id), id)) > 0
	s.mu.RUnlock()
	if known {
		return err
	}
	return s.forget(id)
}

func (s *Service) reread(id digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e *entry
	var r record
	err := s.o.DB.View(func(tx *db.Tx) (err error) {
		r, err = records.Get(tx, id.String())
		return err
	})
	if err == nil {
		e, err = s.decode(id, r)
	}
	if err != nil || r.Removed {
		return false
	}
	s.images[id] = e
	delete(s.damaged, id)
	s.rename(id)
	s.writeIndex()
	return true
}

// forget drops the record and names of a damaged image, so that a pull or load can bring it anew.
func (s *Service) forget(id digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.namesOf(id)
	if err := s.drop(&Image{ID: id}, names, true); err != nil {
		return err
	}
	delete(s.damaged, id)
	return nil
}

func (s *Service) forgetName(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.o.DB.Update(func(tx *db.Tx) error { return nameRecords.Delete(tx, name) }); err != nil {
		return err
	}
	s.unname(name)
	return nil
}
