package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/dir"
)

// PathStat describes one path in a container, as `docker cp` asks for it.
type PathStat struct {
	Name       string // last element of the path
	Size       int64  // bytes
	Mode       os.FileMode
	ModTime    time.Time
	LinkTarget string // where a symbolic link leads, as an absolute path in the container; empty for all else
}

// TarOptions shapes Tar.
type TarOptions struct {
	// Contents leaves the folder itself out and names its entries relative to it, as `docker export` does for "/".
	Contents bool
	// Name replaces the last element of the path as the name of the first entry.
	Name string
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// ExtractOptions shapes Extract.
type ExtractOptions struct {
	NoOverwriteDirNonDir bool   // refuse to replace a folder by a file or a file by a folder
	Owner                *Owner // of everything unpacked; nil: as the archive says
}

// Stat describes a path inside root. A path that ends in a slash or in "/." must be a folder; otherwise a symbolic link in
// the last place is described itself. Errors: NotFound; InvalidParameter when a folder is wanted and there is none.
func Stat(root *os.File, name string) (PathStat, error) {
	d, err := dir.Of(root)
	if err != nil {
		return PathStat{}, err
	}
	defer d.Close()
	parent, base, st, err := locate(d, name)
	if err != nil {
		return PathStat{}, copyError(name, err)
	}
	defer parent.Close()
	info := PathStat{Name: path.Base(rooted(name)), Size: st.Size, Mode: fileMode(st.Mode), ModTime: st.ModTime}
	if st.IsSymlink() {
		if info.LinkTarget, err = linkTarget(d, parent, base, rooted(name)); err != nil {
			return PathStat{}, copyError(name, err)
		}
	}
	return info, nil
}

// Tar writes the path inside root, with all beneath it, to w. The first entry has the last element of the path as its name, which for a path that
// ends in "/." is ".". Errors: NotFound.
func Tar(ctx context.Context, root *os.File, name string, w io.Writer, o TarOptions) error {
	d, err := dir.Of(root)
	if err != nil {
		return err
	}
	defer d.Close()
	p := newPacker(w)
	if o.Contents {
		folder, err := d.Sub(rooted(name))
		if err != nil {
			return copyError(name, err)
		}
		if err := errors.Join(p.children(ctx, folder, ""), folder.Close()); err != nil {
			return copyError(name, err)
		}
		return p.tw.Close()
	}
	parent, base, st, err := locate(d, name)
	if err != nil {
		return copyError(name, err)
	}
	defer parent.Close()
	target := o.Name
	if target == "" {
		target = path.Base("/" + name)
		if strings.HasSuffix(name, "/.") {
			target = "."
		}
	}
	if st.IsDir() {
		p.prefix = target
		err = p.folder(ctx, parent, base, "", st)
	} else {
		err = p.entry(ctx, parent, base, target)
	}
	if err != nil {
		return copyError(name, err)
	}
	return p.tw.Close()
}

// Extract unpacks a tar stream (plain, gzip, bzip2, xz or zstd) into the folder inside root. Whiteouts are ordinary files here, and the archive's entry for
// the folder itself is left out. Symbolic links in the folder are followed inside root. Errors: NotFound when the folder is missing,
// InvalidParameter when it is none or the archive is malformed.
func Extract(ctx context.Context, root *os.File, name string, r io.Reader, o ExtractOptions) error {
	d, err := dir.Of(root)
	if err != nil {
		return err
	}
	defer d.Close()
	target, err := d.Sub(rooted(name))
	if errors.Is(err, syscall.ENOTDIR) {
		return errdefs.New(errdefs.InvalidParameter, "extraction point is not a directory")
	}
	if err != nil {
		return copyError(name, err)
	}
	if err := target.Close(); err != nil {
		return err
	}
	plain, _, err := Decompress(r)
	if err != nil {
		return err
	}
	u := newUnpacker(d)
	u.chown, u.owner, u.noReplace = true, o.Owner, o.NoOverwriteDirNonDir
	if u.base, err = local(rooted(name)); err != nil {
		return errors.Join(copyError(name, err), plain.Close())
	}
	return errors.Join(u.unpack(ctx, plain), plain.Close())
}

// CopyContents copies what is in one folder into another, which is empty, with owners, modes, extended attributes, times and hard links: the first use of a
// volume. Both may be mounts that are attached nowhere.
func CopyContents(ctx context.Context, to, from *os.File) error {
	source, err := dir.Of(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := dir.Of(to)
	if err != nil {
		return err
	}
	defer target.Close()
	st, err := source.StatSelf()
	if err != nil {
		return err
	}
	c := copier{root: target, links: map[[2]uint64]string{}}
	return c.contents(ctx, target, source, "", st)
}

type copier struct {
	root  *dir.Dir
	links map[[2]uint64]string // path in root of the first name of a file that has several
}

func (c *copier) contents(ctx context.Context, to, from *dir.Dir, prefix string, st dir.Stat) error {
	return each(ctx, "copy", to, from, prefix, st, c.entry)
}

// each calls entry with every name in the folder from, and then makes to, where its copies are, like from.
func each(ctx context.Context, verb string, to, from *dir.Dir, prefix string, st dir.Stat, entry func(ctx context.Context, to, from *dir.Dir, name, full string) error) error {
	names, err := from.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		if err := entry(ctx, to, from, name, path.Join(prefix, name)); err != nil {
			return fmt.Errorf("%s %q: %w", verb, path.Join(prefix, name), refine(err))
		}
	}
	return CopyAttributes(to.Self(), from.Self(), st)
}

func (c *copier) entry(ctx context.Context, to, from *dir.Dir, name, full string) error {
	st, err := from.Stat(name)
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		return nil
	}
	if st.IsDir() {
		if err := to.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		source, err := from.Child(name)
		if err != nil {
			return err
		}
		defer source.Close()
		target, err := to.Child(name)
		if err != nil {
			return err
		}
		return errors.Join(c.contents(ctx, target, source, full, st), target.Close())
	}
	key := [2]uint64{st.Dev, st.Ino}
	if first, ok := c.links[key]; ok && st.Links > 1 {
		folder, err := c.root.Sub(path.Dir(first))
		if err != nil {
			return err
		}
		return errors.Join(to.Link(folder, path.Base(first), name), folder.Close())
	}
	c.links[key] = full
	return CopyNode(to, name, from, name, st)
}

