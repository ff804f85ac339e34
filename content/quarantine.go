package content

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// Quarantine moves a damaged blob aside, in whatever form it is here, where Quarantined finds it.
func (s *Store) Quarantine(d digest.Digest) error {
	path, recipe, err := s.places(d)
	if err != nil {
		return err
	}
	folder := filepath.Join(s.root, "quarantine")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("quarantine blob: %w", refine(err))
	}
	for suffix, from := range map[string]string{"": path, ".recipe": recipe} {
		if err := os.Rename(from, filepath.Join(folder, d.Encoded()+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) { // in the place of an older one
			return fmt.Errorf("quarantine blob: %w", refine(err))
		}
	}
	return nil
}

// Quarantined lists the files of damaged blobs that were moved aside.
func (s *Store) Quarantined() ([]string, error) {
	list, err := filepath.Glob(filepath.Join(s.root, "quarantine", "*"))
	if err != nil {
		return nil, fmt.Errorf("list quarantined blobs: %w", err)
	}
	return list, nil
}
