package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"gantry/snapshot"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// StepOptions shapes Step.
type StepOptions struct {
	Parent    *Image            // nil: it begins with nothing
	Platform  *ocispec.Platform // of an image without a parent; nil: the host's
	Step      digest.Digest     // says what was done, with all that it depends on but the parent
	Config    dockerspec.DockerOCIImageConfig
	Author    string
	CreatedBy string // for the history
	Hold      *Hold  // that keeps the image; nil: none
	Snapshot  string // key of the snapshot on the parent that has the changed files; empty: none has changed
}

// Step makes an image without a name of what a step of a build has done to its parent. Stepped finds it again.
func (s *Service) Step(ctx context.Context, o StepOptions) (*Image, error) {
	end := s.begin()
	defer end(ctx)
	config, beneath, err := s.upon(o.Parent, o.Config, ocispec.History{CreatedBy: o.CreatedBy, Author: o.Author})
	if err != nil {
		return nil, fmt.Errorf("store a step: %w", err)
	}
	from := origin{step: o.Step, hold: o.Hold}
	if o.Parent != nil {
		from.parent = o.Parent.ID
	} else if o.Platform != nil {
		config.Platform = normalize(*o.Platform)
	}
	var i *Image
	if o.Snapshot != "" {
		i, err = s.pack(ctx, config, beneath, from, o.Snapshot, nil)
	} else {
		config.RootFS.Type = "layers"
		config.History[len(config.History)-1].EmptyLayer = true
		i, err = s.describe(ctx, config, beneath, from, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("store a step: %w", err)
	}
	return i, nil
}

// Stepped returns the newest image that a step of a build has made of a parent, whose ID is empty for none; nil if there is none.
func (s *Service) Stepped(parent, step digest.Digest) *Image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found *Image
	for _, e := range s.images {
		if e.step == step && e.image.Parent == parent && (found == nil || e.image.Created.After(found.Created)) {
			found = e.image
		}
	}
	return found
}

// Workspace is a file system on top of an image, for as long as a verb takes.
type Workspace struct {
	Key  string   // of its snapshot
	Root *os.File // detached mount

	s *Service
}

// Workspace makes a file system on top of layers, to be written to unless readOnly is set. A killed process leaves a snapshot that belongs to nobody.
func (s *Service) Workspace(ctx context.Context, purpose string, layers []digest.Digest, readOnly bool) (*Workspace, error) {
	w := &Workspace{Key: purpose + "-" + strings.ToLower(rand.Text()), s: s}
	s.own.Store(w.Key, true)
	err := s.o.Snapshots.Prepare(ctx, w.Key, layers)
	if err == nil {
		w.Root, err = mountOf(ctx, s.o.Snapshots, w.Key, readOnly)
	}
	if err != nil {
		s.dropOwn(context.WithoutCancel(ctx), w.Key)
		return nil, err
	}
	return w, nil
}

func mountOf(ctx context.Context, snapshots snapshot.Snapshotter, key string, readOnly bool) (*os.File, error) {
	if readOnly {
		return snapshots.Mount(ctx, key, true)
	}
	return snapshots.MountVolatile(ctx, key) // what is kept of it is synced elsewhere
}

// Unmount ends the writing; what was written can be stored then.
func (w *Workspace) Unmount() error {
	f := w.Root
	w.Root = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// Close removes the file system.
func (w *Workspace) Close(ctx context.Context) error {
	err := w.Unmount()
	w.s.dropOwn(context.WithoutCancel(ctx), w.Key)
	if err != nil {
		return errors.Join(fmt.Errorf("unmount workspace %s", w.Key), err)
	}
	return nil
}
