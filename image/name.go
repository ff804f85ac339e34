package image

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// parseName parses a name in any form, completed with Docker Hub and the tag "latest" where it has neither tag nor digest. A digest beats a tag.
func parseName(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	if d, ok := named.(reference.Digested); ok {
		named, err = reference.WithDigest(reference.TrimNamed(named), d.Digest())
		if err != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, err)
		}
		return named, nil
	}
	return reference.TagNameOnly(named), nil
}

// familiarize shortens a canonical name as Docker prints it.
func familiarize(name string) (familiar string, hasDigest bool) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name, strings.Contains(name, "@")
	}
	_, hasDigest = named.(reference.Digested)
	return reference.FamiliarString(named), hasDigest
}

// Get finds an image by name, name:tag, name@digest, ID or unique prefix of an ID. Errors: NotFound "No such image: x".
func (s *Service) Get(_ context.Context, ref string) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, err := s.resolve(ref)
	if err != nil {
		return nil, err
	}
	return s.images[id].image, nil
}

// resolve returns the ID that ref stands for. The caller holds mu.
func (s *Service) resolve(ref string) (digest.Digest, error) {
	absent := ref
	if id := digest.Digest(ref); strings.HasPrefix(ref, "sha256:") && id.Validate() == nil {
		if _, ok := s.images[id]; ok {
			return id, nil
		}
		return "", errdefs.New(errdefs.NotFound, "No such image: %s", absent)
	}
	if len(ref) == 64 {
		if id := digest.NewDigestFromEncoded(digest.SHA256, ref); s.images[id] != nil {
			return id, nil
		}
	}
	if named, err := parseName(ref); err == nil {
		absent = reference.FamiliarString(named)
		if id, ok := s.names[named.String()]; ok && s.images[id] != nil {
			return id, nil
		}
	}
	prefix := strings.TrimPrefix(ref, "sha256:")
	if prefix == "" || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
		if _, err := parseName(ref); err != nil {
			return "", err
		}
		return "", errdefs.New(errdefs.NotFound, "No such image: %s", absent)
	}
	var found digest.Digest
	for id := range s.images {
		if !strings.HasPrefix(id.Encoded(), prefix) {
			continue
		}
		if found != "" {
			return "", errdefs.New(errdefs.NotFound, "No such image: %s", absent) // several: Docker says the same
		}
		found = id
	}
	if found == "" {
		return "", errdefs.New(errdefs.NotFound, "No such image: %s", absent)
	}
	return found, nil
}

// List returns all images, dangling ones too, newest first.
func (s *Service) List(context.Context) ([]*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*Image, 0, len(s.images))
	for _, e := range s.images {
		list = append(list, e.image)
	}
	slices.SortFunc(list, func(a, b *Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Tag gives the image src the further name dst.
func (s *Service) Tag(ctx context.Context, src, dst string) error {
	i, err := s.Get(ctx, src)
	if err != nil {
		return err
	}
	name, err := tagName(dst)
	if err != nil {
		return err
	}
	if i, err = s.publish(publication{id: i.ID, names: []string{name.String()}, index: s.indexBehind(src, i.ID)}); err != nil {
		return err
	}
	s.announce("tag", i, reference.FamiliarString(name))
	return nil
}

// tagName parses a name that is to be given to an image: it has no digest and is not an ID.
func tagName(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, errdefs.New(errdefs.InvalidParameter, "refusing to create a tag with a digest reference")
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return nil, errdefs.New(errdefs.InvalidParameter, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	return reference.TagNameOnly(named), nil
}

// newName joins the repository and tag of a commit or an import; nil when there is no repository.
func newName(repo, tag string) (reference.Named, error) {
	if repo == "" {
		return nil, nil
	}
	if tag == "" {
		return tagName(repo)
	}
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	tagged, err := reference.WithTag(reference.TrimNamed(named), tag)
	if err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid tag format: %w", err)
	}
	return tagName(tagged.String())
}
