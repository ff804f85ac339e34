package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archiveTree writes a file or directory tree as a tar stream in which the root is called name.
func archiveTree(w io.Writer, root, name string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		full := name
		if rel != "." {
			full += "/" + filepath.ToSlash(rel)
		}
		return addFile(tw, p, full, d, false)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// addFile writes one file or directory, which rooted gives to root. A socket has no meaning elsewhere.
func addFile(tw *tar.Writer, file, name string, d fs.DirEntry, rooted bool) error {
	info, err := d.Info()
	if err != nil || info.Mode()&fs.ModeSocket != 0 {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
	}
	h.Format = tar.FormatPAX
	h.Uname, h.Gname = "", ""
	if rooted {
		h.Uid, h.Gid = 0, 0
	}
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(tw, io.LimitReader(f, h.Size)) // a file that grows meanwhile is cut, one that shrinks is an error
	_ = f.Close()
	return err
}

// extract unpacks a tar stream into dir. The stream's root, the first part of each name, becomes name; a stream of a directory's
// contents, bare, has no such part and goes below name. Nothing outside dir is touched, whatever names and links the stream has.
// keepOwner sets the stream's owners.
func extract(dir, name string, bare, keepOwner bool, r io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	x := extraction{root: root, name: name, bare: bare, keepOwner: keepOwner}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			if err != nil {
				return err
			}
			return x.finish()
		}
		if err != nil {
			return err
		}
		p, err := renamed(h.Name, name, bare)
		if err != nil {
			return err
		}
		if err := x.entry(p, h, tr); err != nil {
			return err
		}
	}
}

// renamed replaces the first part of an entry's name, or puts name before it when it is bare.
func renamed(entry, name string, bare bool) (string, error) {
	rest := path.Clean("/" + entry)[1:]
	if !bare && !strings.HasPrefix(entry, "./") {
		_, rest, _ = strings.Cut(rest, "/")
	}
	p := path.Join(name, rest)
	if p == "" {
		p = "."
	}
	if !filepath.IsLocal(p) {
		return "", fmt.Errorf("archive entry %q leaves the destination", entry)
	}
	return p, nil
}

type extraction struct {
	root      *os.Root
	name      string
	bare      bool
	keepOwner bool
	dirs      []dirTimes // set last, because new entries change them
}

type dirTimes struct {
	path string
	h    *tar.Header
}

func (x *extraction) entry(p string, h *tar.Header, r io.Reader) error {
	mode := fs.FileMode(h.Mode).Perm()
	if p != "." && path.Dir(p) != "." {
		if err := x.root.MkdirAll(path.Dir(p), 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeDir {
		if err := x.clear(p); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := x.root.Mkdir(p, 0o700|mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if st, err := x.root.Stat(p); err != nil || !st.IsDir() {
			return fmt.Errorf("cannot overwrite non-directory %q with directory", p)
		}
		x.dirs = append(x.dirs, dirTimes{p, h})
		return nil
	case tar.TypeReg:
		f, err := x.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, p); err != nil {
			return err
		}
		return x.owner(p, h)
	case tar.TypeLink:
		target, err := renamed(h.Linkname, x.name, x.bare)
		if err != nil {
			return err
		}
		return x.root.Link(target, p)
	default:
		return nil // devices and pipes stay in the container
	}
	return x.attributes(p, h)
}

// clear makes room for an entry that is not a directory.
func (x *extraction) clear(p string) error {
	st, err := x.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() {
		return fmt.Errorf("cannot overwrite directory %q with non-directory", p)
	}
	return x.root.Remove(p)
}

func (x *extraction) owner(p string, h *tar.Header) error {
	if !x.keepOwner {
		return nil
	}
	return x.root.Lchown(p, h.Uid, h.Gid)
}

func (x *extraction) attributes(p string, h *tar.Header) error {
	if err := x.owner(p, h); err != nil {
		return err
	}
	if err := x.root.Chmod(p, h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return x.root.Chtimes(p, h.ModTime, h.ModTime)
}

func (x *extraction) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if d := x.dirs[i]; d.path != "." {
			if err := x.attributes(d.path, d.h); err != nil {
				return err
			}
		}
	}
	return nil
}
