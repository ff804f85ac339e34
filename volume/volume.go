// Package volume keeps named directories that outlive containers.
package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
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
	Size     int64 // bytes of the disk that it takes up
	RefCount int   // containers that use it
}

const (
	driverLocal = "local"
	dataDir     = "_data"
	trashPrefix = ".removed-"
)

// record is a volume in the database.
type record struct {
	Driver    string
	Created   time.Time
	Options   map[string]string
	Labels    map[string]string
	Anonymous bool
	Mounts    []string // containers for which a volume with options is mounted
}

const volumes db.Bucket[record] = "volume"

// Service owns the volumes of one daemon. Its methods may be called concurrently.
type Service struct {
	o Options

	mu      sync.Mutex // guards all below, and the volumes' directories and mounts
	volumes map[string]*record
	users   map[string]map[string]struct{} // volume -> containers
}

// Open opens the volumes under Options.Root. A directory with content that is not on record becomes a volume again.
func Open(ctx context.Context, o Options) (*Service, error) {
	s := &Service{o: o, volumes: map[string]*record{}, users: map[string]map[string]struct{}{}}
	if err := os.MkdirAll(o.Root, 0o701); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	err := o.DB.View(func(tx *db.Tx) error {
		for name, r := range volumes.All(tx) {
			if r.Err != nil { // the directory is adopted below, without options
				continue
			}
			s.volumes[name] = &r.Value
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	if err := s.adopt(ctx); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	return s, nil
}

// adopt finishes removals and creations that were cut off: what has content stays, under its name.
func (s *Service) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(s.o.Root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, trashPrefix) {
			if err := os.RemoveAll(filepath.Join(s.o.Root, name)); err != nil {
				return err
			}
			continue
		}
		if s.volumes[name] != nil || !e.IsDir() || checkName(name) != nil {
			continue
		}
		if os.Remove(s.data(name)) == nil { // was empty
			if err := os.Remove(filepath.Join(s.o.Root, name)); err != nil {
				return err
			}
			continue
		}
		if _, err := os.Stat(s.data(name)); err != nil {
			continue // none of ours
		}
		r := &record{Driver: driverLocal, Created: time.Now().UTC()}
		if err := s.save(name, r); err != nil {
			return err
		}
		s.volumes[name] = r
	}
	return ctx.Err()
}

// Close unmounts nothing: running containers keep their volumes.
func (s *Service) Close() error { return nil }

// Create makes a volume, or returns the one of that name. Name "" makes an anonymous one.
func (s *Service) Create(ctx context.Context, name, driver string, options, labels map[string]string) (*Volume, error) {
	if driver == "" {
		driver = driverLocal
	}
	if driver != driverLocal {
		return nil, errdefs.New(errdefs.NotFound, "create %s: error looking up volume plugin %s: plugin %q not found", name, driver, driver)
	}
	anonymous := name == ""
	if anonymous {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails
		name = hex.EncodeToString(b)
	}
	if err := checkName(name); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "create %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.volumes[name]; r != nil {
		if len(options) > 0 && !maps.Equal(options, r.Options) {
			return nil, errdefs.New(errdefs.Conflict, "create %s: volume already exists with different options: remove it first or use another name", name)
		}
		return s.view(name, r), nil
	}
	if err := checkOptions(options); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "create %s: %w", name, err)
	}
	if err := os.MkdirAll(s.data(name), 0o755); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	if err := os.Chmod(filepath.Dir(s.data(name)), 0o701); err != nil { // the container's users pass through
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	r := &record{Driver: driver, Created: time.Now().UTC(), Options: options, Labels: labels, Anonymous: anonymous}
	if err := s.save(name, r); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", name, errors.Join(err, os.RemoveAll(filepath.Dir(s.data(name)))))
	}
	s.volumes[name] = r
	s.publish("create", name, r)
	return s.view(name, r), ctx.Err()
}

// Get returns a volume; NotFound "get NAME: no such volume".
func (s *Service) Get(ctx context.Context, name string) (*Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.get(name)
	if err != nil {
		return nil, err
	}
	return s.view(name, r), nil
}

func (s *Service) get(name string) (*record, error) {
	if r := s.volumes[name]; r != nil {
		return r, nil
	}
	return nil, errdefs.New(errdefs.NotFound, "get %s: no such volume", name)
}

// List returns all volumes, by name.
func (s *Service) List(ctx context.Context) ([]*Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Volume
	for _, name := range slices.Sorted(maps.Keys(s.volumes)) {
		all = append(all, s.view(name, s.volumes[name]))
	}
	return all, nil
}

