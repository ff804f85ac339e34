// Package volume keeps named directories that outlive containers.
package volume

import (
	"context"
	"time"

	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/fsck"
)

// Options says how Open sets the service up.
type Options struct {
	Root   string // <data root>/volumes
	DB     *db.DB
	Events *event.Bus
}

// Volume is one volume, as `volume inspect` shows it.
type Volume struct {
	Name       string
	Driver     string // "local"
	Mountpoint string // <Root>/<Name>/_data
	Created    time.Time
	Options    map[string]string
	Labels     map[string]string
	Anonymous  bool
	Scope      string // "local"
}

// Usage is what `system df` says of a volume.
type Usage struct {
	Size     int64 // bytes on disk
	RefCount int   // containers that use it
}

// Service owns the volumes of one daemon. Its methods may be called concurrently.
type Service struct{}

// Open opens the volumes under Options.Root.
func Open(ctx context.Context, o Options) (*Service, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "volumes are not there yet")
}

// Close unmounts nothing: running containers keep their volumes.
func (s *Service) Close() error { return nil }

// Create makes a volume, or returns the one of that name when driver and options agree. Name "" makes an anonymous one.
func (s *Service) Create(ctx context.Context, name, driver string, options, labels map[string]string) (*Volume, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "volumes are not there yet")
}

// Get returns a volume; NotFound "get NAME: no such volume".
func (s *Service) Get(ctx context.Context, name string) (*Volume, error) {
	return nil, errdefs.New(errdefs.NotFound, "get %s: no such volume", name)
}

// List returns all volumes, by name.
func (s *Service) List(ctx context.Context) ([]*Volume, error) { return nil, nil }

// Remove deletes a volume that no container uses. With force one that does not exist is no error.
func (s *Service) Remove(ctx context.Context, name string, force bool) error { return nil }

// Prune deletes the unused volumes for which match (nil: any) holds; it returns their names and the bytes freed.
func (s *Service) Prune(ctx context.Context, match func(*Volume) bool) ([]string, int64, error) {
	return nil, 0, nil
}

// Acquire notes that a container refers to the volume (from its creation to its removal) and keeps it from removal.
// References are not kept over a restart: the caller acquires again for each container on record.
func (s *Service) Acquire(ctx context.Context, name, containerID string) error { return nil }

// Release takes back the reference; it is idempotent.
func (s *Service) Release(ctx context.Context, name, containerID string) error { return nil }

// Users returns the IDs of the containers that refer to the volume, sorted.
func (s *Service) Users(name string) []string { return nil }

// Mount makes the volume's content available for a start of the container and returns its path; only volumes with
// type/device options need a mount. Every Mount is followed by an Unmount when the container ended.
func (s *Service) Mount(ctx context.Context, name, containerID string) (string, error) { return "", nil }

// Unmount ends what Mount began; it is idempotent.
func (s *Service) Unmount(ctx context.Context, name, containerID string) error { return nil }

// Path returns the directory of a volume.
func (s *Service) Path(name string) (string, error) { return "", nil }

// Usage measures a volume.
func (s *Service) Usage(ctx context.Context, name string) (Usage, error) { return Usage{}, nil }

// Check compares the records with the directories and mounts.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) { return nil, nil }
