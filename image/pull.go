package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gantry/errdefs"
	"gantry/registry"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Pull fetches an image, or all tags of a repository, from its registry. Errors: NotFound, Unauthorized, Forbidden, Unavailable, in Docker's words.
func (s *Service) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	repository, err := s.registry.Load().Repository(named, o.Auth, false)
	if err != nil {
		return nil, err
	}
	p := &puller{Service: s, o: o, name: reference.TrimNamed(named), repository: repository}
	ctx = registry.OnWait(ctx, func(wait time.Duration) { p.say(Progress{Status: retrying(wait)}) })
	if !o.AllTags {
		return p.pull(ctx, named)
	}
	tags, err := p.repository.Tags(ctx)
	if err != nil {
		return nil, translate(named, err)
	}
	var last *Image
	for _, t := range tags {
		tagged, err := reference.WithTag(p.name, t)
		if err != nil {
			return last, errdefs.New(errdefs.InvalidParameter, "registry lists the tag %q: %w", t, err)
		}
		if last, err = p.pull(ctx, tagged); err != nil {
			return last, err
		}
	}
	return last, nil
}

// puller is one pull.
type puller struct {
	*Service
	o          PullOptions
	name       reference.Named
	repository *registry.Repository
	mu         sync.Mutex // keeps lines of progress one at a time
}

func (p *puller) say(line Progress) {
	if p.o.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Progress(line)
}

// translate gives an error of the registry Docker's words.
func translate(named reference.Named, err error) error {
	switch registry.Code(err) {
	case "DENIED":
		return errdefs.New(errdefs.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(named), err)
	case "MANIFEST_UNKNOWN":
		return errdefs.New(errdefs.NotFound, "manifest for %s not found: %w", reference.FamiliarString(named), err)
	case "NAME_UNKNOWN":
		return errdefs.New(errdefs.NotFound, "repository %s not found: %w", reference.FamiliarName(named), err)
	default:
		return err
	}
}

func (p *puller) pull(ctx context.Context, named reference.Named) (*Image, error) {
	end := p.begin()
	defer end(ctx)
	ref := wanted(named)
	data, top, err := p.repository.Manifest(ctx, ref)
	if err != nil {
		return nil, translate(named, err)
	}
	if err := p.trust(ctx, named, top.Digest); err != nil {
		return nil, err
	}
	// Not before there is a manifest: an error that comes before all progress is the request's answer, with a status of its own.
	p.say(Progress{ID: ref, Status: "Pulling from " + reference.Path(p.name)})
	image, fresh, err := p.resolveManifest(ctx, named, data, top)
	if err != nil {
		return nil, err
	}
	p.say(Progress{Status: "Digest: " + top.Digest.String()})
	if fresh {
		p.say(Progress{Status: "Status: Downloaded newer image for " + reference.FamiliarString(named)})
	} else {
		p.say(Progress{Status: "Status: Image is up to date for " + reference.FamiliarString(named)})
	}
	p.announce("pull", image, reference.FamiliarString(named))
	return image, nil
}

// wanted is the tag or the digest of a name.
func wanted(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return named.(reference.Tagged).Tag() // parseName has seen to it
}

// mediaTypeOf returns what a manifest is: as the registry announces it, as it says itself, or as it looks.
func mediaTypeOf(data []byte, announced string) string {
	if isIndex(announced) || isManifest(announced) {
		return announced
	}
	var fields struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(data, &fields) == nil {
		switch {
		case fields.MediaType != "":
			return fields.MediaType
		case fields.Manifests != nil:
			return ocispec.MediaTypeImageIndex
		}
	}
	if announced == dockerManifestV1 || announced == dockerManifestV1s {
		return announced
	}
	return ocispec.MediaTypeImageManifest
}

