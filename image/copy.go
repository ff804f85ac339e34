package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gantry/errdefs"
	"gantry/registry"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// CopyOptions shapes Copy.
type CopyOptions struct {
	From, To registry.Auth
	Progress func(Progress) // called from several goroutines, one at a time; nil: nobody listens
}

// Copy copies an image from one registry, or repository, to another, with all its platforms, its signatures, and every digest as it is. Nothing is unpacked, and
// nothing stays here; a blob is sent while it comes.
func (s *Service) Copy(ctx context.Context, from, to string, o CopyOptions) (ocispec.Descriptor, error) {
	source, err := parseName(from)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	target, err := parseName(to)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	tagged, ok := target.(reference.NamedTagged)
	if !ok {
		return ocispec.Descriptor{}, errdefs.New(errdefs.InvalidParameter, "copy to %s: a tag is needed", to)
	}
	client := s.registry.Load()
	c := &copier{Service: s, o: o, sameHost: reference.Domain(source) == reference.Domain(target), source: reference.Path(source), sent: map[digest.Digest]bool{}}
	if c.from, err = client.Repository(source, o.From, false); err != nil {
		return ocispec.Descriptor{}, err
	}
	if c.to, err = client.Repository(target, o.To, true); err != nil {
		return ocispec.Descriptor{}, err
	}
	ctx = registry.OnWait(ctx, func(wait time.Duration) { c.say(Progress{Status: retrying(wait)}) })
	d, err := c.copy(ctx, source, tagged.Tag())
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("copy %s to %s: %w", reference.FamiliarString(source), reference.FamiliarString(target), err)
	}
	return d, nil
}

// copier is one copy.
type copier struct {
	*Service
	o        CopyOptions
	from, to *registry.Repository
	sameHost bool
	source   string // the repository's path

	mu   sync.Mutex // guards what is below, and keeps lines of progress one at a time
	sent map[digest.Digest]bool
}

func (c *copier) say(line Progress) {
	if c.o.Progress == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.o.Progress(line)
}

func (c *copier) copy(ctx context.Context, source reference.Named, tag string) (ocispec.Descriptor, error) {
	data, d, err := c.from.Manifest(ctx, wanted(source))
	if err != nil {
		return d, translate(source, err)
	}
	if err := c.manifest(ctx, data, d, tag, 0); err != nil {
		return d, err
	}
	for _, suffix := range []string{".sig", ""} { // cosign's signatures, and what refers to the image where a registry does not list that itself
		beside := d.Digest.Algorithm().String() + "-" + d.Digest.Encoded() + suffix
		data, found, err := c.from.Manifest(ctx, beside)
		if errdefs.Is(err, errdefs.NotFound) {
			continue
		}
		if err == nil {
			err = c.manifest(ctx, data, found, beside, 0)
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", beside, err)
		}
	}
	c.say(Progress{Status: fmt.Sprintf("%s: digest: %s size: %d", tag, d.Digest, d.Size)})
	return d, nil
}

// manifest copies what a manifest or index names, and then itself, under a tag or, without one, its digest.
func (c *copier) manifest(ctx context.Context, data []byte, d ocispec.Descriptor, tag string, depth int) error {
	d.MediaType = mediaTypeOf(data, d.MediaType)
	if isIndex(d.MediaType) {
		if depth == maxDepth {
			return errdefs.New(errdefs.InvalidParameter, "indexes are nested too deep")
		}
		entries, err := parseIndex(data, d.MediaType)
		if err != nil {
			return err
		}
		for _, e := range entries {
			child, cd, err := c.from.Manifest(ctx, e.Digest.String())
			if err != nil {
				return err
			}
			if err := c.manifest(ctx, child, cd, "", depth+1); err != nil {
				return err
			}
		}
	} else {
		m, err := parseManifest(data, d.MediaType)
		if err != nil {
			return err
		}
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(int(c.Service.uploads.Load()))
		for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			group.Go(func() error { return c.blob(groupCtx, b) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	if tag == "" {
		tag = d.Digest.String()
	}
	return c.to.PutManifest(ctx, tag, d.MediaType, data)
}

// first reports whether a blob has not been seen yet.
func (c *copier) first(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.sent[d]
	c.sent[d] = true
	return !seen
}

func (c *copier) blob(ctx context.Context, d ocispec.Descriptor) error {
	if !c.first(d.Digest) {
		return nil
	}
	id := short(d.Digest)
	ctx = registry.OnWait(ctx, func(wait time.Duration) { c.say(Progress{ID: id, Status: retrying(wait)}) })
	has, err := c.to.Has(ctx, d.Digest)
	if err != nil {
		return err
	}
	if has {
		c.say(Progress{ID: id, Status: "Layer already exists"})
		return nil
	}
	t, err := c.join(ctx, d, c.from)
	if err != nil {
		return err
	}
	from := ""
	if c.sameHost {
		from = c.source
	}
	mounted, err := c.to.Upload(ctx, d, from, c.reader(ctx, t, id))
	if err == nil {
		status := "Copied"
		if mounted {
			status = "Mounted from " + c.source
		}
		c.say(Progress{ID: id, Status: status})
	}
	err = errors.Join(err, c.leave(t))
	if err == nil && !t.resumed { // what it was sent from is of no use to anybody
		err = c.content.Forget(d.Digest)
	}
	return err
}

// reader returns how to read a blob from an offset while it comes.
func (c *copier) reader(ctx context.Context, t *transfer, id string) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		t.start()
		r, err := t.ingest.Follow(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, r, offset); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return &countingReader{ReadCloser: r, sum: offset, told: func(n int64) { c.say(Progress{ID: id, Status: "Copying", Current: n, Total: t.descriptor.Size}) }}, nil
	}
}
