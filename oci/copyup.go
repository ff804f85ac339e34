package oci

import (
	"errors"
	"io"
	"os"
	"syscall"

	"gantry/linux/dir"
	"gantry/linux/safepath"
)

// copyUp copies what is in the directory dst of the root file system into the tmpfs that will hide it. No directory there is an empty one.
func copyUp(root *os.File, dst string, tmpfs *os.File) error {
	f, err := safepath.Open(root, dst, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	from, err := dir.Of(f)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := dir.Of(tmpfs)
	if err != nil {
		return err
	}
	defer to.Close()
	return copyDir(from, to, 0)
}

// maxDepth is how deep a tree copyUp copies.
const maxDepth = 200

func copyDir(from, to *dir.Dir, depth int) error {
	if depth > maxDepth {
		return syscall.ELOOP
	}
	names, err := from.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(from, to, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(from, to *dir.Dir, name string, depth int) error {
	st, err := from.Stat(name)
	if err != nil {
		return err
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		if err := to.Mkdir(name, 0o700); err != nil {
			return err
		}
		a, err := from.Child(name)
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := to.Child(name)
		if err != nil {
			return err
		}
		defer b.Close()
		if err := copyDir(a, b, depth+1); err != nil {
			return err
		}
	case syscall.S_IFREG:
		if err := copyFile(from, to, name); err != nil {
			return err
		}
	case syscall.S_IFLNK:
		target, err := from.Readlink(name)
		if err != nil {
			return err
		}
		if err := to.Symlink(target, name); err != nil {
			return err
		}
	default:
		if err := to.Mknod(name, st.Mode, st.Major, st.Minor); err != nil {
			return err
		}
	}
	n, err := to.Node(name)
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.Chown(int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if st.IsSymlink() {
		return nil
	}
	if err := n.Chmod(st.Mode & 0o7777); err != nil {
		return err
	}
	return n.SetTimes(st.ModTime, st.ModTime)
}

func copyFile(from, to *dir.Dir, name string) error {
	src, err := from.File(name)
	if err != nil {
		return err
	}
	defer src.Close()
	n, err := to.Create(name)
	if err != nil {
		return err
	}
	dst := n.File(name)
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