// resolveManifest goes through indexes to the manifest of the wanted platform and pulls that. top is what the name stands for.
func (p *puller) resolveManifest(ctx context.Context, named reference.Named, data []byte, top ocispec.Descriptor) (*Image, bool, error) {
	d := ocispec.Descriptor{MediaType: mediaTypeOf(data, top.MediaType), Digest: digest.FromBytes(data), Size: int64(len(data))}
	pub := publication{}
	if isIndex(d.MediaType) {
		pub.index = d
	}
	end, err := p.within(ctx, named, found{data: data, descriptor: d}, 0, new(int))
	if err != nil {
		return nil, false, err
	}
	pub.blobs, data, d = end.indexes, end.data, end.descriptor
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return nil, false, err
	}
	if err := m.runnable(); err != nil {
		return nil, false, fmt.Errorf("%s: %w", reference.FamiliarString(named), err)
	}
	digested, err := reference.WithDigest(p.name, top.Digest)
	if err != nil {
		return nil, false, errdefs.With(errdefs.InvalidParameter, err)
	}
	if p.o.AllPlatforms {
		if err := p.others(ctx, named, end.others); err != nil {
			return nil, false, err
		}
	}
	pub.names = []string{digested.String()}
	if _, ok := named.(reference.Tagged); ok {
		pub.names = append(pub.names, named.String())
	}
	return p.fetch(ctx, named, data, d, m, pub)
}

// found is a manifest, and what led to it.
type found struct {
	data       []byte
	descriptor ocispec.Descriptor
	indexes    [][]byte             // outermost first
	others     []ocispec.Descriptor // that the innermost index lists beside it
}

// maxTried is how many manifests are looked into for a platform.
const maxTried = 64

// within goes from an index to the manifest in it that serves the wanted platform best, through further indexes, whose entries often do not say for what platforms they are: where one
// has none that serves, the next is looked into.
func (p *puller) within(ctx context.Context, named reference.Named, at found, depth int, tried *int) (found, error) {
	if !isIndex(at.descriptor.MediaType) {
		return at, nil
	}
	if depth == maxDepth {
		return found{}, errdefs.New(errdefs.InvalidParameter, "indexes are nested too deep")
	}
	entries, err := parseIndex(at.data, at.descriptor.MediaType)
	if err != nil {
		return found{}, err
	}
	none := noneServes{wanted: p.platform(), offered: entries}
	for _, i := range candidates(entries, p.o.Platform) {
		if *tried++; *tried > maxTried {
			return found{}, errdefs.New(errdefs.InvalidParameter, "more than %d manifests of indexes within indexes were looked into for %s", maxTried, none.wanted)
		}
		child := entries[i]
		data, d, err := p.repository.Manifest(ctx, child.Digest.String())
		if err != nil {
			return found{}, translate(named, err)
		}
		if d.Size != child.Size {
			return found{}, errdefs.New(errdefs.InvalidParameter, "manifest %s has %d bytes instead of %d", child.Digest, d.Size, child.Size)
		}
		d.MediaType = mediaTypeOf(data, d.MediaType)
		next := found{data, d, append(slices.Clip(at.indexes), at.data), slices.Delete(slices.Clone(entries), i, i+1)}
		end, err := p.within(ctx, named, next, depth+1, tried)
		var inner noneServes
		if !errors.As(err, &inner) {
			return end, err
		}
		none.offered = append(slices.Clip(none.offered), inner.offered...)
	}
	return found{}, errdefs.With(errdefs.NotFound, none)
}

// noneServes says that no image of an index is for the wanted platform.
type noneServes struct {
	wanted  string
	offered []ocispec.Descriptor
}

func (n noneServes) Error() string {
	return fmt.Sprintf("no matching manifest for %s in the manifest list entries: there %s", n.wanted, offered(n.offered))
}

func (p *puller) platform() string {
	w := hostPlatform()
	if p.o.Platform != nil {
		w = normalize(*p.o.Platform)
	}
	return formatPlatform(w)
}

func formatPlatform(w ocispec.Platform) string {
	text := w.OS + "/" + w.Architecture
	if w.Variant != "" {
		text += "/" + w.Variant
	}
	return text
}

