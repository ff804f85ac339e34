// Package content keeps blobs as files named by their digest: <root>/blobs/sha256/<hex>. A blob appears there whole, by a rename, once its
// digest is verified; Sync makes it durable, which is due before any record names it. What comes from a registry gathers in <root>/partial
// until then, and survives the process. A blob whose contents are elsewhere may be there as a recipe instead.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"

	"gantry/errdefs"
	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

// Store is a folder of blobs, which no other process may change meanwhile. Its methods may be called concurrently.
type Store struct {
	root string
	disk *os.File // open since before the first write, so that Sync hears of every write error
	boot string   // which run of the machine this is

	mu      sync.Mutex // guards ingests, drafts, and the folder of partial blobs against those who sweep it; taken before an ingest's
	ingests map[digest.Digest]*Ingest
	drafts  map[string]bool // files of Drafts that are open
}

// newSuffix marks a file beside the blobs that is being written.
const newSuffix = ".new"

// Open drops what a killed process left behind and returns the store.
func Open(root string) (*Store, error) {
	if err := os.RemoveAll(filepath.Join(root, "ingest")); err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	written, err := filepath.Glob(filepath.Join(root, "*"+newSuffix))
	if err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	for _, path := range written {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("open content: %w", err)
		}
	}
	for _, d := range []string{"blobs/sha256", "recipes/sha256", "ingest", "partial"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("open content: %w", err)
		}
	}
	disk, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	s := &Store{root: root, disk: disk, boot: bootID(), ingests: map[digest.Digest]*Ingest{}, drafts: map[string]bool{}}
	err = s.Sweep()
	if err == nil {
		_, err = s.DropPartials(PartialLife)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open content: %w", err), disk.Close())
	}
	return s, nil
}

// Close releases the store.
func (s *Store) Close() error { return s.disk.Close() }

// path returns the file of a blob. Only SHA-256 is taken, so that no digest can lead elsewhere.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", errdefs.New(errdefs.InvalidParameter, "digest %q is not a SHA-256 digest", d)
	}
	return filepath.Join(s.root, "blobs", "sha256", d.Encoded()), nil
}

// Open opens a blob for reading that is here as it is. Errors: NotFound.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	path, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.New(errdefs.NotFound, "blob %s is not here", d)
	}
	return f, err
}

// Whole reports whether a blob is here as it is.
func (s *Store) Whole(d digest.Digest) bool {
	_, err := s.blobSize(d)
	return err == nil
}

// Size returns the length of a blob in bytes, also of one that is here as a recipe. Errors: NotFound.
func (s *Store) Size(d digest.Digest) (int64, error) {
	size, err := s.blobSize(d)
	if !errdefs.Is(err, errdefs.NotFound) {
		return size, err
	}
	r, err := s.Recipe(d)
	if err != nil {
		return 0, err
	}
	return r.Size, r.Close()
}

func (s *Store) blobSize(d digest.Digest) (int64, error) {
	path, err := s.path(d)
	if err != nil {
		return 0, err
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errdefs.New(errdefs.NotFound, "blob %s is not here", d)
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// ReadAll returns a blob of at most limit bytes, its digest verified. Errors: NotFound; InvalidParameter when it is larger.
func (s *Store) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	if int64(len(data)) > limit {
		return nil, errdefs.New(errdefs.InvalidParameter, "blob %s has more than %d bytes", d, limit)
	}
	if digest.FromBytes(data) != d {
		return nil, errdefs.New(errdefs.Internal, "blob %s is damaged", d)
	}
	return data, nil
}

// Put stores bytes and returns their digest; a damaged blob is replaced.
func (s *Store) Put(data []byte) (digest.Digest, error) {
	d := digest.FromBytes(data)
	if _, err := s.ReadAll(d, int64(len(data))); err == nil { // a damaged one is replaced
		return d, nil
	}
	w, err := s.Writer()
	if err != nil {
		return "", err
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Commit(d, int64(len(data)))
	}
	return d, errors.Join(err, w.Close())
}

// WriteFile stores a file beside the blobs, in place of an older one of that name. It is not durable before Sync.
func (s *Store) WriteFile(name string, data []byte) error {
	path := filepath.Join(s.root, filepath.Base(name))
	anew := path + newSuffix // Open sweeps it
	err := os.WriteFile(anew, data, 0o600)
	if err == nil {
		err = os.Rename(anew, path)
	}
	if err != nil {
		_ = os.Remove(anew) // what is half written is of no use
		return fmt.Errorf("write %s: %w", name, refine(err))
	}
	return nil
}

// ReadFile returns a file of at most limit bytes from beside the blobs. Errors: those of package os.
func (s *Store) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.root, filepath.Base(name)))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err == nil && int64(len(data)) > limit {
		err = errdefs.New(errdefs.InvalidParameter, "%s has more than %d bytes", name, limit)
	}
	return data, err
}

// Delete removes a blob, and its recipe; there need not be one.
func (s *Store) Delete(d digest.Digest) error {
	path, recipe, err := s.places(d)
	if err != nil {
		return err
	}
	for _, p := range []string{path, recipe} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete blob: %w", err)
		}
	}
	return nil
}

// Digests returns the digests of all blobs, in any form; those that are here as they are and as a recipe, twice. Files whose names are none are left out.
func (s *Store) Digests() ([]digest.Digest, error) {
	var blobs []digest.Digest
	for _, folder := range []string{"blobs", "recipes"} {
		entries, err := os.ReadDir(filepath.Join(s.root, folder, "sha256"))
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		for _, e := range entries {
			if d := digest.NewDigestFromEncoded(digest.SHA256, e.Name()); d.Validate() == nil {
				blobs = append(blobs, d)
			}
		}
	}
	return blobs, nil
}

