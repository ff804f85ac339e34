package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as an archive that is both a docker-archive and an OCI layout. The same images give the same bytes. A name without tag stands for all tags of
// its repository, as it does for docker. Where a name stands for an index, what is here of it goes into the layout; the docker-archive has the image that the name goes to.
func (s *Service) Save(ctx context.Context, refs []string, w io.Writer, o SaveOptions) error {
	end := s.hold(false)
	defer end(ctx)
	saved, err := s.choices(refs, o)
	if err != nil {
		return err
	}
	if err := s.writeArchive(ctx, saved, nil); err != nil { // before there is an answer that can only be broken off
		return fmt.Errorf("save images: %w", err)
	}
	if err := s.writeArchive(ctx, saved, tar.NewWriter(w)); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	for _, i := range saved {
		s.announce("save", i.entry.image, i.entry.image.ID.String())
	}
	return nil
}

// selected is an image to be saved with the names it was asked for by.
type selected struct {
	entry *entry
	names []savedName
}

// called is what people know the image by.
func (i *selected) called() string {
	for _, n := range i.names {
		if n.NamedTagged != nil {
			return reference.FamiliarString(n)
		}
	}
	return short(i.entry.image.ID)
}

// savedName is a name that an archive has an image by.
type savedName struct {
	reference.NamedTagged         // nil: it was asked for by a digest
	family                *family // what goes with it; nil: the image alone
}

// family is an index that a name stands for, with those of its members that go into an archive.
type family struct {
	members []member
	indexes []indexBlob // inner ones first; the last is what the name stands for
}

// target is what one reference leads to.
type target struct {
	ref   string
	entry *entry
	name  reference.NamedTagged // nil: it is an ID or has a digest
	index ocispec.Descriptor    // what it stands for, if that is an index
}

func (s *Service) targets(refs []string) ([]target, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []target
	for _, ref := range refs {
		if tags := s.tagsOf(ref); len(tags) > 0 {
			for _, t := range tags {
				list = append(list, target{reference.FamiliarString(t), s.images[s.names[t.String()]], t, s.indexes[t.String()]})
			}
			continue
		}
		id, err := s.resolve(ref)
		if err != nil {
			return nil, err
		}
		t := target{ref: ref, entry: s.images[id], index: s.behind(ref, id)}
		if named, ok := s.byName(ref, id); ok {
			t.name, _ = named.(reference.NamedTagged)
		}
		list = append(list, t)
	}
	return list, nil
}

func (s *Service) choices(refs []string, o SaveOptions) ([]*selected, error) {
	targets, err := s.targets(refs)
	if err != nil {
		return nil, err
	}
	var order []*selected
	byID := map[digest.Digest]*selected{}
	for _, t := range targets {
		e, f, err := s.familyOf(t, o.Platforms)
		if err != nil {
			return nil, err
		}
		i, ok := byID[e.image.ID]
		if !ok {
			i = &selected{entry: e}
			byID[e.image.ID] = i
			order = append(order, i)
		}
		known := func(n savedName) bool { return n.NamedTagged != nil && t.name != nil && n.String() == t.name.String() }
		if (t.name != nil || f != nil) && !slices.ContainsFunc(i.names, known) {
			i.names = append(i.names, savedName{t.name, f})
		}
	}
	return order, nil
}

// familyOf returns the image that old readers are to find under a target's name, and what goes with it: nothing where that is all there is, or the one platform that was asked for.
func (s *Service) familyOf(t target, wants []ocispec.Platform) (*entry, *family, error) {
	var f family
	if t.index.Digest != "" {
		var err error
		if f.members, f.indexes, err = s.members(t.index); err != nil && !errdefs.Is(err, errdefs.NotFound) {
			return nil, nil, fmt.Errorf("index %s: %w", t.index.Digest, err)
		}
	}
	e := t.entry
	if len(wants) > 0 {
		all := f.members
		if !slices.ContainsFunc(all, func(m member) bool { return m.entry == t.entry }) {
			all = append(all, member{entry: t.entry})
		}
		wanted := map[digest.Digest]*entry{}
		for n, p := range wants {
			of := ofPlatform(all, normalize(p))
			if of == nil {
				return nil, nil, errdefs.New(errdefs.NotFound, "image %s is not available for platform %s: here %s", t.ref, formatPlatform(normalize(p)), offered(platforms(all)))
			}
			wanted[of.image.Manifest.Digest] = of
			if n == 0 {
				e = of
			}
		}
		if wanted[t.entry.image.Manifest.Digest] != nil {
			e = t.entry
		}
		if len(wanted) == 1 {
			return e, nil, nil
		}
		f.members = slices.DeleteFunc(f.members, func(m member) bool {
			return wanted[m.Digest] == nil && wanted[digest.Digest(m.Annotations["vnd.docker.reference.digest"])] == nil
		})
	}
	f.members = slices.DeleteFunc(f.members, func(m member) bool { return m.entry == nil && !s.holds(m) })
	if !slices.ContainsFunc(f.members, func(m member) bool { return m.entry != e }) {
		return e, nil, nil
	}
	return e, &f, nil
}

// platforms lists those of members that are here.
func platforms(members []member) (list []ocispec.Descriptor) {
	for _, m := range members {
		if m.entry != nil {
			list = append(list, ocispec.Descriptor{Platform: m.platform()})
		}
	}
	return list
}

