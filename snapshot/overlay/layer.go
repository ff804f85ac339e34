package overlay

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

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/dir"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Stage unpacks a layer into tmp.
func (s *Snapshotter) Stage(ctx context.Context, r io.Reader, parents []digest.Digest) (*snapshot.Staged, error) {
	s.mu.Lock()
	folder, err := os.MkdirTemp(filepath.Join(s.root, "tmp"), layerPrefix)
	if err == nil {
		s.staged[folder] = true
	}
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", spaceKind(err))
	}
	staged, err := s.stage(ctx, folder, r, parents)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpack layer: %w", spaceKind(err)), s.Discard(&snapshot.Staged{Path: folder}))
	}
	return staged, nil
}

func (s *Snapshotter) stage(ctx context.Context, folder string, r io.Reader, parents []digest.Digest) (*snapshot.Staged, error) {
	contents := filepath.Join(folder, "fs")
	if err := errors.Join(os.Mkdir(contents, 0o755), os.Chmod(contents, 0o755)); err != nil {
		return nil, err
	}
	root, err := os.Open(contents)
	if err != nil {
		return nil, err
	}
	hashed := newHashReader(r)
	applied, err := archive.Apply(ctx, root, hashed, archive.ApplyOptions{Lower: s.lower(parents)})
	if err = errors.Join(err, root.Close()); err != nil {
		return nil, err
	}
	if err := hashed.drain(ctx); err != nil { // the digest is that of the whole stream, padding included
		return nil, err
	}
	l := layer{Layer: snapshot.Layer{DiffID: hashed.digest(), Size: applied.Size}, Opaque: applied.Opaque}
	l.Key = l.DiffID
	if applied.UsesLower {
		l.Key = chainID(append(slices.Clone(parents), l.DiffID))
	}
	data, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "layer.json"), data, 0o600); err != nil {
		return nil, err
	}
	return &snapshot.Staged{DiffID: l.DiffID, Size: l.Size, Path: folder, Key: l.Key}, nil
}

func chainID(diffIDs []digest.Digest) digest.Digest {
	chain := diffIDs[0]
	for _, d := range diffIDs[1:] {
		chain = digest.FromString(chain.String() + " " + d.String())
	}
	return chain
}

// lower returns the function that finds files in the layers beneath; they must be here by the time it is called.
func (s *Snapshotter) lower(parents []digest.Digest) func(string) (*dir.Dir, string, error) {
	return func(name string) (*dir.Dir, string, error) {
		s.mu.Lock()
		names, err := s.find(parents)
		folders := s.visible(names)
		s.mu.Unlock()
		if err != nil {
			return nil, "", fmt.Errorf("link into the layers beneath: %w", err)
		}
		layers, err := openAll(folders)
		defer closeAll(layers)
		if err != nil {
			return nil, "", err
		}
		return archive.FindLower(layers, name)
	}
}

// Commit syncs the file system once and gives the layers their names.
func (s *Snapshotter) Commit(_ context.Context, staged []*snapshot.Staged) error {
	if len(staged) == 0 {
		return nil
	}
	if err := dir.SyncFS(s.layers); err != nil {
		return fmt.Errorf("commit layers: %w", spaceKind(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range staged {
		if err := s.commit(g); err != nil {
			return fmt.Errorf("commit layer %s: %w", g.DiffID, spaceKind(err))
		}
	}
	if err := s.layers.Sync(); err != nil {
		return fmt.Errorf("commit layers: %w", err)
	}
	return nil
}

// commit renames one layer into place. The caller holds mu.
func (s *Snapshotter) commit(g *snapshot.Staged) error {
	name := g.Key.Encoded()
	if _, ok := s.known[name]; ok {
		delete(s.staged, g.Path)
		return os.RemoveAll(g.Path)
	}
	data, err := os.ReadFile(filepath.Join(g.Path, "layer.json"))
	if err != nil {
		return err
	}
	var l layer
	if err := json.Unmarshal(data, &l); err != nil {
		return err
	}
	target := filepath.Join(s.root, "layers", name)
	if err := os.RemoveAll(target); err != nil { // not known, so damaged
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
func (s *Snapshotter) Discard(g *snapshot.Staged) error {
	err := os.RemoveAll(g.Path)
	s.mu.Lock()
	delete(s.staged, g.Path)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("discard layer: %w", err)
	}
	return nil
}

// Find returns the layers with these diffIDs.
func (s *Snapshotter) Find(_ context.Context, diffIDs []digest.Digest) ([]snapshot.Layer, error) {
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
func (s *Snapshotter) Layers(context.Context) ([]snapshot.Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var layers []snapshot.Layer
	for _, n := range slices.Sorted(maps.Keys(s.known)) {
		layers = append(layers, s.known[n].Layer)
	}
	return layers, nil
}

// InUse reports whether a snapshot stands on a layer.
func (s *Snapshotter) InUse(key digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uses[key.Encoded()] > 0
}

// RemoveLayer moves a layer to tmp, where it is no layer any more, and deletes it there.
func (s *Snapshotter) RemoveLayer(_ context.Context, key digest.Digest) error {
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

func (s *Snapshotter) takeAside(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[name]; !ok {
		return "", nil
	}
	if n := s.uses[name]; n > 0 {
		return "", errdefs.New(errdefs.Conflict, "%d snapshots stand on it", n)
	}
	aside := filepath.Join(s.root, "tmp", layerPrefix+name)
	if err := os.Rename(filepath.Join(s.root, "layers", name), aside); err != nil {
		return "", err
	}
	delete(s.known, name)
	s.staged[aside] = true
	return aside, nil
}
