package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gantry/db"
	"gantry/errdefs"
	"gantry/registry"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What is damaged is moved to quarantine and brought anew: from what is here where that is enough, else from where the image came from. A kill at any point leaves an image without a blob or a layer, which
// Check names, and the next repair, pull or load of it brings.

// intact reports whether all of an image is here, as far as can be told without reading its layers and their blobs.
func (s *Service) intact(ctx context.Context, e *entry, unpacked map[digest.Digest]bool) bool {
	for d, limit := range map[digest.Digest]int64{e.image.ID: maxConfig, e.image.Manifest.Digest: maxManifest} {
		if _, err := s.content.ReadAll(d, limit); err != nil {
			return false
		}
	}
	for _, l := range e.layers {
		if !s.has(l, unpacked) {
			return false
		}
	}
	_, err := s.o.Snapshots.Find(ctx, e.image.DiffIDs)
	return err == nil
}

// suspected moves blobs that are here and damaged to quarantine, and reports whether there were any.
func (s *Service) suspected(ctx context.Context, blobs []ocispec.Descriptor) (bool, error) {
	found := false
	for _, d := range blobs {
		err := s.examine(ctx, d.Digest)
		if ctx.Err() != nil {
			return found, err
		}
		if !s.suspect(d.Digest) {
			if err != nil && !errdefs.Is(err, errdefs.NotFound) {
				return found, err
			}
			continue
		}
		if err := s.content.Quarantine(d.Digest); err != nil {
			return found, err
		}
		s.log.Warn("a damaged blob was moved to quarantine", "blob", d.Digest)
		s.acquit(d.Digest)
		found = true
	}
	return found, nil
}

// mend brings what is damaged of an image, or missing, anew. Errors: NotFound when it is neither here nor known where it came from.
func (s *Service) mend(ctx context.Context, id digest.Digest) error {
	end := s.begin()
	defer end(ctx)
	s.mu.RLock()
	e := s.images[id]
	if e == nil {
		e = s.ghosts[id]
	}
	names := s.namesOf(id)
	s.mu.RUnlock()
	var r record
	err := s.o.DB.View(func(tx *db.Tx) (err error) {
		r, err = records.Get(tx, id.String())
		return err
	})
	if err != nil {
		return s.pullAgain(ctx, id)
	}
	blobs := []ocispec.Descriptor{{Digest: id}, r.Manifest}
	if e != nil {
		blobs = append(blobs, e.layers...)
	}
	if _, err := s.suspected(ctx, blobs); err != nil {
		return err
	}
	if e != nil {
		if whole, err := s.mendHere(ctx, e); whole || err != nil {
			return err
		}
	}
	from := origins(names, r.Manifest.Digest)
	if len(from) == 0 {
		return errdefs.New(errdefs.NotFound, "what is missing of image %s is not here, and nothing says where it came from: load it again, or pull it by its name", short(id))
	}
	errs := make([]error, 0, len(from))
	for _, named := range from {
		err := s.fetchAgain(ctx, named, id, r.Manifest)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("from %s: %w", reference.FamiliarString(named), err))
	}
	return fmt.Errorf("fetch image %s again: %w: try \"gantry pull %s\" with credentials, or load it again", short(id), errors.Join(errs...), reference.FamiliarString(from[0]))
}

// pullAgain pulls an image whose record is damaged by the digests that it has names with, and forgets the record if what they stand for now is another.
func (s *Service) pullAgain(ctx context.Context, id digest.Digest) error {
	s.mu.RLock()
	names := s.namesOf(id)
	s.mu.RUnlock()
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil || !strings.Contains(name, "@") {
			continue
		}
		if _, err := s.Pull(ctx, name, PullOptions{Auth: registry.AuthOf(ctx, named.Name())}); err != nil {
			return err
		}
	}
	s.mu.RLock()
	here := s.images[id] != nil
	s.mu.RUnlock()
	if here {
		return nil
	}
	return s.forget(id)
}

// mendHere brings what is missing of an image from what is here, and reports whether that was enough.
func (s *Service) mendHere(ctx context.Context, e *entry) (bool, error) {
	if _, err := s.content.Put(e.image.RawConfig); err != nil {
		return false, err
	}
	if _, err := s.content.ReadAll(e.image.Manifest.Digest, maxManifest); err != nil { // one that was made here can be made here again
		data, d, err := compose(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: e.image.ID, Size: int64(len(e.image.RawConfig))}, e.layers)
		if err != nil {
			return false, err
		}
		if d.Digest == e.image.Manifest.Digest {
			if _, err := s.content.Put(data); err != nil {
				return false, err
			}
		}
	}
	unpacked, err := s.unpacked(ctx)
	if err != nil {
		return false, err
	}
	sources := make([]source, len(e.layers))
	for n, l := range e.layers {
		if !s.has(l, unpacked) {
			return false, nil
		}
		sources[n] = source{diffID: e.image.DiffIDs[n], open: func(ctx context.Context) (io.ReadCloser, error) { return s.blob(ctx, l.Digest) }}
	}
	if err := s.unpack(ctx, sources); err != nil {
		return false, err
	}
	if err := s.content.Sync(); err != nil {
		return false, err
	}
	unpacked, err = s.unpacked(ctx)
	return err == nil && s.intact(ctx, e, unpacked), err
}