// fetch brings in the blobs of one manifest, unpacking layers while they come, and publishes the image. fresh says that it was not here before under the name.
func (p *puller) fetch(ctx context.Context, named reference.Named, data []byte, d ocispec.Descriptor, m manifest, pub publication) (image *Image, fresh bool, err error) {
	config, err := p.config(ctx, m.Config)
	if err != nil {
		return nil, false, translate(named, err)
	}
	c, err := parseConfig(config)
	if err != nil {
		return nil, false, err
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, false, errdefs.New(errdefs.InvalidParameter, "manifest has %d layers and the image config %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	if p.o.Platform != nil && suits(&c.Platform, normalize(*p.o.Platform)) == 0 {
		return nil, false, errdefs.New(errdefs.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			reference.FamiliarString(named), formatPlatform(c.Platform), p.platform())
	}
	image, err = p.present(ctx, m.Config.Digest, pub)
	if image != nil || err != nil {
		return image, false, err
	}
	all, err := p.layers(ctx, m.Layers, c.RootFS.DiffIDs)
	if errdefs.Is(err, errdefs.InvalidParameter) || errdefs.Is(err, errdefs.Internal) {
		if again, serr := p.suspected(ctx, m.Layers); serr == nil && again { // what was here is damaged, and is fetched now
			if err := p.leaveAll(all); err != nil {
				return nil, false, err
			}
			all, err = p.layers(ctx, m.Layers, c.RootFS.DiffIDs)
		}
	}
	defer func() { err = errors.Join(err, p.leaveAll(all)) }()
	if err != nil {
		return nil, false, translate(named, err)
	}
	if err := p.commit(all); err != nil {
		return nil, false, err
	}
	size, err := p.size(ctx, c.RootFS.DiffIDs)
	if err != nil {
		return nil, false, err
	}
	pub.id, pub.record, pub.blobs = m.Config.Digest, record{Manifest: d, Size: size}, append(pub.blobs, config, data)
	image, err = p.publish(pub)
	return image, true, err
}

// present returns the image if all of it is here and has the names already.
func (p *puller) present(ctx context.Context, id digest.Digest, pub publication) (*Image, error) {
	here, err := p.unpacked(ctx)
	if err != nil {
		return nil, err
	}
	p.Service.mu.RLock()
	defer p.Service.mu.RUnlock()
	e, ok := p.images[id]
	if !ok || pub.instead || !p.intact(ctx, e, here) {
		return nil, nil
	}
	for _, n := range pub.names {
		if p.names[n] != id || p.indexes[n].Digest != pub.index.Digest {
			return nil, nil
		}
	}
	return e.image, nil
}

// config returns an image's configuration, from here or the registry.
func (p *puller) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if data, err := p.content.ReadAll(d.Digest, maxConfig); err == nil {
		return data, nil
	}
	return p.repository.ReadBlob(ctx, d, maxConfig)
}

