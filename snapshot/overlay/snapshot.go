package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/dir"
	"gantry/linux/mount"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

// Prepare makes a snapshot: three folders and a file.
func (s *Snapshotter) Prepare(_ context.Context, key string, diffIDs []digest.Digest) error {
	if err := validKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names, err := s.find(diffIDs)
	if err != nil {
		return fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	if err := s.prepare(filepath.Join(s.root, "snapshots", key), names); err != nil {
		if exists(err) {
			return errdefs.New(errdefs.Conflict, "prepare snapshot %s: %w", key, err)
		}
		return fmt.Errorf("prepare snapshot %s: %w", key, spaceKind(err))
	}
	s.snapshots[key] = names
	for _, n := range names {
		s.uses[n]++
	}
	return nil
}

func (s *Snapshotter) prepare(folder string, names []string) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	upper := filepath.Join(folder, "upper")
	err := errors.Join(
		os.WriteFile(filepath.Join(folder, "layers"), encodeSnapshot(names), 0o600),
		os.Mkdir(filepath.Join(folder, "work"), 0o700),
		os.Mkdir(upper, 0o755),
	)
	if st, serr := os.Lstat(upper); err == nil && (serr != nil || st.Mode().Perm() != 0o755) {
		err = os.Chmod(upper, 0o755) // it becomes the container's root, whatever our umask is
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
}

func spaceKind(err error) error {
	if dir.SpaceError(err) {
		return errdefs.With(errdefs.Exhausted, err)
	}
	return err
}

// lookup returns the folder of a snapshot and the folders of its layers, top first.
func (s *Snapshotter) lookup(key string) (folder string, lower []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, ok := s.snapshots[key]
	if !ok {
		return "", nil, errdefs.New(errdefs.NotFound, "no such snapshot: %s", key)
	}
	if names == nil {
		return "", nil, errdefs.New(errdefs.Internal, "snapshot %s is damaged: it does not say which layers it stands on", key)
	}
	return filepath.Join(s.root, "snapshots", key), append(s.visible(names), filepath.Join(s.root, "layers", baseLayer)), nil
}

// Mount returns a detached overlay. A read-only one has the upper folder as its topmost layer, so that it may be used beside a writable one.
func (s *Snapshotter) Mount(_ context.Context, key string, readOnly bool) (*os.File, error) {
	return s.mount(key, readOnly, false)
}

// MountVolatile returns an overlay that does not sync the disk when it goes, as others do.
func (s *Snapshotter) MountVolatile(_ context.Context, key string) (*os.File, error) {
	return s.mount(key, false, true)
}

func (s *Snapshotter) mount(key string, readOnly, volatile bool) (*os.File, error) {
	folder, lower, err := s.lookup(key)
	if err != nil {
		return nil, fmt.Errorf("mount snapshot: %w", err)
	}
	upper, work := filepath.Join(folder, "upper"), filepath.Join(folder, "work")
	o := mount.OverlayOptions{Lower: lower, Volatile: volatile}
	if readOnly {
		o.Lower = append([]string{upper}, lower...)
		o.ReadOnly = true
	} else {
		o.Upper, o.Work = upper, work
	}
	f, err := mount.Overlay(o)
	if errors.Is(err, syscall.EINVAL) && !readOnly {
		// After a volatile mount the kernel leaves a mark, lest somebody trust what a power cut may have torn. Nobody does: there was none since Prepare.
		if rerr := os.RemoveAll(filepath.Join(work, "work", "incompat")); rerr != nil {
			return nil, fmt.Errorf("mount snapshot %s: %w", key, errors.Join(err, rerr))
		}
		f, err = mount.Overlay(o)
	}
	if err != nil {
		return nil, fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	if !readOnly {
		// The kernel makes do with a read-only mount when it cannot make its work folder, and that is for want of space.
		var st syscall.Statfs_t
		if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil || st.Flags&syscall.MS_RDONLY != 0 {
			if err == nil {
				err = errdefs.With(errdefs.Exhausted, syscall.ENOSPC)
			}
			return nil, errors.Join(fmt.Errorf("mount snapshot %s: %w", key, err), f.Close())
		}
	}
	return f, nil
}

// Remove moves a snapshot to tmp, where it is none any more, and has it deleted there in the background.
func (s *Snapshotter) Remove(_ context.Context, key string) error {
	if err := validKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	aside := filepath.Join(s.root, "tmp", layerPrefix+"of-"+key)
	for n := 0; s.staged[aside]; n++ { // an older one of that name is still being deleted
		aside = filepath.Join(s.root, "tmp", fmt.Sprintf("%sof-%s.%d", layerPrefix, key, n))
	}
	err := os.Rename(filepath.Join(s.root, "snapshots", key), aside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	if err == nil {
		s.staged[aside] = true
		s.going.Go(func() {
			_ = s.Discard(&snapshot.Staged{Path: aside}) // what stays is found by Check and swept by Open
		})
	}
	for _, n := range s.snapshots[key] {
		if s.uses[n]--; s.uses[n] == 0 {
			delete(s.uses, n)
		}
	}
	delete(s.snapshots, key)
	return nil
}

// List returns the keys of all snapshots, sorted.
func (s *Snapshotter) List(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.snapshots)), nil
}

// Usage adds up the upper folder.
func (s *Snapshotter) Usage(ctx context.Context, key string) (bytes, inodes int64, err error) {
	folder, _, err := s.lookup(key)
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot: %w", err)
	}
	seen := map[uint64]bool{}
	err = filepath.WalkDir(filepath.Join(folder, "upper"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		inodes++
		st, ok := info.Sys().(*syscall.Stat_t)
		if !info.Mode().IsRegular() || ok && st.Nlink > 1 && seen[st.Ino] {
			return nil
		}
		if ok && st.Nlink > 1 {
			seen[st.Ino] = true
		}
		bytes += info.Size()
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return bytes, inodes, nil
}

// Changes compares the upper folder with the layers.
func (s *Snapshotter) Changes(ctx context.Context, key string) ([]archive.Change, error) {
	folder, lower, err := s.lookup(key)
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot: %w", err)
	}
	layers, err := openAll(lower)
	defer closeAll(layers)
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	upper, err := dir.Open(filepath.Join(folder, "upper"))
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	changes, err := archive.UpperChanges(ctx, upper, layers)
	if err = errors.Join(err, upper.Close()); err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	return changes, nil
}

// Diff writes the upper folder as a layer.
func (s *Snapshotter) Diff(ctx context.Context, key string, w io.Writer) error {
	folder, _, err := s.lookup(key)
	if err != nil {
		return fmt.Errorf("diff of snapshot: %w", err)
	}
	upper, err := dir.Open(filepath.Join(folder, "upper"))
	if err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	if err := errors.Join(archive.PackUpper(ctx, upper, w), upper.Close()); err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	return nil
}

// Paths returns the folders under Docker's names. There is no merged one on the host; it is named where Docker would have it.
func (s *Snapshotter) Paths(_ context.Context, key string) (map[string]string, error) {
	folder, lower, err := s.lookup(key)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"LowerDir":  strings.Join(lower, ":"),
		"UpperDir":  filepath.Join(folder, "upper"),
		"WorkDir":   filepath.Join(folder, "work"),
		"MergedDir": filepath.Join(folder, "merged"),
	}, nil
}

func openAll(folders []string) ([]*dir.Dir, error) {
	var open []*dir.Dir
	for _, f := range folders {
		d, err := dir.Open(f)
		if err != nil {
			return open, err
		}
		open = append(open, d)
	}
	return open, nil
}

func closeAll(open []*dir.Dir) {
	for _, d := range open {
		_ = d.Close() // read only
	}
}
