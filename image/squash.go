package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"gantry/archive"
	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SquashOptions shapes Squash.
type SquashOptions struct {
	Repo, Tag string // both empty: the image has no name
	Message   string
}

// Squash makes an image of one layer that has the files and the configuration of another: what layers replace or take away is not in it.
func (s *Service) Squash(ctx context.Context, ref string, o SquashOptions) (*Image, error) {
	name, err := newName(o.Repo, o.Tag)
	if err != nil {
		return nil, err
	}
	end := s.begin()
	defer end(ctx)
	from, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(from.DiffIDs) < 2 {
		return nil, errdefs.New(errdefs.InvalidParameter, "image %s has %d layers: there is nothing to squash", ref, len(from.DiffIDs))
	}
	work, err := s.Workspace(ctx, "squash-"+from.ID.Encoded(), from.DiffIDs, true)
	if err != nil {
		return nil, fmt.Errorf("squash image: %w", err)
	}
	image, err := s.squash(ctx, ref, from, work.Root, o, name)
	if err = errors.Join(err, work.Close(ctx)); err != nil {
		return nil, fmt.Errorf("squash image: %w", err)
	}
	s.announce("create", image, image.ID.String())
	if name != nil {
		s.announce("tag", image, reference.FamiliarString(name))
	}
	return image, nil
}

// dropOwn removes a snapshot of this service's. One that cannot be removed now is when garbage is collected.
func (s *Service) dropOwn(ctx context.Context, key string) {
	if err := s.o.Snapshots.Remove(ctx, key); err != nil {
		s.log.Error("remove snapshot", "snapshot", key, "error", err)
		s.own.Store(key, false)
		return
	}
	s.own.Delete(key)
}

// UsesSnapshot reports whether a snapshot is this service's, for as long as a verb takes. One that a killed process leaves belongs to nobody.
func (s *Service) UsesSnapshot(key string) bool {
	_, ok := s.own.Load(key)
	return ok
}

func (s *Service) squash(ctx context.Context, ref string, from *Image, root *os.File, o SquashOptions, name reference.Named) (*Image, error) {
	files, err := s.contents(ctx, ref, false)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	config := from.Config
	config.RootFS.DiffIDs = []digest.Digest{}
	config.Created = &now
	config.History = nil
	for _, h := range from.Config.History { // how it was made stays to be read
		h.EmptyLayer = true
		config.History = append(config.History, h)
	}
	comment := o.Message
	if comment == "" {
		comment = "squashed from " + from.ID.String()
	}
	config.History = append(config.History, ocispec.History{Created: &now, Comment: comment})
	all, w := io.Pipe()
	go func() { w.CloseWithError(archive.Tar(ctx, root, "/", w, archive.TarOptions{Contents: true})) }()
	own, w2 := io.Pipe()
	go func() { w2.CloseWithError(files.only(all, w2)) }()
	image, err := s.build(ctx, config, nil, origin{}, own, name)
	return image, errors.Join(err, own.Close(), all.Close())
}

// only copies those entries of a tar that the image has: a snapshot has places for mounts, too.
func (c *contents) only(r io.Reader, w io.Writer) error {
	from, to := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil {
			return err
		}
		if c.find(path.Clean("/"+h.Name)) == nil {
			continue
		}
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
	}
}
