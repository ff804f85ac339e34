package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"gantry/errdefs"
	"gantry/linux/dir"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Prepare makes the folder of a snapshot. fill puts the snapshotter's own into it; lower are the layers, top first, the base last.
func (s *Store) Prepare(key string, diffIDs []digest.Digest, fill func(folder string, lower []Lower) error) error {
	if err := validKey(key); err != nil {
		return err
	}
	folder, lower, err := s.begin(key, diffIDs)
	if errors.Is(err, fs.ErrExist) {
		err = errdefs.With(errdefs.Conflict, err)
	}
	if err != nil {
		return fmt.Errorf("prepare snapshot %s: %w", key, SpaceKind(err))
	}
	if err := fill(folder, lower); err != nil {
		return errors.Join(fmt.Errorf("prepare snapshot %s: %w", key, SpaceKind(err)), s.Remove(context.Background(), key))
	}
	return nil
}

// begin makes the folder of a snapshot and the list of its layers. From here on the layers are in use.
func (s *Store) begin(key string, diffIDs []digest.Digest) (folder string, lower []Lower, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, err := s.find(diffIDs)
	if err == nil {
		lower, err = s.lowers(names)
	}
	if err != nil {
		return "", nil, err
	}
	folder = filepath.Join(s.Root, "snapshots", key)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "layers"), encodeSnapshot(names), 0o600); err != nil {
		return "", nil, errors.Join(err, s.o.Delete(folder))
	}
	s.snapshots[key] = names
	for _, n := range names {
		s.uses[n]++
	}
	return folder, lower, nil
}

// SpaceKind gives the error of a full disk its kind.
func SpaceKind(err error) error {
	if dir.SpaceError(err) {
		return errdefs.With(errdefs.Exhausted, err)
	}
	return err
}

// Lookup returns the folder of a snapshot and its layers, top first, the base last.
func (s *Store) Lookup(key string) (folder string, lower []Lower, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, ok := s.snapshots[key]
	if !ok {
		return "", nil, errdefs.New(errdefs.NotFound, "no such snapshot: %s", key)
	}
	if names == nil {
		return "", nil, errdefs.New(errdefs.Internal, "snapshot %s is damaged: it does not say which layers it stands on", key)
	}
	lower, err = s.lowers(names)
	return filepath.Join(s.Root, "snapshots", key), lower, err
}

// Remove moves a snapshot to tmp, where it is none any more, and has it deleted there in the background.
func (s *Store) Remove(_ context.Context, key string) error {
	if err := validKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	aside := filepath.Join(s.Root, "tmp", layerPrefix+"of-"+key)
	for n := 0; s.staged[aside]; n++ { // an older one of that name is still being deleted
		aside = filepath.Join(s.Root, "tmp", fmt.Sprintf("%sof-%s.%d", layerPrefix, key, n))
	}
	err := os.Rename(filepath.Join(s.Root, "snapshots", key), aside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	if err == nil {
		s.staged[aside] = true
		s.going.Go(func() {
			_ = s.Discard(&snapshot.Staged{Path: aside}) // what stays is found by Check and swept by Open
		})
	}
	for _, n := range s.snapshots[key] {
		if s.uses[n]--; s.uses[n] == 0 {
			delete(s.uses, n)
		}
	}
	delete(s.snapshots, key)
	return nil
}

// List returns the keys of all snapshots, sorted.
func (s *Store) List(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.snapshots)), nil
}

// Usage adds up the files beneath a folder. Files that come and go meanwhile do not matter.
func Usage(ctx context.Context, folder string) (bytes, inodes int64, err error) {
	err = dir.Inventory(ctx, folder, func(info fs.FileInfo, again bool) {
		inodes++
		if info.Mode().IsRegular() && !again {
			bytes += info.Size()
		}
	})
	return bytes, inodes, err
}

// OpenAll opens layers. The caller closes them with CloseAll, after an error, too.
func OpenAll(lower []Lower) ([]*dir.Dir, error) {
	var open []*dir.Dir
	for _, l := range lower {
		d, err := dir.Open(l.Path)
		if err != nil {
			return open, err
		}
		open = append(open, d)
	}
	return open, nil
}

// CloseAll closes folders.
func CloseAll(open []*dir.Dir) {
	for _, d := range open {
		_ = d.Close() // read only
	}
}