// List returns the sizes of all blobs, in bytes, also of those that are here as recipes: of one that is damaged it is -1. Files whose names are no digests are left out.
func (s *Store) List() (map[digest.Digest]int64, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "blobs", "sha256"))
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	blobs := make(map[digest.Digest]int64, len(entries))
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || d.Validate() != nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		blobs[d] = info.Size()
	}
	recipes, err := os.ReadDir(filepath.Join(s.root, "recipes", "sha256"))
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	for _, e := range recipes {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if _, here := blobs[d]; here || d.Validate() != nil {
			continue
		}
		if size, err := s.Size(d); err == nil {
			blobs[d] = size
		} else if dir.Lacking(err) {
			return nil, fmt.Errorf("list blobs: %w", err)
		} else if !errdefs.Is(err, errdefs.NotFound) {
			blobs[d] = -1
		}
	}
	return blobs, nil
}

// DiskUsage returns how many bytes of the disk the store takes up, and each blob in it.
func (s *Store) DiskUsage(ctx context.Context) (total int64, blobs map[digest.Digest]int64, err error) {
	all, err := s.Digests()
	if err != nil {
		return 0, nil, err
	}
	blobs = make(map[digest.Digest]int64, len(all))
	for _, d := range all {
		blobs[d] = 0 // one that is here in both forms is listed twice
		for _, folder := range []string{"blobs", "recipes"} {
			if info, err := os.Lstat(filepath.Join(s.root, folder, "sha256", d.Encoded())); err == nil { // else it is not there, or was deleted meanwhile
				blobs[d] += dir.Allocated(info)
			}
		}
	}
	if total, err = dir.Usage(ctx, s.root); err != nil {
		return 0, nil, fmt.Errorf("measure content: %w", err)
	}
	return total, blobs, nil
}

// Sync makes all blobs durable.
func (s *Store) Sync() error {
	if err := dir.SyncFS(s.disk); err != nil {
		return fmt.Errorf("sync content: %w", refine(err))
	}
	return nil
}

// Strange lists files among the blobs that are none, files of Writers, of which there are none while no Writer is open, and files of partial blobs with which no
// download can go on.
func (s *Store) Strange() ([]string, error) {
	var strange []string
	for _, folder := range []string{"blobs", "recipes"} {
		entries, err := os.ReadDir(filepath.Join(s.root, folder, "sha256"))
		if err != nil {
			return nil, fmt.Errorf("check content: %w", err)
		}
		for _, e := range entries {
			if digest.NewDigestFromEncoded(digest.SHA256, e.Name()).Validate() != nil || !e.Type().IsRegular() {
				strange = append(strange, filepath.Join(s.root, folder, "sha256", e.Name()))
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ingests, err := s.strangeIngests()
	if err != nil {
		return nil, fmt.Errorf("check content: %w", err)
	}
	strange = append(strange, ingests...)
	partials, err := s.strangePartials()
	if err != nil {
		return nil, fmt.Errorf("check content: %w", err)
	}
	for _, name := range partials {
		strange = append(strange, filepath.Join(s.root, "partial", name))
	}
	return strange, nil
}

// strangeIngests lists files of Writers, and of Drafts that are not open. The caller holds mu.
func (s *Store) strangeIngests() (strange []string, err error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "ingest"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if f := filepath.Join(s.root, "ingest", e.Name()); !s.drafts[f] {
			strange = append(strange, f)
		}
	}
	return strange, nil
}

// Sweep deletes what could not be deleted when a Writer, Draft or Ingest was closed. No Writer may be open.
func (s *Store) Sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := s.strangeIngests()
	if err != nil {
		return fmt.Errorf("sweep content: %w", err)
	}
	partials, err := s.strangePartials()
	if err != nil {
		return fmt.Errorf("sweep content: %w", err)
	}
	for _, name := range partials {
		left = append(left, filepath.Join(s.root, "partial", name))
	}
	for _, f := range left {
		if err := os.RemoveAll(f); err != nil {
			return fmt.Errorf("sweep content: %w", err)
		}
	}
	return nil
}

// Room reports an error unless the disk has room for all that is still to come of the ingests that are open, and for what they and the caller take elsewhere on it. Errors: Exhausted.
func (s *Store) Room(elsewhere int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var come int64
	for _, i := range s.ingests {
		c, e := i.outstanding()
		come, elsewhere = plus(come, c), plus(elsewhere, e)
	}
	free, known, err := dir.Free(s.disk)
	if err != nil {
		return fmt.Errorf("look for disk space: %w", err)
	}
	if !known || plus(come, elsewhere) <= free {
		return nil
	}
	return errdefs.New(errdefs.Exhausted, "no space left on device: %s are still to come, layers take at least %s unpacked, and %s has %s free: remove images with \"image prune\", or free space otherwise",
		bytes(come), bytes(elsewhere), s.root, bytes(free))
}

// plus adds counts of bytes that others name; no sum is more than fits.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// bytes writes a count of bytes for people.
func bytes(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		if value < 1000 {
			break
		}
		value, unit = value/1000, next
	}
	return fmt.Sprintf("%.4g %s", value, unit)
}

func refine(err error) error {
	if dir.SpaceError(err) {
		return errdefs.With(errdefs.Exhausted, err)
	}
	return err
}
