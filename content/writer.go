package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/errdefs"
	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

// Writer takes in one blob from its beginning to its end. It is for one goroutine.
type Writer struct {
	store *Store
	file  *os.File
	hash  hash.Hash
	size  int64
	done  bool
}

// Writer begins a blob.
func (s *Store) Writer() (*Writer, error) {
	f, err := os.CreateTemp(filepath.Join(s.root, "ingest"), "blob-")
	if err != nil {
		return nil, fmt.Errorf("begin blob: %w", refine(err))
	}
	return &Writer{store: s, file: f, hash: sha256.New()}, nil
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", refine(err))
	}
	return n, nil
}

// Size returns how many bytes were written.
func (w *Writer) Size() int64 { return w.size }

// Digest returns the digest of what was written.
func (w *Writer) Digest() digest.Digest { return digest.NewDigest(digest.SHA256, w.hash) }

// Commit gives the blob its name, provided that it has the expected digest (empty: whatever it is) and size (negative: whatever it is).
// Errors: InvalidParameter when it has not.
func (w *Writer) Commit(expected digest.Digest, size int64) error {
	d := w.Digest()
	if expected != "" && d != expected {
		return errdefs.New(errdefs.InvalidParameter, "blob has digest %s instead of %s", d, expected)
	}
	if size >= 0 && size != w.size {
		return errdefs.New(errdefs.InvalidParameter, "blob %s has %d bytes instead of %d", d, w.size, size)
	}
	path, recipe, err := w.store.places(d)
	if err != nil {
		return err
	}
	for _, old := range []string{path, recipe} { // in the place of which the blob is used from now on: a power cut must not leave a torn one
		if _, err := os.Lstat(old); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := dir.SyncData(w.file); err != nil {
			return fmt.Errorf("commit blob: %w", refine(err))
		}
		break
	}
	if err := os.Rename(w.file.Name(), path); err != nil {
		return fmt.Errorf("commit blob: %w", refine(err))
	}
	w.done = true
	return nil
}

// Close drops the blob unless Commit kept it.
func (w *Writer) Close() error {
	err := w.file.Close()
	if !w.done {
		err = errors.Join(err, os.Remove(w.file.Name()))
	}
	return err
}
