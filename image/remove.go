package image

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"gantry/db"
	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Remove takes away a name, and the image with its last one. Given an ID it takes the image with all its names, which must be in one repository
// unless forced. Errors: NotFound, Conflict.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]Removed, error) {
	removed, gone, err := s.remove(ref, o)
	if err != nil {
		return nil, err
	}
	if gone {
		if err := s.collect(context.WithoutCancel(ctx)); err != nil {
			return removed, fmt.Errorf("remove image %s: %w", ref, err)
		}
	}
	return removed, nil
}

func (s *Service) remove(ref string, o RemoveOptions) (removed []Removed, gone bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.resolve(ref)
	if err != nil {
		return nil, false, err
	}
	image := s.images[id].image
	uses := s.uses(o.InUse, id)
	names := s.namesOf(id)
	if named, byName := s.byName(ref, id); byName {
		index := s.indexes[named.String()]
		if removed, gone, err = s.removeName(image, named, names, uses, o); err != nil || index.Digest == "" || s.names[named.Name()+"@"+index.Digest.String()] != "" {
			return removed, gone, err
		}
		for _, i := range s.siblings(index, named.Name()) { // with the name go the platforms that came with it
			if len(s.uses(o.InUse, i.ID)) > 0 || s.child(i.ID) != "" {
				continue
			}
			more, also, err := s.removeImage(i, s.namesOf(i.ID), o)
			removed, gone = append(removed, more...), gone || also
			if err != nil {
				return removed, gone, err
			}
		}
		return removed, gone, nil
	}
	if err := removable(image, uses, o.Force); err != nil {
		return nil, false, err
	}
	if repos := repositories(names); len(repos) > 1 && !o.Force {
		return nil, false, errdefs.New(errdefs.Conflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short(id))
	}
	return s.removeImage(image, names, o)
}

// byName reports whether ref is a name rather than an ID, and which.
func (s *Service) byName(ref string, id digest.Digest) (reference.Named, bool) {
	if ref == id.String() || ref == id.Encoded() {
		return nil, false
	}
	named, err := parseName(ref)
	if err != nil {
		return nil, false
	}
	return named, s.names[named.String()] == id
}

// removeName takes one name away, and the image if it was the last.
func (s *Service) removeName(image *Image, named reference.Named, names []string, uses []ContainerUse, o RemoveOptions) ([]Removed, bool, error) {
	var left, drop []string
	for _, n := range names {
		if n == named.String() {
			drop = append(drop, n)
		} else {
			left = append(left, n)
		}
	}
	if _, isTag := named.(reference.Tagged); isTag {
		// With the last tag of a repository go the digests that the repository has the image by.
		repo := named.Name()
		tagged := slices.ContainsFunc(left, func(n string) bool { return repositoryOf(n) == repo && !strings.Contains(n, "@") })
		if !tagged {
			left = slices.DeleteFunc(left, func(n string) bool {
				own := repositoryOf(n) == repo
				if own {
					drop = append(drop, n)
				}
				return own
			})
		}
	}
	if len(left) > 0 {
		if err := s.drop(image, drop, false); err != nil {
			return nil, false, err
		}
		return s.untagged(image, drop), false, nil
	}
	if len(uses) > 0 && !o.Force {
		return nil, false, errdefs.New(errdefs.Conflict, "conflict: unable to remove repository reference %q (must force) - %s is using its referenced image %s",
			reference.FamiliarString(named), uses[0].user(), short(image.ID))
	}
	if len(uses) > 0 { // forced: the name goes, the image stays for its containers
		if running(uses) {
			if err := s.drop(image, drop, false); err != nil {
				return nil, false, err
			}
			return s.untagged(image, drop), false, nil
		}
	}
	return s.removeImage(image, drop, o)
}

