package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"gantry/archive"
	"gantry/archive/confined"
	"gantry/errdefs"
	"gantry/linux/dir"
	"gantry/linux/mount"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Stage unpacks a layer into tmp, in a process of its own. The layer's record, empty meanwhile, is locked until that process has ended, whoever ends first.
func (s *Store) Stage(ctx context.Context, r io.Reader, parents []digest.Digest) (*snapshot.Staged, error) {
	return s.stageAs(ctx, s.o.Images, r, parents)
}

func (s *Store) stageAs(ctx context.Context, image bool, r io.Reader, parents []digest.Digest) (*snapshot.Staged, error) {
	folder, err := s.Temp("")
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", SpaceKind(err))
	}
	staged, err := s.stage(ctx, folder, image, r, parents)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpack layer: %w", SpaceKind(err)), s.Discard(&snapshot.Staged{Path: folder}))
	}
	return staged, nil
}

// Temp makes a folder in tmp that is the caller's, until Discard deletes it or Named says that it has another name now.
func (s *Store) Temp(prefix string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	folder, err := os.MkdirTemp(filepath.Join(s.Root, "tmp"), layerPrefix+prefix)
	if err == nil {
		s.staged[folder] = true
	}
	return folder, err
}

// Named says that a folder made by Temp is none any more.
func (s *Store) Named(folder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.staged, folder)
}

func (s *Store) stage(ctx context.Context, folder string, image bool, r io.Reader, parents []digest.Digest) (*snapshot.Staged, error) {
	lock, err := os.OpenFile(filepath.Join(folder, record), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock: %w", err), lock.Close())
	}
	unpacked, err := s.unpack(ctx, folder, image, lock, r, parents)
	if err = errors.Join(err, lock.Close()); err != nil {
		return nil, err
	}
	l := layer{Layer: snapshot.Layer{DiffID: unpacked.DiffID, Size: unpacked.Size}, Opaque: unpacked.Opaque}
	l.Key = l.DiffID
	if unpacked.UsesLower {
		l.Key = chainID(append(slices.Clone(parents), l.DiffID))
	}
	data, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, record), data, 0o600); err != nil {
		return nil, err
	}
	return &snapshot.Staged{DiffID: l.DiffID, Size: l.Size, Path: folder, Key: l.Key}, nil
}

func (s *Store) unpack(ctx context.Context, folder string, image bool, lock *os.File, r io.Reader, parents []digest.Digest) (u archive.Unpacked, err error) {
	j := confined.Job{Lock: lock, Limits: s.Limits()}
	if j.Lower, err = s.lower(parents); err == nil {
		if image {
			u, err = unpackImage(ctx, filepath.Join(folder, imageFile), r, j)
		} else {
			u, err = unpackFolder(ctx, filepath.Join(folder, "fs"), r, j)
		}
	}
	for _, f := range j.Lower {
		err = errors.Join(err, f.Close())
	}
	return u, err
}

func unpackImage(ctx context.Context, path string, r io.Reader, j confined.Job) (u archive.Unpacked, err error) {
	if j.Image, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return u, err
	}
	u, err = confined.Unpack(ctx, r, j)
	return u, errors.Join(err, j.Image.Close())
}

func unpackFolder(ctx context.Context, contents string, r io.Reader, j confined.Job) (u archive.Unpacked, err error) {
	if err := errors.Join(os.Mkdir(contents, 0o755), os.Chmod(contents, 0o755)); err != nil {
		return u, err
	}
	j.Folder = contents
	return confined.Unpack(ctx, r, j)
}

func chainID(diffIDs []digest.Digest) digest.Digest {
	chain := diffIDs[0]
	for _, d := range diffIDs[1:] {
		chain = digest.FromString(chain.String() + " " + d.String())
	}
	return chain
}

// lower returns mounts of the layers beneath, top first, for the rare layer that needs them; none while they are not all here.
func (s *Store) lower(parents []digest.Digest) (mounts []*os.File, err error) {
	s.mu.Lock()
	names, err := s.find(parents)
	images := map[string]bool{}
	for _, name := range names {
		images[name] = s.known[name].image
	}
	names = s.visible(names)
	s.mu.Unlock()
	if err != nil {
		return nil, nil //nolint:nilerr // the layer will say that it misses something, if it does
	}
	for _, name := range names {
		m, err := s.contents(name, images[name])
		if m != nil {
			mounts = append(mounts, m)
		}
		if err != nil {
			return mounts, err
		}
	}
	return mounts, nil
}

// contents returns a mount of a layer from which nothing can be executed.
func (s *Store) contents(name string, image bool) (m *os.File, err error) {
	folder := filepath.Join(s.Root, "layers", name)
	if image {
		m, err = mount.Image(filepath.Join(folder, imageFile))
	} else {
		m, err = mount.Bind(filepath.Join(folder, "fs"), false)
	}
	if err == nil {
		err = mount.SetAttr(m, mount.ReadOnly|mount.NoDev|mount.NoSuid|mount.NoExec, 0, mount.Private, false)
	}
	return m, err
}

