package image

import (
	"context"
	"fmt"
	"slices"

	"gantry/errdefs"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// root is what an entry of an archive's index.json leads to.
type root struct {
	descriptor ocispec.Descriptor
	name       string    // empty: none
	images     []indexed // that are in the archive, at least one
}

// indexed is an image that index.json leads to.
type indexed struct {
	descriptor ocispec.Descriptor
	manifest   manifest
	platform   ocispec.Platform // as the index says, or else its configuration
}

// isIndex reports whether a root is an index, of whose images the name is to stand for all.
func (r root) isIndex() bool { return isIndex(r.descriptor.MediaType) }

// platforms lists what a root has.
func (r root) platforms() []ocispec.Descriptor {
	var list []ocispec.Descriptor
	for _, i := range r.images {
		list = append(list, ocispec.Descriptor{Platform: &i.platform})
	}
	return list
}

// roots reads index.json, if there is one, down to the image manifests that are in the archive.
func (l *loader) roots() ([]root, error) {
	f, err := l.find("index.json")
	if err != nil {
		return nil, nil //nolint:nilerr // an archive of an older docker
	}
	data, err := l.content.ReadAll(f.digest, maxManifest)
	if err != nil {
		return nil, err
	}
	entries, err := parseIndex(data, "")
	if err != nil {
		return nil, err
	}
	var found []root
	for _, e := range entries {
		r, err := l.root(e)
		if err != nil {
			return nil, err
		}
		if len(r.images) > 0 {
			found = append(found, r)
		}
	}
	return found, nil
}

// root goes through an entry of index.json. What an index lists need not be in the archive, and what cannot run here is left out.
func (l *loader) root(d ocispec.Descriptor) (root, error) {
	r := root{descriptor: d, name: layoutName(d.Annotations)}
	if attestation(d) {
		return r, nil
	}
	if !isIndex(d.MediaType) {
		data, err := l.content.ReadAll(d.Digest, maxManifest)
		if errdefs.Is(err, errdefs.NotFound) {
			return r, nil // an archive of one platform may have the index of all
		}
		if err != nil {
			return r, err
		}
		i, err := l.read(d, data)
		r.images = append(r.images, i)
		return r, err
	}
	var all []ocispec.Descriptor
	err := l.walkIndex(d, func(m ocispec.Descriptor) { all = append(all, m) }, func(b indexBlob) {
		r.descriptor = ocispec.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: int64(len(b.data))} // the outermost comes last
	})
	if errdefs.Is(err, errdefs.NotFound) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	for _, m := range all {
		if attestation(m) {
			continue
		}
		data, err := l.content.ReadAll(m.Digest, maxManifest)
		if errdefs.Is(err, errdefs.NotFound) {
			continue
		}
		if err != nil {
			return r, err
		}
		mf, err := parseManifest(data, m.MediaType)
		if err != nil {
			return r, err
		}
		if mf.runnable() != nil || !l.complete(mf) {
			continue
		}
		i, err := l.read(ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(data))}, data)
		if err != nil {
			return r, err
		}
		if m.Platform != nil {
			i.platform = *m.Platform
		}
		if normalize(i.platform).OS == hostPlatform().OS && !slices.ContainsFunc(r.images, func(o indexed) bool { return o.manifest.Config.Digest == i.manifest.Config.Digest }) {
			r.images = append(r.images, i)
		}
	}
	return r, nil
}

// read reads a manifest and the configuration that it names.
func (l *loader) read(d ocispec.Descriptor, data []byte) (indexed, error) {
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return indexed{}, err
	}
	config, err := l.content.ReadAll(m.Config.Digest, maxConfig)
	if err != nil {
		return indexed{}, err
	}
	c, err := parseConfig(config)
	return indexed{d, m, c.Platform}, err
}

// serve reports an error unless every image has the platforms that are asked for.
func (l *loader) serve(single []savedImage, roots []root) error {
	for _, want := range l.o.Platforms {
		for _, r := range roots {
			if _, ok := choose(r.platforms(), &want); !ok {
				return unserved(r.name, want, r.platforms())
			}
		}
		for _, s := range single {
			f, err := l.find(s.Config)
			if err != nil {
				return err
			}
			config, err := l.content.ReadAll(f.digest, maxConfig)
			if err != nil {
				return err
			}
			c, err := parseConfig(config)
			if err != nil {
				return err
			}
			if has := []ocispec.Descriptor{{Platform: &c.Platform}}; fit(&c.Platform, normalize(want)) == 0 {
				return unserved(append(s.RepoTags, "")[0], want, has)
			}
		}
	}
	return nil
}

