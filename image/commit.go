package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/errdefs"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// emptyLayer is the digest of a tar without entries. A commit that changed no file adds no layer.
const emptyLayer digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// Commit makes an image from a snapshot: the parent's layers and one with what the snapshot changes.
func (s *Service) Commit(ctx context.Context, o CommitOptions) (*Image, error) {
	name, err := newName(o.Repo, o.Tag)
	if err != nil {
		return nil, err
	}
	end := s.begin()
	defer end(ctx)
	config, beneath, err := s.upon(o.Parent, o.Config, ocispec.History{CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment})
	if err != nil {
		return nil, fmt.Errorf("commit container: %w", err)
	}
	var from origin
	if o.Parent != nil {
		from.parent = o.Parent.ID
	}
	image, err := s.pack(ctx, config, beneath, from, o.SnapshotKey, name)
	if err != nil {
		return nil, fmt.Errorf("commit container: %w", err)
	}
	s.announce("create", image, image.ID.String())
	if name != nil {
		s.announce("tag", image, reference.FamiliarString(name))
	}
	return image, nil
}

// upon returns what an image made now of a parent, or of nothing, says of itself, and the blobs of the layers beneath.
func (s *Service) upon(parent *Image, c dockerspec.DockerOCIImageConfig, step ocispec.History) (config dockerspec.DockerOCIImage, beneath []ocispec.Descriptor, err error) {
	now := time.Now().UTC()
	step.Created = &now
	config = dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: hostPlatform(), Created: &now, Author: step.Author}, Config: c}
	if parent != nil {
		config.Platform = parent.Config.Platform
		config.RootFS = parent.Config.RootFS
		config.History = append([]ocispec.History{}, parent.Config.History...)
		if beneath, err = s.blobsOf(parent); err != nil {
			return config, nil, err
		}
	}
	config.History = append(config.History, step)
	return config, beneath, nil
}

// pack is build with what a snapshot changes.
func (s *Service) pack(ctx context.Context, config dockerspec.DockerOCIImage, beneath []ocispec.Descriptor, from origin, key string, name reference.Named) (*Image, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.o.Snapshots.Diff(ctx, key, w)) }()
	image, err := s.build(ctx, config, beneath, from, r, name)
	return image, errors.Join(err, r.Close())
}

// blobsOf returns the layers' blobs of an image, which may have been removed while a container stands on it.
func (s *Service) blobsOf(i *Image) ([]ocispec.Descriptor, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range []map[digest.Digest]*entry{s.images, s.ghosts} {
		if e, ok := m[i.ID]; ok {
			return e.layers, nil
		}
	}
	return nil, errdefs.New(errdefs.NotFound, "No such image: %s", i.ID)
}
