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
	now := time.Now().UTC()
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: hostPlatform()}, Config: o.Config}
	step := ocispec.History{Created: &now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment}
	var beneath []ocispec.Descriptor
	var parent digest.Digest
	end := s.begin()
	defer end(ctx)
	if o.Parent != nil {
		config.Platform = o.Parent.Config.Platform
		config.RootFS = o.Parent.Config.RootFS
		config.History = append([]ocispec.History{}, o.Parent.Config.History...)
		parent = o.Parent.ID
		if beneath, err = s.blobsOf(o.Parent); err != nil {
			return nil, fmt.Errorf("commit container: %w", err)
		}
	}
	config.Created, config.Author = &now, o.Author
	if err := change(&config.Config, o.Changes); err != nil {
		return nil, err
	}
	config.History = append(config.History, step)
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.o.Snapshots.Diff(ctx, o.SnapshotKey, w)) }()
	image, err := s.build(ctx, config, beneath, parent, r, name)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("commit container: %w", err)
	}
	s.announce("create", image, image.ID.String())
	if name != nil {
		s.announce("tag", image, reference.FamiliarString(name))
	}
	return image, nil
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
