package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/snapshot"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import makes an image of one layer from a tar of a file system, plain or compressed.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	name, err := newName(o.Repo, o.Tag)
	if err != nil {
		return nil, err
	}
	platform := hostPlatform()
	if o.Platform != nil {
		platform = normalize(*o.Platform)
	}
	now := time.Now().UTC()
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &now, Platform: platform}, Config: o.Config}
	comment := o.Message
	if comment == "" && o.Source != "" {
		comment = "Imported from " + o.Source
	}
	config.History = []ocispec.History{{Created: &now, Comment: comment}}
	plain, _, err := archive.DecompressLayer(r, s.o.Snapshots.Limits())
	if err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	end := s.begin()
	defer end(ctx)
	image, err := s.build(ctx, config, nil, origin{}, plain, name)
	if err = errors.Join(err, plain.Close()); err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	s.announce("import", image, image.ID.String())
	if name != nil {
		s.announce("tag", image, reference.FamiliarString(name))
	}
	return image, nil
}

// origin is what an image was made of here.
type origin struct {
	parent digest.Digest // the image beneath; empty for none
	step   digest.Digest // as record.Step
	hold   *Hold         // that the image is to be kept by; nil: none
}

// build adds a layer, given as an uncompressed tar, to the layers beneath, and publishes the image that config then describes.
func (s *Service) build(ctx context.Context, config dockerspec.DockerOCIImage, beneath []ocispec.Descriptor, from origin, layer io.Reader, name reference.Named) (*Image, error) {
	w, err := s.content.Writer()
	if err != nil {
		return nil, err
	}
	staged, err := s.o.Snapshots.Stage(ctx, io.TeeReader(layer, w), config.RootFS.DiffIDs)
	if err == nil {
		err = w.Commit(staged.DiffID, -1)
	}
	size := w.Size()
	if err == nil && staged.DiffID == emptyLayer && len(config.History) > 0 && (len(beneath) > 0 || from.step != "") {
		config.History[len(config.History)-1].EmptyLayer = true
		if err := errors.Join(w.Close(), s.o.Snapshots.Discard(staged)); err != nil {
			return nil, err
		}
		return s.describe(ctx, config, beneath, from, name)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		if staged != nil {
			err = errors.Join(err, s.o.Snapshots.Discard(staged))
		}
		return nil, err
	}
	if err := s.o.Snapshots.Commit(ctx, []*snapshot.Staged{staged}); err != nil {
		return nil, errors.Join(err, s.o.Snapshots.Discard(staged))
	}
	config.RootFS.Type = "layers"
	config.RootFS.DiffIDs = append(append([]digest.Digest{}, config.RootFS.DiffIDs...), staged.DiffID)
	layers := append(append([]ocispec.Descriptor{}, beneath...), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: staged.DiffID, Size: size})
	return s.describe(ctx, config, layers, from, name)
}

// describe stores the config and manifest of an image whose layers are here, and publishes it.
func (s *Service) describe(ctx context.Context, config dockerspec.DockerOCIImage, layers []ocispec.Descriptor, from origin, name reference.Named) (*Image, error) {
	if len(layers) > maxLayers {
		return nil, errdefs.New(errdefs.InvalidParameter, "max depth exceeded: an image has at most %d layers", maxLayers)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode image config: %w", err)
	}
	id, err := s.content.Put(raw)
	if err != nil {
		return nil, err
	}
	data, descriptor, err := compose(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: id, Size: int64(len(raw))}, layers)
	if err != nil {
		return nil, err
	}
	if _, err := s.content.Put(data); err != nil {
		return nil, err
	}
	total, err := s.size(ctx, config.RootFS.DiffIDs)
	if err != nil {
		return nil, err
	}
	p := publication{id: id, hold: from.hold, record: record{Manifest: descriptor, Size: total, Parent: from.parent, Step: from.step}}
	if name != nil {
		p.names = []string{name.String()}
	}
	return s.publish(p)
}
