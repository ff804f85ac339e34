package image

import (
	"context"
	"encoding/json"
	"fmt"

	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// send sends what a name stands for, and returns what the tag is now: the index, where all that it lists is here or in the repository already; else, or if one platform
// is asked for, the manifest of one image.
func (p *pusher) send(ctx context.Context, e *entry, index ocispec.Descriptor, named reference.NamedTagged) (ocispec.Descriptor, error) {
	var list []member
	var indexes []indexBlob
	if index.Digest != "" {
		var err error
		if list, indexes, err = p.members(index); err != nil && !errdefs.Is(err, errdefs.NotFound) {
			return ocispec.Descriptor{}, fmt.Errorf("index %s: %w", index.Digest, err)
		}
	}
	if p.o.Platform != nil {
		if e = ofPlatform(append(list, member{entry: e}), normalize(*p.o.Platform)); e == nil {
			return ocispec.Descriptor{}, errdefs.New(errdefs.NotFound, "image %s is not available for platform %s", reference.FamiliarString(named), formatPlatform(normalize(*p.o.Platform)))
		}
		return p.image(ctx, e, named.Tag())
	}
	whole := len(list) > 0
	for n := 0; n < len(list) && whole; n++ {
		var err error
		if whole, err = p.atHand(ctx, list[n]); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if whole {
		return p.index(ctx, list, indexes, named.Tag())
	}
	d, err := p.image(ctx, e, named.Tag())
	if err == nil && index.Digest != "" {
		p.say(Progress{Aux: PushedInstead{Instead: true, Index: index, Manifest: d}})
	}
	return d, err
}

// ofPlatform returns the image that serves a platform best, or nil.
func ofPlatform(list []member, want ocispec.Platform) (best *entry) {
	score := 0
	for _, m := range list {
		if m.entry == nil {
			continue
		}
		if n := fit(m.platform(), want); n > score {
			best, score = m.entry, n
		}
	}
	return best
}

// atHand reports whether what an index lists can be pushed: it is here, or it need not be sent.
func (p *pusher) atHand(ctx context.Context, m member) (bool, error) {
	switch {
	case m.entry != nil || m.about() && p.o.Packing.Kind != "": // what is compressed anew is not what an attestation speaks of
		return true, nil
	case m.about():
		if data, err := p.content.ReadAll(m.Digest, maxManifest); err == nil {
			if mf, err := parseManifest(data, m.MediaType); err == nil && p.complete(mf) {
				return true, nil
			}
		}
	}
	if p.o.Packing.Kind != "" {
		return false, nil
	}
	_, _, err := p.repository.Manifest(ctx, m.Digest.String())
	if errdefs.Is(err, errdefs.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// index sends what indexes list that is here, and then themselves, the outermost under the tag. Where layers were compressed anew there is a new index, without attestations:
// they are of what was.
func (p *pusher) index(ctx context.Context, list []member, indexes []indexBlob, tag string) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	var left []ocispec.Descriptor
	changed := false
	for _, m := range list {
		now := m.Descriptor
		switch {
		case m.entry != nil:
			is, err := p.image(ctx, m.entry, "")
			if err != nil {
				return d, err
			}
			changed = changed || is.Digest != now.Digest
			now.MediaType, now.Digest, now.Size = is.MediaType, is.Digest, is.Size
		case m.about() && p.o.Packing.Kind != "":
			p.say(Progress{ID: short(m.Digest), Status: "Attestation is left out"})
			changed = true
			continue
		case m.about():
			if err := p.attestation(ctx, m.Descriptor); err != nil {
				return d, err
			}
		}
		left = append(left, now)
	}
	if changed {
		data, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: left})
		if err != nil {
			return d, err
		}
		if _, err := p.content.Put(data); err != nil {
			return d, err
		}
		indexes = []indexBlob{{ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}}
	}
	for n, x := range indexes {
		ref := x.Digest.String()
		if n == len(indexes)-1 {
			ref = tag
		}
		if err := p.repository.PutManifest(ctx, ref, x.MediaType, x.data); err != nil {
			return d, err
		}
		d = x.Descriptor
	}
	return d, nil
}

// attestation sends what an index has beside images, if it is here.
func (p *pusher) attestation(ctx context.Context, d ocispec.Descriptor) error {
	data, err := p.content.ReadAll(d.Digest, maxManifest)
	if errdefs.Is(err, errdefs.NotFound) {
		return nil // the repository has it
	}
	if err != nil {
		return err
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := p.upload(ctx, b, short(b.Digest), false); err != nil {
			return err
		}
	}
	return p.repository.PutManifest(ctx, d.Digest.String(), d.MediaType, data)
}
