package content

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/errdefs"
	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

// A blob whose contents are elsewhere may be kept as a recipe, in <root>/recipes/sha256/<hex>: what is missing to make it of them. The file begins with
//
//	 8 bytes  "gantryR1"
//	 8 bytes  size of the blob
//	32 bytes  what it is made of: the key of a layer
//	 4 bytes  CRC-32 of these
//
// and what comes then is its maker's.
const (
	recipeMagic = "gantryR1"
	recipeHead  = 8 + 8 + 32 + 4
)

// Recipe is a blob's recipe, open for reading.
type Recipe struct {
	*os.File               // all of it
	Offset   int64         // of what comes after the header
	Length   int64         // of that
	Size     int64         // bytes of the blob
	Layer    digest.Digest // key of the layer that it is made of
}

func (s *Store) recipePath(d digest.Digest) (string, error) {
	path, err := s.path(d)
	return filepath.Join(s.root, "recipes", "sha256", filepath.Base(path)), err
}

// places returns where a blob is in either form.
func (s *Store) places(d digest.Digest) (blob, recipe string, err error) {
	if blob, err = s.path(d); err != nil {
		return "", "", err
	}
	recipe, err = s.recipePath(d)
	return blob, recipe, err
}

// Recipe opens the recipe of a blob. Errors: NotFound; Internal when it is damaged.
func (s *Store) Recipe(d digest.Digest) (*Recipe, error) {
	path, err := s.recipePath(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.New(errdefs.NotFound, "blob %s is not here", d)
	}
	if err != nil {
		return nil, err
	}
	r := &Recipe{File: f, Offset: recipeHead}
	var head [recipeHead]byte
	st, err := f.Stat()
	if err == nil {
		_, err = io.ReadFull(f, head[:])
	}
	if err == nil && (string(head[:8]) != recipeMagic || crc32.ChecksumIEEE(head[:recipeHead-4]) != binary.LittleEndian.Uint32(head[recipeHead-4:])) {
		err = errors.New("its header is not valid")
	}
	if err != nil {
		return nil, errors.Join(errdefs.New(errdefs.Internal, "the recipe of blob %s is damaged: %w", d, err), f.Close())
	}
	r.Size, r.Layer = int64(binary.LittleEndian.Uint64(head[8:])), digest.NewDigestFromBytes(digest.SHA256, head[16:48])
	r.Length = st.Size() - recipeHead
	return r, nil
}

// Revert removes a blob that is here as a recipe, too, which the caller has seen to be good: it takes no descriptor. Errors: those of package os when there is no recipe.
func (s *Store) Revert(d digest.Digest) error {
	path, recipe, err := s.places(d)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(recipe); err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Draft is a recipe that is being written to File, after its header. It has no name yet: one that a killed process leaves is swept by Open.
type Draft struct {
	*Recipe
	store *Store
	blob  digest.Digest
	named bool
}

// Draft begins the recipe of a blob of so many bytes, which is made of a layer.
func (s *Store) Draft(d digest.Digest, size int64, layer digest.Digest) (*Draft, error) {
	s.mu.Lock() // Strange is not to see the file before it is known
	f, err := os.CreateTemp(filepath.Join(s.root, "ingest"), "recipe-")
	if err == nil {
		s.drafts[f.Name()] = true
	}
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("begin recipe: %w", refine(err))
	}
	head := make([]byte, 0, recipeHead)
	head = append(head, recipeMagic...)
	head = binary.LittleEndian.AppendUint64(head, uint64(size))
	key, err := hex.DecodeString(layer.Encoded())
	head = append(head, key...)
	if err == nil && len(key) != 32 {
		err = errdefs.New(errdefs.InvalidParameter, "layer %s is not named by SHA-256", layer)
	}
	if err == nil {
		_, err = f.Write(binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(head)))
	}
	w := &Draft{Recipe: &Recipe{File: f, Offset: recipeHead, Size: size, Layer: layer}, store: s, blob: d}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin recipe: %w", refine(err)), w.Close())
	}
	return w, nil
}

// Sync makes what was written durable, and Length known.
func (w *Draft) Sync() error {
	st, err := w.File.Stat()
	if err == nil {
		w.Length = st.Size() - recipeHead
		err = dir.SyncData(w.File)
	}
	if err != nil {
		return fmt.Errorf("sync recipe: %w", refine(err))
	}
	return nil
}

// Reopen opens what was written, as Recipe does what has its name.
func (w *Draft) Reopen() (*Recipe, error) {
	f, err := os.Open(w.File.Name())
	if err != nil {
		return nil, fmt.Errorf("read recipe: %w", err)
	}
	r := *w.Recipe
	r.File = f
	return &r, nil
}

// Replace puts the recipe, which is synced, in the place of the blob; what fails leaves the blob. A kill in between leaves both. Errors: NotFound when the blob is gone.
func (w *Draft) Replace() error {
	if !w.store.Whole(w.blob) {
		return errdefs.New(errdefs.NotFound, "blob %s is gone", w.blob)
	}
	path, err := w.store.recipePath(w.blob)
	if err == nil {
		err = os.Rename(w.File.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("commit recipe: %w", refine(err))
	}
	w.named = true
	if err := w.settle(path); err != nil {
		if w.store.Whole(w.blob) {
			err = errors.Join(err, os.Remove(path))
		}
		return fmt.Errorf("commit recipe: %w", refine(err))
	}
	return nil
}

// settle makes the recipe's name durable, and only then removes the blob.
func (w *Draft) settle(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return err
	}
	blob, err := w.store.path(w.blob)
	if err != nil {
		return err
	}
	return os.Remove(blob)
}

// Close drops the recipe unless it has replaced the blob.
func (w *Draft) Close() error {
	err := w.File.Close()
	if !w.named {
		err = errors.Join(err, os.Remove(w.File.Name()))
	}
	w.store.mu.Lock()
	delete(w.store.drafts, w.File.Name())
	w.store.mu.Unlock()
	return err
}
