package image

import (
	"context"
	"fmt"
	"os"

	"gantry/db"
	"gantry/fsck"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Check lists where records and disk disagree; what the snapshotter finds is its own Check. While a verb is under way, what it has not recorded yet is not judged.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) {
	if err := s.collect(ctx); err != nil { // garbage that waits for its collection is no difference
		return nil, fmt.Errorf("check images: %w", err)
	}
	records, err := s.checkRecords(ctx)
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	files, err := s.checkFiles(ctx)
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	return append(records, files...), nil
}

func (s *Service) checkRecords(ctx context.Context) ([]fsck.Difference, error) {
	blobs, err := s.content.List()
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []fsck.Difference
	report := func(id digest.Digest, problem string) {
		found = append(found, fsck.Difference{Area: "image", Object: id.String(), Problem: problem, Repair: func(context.Context) error { return s.forget(id) }})
	}
	for id, err := range s.damaged {
		report(id, "the image is damaged: "+err.Error())
	}
	for id, e := range s.images {
		for _, d := range append([]ocispec.Descriptor{e.image.Manifest, {Digest: id, Size: int64(len(e.image.RawConfig))}}, e.layers...) {
			if size, ok := blobs[d.Digest]; !ok {
				report(id, "its blob "+d.Digest.String()+" is gone")
			} else if size < 0 {
				found = append(found, fsck.Difference{
					Area: "blob", Object: d.Digest.String(), Problem: "its recipe is damaged: pull the image " + id.String() + " again",
					Repair: func(ctx context.Context) error { return s.refetch(ctx, e.image, d) },
				})
			} else if size != d.Size {
				report(id, fmt.Sprintf("its blob %s has %d bytes instead of %d", d.Digest, size, d.Size))
			}
		}
		if _, err := s.o.Snapshots.Find(ctx, e.image.DiffIDs); err != nil {
			report(id, err.Error())
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
	named, layers := s.named()
	blobs, err := s.content.List()
	if err != nil {
		return nil, err
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