// holds reports whether something that is about images is here.
func (s *Service) holds(m member) bool {
	if !m.about() {
		return false
	}
	data, err := s.content.ReadAll(m.Digest, maxManifest)
	if err != nil {
		return false
	}
	mf, err := parseManifest(data, m.MediaType)
	return err == nil && s.complete(mf)
}

// tagsOf returns all tags of a repository when ref is a name without tag and digest. The caller holds mu.
func (s *Service) tagsOf(ref string) []reference.NamedTagged {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		return nil
	}
	var tags []reference.NamedTagged
	for name := range s.names {
		if !strings.HasPrefix(name, named.Name()+":") {
			continue
		}
		if n, err := reference.ParseNormalizedNamed(name); err == nil && n.Name() == named.Name() {
			if t, ok := n.(reference.NamedTagged); ok && s.images[s.names[name]] != nil {
				tags = append(tags, t)
			}
		}
	}
	slices.SortFunc(tags, func(a, b reference.NamedTagged) int { return strings.Compare(a.String(), b.String()) })
	return tags
}

// writeArchive writes the blobs by digest and then what leads to them. Without a tw it only looks whether the blobs are sound, as canRebuild does for those that are recipes.
func (s *Service) writeArchive(ctx context.Context, saved []*selected, tw *tar.Writer) error {
	a := archiver{tw: tw, store: s, written: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	manifests := []savedImage{}
	for _, i := range saved {
		image := i.entry.image
		m := savedImage{Config: blobPath(image.ID), RepoTags: []string{}, Layers: []string{}}
		if err := a.image(ctx, i.entry); err != nil {
			return fmt.Errorf("image %s: %w", i.called(), err)
		}
		for _, l := range i.entry.layers {
			m.Layers = append(m.Layers, blobPath(l.Digest))
		}
		plain := image.Manifest
		plain.Annotations = nil
		if len(i.names) == 0 {
			index.Manifests = append(index.Manifests, plain)
		}
		for _, n := range i.names {
			d := plain
			if n.family != nil {
				var err error
				if d, err = a.family(ctx, n.family); err != nil {
					return fmt.Errorf("image %s: %w", i.called(), err)
				}
			}
			if n.NamedTagged != nil {
				m.RepoTags = append(m.RepoTags, reference.FamiliarString(n))
				d.Annotations = map[string]string{"io.containerd.image.name": n.String(), ocispec.AnnotationRefName: n.Tag()}
			}
			index.Manifests = append(index.Manifests, d)
		}
		manifests = append(manifests, m)
	}
	if tw == nil {
		return nil
	}
	for _, f := range []struct {
		name string
		v    any
	}{{"index.json", index}, {"manifest.json", manifests}, {"oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}} {
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := a.header(f.name, int64(len(data))); err != nil {
			return err
		}
		if _, err := a.tw.Write(data); err != nil {
			return err
		}
	}
	return a.tw.Close()
}

func digests(layers []ocispec.Descriptor) []digest.Digest {
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		ids[i] = l.Digest
	}
	return ids
}

func blobPath(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

type archiver struct {
	tw      *tar.Writer // nil: blobs are only examined
	store   *Service
	written map[digest.Digest]bool
}

// image writes the blobs of an image.
func (a *archiver) image(ctx context.Context, e *entry) error {
	for n, l := range e.layers {
		if a.tw != nil || a.written[l.Digest] {
			continue
		}
		if err := a.store.canRebuild(ctx, l.Digest, e.image.DiffIDs[n]); err != nil {
			return err
		}
	}
	return a.blobs(ctx, append([]digest.Digest{e.image.ID, e.image.Manifest.Digest}, digests(e.layers)...))
}

// family writes the blobs of an index and of its members, and returns its descriptor.
func (a *archiver) family(ctx context.Context, f *family) (top ocispec.Descriptor, err error) {
	for _, m := range f.members {
		if m.entry != nil {
			if err := a.image(ctx, m.entry); err != nil {
				return top, err
			}
			continue
		}
		data, err := a.store.content.ReadAll(m.Digest, maxManifest)
		if err != nil {
			return top, err
		}
		about, err := parseManifest(data, m.MediaType)
		if err != nil {
			return top, err
		}
		if err := a.blobs(ctx, append(digests(about.Layers), about.Config.Digest, m.Digest)); err != nil {
			return top, err
		}
	}
	for _, x := range f.indexes {
		if err := a.blob(ctx, x.Digest); err != nil {
			return top, err
		}
		top = ocispec.Descriptor{MediaType: x.MediaType, Digest: x.Digest, Size: int64(len(x.data))}
	}
	return top, nil
}

func (a *archiver) blobs(ctx context.Context, list []digest.Digest) error {
	for _, d := range list {
		if err := a.blob(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiver) blob(ctx context.Context, d digest.Digest) (err error) {
	if a.written[d] {
		return nil
	}
	a.written[d] = true
	if a.tw == nil {
		return a.store.examine(ctx, d)
	}
	open := a.store.sound
	if a.store.content.Whole(d) { // it was examined just now
		open = a.store.blob
	}
	f, err := open(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := a.store.content.Size(d)
	if err != nil {
		return err
	}
	if err := a.header(blobPath(d), size); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := f.Read(buf)
		if _, werr := a.tw.Write(buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
	}
}

func (a *archiver) header(name string, size int64) error {
	return a.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}