func unserved(name string, want ocispec.Platform, has []ocispec.Descriptor) error {
	if name != "" {
		name += " "
	}
	return errdefs.New(errdefs.NotFound, "image %sin the archive is not available for platform %s: there %s", name, formatPlatform(normalize(want)), offered(has))
}

// unlisted returns what is left of an image of manifest.json when the names that indexes have it by are taken away, if anything is.
func (l *loader) unlisted(image savedImage, roots []root) (savedImage, bool) {
	f, err := l.find(image.Config)
	if err != nil {
		return image, true // loadSaved says so
	}
	listed := func(tag string) bool {
		return slices.ContainsFunc(roots, func(r root) bool {
			return r.isIndex() && sameName(r.name, tag) && slices.ContainsFunc(r.images, func(i indexed) bool { return i.manifest.Config.Digest == f.digest })
		})
	}
	if len(image.RepoTags) == 0 {
		return image, !listed("")
	}
	image.RepoTags = slices.DeleteFunc(image.RepoTags, listed)
	return image, len(image.RepoTags) > 0
}

// sameName reports whether two names, or none, are of the same tag.
func sameName(a, b string) bool {
	if a == "" || b == "" {
		return a == b
	}
	x, err := tagName(a)
	if err != nil {
		return false
	}
	y, err := tagName(b)
	return err == nil && x.String() == y.String()
}

// loadRoot loads what an entry of index.json leads to.
func (l *loader) loadRoot(ctx context.Context, r root) ([]Loaded, error) {
	if r.isIndex() {
		return l.loadIndex(ctx, r, l.wanted(r))
	}
	var names []string
	if r.name != "" {
		names = []string{r.name}
	}
	i := r.images[0]
	config, err := l.content.ReadAll(i.manifest.Config.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	return l.add(ctx, config, i.descriptor, i.manifest.Layers, names)
}

// wanted returns the images of a root for the platforms that are asked for, the one for its name first.
func (l *loader) wanted(r root) []indexed {
	var list []indexed
	add := func(n int, ok bool) {
		if ok && !slices.ContainsFunc(list, func(i indexed) bool { return i.descriptor.Digest == r.images[n].descriptor.Digest }) {
			list = append(list, r.images[n])
		}
	}
	host, ok := choose(r.platforms(), nil)
	if len(l.o.Platforms) == 0 {
		add(host, ok)
		for n := range r.images {
			add(n, true)
		}
		return list
	}
	for _, p := range l.o.Platforms {
		add(choose(r.platforms(), &p))
	}
	if at := slices.IndexFunc(list, func(i indexed) bool { return ok && i.descriptor.Digest == r.images[host].descriptor.Digest }); at > 0 {
		list[0], list[at] = list[at], list[0]
	}
	return list
}

// loadIndex loads images of an index, and has the name stand for it as a pull would: the first image has the name, the others their digests. Where there is no name, none has one,
// and the first remembers the index. All become visible at once.
func (l *loader) loadIndex(ctx context.Context, r root, images []indexed) ([]Loaded, error) {
	all := make([]publication, len(images))
	for n, i := range images {
		config, err := l.content.ReadAll(i.manifest.Config.Digest, maxConfig)
		if err != nil {
			return nil, err
		}
		if all[n], err = l.prepare(ctx, config, i.descriptor, i.manifest.Layers); err != nil {
			return nil, err
		}
	}
	familiar := ""
	if r.name == "" {
		all[0].record.Index = r.descriptor
	} else {
		named, err := tagName(r.name)
		if err != nil {
			return nil, fmt.Errorf("invalid tag %q: %w", r.name, err)
		}
		familiar = reference.FamiliarString(named)
		all[0].index, all[0].names = r.descriptor, []string{named.String()}
		for n, i := range images {
			of := i.descriptor.Digest
			if n == 0 {
				of = r.descriptor.Digest
			}
			digested, err := reference.WithDigest(reference.TrimNamed(named), of)
			if err != nil {
				return nil, errdefs.With(errdefs.InvalidParameter, err)
			}
			all[n].names = append(all[n].names, digested.String())
		}
	}
	slices.Reverse(all)
	image, err := l.publish(all...)
	if err != nil {
		return nil, err
	}
	var loaded []Loaded
	if familiar != "" {
		l.announce("load", image, familiar)
		return []Loaded{{ID: image.ID, Name: familiar}}, nil
	}
	for _, p := range slices.Backward(all) {
		l.announce("load", image, p.id.String())
		loaded = append(loaded, Loaded{ID: p.id})
	}
	return loaded, nil
}
