package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// others brings in what an index lists beside the image that its name goes to: images of further platforms, which are named by their digests, and what is about images.
func (p *puller) others(ctx context.Context, named reference.Named, list []ocispec.Descriptor) error {
	for _, d := range list {
		if err := p.other(ctx, named, d); err != nil {
			return fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
	}
	return nil
}

func (p *puller) other(ctx context.Context, named reference.Named, d ocispec.Descriptor) error {
	skip := func() error {
		p.say(Progress{ID: short(d.Digest), Status: "Skipped: it cannot be unpacked here"})
		return nil
	}
	if isIndex(d.MediaType) || d.Platform != nil && !attestation(d) && normalize(*d.Platform).OS != hostPlatform().OS {
		return skip()
	}
	data, is, err := p.repository.Manifest(ctx, d.Digest.String())
	if err != nil {
		return translate(named, err)
	}
	m, err := parseManifest(data, is.MediaType)
	if err != nil {
		return err
	}
	if attestation(d) {
		return p.beside(ctx, data, m)
	}
	if m.runnable() != nil {
		return skip()
	}
	digested, err := reference.WithDigest(p.name, d.Digest)
	if err != nil {
		return err
	}
	q := &puller{Service: p.Service, o: p.o, name: p.name, repository: p.repository}
	q.o.Platform, q.o.Progress = nil, p.say // what the index says of it counts, as it does for one that is pulled alone
	_, _, err = q.fetch(ctx, named, data, is, m, publication{names: []string{digested.String()}})
	return err
}

// beside fetches a manifest that is no image's, with its blobs.
func (p *puller) beside(ctx context.Context, data []byte, m manifest) (err error) {
	var all []*transfer
	var told []func() error
	defer func() { err = errors.Join(err, p.leaveAll(all)) }()
	seen := map[digest.Digest]bool{}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if size, err := p.content.Size(b.Digest); seen[b.Digest] || err == nil && size == b.Size {
			continue
		}
		seen[b.Digest] = true
		t, err := p.join(ctx, b, p.repository)
		if err != nil {
			return err
		}
		all = append(all, t)
		told = append(told, func() error { return p.await(ctx, t) })
	}
	if err := p.downloads(all, told); err != nil {
		return err
	}
	if err := p.commit(all); err != nil {
		return err
	}
	_, err = p.content.Put(data)
	return err
}