// Remove deletes a volume that no container uses. With force one that does not exist is no error.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	trash, err := s.detach(name)
	if err != nil {
		if force && errdefs.Is(err, errdefs.NotFound) {
			return nil
		}
		return err
	}
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("remove volume %s: its content is left in %s: %w", name, trash, err)
	}
	return ctx.Err()
}

// detach makes the volume disappear and returns where its content waits for deletion.
func (s *Service) detach(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.get(name)
	if err != nil {
		return "", err
	}
	if users := s.usersOf(name); len(users) > 0 {
		return "", errdefs.New(errdefs.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	if len(r.Options) > 0 { // the mount's content is not ours to delete
		if err := unmountData(s.data(name)); err != nil {
			return "", fmt.Errorf("remove volume %s: %w", name, err)
		}
	}
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	trash := filepath.Join(s.o.Root, trashPrefix+hex.EncodeToString(b))
	if err := os.Rename(filepath.Dir(s.data(name)), trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := s.o.DB.Update(func(tx *db.Tx) error { return volumes.Delete(tx, name) }); err != nil {
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	delete(s.volumes, name)
	s.publish("destroy", name, r)
	return trash, nil
}

// RehearsePrune returns what Prune would, once the containers for which gone holds are not there any more. It deletes nothing.
func (s *Service) RehearsePrune(ctx context.Context, match func(*Volume) bool, gone func(containerID string) bool) (names []string, freed int64, err error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, v := range all {
		if !match(v) || slices.ContainsFunc(s.Users(v.Name), func(id string) bool { return !gone(id) }) {
			continue
		}
		usage, err := s.Usage(ctx, v.Name)
		if err == nil {
			freed += usage.Size
		}
		names = append(names, v.Name)
	}
	return names, freed, nil
}

// Prune deletes the unused volumes for which match (nil: any) holds; it returns their names and the bytes freed.
func (s *Service) Prune(ctx context.Context, match func(*Volume) bool) ([]string, int64, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	var names []string
	var freed int64
	var errs []error
	for _, v := range all {
		if match != nil && !match(v) || len(s.Users(v.Name)) > 0 {
			continue
		}
		usage, err := s.Usage(ctx, v.Name)
		if err != nil {
			usage.Size = 0 // the space is freed all the same
		}
		switch err := s.Remove(ctx, v.Name, false); {
		case errdefs.Is(err, errdefs.Conflict), errdefs.Is(err, errdefs.NotFound): // changed under way
		case err != nil:
			errs = append(errs, err)
		default:
			names = append(names, v.Name)
			freed += usage.Size
		}
	}
	return names, freed, errors.Join(errs...)
}

// Acquire notes that a container refers to the volume (from its creation to its removal) and keeps it from removal.
// References are not kept over a restart: the caller acquires again for each container on record.
func (s *Service) Acquire(ctx context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(name); err != nil {
		return err
	}
	if s.users[name] == nil {
		s.users[name] = map[string]struct{}{}
	}
	s.users[name][containerID] = struct{}{}
	return nil
}

// Release takes back the reference; it is idempotent.
func (s *Service) Release(ctx context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users[name], containerID)
	if len(s.users[name]) == 0 {
		delete(s.users, name)
	}
	return nil
}

// Users returns the IDs of the containers that refer to the volume, sorted.
func (s *Service) Users(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usersOf(name)
}

func (s *Service) usersOf(name string) []string { return slices.Sorted(maps.Keys(s.users[name])) }

// Path returns the directory of a volume.
func (s *Service) Path(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(name); err != nil {
		return "", err
	}
	return s.data(name), nil
}

func (s *Service) data(name string) string { return filepath.Join(s.o.Root, name, dataDir) }

func (s *Service) save(name string, r *record) error {
	return s.o.DB.Update(func(tx *db.Tx) error { return volumes.Put(tx, name, *r) })
}

func (s *Service) view(name string, r *record) *Volume {
	return &Volume{
		Name: name, Driver: r.Driver, Mountpoint: s.data(name), Created: r.Created, Scope: "local", Anonymous: r.Anonymous,
		Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels),
	}
}

func (s *Service) publish(action, name string, r *record) {
	if s.o.Events != nil {
		s.o.Events.Publish(event.Event{Type: event.Volume, Action: action, ID: name, Attributes: map[string]string{"driver": r.Driver}})
	}
}

// checkName takes what Docker's local driver takes, in its words.
func checkName(name string) error {
	const maxName = 255
	if len(name) == 1 {
		return errors.New("volume name is too short, names should be at least two alphanumeric characters")
	}
	valid := len(name) <= maxName
	for i, c := range []byte(name) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		valid = valid && (alphanumeric || i > 0 && strings.IndexByte("_.-", c) >= 0)
	}
	if !valid {
		return fmt.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name)
	}
	return nil
}
