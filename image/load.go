package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	"gantry/archive"
	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxFiles = 100_000 // of an archive of images
	maxLinks = 16      // that lead from one to the next
	maxDepth = 4       // of indexes within indexes
)

// Load brings in the images of a `docker save` archive or an OCI layout, plain or compressed. Images that were loaded before an error stay.
func (s *Service) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	end := s.begin()
	defer end(ctx)
	l := loader{Service: s, o: o, files: map[string]file{}, links: map[string]string{}}
	unpacked, err := s.unpacked(ctx)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	l.unpacked = unpacked
	var loaded []Loaded
	if err = l.spool(ctx, r); err == nil {
		loaded, err = l.load(ctx)
	}
	if err != nil {
		return loaded, fmt.Errorf("load images: %w", errors.Join(err, l.revert()))
	}
	return loaded, nil
}

// loader holds the files of one archive, which lie among the blobs under their digests.
type loader struct {
	*Service
	o     LoadOptions
	files map[string]file
	links map[string]string

	unpacked map[digest.Digest]bool // keys of layers that were here before
	recipes  []digest.Digest        // blobs that were here as recipes before, and are whole, too, now
}

// revert leaves blobs that were here as recipes as they were. A kill before it leaves both, and settling the recipes.
func (l *loader) revert() (err error) {
	for _, d := range l.recipes {
		err = errors.Join(err, l.content.Revert(d))
	}
	return err
}

type file struct {
	digest digest.Digest
	size   int64
}

// spool stores every file of the archive as a blob.
func (l *loader) spool(ctx context.Context, r io.Reader) error {
	plain, _, err := archive.DecompressImages(r, l.Service.o.Snapshots.Limits())
	if err != nil {
		return err
	}
	tr := tar.NewReader(plain)
	buf := make([]byte, 256<<10)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return plain.Close()
		}
		if err != nil {
			return errdefs.New(errdefs.InvalidParameter, "read archive: %w", err)
		}
		if n == maxFiles {
			return errdefs.New(errdefs.InvalidParameter, "archive has more than %d entries", maxFiles)
		}
		name := entryName(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if err := l.spoolFile(ctx, name, tr, buf); err != nil {
				return err
			}
		case tar.TypeSymlink:
			l.links[name] = entryName(path.Join(path.Dir(name), h.Linkname))
		case tar.TypeLink:
			l.links[name] = entryName(h.Linkname)
		}
	}
}

// entryName cleans a path of the archive; it is only ever a key, never a path on disk.
func entryName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (l *loader) spoolFile(ctx context.Context, name string, r io.Reader, buf []byte) (err error) {
	w, err := l.content.Writer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for {
		n, rerr := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return errdefs.New(errdefs.InvalidParameter, "read archive: %q: %w", name, rerr)
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
	}
	l.files[name] = file{w.Digest(), w.Size()}
	if !l.content.Whole(w.Digest()) {
		settled, err := l.holdsBlob(ocispec.Descriptor{Digest: w.Digest(), Size: w.Size()}, l.unpacked)
		if err != nil {
			return err
		}
		if settled {
			l.recipes = append(l.recipes, w.Digest())
		}
	}
	if err := w.Commit("", -1); err != nil {
		return err
	}
	l.acquit(w.Digest())
	return nil
}

// find returns the file of that name, through links.
func (l *loader) find(name string) (file, error) {
	name = entryName(name)
	for range maxLinks {
		if f, ok := l.files[name]; ok {
			return f, nil
		}
		target, ok := l.links[name]
		if !ok {
			break
		}
		name = target
	}
	return file{}, errdefs.New(errdefs.InvalidParameter, "invalid archive: %q is not in it", name)
}

// savedImage is one image of manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (l *loader) load(ctx context.Context) ([]Loaded, error) {
	roots, err := l.roots()
	if err != nil {
		return nil, err
	}
	f, err := l.find("manifest.json")
	if err != nil {
		if len(roots) == 0 {
			return nil, errdefs.New(errdefs.InvalidParameter, "invalid archive: does not contain a manifest.json")
		}
		return l.loadLayout(ctx, roots)
	}
	data, err := l.content.ReadAll(f.digest, maxManifest)
	if err != nil {
		return nil, err
	}
	var saved []savedImage
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid archive: manifest.json: %w", err)
	}
	return l.loadDocker(ctx, saved, roots)
}

// loadDocker loads the images of manifest.json, and of indexes in index.json what else is there.
func (l *loader) loadDocker(ctx context.Context, saved []savedImage, roots []root) ([]Loaded, error) {
	var single []savedImage
	var manifests []indexed
	for _, image := range saved {
		if image, left := l.unlisted(image, roots); left {
			single = append(single, image)
		}
	}
	for _, r := range roots {
		manifests = append(manifests, r.images...)
	}
	if err := l.serve(single, roots); err != nil {
		return nil, err
	}
	var loaded []Loaded
	for _, r := range roots {
		if !r.isIndex() {
			continue // it is in manifest.json, too
		}
		done, err := l.loadRoot(ctx, r)
		loaded = append(loaded, done...)
		if err != nil {
			return loaded, err
		}
	}
	for _, image := range single {
		done, err := l.loadSaved(ctx, image, manifests)
		loaded = append(loaded, done...)
		if err != nil {
			return loaded, err
		}
	}
	return loaded, nil
}

// layoutName returns the name that an index gives an image: containerd's annotation has it whole, OCI's may be only a tag.
func layoutName(annotations map[string]string) string {
	if name := annotations["io.containerd.image.name"]; name != "" {
		return name
	}
	if name := annotations[ocispec.AnnotationRefName]; strings.ContainsAny(name, ":/") {
		return name
	}
	return ""
}

