package layers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/archive/erofs"
	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/linux/mount"
)

// mounted returns a mount of a layer's image, which stays until the layer goes: containers share it. The caller holds mu.
func (s *Store) mounted(name, path string) (*os.File, error) {
	if m, ok := s.images[name]; ok {
		return m, nil
	}
	m, err := mount.Image(path)
	if err != nil {
		return nil, err
	}
	s.images[name] = m
	return m, nil
}

// unmount drops the mount of a layer. The caller holds mu.
func (s *Store) unmount(name string) {
	if m, ok := s.images[name]; ok {
		_ = m.Close() // read only
		delete(s.images, name)
	}
}

// hasImage reports whether a layer's folder has an image, and whether that looks like one.
func hasImage(folder string) (bool, error) {
	f, err := os.Open(filepath.Join(folder, imageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	is := erofs.Is(f)
	if err := f.Close(); err != nil {
		return false, err
	}
	if !is {
		return false, errors.New("its image is none")
	}
	return true, nil
}

// probe fails where the kernel cannot stack an image that is mounted from its file, and nowhere: that takes Linux 6.15.
func (s *Store) probe() (err error) {
	f, err := os.CreateTemp(filepath.Join(s.Root, "tmp"), layerPrefix+"probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := erofs.NewWriter(f).Close(&erofs.Dir{Inode: erofs.Inode{Mode: 0o40755}}, [16]byte{}); err != nil {
		return err
	}
	m, err := mount.Image(f.Name())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	over, err := mount.Overlay(mount.OverlayOptions{Lower: []string{fd.Path(m), s.Base()}, ReadOnly: true})
	if err != nil {
		return errdefs.New(errdefs.NotImplemented, "stack images of layers: needs Linux 6.15: %w", err)
	}
	return over.Close()
}
