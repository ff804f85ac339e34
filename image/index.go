package image

import (
	"slices"
	"strings"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A name that was pulled as an index stands for the image of one of its platforms. The index is kept beside it, so that a push can send it on if all that it lists is at hand.

// member is a manifest that an index lists.
type member struct {
	ocispec.Descriptor
	entry *entry // of the image, if that is here
}

// about reports whether a member is about images, as attestations are, rather than one.
func (m member) about() bool { return attestation(m.Descriptor) }

// platform is what the index says of an image that is here, or else the image itself.
func (m member) platform() *ocispec.Platform {
	if m.Platform != nil {
		return m.Platform
	}
	return &m.entry.image.Config.Platform
}

// members lists the manifests that an index leads to, and the indexes on the way with their bytes, inner ones first. Errors: NotFound when an index is not here.
func (s *Service) members(index ocispec.Descriptor) (list []member, indexes []indexBlob, err error) {
	here := map[digest.Digest]*entry{}
	s.mu.RLock()
	for _, e := range s.images {
		here[e.image.Manifest.Digest] = e
	}
	s.mu.RUnlock()
	err = s.walkIndex(index, func(d ocispec.Descriptor) { list = append(list, member{d, here[d.Digest]}) }, func(b indexBlob) { indexes = append(indexes, b) })
	return list, indexes, err
}

// indexBlob is an index with its bytes.
type indexBlob struct {
	ocispec.Descriptor
	data []byte
}

// walkIndex goes through an index and those within it, each once, however often it is listed.
func (s *Service) walkIndex(top ocispec.Descriptor, manifest func(ocispec.Descriptor), index func(indexBlob)) error {
	seen := map[digest.Digest]bool{}
	var walk func(d ocispec.Descriptor, depth int) error
	walk = func(d ocispec.Descriptor, depth int) error {
		seen[d.Digest] = true
		data, err := s.content.ReadAll(d.Digest, maxManifest)
		if err != nil {
			return err
		}
		entries, err := parseIndex(data, d.MediaType)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !isIndex(e.MediaType) {
				manifest(e)
			} else if depth < maxDepth && !seen[e.Digest] {
				if err := walk(e, depth+1); err != nil {
					return err
				}
			}
		}
		index(indexBlob{d, data})
		return nil
	}
	return walk(top, 0)
}

// keep adds to blobs what an index has here that no image has: itself, those within it, and what it has beside images. The images have records of their own. It reports whether that is all: what is damaged
// does not say what it has.
func (s *Service) keep(blobs map[digest.Digest]bool, d ocispec.Descriptor, depth int) bool {
	if blobs[d.Digest] || depth > maxDepth {
		return true
	}
	blobs[d.Digest] = true
	data, err := s.content.ReadAll(d.Digest, maxManifest)
	if err != nil {
		return depth > 0 && errdefs.Is(err, errdefs.NotFound) // it is not here: nor is what it names, for any use
	}
	if !isIndex(d.MediaType) {
		if m, err := parseManifest(data, d.MediaType); err == nil {
			for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
				blobs[b.Digest] = true
			}
		}
		return true
	}
	entries, err := parseIndex(data, d.MediaType)
	if err != nil {
		return true // no push will send it
	}
	all := true
	for _, e := range entries {
		if isIndex(e.MediaType) || attestation(e) {
			all = s.keep(blobs, e, depth+1) && all
		}
	}
	return all
}

// indexBehind returns the index that an image's name stands for, or its ID where it came without a name, if there is one.
func (s *Service) indexBehind(ref string, id digest.Digest) ocispec.Descriptor {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.behind(ref, id)
}

// behind is indexBehind for callers that hold mu.
func (s *Service) behind(ref string, id digest.Digest) ocispec.Descriptor {
	if named, ok := s.byName(ref, id); ok {
		return s.indexes[named.String()]
	}
	if e := s.images[id]; e != nil {
		return e.index
	}
	return ocispec.Descriptor{}
}

// pulled reports whether an image's manifest is as it came, by itself or in an index, and as a registry may have it.
func (s *Service) pulled(i *Image) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	lists := func(index ocispec.Descriptor) (listed bool) {
		if index.Digest != "" {
			_ = s.walkIndex(index, func(m ocispec.Descriptor) { listed = listed || m.Digest == i.Manifest.Digest }, func(indexBlob) {}) // what cannot be read lists nothing
		}
		return listed
	}
	for name, id := range s.names {
		if _, d, hasDigest := strings.Cut(name, "@"); id == i.ID && hasDigest && (d == i.Manifest.Digest.String() || lists(s.indexes[name])) {
			return true
		}
	}
	for _, e := range s.images {
		if lists(e.index) {
			return true
		}
	}
	return false
}

// recoverIndex returns the descriptor of an index that is here, or an empty one.
func (s *Service) recoverIndex(d digest.Digest) ocispec.Descriptor {
	if d.Validate() != nil {
		return ocispec.Descriptor{}
	}
	data, err := s.content.ReadAll(d, maxManifest)
	if err != nil {
		return ocispec.Descriptor{}
	}
	return ocispec.Descriptor{MediaType: mediaTypeOf(data, ""), Digest: d, Size: int64(len(data))}
}

// siblings returns the images of the other platforms that were pulled with a name that stands for an index, and have no other name. The caller holds mu.
func (s *Service) siblings(index ocispec.Descriptor, repository string) (list []*Image) {
	var manifests []digest.Digest
	if err := s.walkIndex(index, func(d ocispec.Descriptor) { manifests = append(manifests, d.Digest) }, func(indexBlob) {}); err != nil {
		return nil
	}
	for id, e := range s.images {
		names := s.namesOf(id)
		if slices.Contains(manifests, e.image.Manifest.Digest) && len(names) == 1 && names[0] == repository+"@"+e.image.Manifest.Digest.String() {
			list = append(list, e.image)
		}
	}
	return list
}