// Open returns a detached mount of a layer's contents, read-only.
func (s *Store) Open(_ context.Context, key digest.Digest) (*os.File, error) {
	s.mu.Lock()
	l, here := s.known[key.Encoded()]
	s.mu.Unlock()
	if !here {
		return nil, errdefs.New(errdefs.NotFound, "layer %s is not here", key)
	}
	m, err := s.contents(key.Encoded(), l.image)
	if err != nil {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
		return nil, fmt.Errorf("open layer %s: %w", key, err)
	}
	return m, nil
}

// Commit syncs the file system once and gives the layers their names.
func (s *Store) Commit(_ context.Context, staged []*snapshot.Staged) error {
	if len(staged) == 0 {
		return nil
	}
	if err := dir.SyncFS(s.layers); err != nil {
		return fmt.Errorf("commit layers: %w", SpaceKind(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range staged {
		if err := s.commit(g); err != nil {
			return fmt.Errorf("commit layer %s: %w", g.DiffID, SpaceKind(err))
		}
	}
	if err := s.layers.Sync(); err != nil {
		return fmt.Errorf("commit layers: %w", err)
	}
	return nil
}

// commit renames one layer into place. The caller holds mu.
func (s *Store) commit(g *snapshot.Staged) error {
	name := g.Key.Encoded()
	if _, ok := s.known[name]; ok {
		delete(s.staged, g.Path)
		return s.o.Delete(g.Path)
	}
	data, err := os.ReadFile(filepath.Join(g.Path, record))
	if err != nil {
		return err
	}
	var l layer
	if err := json.Unmarshal(data, &l); err != nil {
		return err
	}
	if l.image, err = hasImage(g.Path); err != nil { // before it has a name: what is not known then would be nobody's
		return err
	}
	target := filepath.Join(s.Root, "layers", name)
	if err := s.o.Delete(target); err != nil { // not known, so damaged
		return err
	}
	if err := os.Rename(g.Path, target); err != nil {
		return err
	}
	delete(s.staged, g.Path)
	s.known[name] = l
	return nil
}

// Discard deletes a staged layer.
func (s *Store) Discard(g *snapshot.Staged) error {
	err := s.o.Delete(g.Path)
	s.mu.Lock()
	delete(s.staged, g.Path)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("discard layer: %w", err)
	}
	return nil
}

// Limits are those of layers that are unpacked from now on.
func (s *Store) Limits() archive.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Limits
}

// SetLimits replaces the limits of layers that are unpacked from now on.
func (s *Store) SetLimits(limits archive.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o.Limits = limits
}

// Sweep deletes the folders in tmp that are nobody's.
func (s *Store) Sweep(context.Context) error {
	s.mu.Lock()
	left, err := s.leftovers()
	s.mu.Unlock()
	for _, path := range left { // nobody takes them again
		err = errors.Join(err, s.o.Delete(path))
	}
	if err != nil {
		return fmt.Errorf("sweep layers: %w", err)
	}
	return nil
}

// Find returns the layers with these diffIDs.
func (s *Store) Find(_ context.Context, diffIDs []digest.Digest) ([]snapshot.Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, err := s.find(diffIDs)
	if err != nil {
		return nil, err
	}
	layers := make([]snapshot.Layer, len(names))
	for i, n := range names {
		layers[i] = s.known[n].Layer
	}
	return layers, nil
}

// Layers lists all layers, sorted by key.
func (s *Store) Layers(context.Context) ([]snapshot.Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var layers []snapshot.Layer
	for _, n := range slices.Sorted(maps.Keys(s.known)) {
		layers = append(layers, s.known[n].Layer)
	}
	return layers, nil
}

// InUse reports whether a snapshot stands on a layer.
func (s *Store) InUse(key digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uses[key.Encoded()] > 0
}

// RemoveLayer moves a layer to tmp, where it is no layer any more, and deletes it there.
func (s *Store) RemoveLayer(_ context.Context, key digest.Digest) error {
	if err := key.Validate(); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "remove layer %q: %w", key, err)
	}
	aside, err := s.takeAside(key.Encoded())
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", key, err)
	}
	if aside == "" {
		return nil
	}
	return s.Discard(&snapshot.Staged{Path: aside})
}

func (s *Store) takeAside(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[name]; !ok {
		return "", nil
	}
	if n := s.uses[name]; n > 0 {
		return "", errdefs.New(errdefs.Conflict, "%d snapshots stand on it", n)
	}
	aside := filepath.Join(s.Root, "tmp", layerPrefix+name)
	if err := os.Rename(filepath.Join(s.Root, "layers", name), aside); err != nil {
		return "", err
	}
	delete(s.known, name)
	s.unmount(name)
	s.staged[aside] = true
	return aside, nil
}
