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
// its repository, as it does for docker.
func (s *Service) Save(ctx context.Context, refs []string, w io.Writer, o SaveOptions) error {
	end := s.hold(false)
	defer end(ctx)
	saved, err := s.choices(refs, o)
	if err != nil {
		return err
	}
	if err := s.writeArchive(ctx, saved, w); err != nil {
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
	names []reference.NamedTagged
}

func (s *Service) choices(refs []string, o SaveOptions) ([]*selected, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var order []*selected
	byID := map[digest.Digest]*selected{}
	add := func(id digest.Digest, name reference.Named) {
		i, ok := byID[id]
		if !ok {
			i = &selected{entry: s.images[id]}
			byID[id] = i
			order = append(order, i)
		}
		if tagged, ok := name.(reference.NamedTagged); ok && !slices.ContainsFunc(i.names, func(n reference.NamedTagged) bool { return n.String() == tagged.String() }) {
			i.names = append(i.names, tagged)
		}
	}
	for _, ref := range refs {
		if tags := s.tagsOf(ref); len(tags) > 0 {
			for _, t := range tags {
				add(s.names[t.String()], t)
			}
			continue
		}
		id, err := s.resolve(ref)
		if err != nil {
			return nil, err
		}
		if o.Platform != nil && fit(&s.images[id].image.Config.Platform, normalize(*o.Platform)) == 0 {
			return nil, errdefs.New(errdefs.NotFound, "image %s is not available for platform %s/%s", ref, o.Platform.OS, o.Platform.Architecture)
		}
		named, ok := s.byName(ref, id)
		if !ok {
			named = nil
		}
		add(id, named)
	}
	return order, nil
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

// writeArchive writes the blobs by digest and then what leads to them.
func (s *Service) writeArchive(ctx context.Context, saved []*selected, w io.Writer) error {
	a := archiver{tw: tar.NewWriter(w), store: s, written: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	manifests := []savedImage{}
	for _, i := range saved {
		image := i.entry.image
		m := savedImage{Config: blobPath(image.ID), RepoTags: []string{}, Layers: []string{}}
		for _, d := range append([]digest.Digest{image.ID, image.Manifest.Digest}, digests(i.entry.layers)...) {
			if err := a.blob(ctx, d); err != nil {
				return err
			}
		}
		for _, l := range i.entry.layers {
			m.Layers = append(m.Layers, blobPath(l.Digest))
		}
		d := image.Manifest
		d.Annotations = nil
		if len(i.names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
		for _, n := range i.names {
			m.RepoTags = append(m.RepoTags, reference.FamiliarString(n))
			d.Annotations = map[string]string{"io.containerd.image.name": n.String(), ocispec.AnnotationRefName: n.Tag()}
			index.Manifests = append(index.Manifests, d)
		}
		manifests = append(manifests, m)
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
	tw      *tar.Writer
	store   *Service
	written map[digest.Digest]bool
}

func (a *archiver) blob(ctx context.Context, d digest.Digest) (err error) {
	if a.written[d] {
		return nil
	}
	a.written[d] = true
	f, err := a.store.blob(ctx, d)
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