// removable says why an image cannot be deleted by its ID.
func removable(image *Image, uses []ContainerUse, force bool) error {
	for _, u := range uses {
		if u.Running {
			return errdefs.New(errdefs.Conflict, "conflict: unable to delete %s (cannot be forced) - image is being used by %s", short(image.ID), u)
		}
	}
	if len(uses) > 0 && !force {
		return errdefs.New(errdefs.Conflict, "conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short(image.ID), shortID(uses[0].ID))
	}
	return nil
}

// removeImage deletes an image with all its names, and untagged parents that nothing else needs. The caller holds mu.
func (s *Service) removeImage(image *Image, names []string, o RemoveOptions) ([]Removed, bool, error) {
	if child := s.child(image.ID); child != "" {
		if len(names) == 0 {
			return nil, false, errdefs.New(errdefs.Conflict, "conflict: unable to delete %s (cannot be forced) - image has dependent child images", short(image.ID))
		}
		if err := s.drop(image, names, false); err != nil { // it lives on as a part of its children
			return nil, false, err
		}
		return s.untagged(image, names), false, nil
	}
	before := s.liveLayers()
	if err := s.drop(image, names, true); err != nil {
		return nil, false, err
	}
	removed := s.untagged(image, names)
	removed = append(removed, Removed{Deleted: image.ID.String()})
	s.announce("delete", image, image.ID.String())
	removed = append(removed, s.deletedLayers(image, before)...)
	if parent, ok := s.images[image.Parent]; ok && !o.NoPrune && len(s.namesOf(image.Parent)) == 0 && len(s.uses(o.InUse, image.Parent)) == 0 && s.child(image.Parent) == "" {
		more, _, err := s.removeImage(parent.image, nil, o)
		return append(removed, more...), true, err
	}
	return removed, true, nil
}

// drop takes names away, and the image's record where gone. The caller holds mu.
func (s *Service) drop(image *Image, names []string, gone bool) error {
	ghost := gone && s.stoodOn(image)
	err := s.record(func(tx *db.Tx) error {
		for _, n := range names {
			if err := nameRecords.Delete(tx, n); err != nil {
				return err
			}
		}
		switch {
		case !gone:
			return nil
		case ghost:
			return records.Put(tx, image.ID.String(), record{Manifest: image.Manifest, Size: image.Size, Removed: true})
		default:
			return records.Delete(tx, image.ID.String())
		}
	})
	if err != nil {
		return fmt.Errorf("remove image %s: %w", short(image.ID), err)
	}
	for _, n := range names {
		s.unname(n)
	}
	if gone {
		if ghost {
			s.ghosts[image.ID] = s.images[image.ID]
		}
		delete(s.images, image.ID)
	} else {
		s.rename(image.ID)
	}
	s.writeIndex()
	return nil
}

// record is an update of the database, if this is no rehearsal.
func (s *Service) record(f func(*db.Tx) error) error {
	if s.rehearses {
		return nil
	}
	return s.o.DB.Update(f)
}

func (s *Service) untagged(image *Image, names []string) []Removed {
	var removed []Removed
	for _, n := range names {
		familiar, _ := familiarize(n)
		removed = append(removed, Removed{Untagged: familiar})
		s.announce("untag", image, image.ID.String())
	}
	return removed
}

// liveLayers counts the images that need each stack of layers. The caller holds mu.
func (s *Service) liveLayers() map[digest.Digest]int {
	live := map[digest.Digest]int{}
	for _, e := range s.images {
		for i := range e.image.DiffIDs {
			live[chainID(e.image.DiffIDs[:i+1])]++
		}
	}
	return live
}

// deletedLayers lists the stacks of layers that went with an image, topmost first, as Docker does.
func (s *Service) deletedLayers(image *Image, before map[digest.Digest]int) []Removed {
	var removed []Removed
	for i := len(image.DiffIDs); i > 0; i-- {
		if chain := chainID(image.DiffIDs[:i]); before[chain] == 1 {
			removed = append(removed, Removed{Deleted: chain.String()})
		}
	}
	return removed
}

// child returns an image that was made on this one; empty when there is none. The caller holds mu.
func (s *Service) child(id digest.Digest) digest.Digest {
	for other, e := range s.images {
		if e.image.Parent == id {
			return other
		}
	}
	return ""
}

// namesOf returns the canonical names of an image, sorted. The caller holds mu.
func (s *Service) namesOf(id digest.Digest) []string {
	var names []string
	for n, target := range s.names {
		if target == id {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func repositories(names []string) map[string]bool {
	repos := map[string]bool{}
	for _, n := range names {
		repos[repositoryOf(n)] = true
	}
	return repos
}

func repositoryOf(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

func use(inUse func(digest.Digest) []ContainerUse, id digest.Digest) []ContainerUse {
	if inUse == nil {
		return nil
	}
	return inUse(id)
}

// uses returns what uses an image: containers, and builds. The caller holds mu.
func (s *Service) uses(inUse func(digest.Digest) []ContainerUse, id digest.Digest) []ContainerUse {
	uses := use(inUse, id)
	if s.held[id] > 0 {
		uses = append(uses, ContainerUse{Running: true})
	}
	return uses
}

// user says who uses an image.
func (u ContainerUse) user() string {
	if u.ID == "" {
		return "a build"
	}
	return "container " + shortID(u.ID)
}

func (u ContainerUse) String() string {
	if u.ID == "" || !u.Running {
		return u.user()
	}
	return "running " + u.user()
}

func running(uses []ContainerUse) bool {
	return slices.ContainsFunc(uses, func(u ContainerUse) bool { return u.Running })
}

func short(id digest.Digest) string { return shortID(id.Encoded()) }

func shortID(id string) string { return id[:min(12, len(id))] }
