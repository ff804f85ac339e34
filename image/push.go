package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/archive"
	"gantry/db"
	"gantry/errdefs"
	"gantry/registry"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// compressedRecords has, by the digest of a layer's blob, the one that a push made of it, so that a registry which has that one already need not be sent another.
const compressedRecords db.Bucket[packedLayer] = "image-layer-compressed"

// packedLayer is a layer that was compressed for a push.
type packedLayer struct {
	ocispec.Descriptor
	Packing string `json:"packing,omitempty"` // empty: gzip
}

// Push sends an image, or all tags of a repository, to the registry that its name says. Errors: NotFound, Unauthorized, Forbidden, Unavailable.
func (s *Service) Push(ctx context.Context, ref string, o PushOptions) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return errdefs.New(errdefs.InvalidParameter, "cannot push a digest reference")
	}
	repository, err := s.registry.Load().Repository(named, o.Auth, true)
	if err != nil {
		return err
	}
	p := &pusher{Service: s, o: o, name: reference.TrimNamed(named), repository: repository}
	ctx = registry.OnWait(ctx, func(wait time.Duration) { p.say(Progress{Status: retrying(wait)}) })
	p.say(Progress{Status: "The push refers to repository [" + p.name.Name() + "]"})
	end := s.begin()
	defer end(ctx)
	var names []reference.NamedTagged
	if o.AllTags {
		s.mu.RLock()
		names = s.tagsOf(p.name.String())
		s.mu.RUnlock()
	} else if tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged); ok {
		names = append(names, tagged)
	}
	if len(names) == 0 {
		return errdefs.New(errdefs.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	for _, n := range names {
		if err := p.push(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// pusher is one push.
type pusher struct {
	*Service
	o          PushOptions
	name       reference.Named
	repository *registry.Repository
	mu         sync.Mutex // keeps lines of progress one at a time
}

func (p *pusher) say(line Progress) {
	if p.o.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Progress(line)
}

func (p *pusher) push(ctx context.Context, named reference.NamedTagged) error {
	p.Service.mu.RLock()
	e, index := p.images[p.names[named.String()]], p.indexes[named.String()]
	p.Service.mu.RUnlock()
	if e == nil {
		return errdefs.New(errdefs.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	d, err := p.send(ctx, e, index, named)
	if errdefs.Is(err, errdefs.Internal) { // the registry has its own words
		return fmt.Errorf("push image %s: %w", reference.FamiliarString(named), err)
	}
	if err != nil {
		return err
	}
	digested, err := reference.WithDigest(p.name, d.Digest)
	if err != nil {
		return err
	}
	pub := publication{id: e.image.ID, names: []string{digested.String()}}
	if isIndex(d.MediaType) {
		pub.index = d
	}
	if _, err := p.publish(pub); err != nil {
		return err
	}
	p.say(Progress{Status: fmt.Sprintf("%s: digest: %s size: %d", named.Tag(), d.Digest, d.Size)})
	p.say(Progress{Aux: PushResult{Tag: named.Tag(), Digest: d.Digest.String(), Size: int(d.Size)}})
	p.announce("push", e.image, reference.FamiliarString(named))
	return nil
}

// image sends the layers, the config and the manifest of one image, under a tag or, without one, its digest.
func (p *pusher) image(ctx context.Context, e *entry, tag string) (d ocispec.Descriptor, err error) {
	layers := make([]ocispec.Descriptor, len(e.layers))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(int(p.Service.uploads.Load()))
	for i := len(e.layers) - 1; i >= 0; i-- {
		p.say(Progress{ID: short(e.image.DiffIDs[i]), Status: "Preparing"})
	}
	for i := range e.layers {
		group.Go(func() (err error) {
			layers[i], err = p.layer(groupCtx, e, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return d, err
	}
	data, d, config, err := p.manifest(e, layers)
	if err != nil {
		return d, err
	}
	if err := p.upload(ctx, config, short(config.Digest), false); err != nil {
		return d, err
	}
	if tag == "" {
		tag = d.Digest.String()
	}
	return d, p.repository.PutManifest(ctx, tag, d.MediaType, data)
}

// manifest returns the image's own manifest where its blobs were sent as they are. What was compressed on the way has one of Docker's, unless a layer is zstd, for which
// only OCI has a media type, or the image came with one of OCI's.
func (p *pusher) manifest(e *entry, layers []ocispec.Descriptor) (data []byte, d, config ocispec.Descriptor, err error) {
	own, err := p.content.ReadAll(e.image.Manifest.Digest, maxManifest)
	if err != nil {
		return nil, d, config, err
	}
	var m ocispec.Manifest // Docker's has the same fields, fewer
	if err := json.Unmarshal(own, &m); err != nil {
		return nil, d, config, err
	}
	if slices.EqualFunc(layers, e.layers, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest }) {
		return own, e.image.Manifest, m.Config, nil
	}
	oci := p.o.Packing.Kind != "" && e.image.Manifest.MediaType != dockerManifest ||
		slices.ContainsFunc(layers, func(l ocispec.Descriptor) bool { return compressionOf(l.MediaType) == archive.Zstd })
	m.MediaType, m.Config.MediaType = dockerManifest, dockerConfig
	if oci {
		m.MediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	}
	m.Layers = slices.Clone(layers)
	for i := range m.Layers {
		m.Layers[i].MediaType = layerMediaType(compressionOf(m.Layers[i].MediaType), oci)
	}
	data, err = json.Marshal(m)
	return data, ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, m.Config, err
}

// layer sends a layer and returns what was sent. What came from a registry keeps its digest, unless the push is to compress it otherwise; other layers are compressed if they are not yet.
func (p *pusher) layer(ctx context.Context, e *entry, n int) (ocispec.Descriptor, error) {
	d, id, packing := e.layers[n], short(e.image.DiffIDs[n]), p.o.Packing
	is := compressionOf(d.MediaType)
	known, err := p.packed(d.Digest)
	if err != nil {
		return d, err
	}
	switch {
	case packing.Kind != "":
		if is == packing.Kind && packing.Level == 0 {
			return d, p.upload(ctx, d, id, true)
		}
		p.say(Progress{ID: id, Status: fmt.Sprintf("Compressing as %s (was %s)", packing, is)})
	case is != archive.Plain || p.pulled(e.image):
		return d, p.upload(ctx, d, id, true)
	default:
		packing = cmp.Or(p.Service.o.Packing, archive.Packing{Kind: archive.Gzip})
	}
	if known.Digest != "" && known.Packing == packing.String() {
		has, err := p.repository.Has(ctx, known.Digest)
		if err != nil {
			return d, err
		}
		if has {
			p.say(Progress{ID: id, Status: "Layer already exists"})
			return known.Descriptor, nil
		}
	}
	packed, err := p.pack(ctx, d, e.image.DiffIDs[n], packing)
	if err != nil {
		return d, fmt.Errorf("compress layer %s: %w", d.Digest, p.blame(ctx, err, d.Digest))
	}
	return packed, p.upload(ctx, packed, id, true)
}

func (p *pusher) packed(d digest.Digest) (known packedLayer, err error) {
	err = p.Service.o.DB.View(func(tx *db.Tx) error {
		known, err = compressedRecords.Get(tx, d.String())
		return err
	})
	if errdefs.Is(err, errdefs.NotFound) {
		err = nil
	}
	known.Packing = cmp.Or(known.Packing, string(archive.Gzip))
	return known, err
}

// pack makes a blob of a layer that is compressed as is asked. The blob is garbage after the push; what it was is kept on record.
func (p *pusher) pack(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest, packing archive.Packing) (packed ocispec.Descriptor, err error) {
	in, err := p.sound(ctx, d.Digest)
	if err != nil {
		return packed, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	plain, _, err := archive.Decompress(&cancelReader{ctx, in})
	if err != nil {
		return packed, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	w, err := p.content.Writer()
	if err != nil {
		return packed, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	z, err := packing.Writer(w)
	if err != nil {
		return packed, err
	}
	same := diffID.Verifier() // a digest that is made here vouches for nothing
	if _, err := io.Copy(z, io.TeeReader(plain, same)); err != nil {
		return packed, errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return packed, err
	}
	if !same.Verified() {
		return packed, errdefs.New(errdefs.Internal, "its blob does not decompress to %s", diffID)
	}
	if err := w.Commit("", -1); err != nil {
		return packed, err
	}
	packed = ocispec.Descriptor{MediaType: layerMediaType(packing.Kind, packing.Kind == archive.Zstd), Digest: w.Digest(), Size: w.Size()}
	return packed, p.Service.o.DB.Update(func(tx *db.Tx) error {
		return compressedRecords.Put(tx, d.Digest.String(), packedLayer{packed, packing.String()})
	})
}

type cancelReader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (r *cancelReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, errdefs.With(errdefs.Canceled, err)
	}
	return r.r.Read(p)
}

// upload sends a blob that the repository has not got.
func (p *pusher) upload(ctx context.Context, d ocispec.Descriptor, id string, layer bool) error {
	say := func(line Progress) {
		if layer {
			line.ID = id
			p.say(line)
		}
	}
	ctx = registry.OnWait(ctx, func(wait time.Duration) { say(Progress{Status: retrying(wait)}) })
	has, err := p.repository.Has(ctx, d.Digest)
	if err != nil {
		return err
	}
	if has {
		say(Progress{Status: "Layer already exists"})
		return nil
	}
	from := p.elsewhere(d.Digest)
	mounted, err := p.repository.Upload(ctx, d, from, func(offset int64) (io.ReadCloser, error) {
		f, err := p.soundFrom(ctx, d.Digest, offset)
		if err != nil {
			return nil, err
		}
		return &countingReader{ReadCloser: f, sum: offset, told: func(n int64) { say(Progress{Status: "Pushing", Current: n, Total: d.Size}) }}, nil
	})
	if err != nil {
		return err
	}
	if mounted {
		say(Progress{Status: "Mounted from " + from})
	} else {
		say(Progress{Status: "Pushed"})
	}
	return nil
}

// elsewhere returns another repository of the same registry that is known to have a blob, or "".
func (p *pusher) elsewhere(d digest.Digest) string {
	p.Service.mu.RLock()
	defer p.Service.mu.RUnlock()
	domain := reference.Domain(p.name)
	found := ""
	for name, id := range p.names {
		e := p.images[id]
		if e == nil || !strings.Contains(name, "@") || !slices.ContainsFunc(e.layers, func(l ocispec.Descriptor) bool { return l.Digest == d }) {
			continue
		}
		n, err := reference.ParseNormalizedNamed(name)
		if err == nil && reference.Domain(n) == domain && n.Name() != p.name.Name() && (found == "" || reference.Path(n) < found) {
			found = reference.Path(n)
		}
	}
	return found
}

// countingReader tells how much was read, every half megabyte.
type countingReader struct {
	io.ReadCloser
	told      func(int64)
	sum, said int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.sum += int64(n)
	if r.sum-r.said >= 512<<10 {
		r.said = r.sum
		r.told(r.sum)
	}
	return n, err
}