// loadLayout loads the images of an OCI layout.
func (l *loader) loadLayout(ctx context.Context, roots []root) ([]Loaded, error) {
	if err := l.serve(nil, roots); err != nil {
		return nil, err
	}
	var loaded []Loaded
	for _, r := range roots {
		done, err := l.loadRoot(ctx, r)
		loaded = append(loaded, done...)
		if err != nil {
			return loaded, err
		}
	}
	return loaded, nil
}

// loadSaved loads one image of manifest.json.
func (l *loader) loadSaved(ctx context.Context, saved savedImage, manifests []indexed) ([]Loaded, error) {
	f, err := l.find(saved.Config)
	if err != nil {
		return nil, err
	}
	config, err := l.content.ReadAll(f.digest, maxConfig)
	if err != nil {
		return nil, err
	}
	for _, m := range manifests {
		if m.manifest.Config.Digest == f.digest && len(m.manifest.Layers) == len(saved.Layers) && l.complete(m.manifest) {
			return l.add(ctx, config, m.descriptor, m.manifest.Layers, saved.RepoTags)
		}
	}
	if len(saved.Layers) > maxLayers {
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid archive: more than %d layers", maxLayers)
	}
	layers := make([]ocispec.Descriptor, len(saved.Layers))
	for i, name := range saved.Layers {
		f, err := l.find(name)
		if err != nil {
			return nil, err
		}
		mediaType, err := l.layerType(ctx, f.digest)
		if err != nil {
			return nil, err
		}
		layers[i] = ocispec.Descriptor{MediaType: mediaType, Digest: f.digest, Size: f.size}
	}
	data, descriptor, err := compose(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: f.digest, Size: f.size}, layers)
	if err != nil {
		return nil, err
	}
	if _, err := l.content.Put(data); err != nil {
		return nil, err
	}
	return l.add(ctx, config, descriptor, layers, saved.RepoTags)
}

// complete reports whether all blobs of a manifest are here.
func (s *Service) complete(m manifest) bool {
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if size, err := s.content.Size(d.Digest); err != nil || size != d.Size {
			return false
		}
	}
	return true
}

// layerType looks at a blob for the media type of its compression.
func (s *Service) layerType(ctx context.Context, d digest.Digest) (string, error) {
	f, err := s.blob(ctx, d)
	if err != nil {
		return "", err
	}
	var head [10]byte
	n, err := io.ReadFull(f, head[:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read layer %s: %w", d, err)
	}
	switch archive.Detect(head[:n]) {
	case archive.Gzip:
		return ocispec.MediaTypeImageLayerGzip, nil
	case archive.Zstd:
		return ocispec.MediaTypeImageLayerZstd, nil
	default:
		return ocispec.MediaTypeImageLayer, nil
	}
}

// add unpacks and publishes an image whose blobs are here.
func (l *loader) add(ctx context.Context, config []byte, descriptor ocispec.Descriptor, layers []ocispec.Descriptor, names []string) ([]Loaded, error) {
	id := digest.FromBytes(config)
	var canonical, familiar []string
	for _, name := range names {
		named, err := tagName(name)
		if err != nil {
			return nil, fmt.Errorf("invalid tag %q: %w", name, err)
		}
		canonical = append(canonical, named.String())
		familiar = append(familiar, reference.FamiliarString(named))
	}
	image, err := l.install(ctx, config, descriptor, layers, canonical)
	if err != nil {
		return nil, err
	}
	if len(familiar) == 0 {
		l.announce("load", image, id.String())
		return []Loaded{{ID: id}}, nil
	}
	var loaded []Loaded
	for _, name := range familiar {
		l.announce("load", image, name)
		loaded = append(loaded, Loaded{ID: id, Name: name})
	}
	return loaded, nil
}

// install unpacks the layers of an image whose blobs are all here, and publishes it.
func (s *Service) install(ctx context.Context, config []byte, descriptor ocispec.Descriptor, layers []ocispec.Descriptor, names []string) (*Image, error) {
	p, err := s.prepare(ctx, config, descriptor, layers)
	if err != nil {
		return nil, err
	}
	p.names = names
	return s.publish(p)
}

// prepare unpacks the layers of an image whose blobs are all here.
func (s *Service) prepare(ctx context.Context, config []byte, descriptor ocispec.Descriptor, layers []ocispec.Descriptor) (p publication, err error) {
	c, err := parseConfig(config)
	if err != nil {
		return p, err
	}
	if len(c.RootFS.DiffIDs) != len(layers) {
		return p, errdefs.New(errdefs.InvalidParameter, "invalid manifest, layers length mismatch: expected %d, got %d", len(c.RootFS.DiffIDs), len(layers))
	}
	sources := make([]source, len(layers))
	for i, d := range layers {
		sources[i] = source{diffID: c.RootFS.DiffIDs[i], open: func(ctx context.Context) (io.ReadCloser, error) { return s.blob(ctx, d.Digest) }}
	}
	if err := s.unpack(ctx, sources); err != nil {
		return p, s.blame(ctx, err, digests(layers)...)
	}
	size, err := s.size(ctx, c.RootFS.DiffIDs)
	if err != nil {
		return p, err
	}
	return publication{id: digest.FromBytes(config), record: record{Manifest: descriptor, Size: size}}, nil
}

// hostPlatform is what images are chosen for when nobody asks for another platform.
func hostPlatform() ocispec.Platform {
	return ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
}