// origins returns where an image with these names may be had from: its manifest from every repository that it has a digest in, or else, as a push may have compressed its layers, what it has there.
func origins(names []string, manifest digest.Digest) (list []reference.Canonical) {
	add := func(named reference.Named, d digest.Digest) {
		c, err := reference.WithDigest(reference.TrimNamed(named), d)
		if err == nil && !slices.ContainsFunc(list, func(o reference.Canonical) bool { return o.String() == c.String() }) {
			list = append(list, c)
		}
	}
	var digested []reference.Canonical
	for _, name := range names {
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			if c, ok := named.(reference.Canonical); ok {
				digested = append(digested, c)
				add(c, manifest)
			}
		}
	}
	for _, c := range digested {
		add(c, c.Digest())
	}
	return list
}

// fetchAgain brings what is missing of an image that has its names already. is describes the manifest that it has.
func (s *Service) fetchAgain(ctx context.Context, from reference.Canonical, id digest.Digest, is ocispec.Descriptor) error {
	repository, err := s.registry.Load().Repository(from, registry.AuthOf(ctx, from.Name()), false)
	if err != nil {
		return err
	}
	data, d, err := repository.Manifest(ctx, from.Digest().String())
	if err != nil {
		return translate(from, err)
	}
	d.MediaType = mediaTypeOf(data, d.MediaType)
	if isIndex(d.MediaType) {
		return errdefs.New(errdefs.NotFound, "it is an index, which does not have the manifest %s any more", is.Digest)
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return err
	}
	if m.Config.Digest != id {
		return errdefs.New(errdefs.NotFound, "it is another image")
	}
	p := &puller{Service: s, name: reference.TrimNamed(from), repository: repository}
	_, _, err = p.fetch(ctx, from, data, d, m, publication{instead: d.Digest != is.Digest})
	return err
}

// mendIndex brings a blob anew that belongs to an index and to no image. What nothing is known of any more, the names stop standing for.
func (s *Service) mendIndex(ctx context.Context, index ocispec.Descriptor, d digest.Digest) error {
	end := s.begin()
	defer end(ctx)
	from, whole := s.listed(index, d)
	if err := s.content.Quarantine(d); err != nil {
		return err
	}
	var errs []error
	for _, name := range from {
		repository, err := s.registry.Load().Repository(name, registry.AuthOf(ctx, name.Name()), false)
		if err == nil && whole.Digest != "" {
			err = s.refetchFrom(ctx, repository, whole)
		} else if err == nil {
			var data []byte
			if data, _, err = repository.Manifest(ctx, d.String()); err == nil {
				_, err = s.content.Put(data)
			}
		}
		if err == nil {
			return s.content.Sync()
		}
		errs = append(errs, fmt.Errorf("from %s: %w", reference.FamiliarName(name), err))
	}
	if len(from) > 0 {
		return fmt.Errorf("fetch blob %s of index %s again: %w", d, index.Digest, errors.Join(errs...))
	}
	return s.forgetIndex(index)
}

// listed returns the repositories that an index came from, and the descriptor of what it has beside images, if d is a blob of that.
func (s *Service) listed(index ocispec.Descriptor, d digest.Digest) (from []reference.Named, blob ocispec.Descriptor) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := map[string]bool{}
	for name, x := range s.indexes {
		named, err := reference.ParseNormalizedNamed(name)
		if err == nil && x.Digest == index.Digest && strings.Contains(name, "@") && !seen[named.Name()] {
			seen[named.Name()] = true
			from = append(from, reference.TrimNamed(named))
		}
	}
	_ = s.walkIndex(index, func(m ocispec.Descriptor) { // what cannot be read lists nothing
		data, err := s.content.ReadAll(m.Digest, maxManifest)
		if err != nil || !attestation(m) {
			return
		}
		if mf, err := parseManifest(data, m.MediaType); err == nil {
			for _, b := range append([]ocispec.Descriptor{mf.Config}, mf.Layers...) {
				if b.Digest == d {
					blob = b
				}
			}
		}
	}, func(indexBlob) {})
	return from, blob
}

// forgetIndex has names that stand for an index stand for their image alone.
func (s *Service) forgetIndex(index ocispec.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, x := range s.indexes {
		if x.Digest == index.Digest {
			names = append(names, name)
		}
	}
	var images []*entry
	for _, e := range s.images {
		if e.index.Digest == index.Digest {
			images = append(images, e)
		}
	}
	err := s.o.DB.Update(func(tx *db.Tx) error {
		for _, name := range names {
			if err := nameRecords.Put(tx, name, nameRecord{ID: s.names[name]}); err != nil {
				return err
			}
		}
		for _, e := range images {
			i := e.image
			if err := records.Put(tx, i.ID.String(), record{Manifest: i.Manifest, Size: i.Size, Parent: i.Parent, LastTagged: i.LastTagged}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		delete(s.indexes, name)
	}
	for _, e := range images {
		s.images[e.image.ID] = &entry{image: e.image, layers: e.layers}
	}
	s.writeIndex()
	return nil
}