// layers fetches the blobs that are not here and unpacks each while it comes. What it returns, the caller commits, and leaves in any case.
func (p *puller) layers(ctx context.Context, blobs []ocispec.Descriptor, ids []digest.Digest) (all []*transfer, err error) {
	here, err := p.unpacked(ctx)
	if err != nil {
		return nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	coming := map[digest.Digest]*transfer{}
	sources := make([]source, len(blobs))
	var told []func() error // one a transfer: waits for it
	var takes int64         // bytes of layers whose blobs are here
	for i, d := range blobs {
		id := short(d.Digest)
		unpacked := here[ids[i]] || here[chainID(ids[:i+1])]
		switch {
		case p.has(d, here):
			if unpacked {
				p.say(Progress{ID: id, Status: "Already exists"})
			} else {
				takes += atLeast(d)
			}
		case coming[d.Digest] == nil:
			p.say(Progress{ID: id, Status: "Pulling fs layer"})
			t, err := p.join(ctx, d, p.repository)
			if err != nil {
				return all, err
			}
			if !unpacked {
				t.ingest.Takes(atLeast(d))
			}
			coming[d.Digest] = t
			all = append(all, t)
			told = append(told, func() error {
				err := p.await(groupCtx, t)
				if err == nil && unpacked {
					p.say(Progress{ID: id, Status: "Pull complete"})
				}
				return err
			})
		}
		sources[i] = source{
			diffID: ids[i], open: func(ctx context.Context) (io.ReadCloser, error) { return p.open(ctx, d, coming[d.Digest]) },
			done: func() { p.say(Progress{ID: id, Status: "Pull complete"}) },
		}
	}
	if err := p.content.Room(takes); err != nil {
		return all, err
	}
	var unpackErr, downloadErr error
	group.Go(func() error {
		unpackErr = p.unpack(groupCtx, sources)
		return unpackErr
	})
	group.Go(func() error {
		downloadErr = p.downloads(all, told)
		return downloadErr
	})
	err = group.Wait()
	if errdefs.Is(downloadErr, errdefs.Exhausted) || errdefs.Is(unpackErr, errdefs.Exhausted) {
		for _, t := range all { // who has run out of space is to have back what this took
			t.doubt()
		}
	}
	if downloadErr != nil && !errdefs.Is(downloadErr, errdefs.Canceled) {
		return all, downloadErr // the unpacking that followed it failed too, and may have been quicker to say so
	}
	if errdefs.Is(unpackErr, errdefs.InvalidParameter) || errdefs.Is(unpackErr, errdefs.Internal) {
		for _, t := range all {
			if t.resumed { // its digest was right, but the part that was here before may have changed on the disk
				t.doubt()
			}
		}
	}
	return all, err
}

// uncompressedSize is the annotation of a layer that says how many bytes its tar has, which eStargz's tools set.
const uncompressedSize = "io.containers.estargz.uncompressed-size"

// atLeast returns how many bytes of the disk a layer takes unpacked, as far as its descriptor tells: the tar's size where that is known, else no less than it has compressed.
func atLeast(d ocispec.Descriptor) int64 {
	n, _ := strconv.ParseInt(d.Annotations[uncompressedSize], 10, 64) // a limit with ErrRange, else 0
	return max(n, d.Size)
}

// open returns a layer's blob, following it where it is on its way.
func (p *puller) open(ctx context.Context, d ocispec.Descriptor, t *transfer) (io.ReadCloser, error) {
	open := func() (io.ReadCloser, error) { return p.blob(ctx, d.Digest) }
	if t != nil {
		open = func() (io.ReadCloser, error) { return t.ingest.Follow(ctx) }
	}
	r, err := open()
	if err != nil {
		return nil, err
	}
	return &extracting{ReadCloser: r, p: p, t: t, d: d}, nil
}

// downloads starts the transfers and waits for all.
func (p *puller) downloads(all []*transfer, told []func() error) error {
	var group errgroup.Group
	for i, t := range all {
		if p.streams.Full() {
			p.say(Progress{ID: short(t.descriptor.Digest), Status: "Waiting"})
		}
		t.start()
		group.Go(told[i])
	}
	return group.Wait()
}

// Login tries the credentials and returns Docker's word for success and an identity token, which may be empty.
func (s *Service) Login(ctx context.Context, auth registry.Auth) (status, token string, err error) {
	if token, err = s.registry.Load().Login(ctx, auth); err != nil {
		return "", "", err
	}
	return "Login Succeeded", token, nil
}

// Distribution asks the registry for the descriptor and platforms of an image.
func (s *Service) Distribution(ctx context.Context, ref string, auth registry.Auth) (ocispec.Descriptor, []ocispec.Platform, error) {
	named, err := parseName(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	repository, err := s.registry.Load().Repository(named, auth, false)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	p := &puller{Service: s, name: reference.TrimNamed(named), repository: repository}
	_, at, _ := strings.Cut(named.String(), reference.TrimNamed(named).String())
	data, d, err := p.repository.Manifest(ctx, at[1:])
	if err != nil {
		return d, nil, translate(named, err)
	}
	d.MediaType = mediaTypeOf(data, d.MediaType)
	var platforms []ocispec.Platform
	if isIndex(d.MediaType) {
		entries, err := parseIndex(data, d.MediaType)
		if err != nil {
			return d, nil, err
		}
		for _, e := range entries {
			if e.Platform != nil {
				platforms = append(platforms, *e.Platform)
			}
		}
		return d, platforms, nil
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return d, nil, err
	}
	config, err := p.config(ctx, m.Config)
	if err != nil {
		return d, nil, translate(named, err)
	}
	c, err := parseConfig(config)
	if err != nil {
		return d, nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return d, []ocispec.Platform{c.Platform}, nil
}
