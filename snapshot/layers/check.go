package layers

import (
	"context"
	"path/filepath"

	"gantry/fsck"

	"github.com/opencontainers/go-digest"
)

// Check reports damaged layers, layers without a folder, snapshots on layers that are gone, and leftovers in tmp.
func (s *Store) Check(ctx context.Context) ([]fsck.Difference, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []fsck.Difference
	names, err := s.names("layers")
	if err != nil {
		return nil, err
	}
	onDisk := map[string]bool{}
	for _, name := range names {
		onDisk[name] = true
		if _, err := s.readLayer(name); err != nil {
			d := fsck.Difference{Area: "layer", Object: name, Problem: "the layer is damaged: " + err.Error()}
			if s.uses[name] == 0 { // else its files are what a container still has
				d.Repair = func(context.Context) error { return s.forget(name) }
			}
			found = append(found, d)
		}
	}
	for name := range s.known {
		if !onDisk[name] {
			found = append(found, fsck.Difference{
				Area: "layer", Object: name, Problem: "the layer's folder is gone",
				Repair: func(context.Context) error { return s.forget(name) },
			})
		}
	}
	keys, err := s.names("snapshots")
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if s.snapshots[key] == nil {
			found = append(found, fsck.Difference{Area: "snapshot", Object: key, Problem: "the snapshot does not say which layers it stands on; what the container changed is in " + filepath.Join(s.Root, "snapshots", key)})
		}
		for _, l := range s.snapshots[key] {
			if !onDisk[l] {
				found = append(found, fsck.Difference{Area: "snapshot", Object: key, Problem: "its layer " + digest.NewDigestFromEncoded(digest.SHA256, l).String() + " is gone"})
			}
		}
	}
	aside, err := s.quarantined()
	if err != nil {
		return nil, err
	}
	found = append(found, aside...)
	left, err := s.leftovers()
	if err != nil {
		return nil, err
	}
	for _, l := range left {
		found = append(found, fsck.Difference{Area: "layer", Object: l, Problem: "left over in tmp", Repair: func(context.Context) error { return s.o.Delete(l) }})
	}
	return found, nil
}

// forget drops a damaged layer, unless it has come anew meanwhile, so that the next repair, pull or load of its image brings it.
func (s *Store) forget(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.readLayer(name); err == nil {
		return nil
	}
	delete(s.known, name)
	s.unmount(name)
	return s.o.Delete(filepath.Join(s.Root, "layers", name))
}
