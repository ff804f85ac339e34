package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

// Verify reads a blob that is here as it is. Errors: NotFound; Internal when its digest is another.
func (s *Store) Verify(ctx context.Context, d digest.Digest) (err error) {
	f, err := s.Open(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash, buf := sha256.New(), make([]byte, 256<<10)
	for {
		n, err := f.Read(buf)
		hash.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("verify blob %s: %w", d, err)
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
	}
	if got := digest.NewDigest(digest.SHA256, hash); got != d {
		return errdefs.New(errdefs.Internal, "blob %s is damaged: its digest is %s", d, got)
	}
	return nil
}

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
