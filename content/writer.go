package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

// Writer takes in one blob. One goroutine writes; any number may follow.
type Writer struct {
	store *Store
	file  *os.File
	hash  hash.Hash
	done  bool

	mu      sync.Mutex // guards all below
	changed sync.Cond  // of what mu guards
	path    string     // where the file is now
	size    int64
	resets  int
	whole   bool // Commit succeeded
	closed  bool
}

// Writer begins a blob.
func (s *Store) Writer() (*Writer, error) {
	f, err := os.CreateTemp(filepath.Join(s.root, "ingest"), "blob-")
	if err != nil {
		return nil, fmt.Errorf("begin blob: %w", refine(err))
	}
	w := &Writer{store: s, file: f, hash: sha256.New(), path: f.Name()}
	w.changed.L = &w.mu
	return w, nil
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.mu.Lock()
	w.size += int64(n)
	w.mu.Unlock()
	w.changed.Broadcast()
	if err != nil {
		return n, fmt.Errorf("write blob: %w", refine(err))
	}
	return n, nil
}

// Size returns how many bytes were written.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// Digest returns the digest of what was written.
func (w *Writer) Digest() digest.Digest { return digest.NewDigest(digest.SHA256, w.hash) }

// Reset drops what was written, to begin anew. Those who follow get an error.
func (w *Writer) Reset() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resets++
	w.size = 0
	w.hash.Reset()
	w.changed.Broadcast()
	if err := w.file.Truncate(0); err != nil {
		return fmt.Errorf("reset blob: %w", err)
	}
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reset blob: %w", err)
	}
	return nil
}

// Commit gives the blob its name, provided that it has the expected digest (empty: whatever it is) and size (negative: whatever it is).
// Errors: InvalidParameter when it has not.
func (w *Writer) Commit(expected digest.Digest, size int64) error {
	d := w.Digest()
	if expected != "" && d != expected {
		return errdefs.New(errdefs.InvalidParameter, "blob has digest %s instead of %s", d, expected)
	}
	if got := w.Size(); size >= 0 && size != got {
		return errdefs.New(errdefs.InvalidParameter, "blob %s has %d bytes instead of %d", d, got, size)
	}
	path, err := w.store.path(d)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.Rename(w.path, path); err != nil {
		return fmt.Errorf("commit blob: %w", refine(err))
	}
	w.done = true
	w.path, w.whole = path, true
	w.changed.Broadcast()
	return nil
}

// Close drops the blob unless Commit kept it. Those who follow a dropped blob get an error.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.changed.Broadcast()
	err := w.file.Close()
	if !w.done {
		err = errors.Join(err, os.Remove(w.file.Name()))
	}
	return err
}

// ErrRestarted is what a follower gets whose blob is being written anew.
var ErrRestarted = errors.New("blob is being fetched anew")

// Follow returns a reader of the blob that waits for what is not written yet, up to Commit. What it reads is not verified before that.
func (w *Writer) Follow() (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := os.Open(w.path)
	if err != nil {
		return nil, fmt.Errorf("follow blob: %w", err)
	}
	return &follower{w: w, file: f, resets: w.resets}, nil
}

type follower struct {
	w      *Writer
	file   *os.File
	offset int64
	resets int
}

func (f *follower) Read(p []byte) (int, error) {
	left, err := f.wait()
	if err != nil {
		return 0, err
	}
	n, err := f.file.ReadAt(p[:min(int64(len(p)), left)], f.offset)
	f.offset += int64(n)
	if errors.Is(err, io.EOF) { // cut off by a Reset since; the next Read tells
		err = nil
	}
	return n, err
}

// wait returns how many bytes there are to read, at least one.
func (f *follower) wait() (int64, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	for {
		switch {
		case f.w.resets != f.resets:
			return 0, ErrRestarted
		case f.w.size > f.offset:
			return f.w.size - f.offset, nil
		case f.w.whole:
			return 0, io.EOF
		case f.w.closed:
			return 0, errors.New("blob was dropped")
		}
		f.w.changed.Wait()
	}
}

func (f *follower) Close() error { return f.file.Close() }
