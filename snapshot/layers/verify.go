package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/fsck"
	"gantry/linux/dir"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Verify unpacks a layer anew, in the form that the one here has, and compares the two.
func (s *Store) Verify(ctx context.Context, r io.Reader, l snapshot.Layer, parents []digest.Digest) (*snapshot.Staged, string, error) {
	s.mu.Lock()
	known, here := s.known[l.Key.Encoded()]
	s.mu.Unlock()
	if !here {
		return nil, "", errdefs.New(errdefs.NotFound, "verify layer: %s is not here", l.Key)
	}
	g, err := s.stageAs(ctx, known.image, r, parents)
	if err != nil {
		return nil, "", fmt.Errorf("verify layer %s: %w", l.Key, err)
	}
	var differs string
	if g.DiffID != l.DiffID || g.Key != l.Key {
		err = errdefs.New(errdefs.InvalidParameter, "the archive to compare it with is of layer %s", g.Key)
	} else {
		differs, err = compare(ctx, filepath.Join(s.Root, "layers", l.Key.Encoded()), g.Path, known.image)
	}
	if err == nil && differs == "" {
		differs, err = compareRecord(known, g.Path)
	}
	switch {
	case err != nil:
		return nil, "", errors.Join(fmt.Errorf("verify layer %s: %w", l.Key, err), s.Discard(g))
	case differs != "":
		return g, differs, nil
	default:
		return nil, "", s.Discard(g)
	}
}

// compareRecord returns the name of the record if what is known of a layer is not what its folder anew says.
func compareRecord(known layer, anew string) (differs string, err error) {
	data, err := os.ReadFile(filepath.Join(anew, record))
	if err != nil {
		return "", err
	}
	var l layer
	if err := json.Unmarshal(data, &l); err != nil {
		return "", err
	}
	if l.Layer != known.Layer || l.Opaque != known.Opaque {
		return record, nil
	}
	return "", nil
}

// compare returns what differs between the folders of two layers, or "".
func compare(ctx context.Context, old, anew string, image bool) (differs string, err error) {
	if image {
		a, err := os.Open(filepath.Join(old, imageFile))
		if err != nil {
			return imageFile, nil //nolint:nilerr // what cannot be opened differs
		}
		defer a.Close()
		b, err := os.Open(filepath.Join(anew, imageFile))
		if err != nil {
			return "", err
		}
		defer b.Close()
		same, err := archive.SameStream(a, b, make([]byte, 1<<20), make([]byte, 1<<20))
		if same {
			return "", err
		}
		return imageFile, err
	}
	a, err := dir.Open(filepath.Join(old, "fs"))
	if err != nil {
		return "/", nil //nolint:nilerr // what cannot be opened differs
	}
	defer a.Close()
	b, err := dir.Open(filepath.Join(anew, "fs"))
	if err != nil {
		return "", err
	}
	defer b.Close()
	return archive.Differs(ctx, a, b)
}

// Replace moves the layer that is here to quarantine and commits the staged one. A kill between the two leaves the layer out, as if it had never come: the next
// pull or load of its image brings it.
func (s *Store) Replace(ctx context.Context, g *snapshot.Staged) error {
	if err := dir.SyncFS(s.layers); err != nil {
		return fmt.Errorf("replace layer %s: %w", g.Key, SpaceKind(err))
	}
	name := g.Key.Encoded()
	s.mu.Lock()
	err := os.MkdirAll(s.quarantine(), 0o700)
	aside := filepath.Join(s.quarantine(), name)
	for n := 1; err == nil; n++ {
		if _, serr := os.Lstat(aside); serr != nil {
			break
		}
		aside = filepath.Join(s.quarantine(), fmt.Sprintf("%s.%d", name, n))
	}
	if err == nil {
		err = os.Rename(filepath.Join(s.Root, "layers", name), aside)
	}
	if err == nil {
		delete(s.known, name)
		s.unmount(name)
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("replace layer %s: %w", g.Key, err)
	}
	return s.Commit(ctx, []*snapshot.Staged{g})
}

func (s *Store) quarantine() string { return filepath.Join(s.Root, "quarantine") }

// quarantined lists the damaged layers that were replaced. Containers that run since before still have the files of one that is a folder. The caller holds mu.
func (s *Store) quarantined() ([]fsck.Difference, error) {
	entries, err := os.ReadDir(s.quarantine())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var found []fsck.Difference
	for _, e := range entries {
		path := filepath.Join(s.quarantine(), e.Name())
		d := fsck.Difference{Area: "layer", Object: path, Problem: "a damaged layer was moved aside here"}
		name, _, _ := strings.Cut(e.Name(), ".")
		if _, err := os.Lstat(filepath.Join(path, "fs")); s.uses[name] == 0 || err != nil {
			d.Repair = func(context.Context) error { return s.o.Delete(path) }
		} else {
			d.Problem += ", which containers may still have: a repair removes it when they are removed"
		}
		found = append(found, d)
	}
	return found, nil
}