// rooted makes a path absolute and clean.
func rooted(name string) string { return path.Join("/", name) }

// locate finds the parent folder and the name of a path in root. The root itself is "." in itself.
func locate(root *dir.Dir, name string) (parent *dir.Dir, base string, st dir.Stat, err error) {
	clean := rooted(name)
	if clean == "/" || strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") {
		parent, err = root.Sub(clean)
		base = "."
	} else {
		parent, err = root.Sub(path.Dir(clean))
		base = path.Base(clean)
	}
	if err != nil {
		return nil, "", st, err
	}
	if st, err = parent.Stat(base); err != nil {
		return nil, "", st, errors.Join(err, parent.Close())
	}
	return parent, base, st, nil
}

// linkTarget returns where a symbolic link leads in the end, as a path in root; where it leads to nothing, what it says.
func linkTarget(root, parent *dir.Dir, base, name string) (string, error) {
	if resolved, err := root.Resolve(name); err == nil {
		return resolved, nil
	}
	says, err := parent.Readlink(base)
	if err != nil {
		return "", err
	}
	if !path.IsAbs(says) {
		says = path.Join(path.Dir(name), says)
	}
	return rooted(says), nil
}

func copyError(name string, err error) error {
	switch {
	case errdefs.KindOf(err) != errdefs.Internal:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return errdefs.New(errdefs.NotFound, "%s: %w", name, err)
	case errors.Is(err, syscall.ENOTDIR):
		return errdefs.New(errdefs.InvalidParameter, "%s: not a directory", name)
	default:
		return refine(fmt.Errorf("%s: %w", name, err))
	}
}

// fileMode translates the kernel's mode bits into Go's.
func fileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		m |= os.ModeDir
	case syscall.S_IFLNK:
		m |= os.ModeSymlink
	case syscall.S_IFIFO:
		m |= os.ModeNamedPipe
	case syscall.S_IFSOCK:
		m |= os.ModeSocket
	case syscall.S_IFCHR:
		m |= os.ModeDevice | os.ModeCharDevice
	case syscall.S_IFBLK:
		m |= os.ModeDevice
	}
	for bit, goBit := range map[uint32]os.FileMode{syscall.S_ISUID: os.ModeSetuid, syscall.S_ISGID: os.ModeSetgid, syscall.S_ISVTX: os.ModeSticky} {
		if mode&bit != 0 {
			m |= goBit
		}
	}
	return m
}
