package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/dir"
)

// packer writes folders as tar entries.
type packer struct {
	tw     *tar.Writer
	layer  bool                 // marks of overlayfs become whiteouts
	prefix string               // put before every name
	inodes map[[2]uint64]string // names of files that have more than one, by device and inode
	buf    []byte
}

func newPacker(w io.Writer) *packer {
	return &packer{tw: tar.NewWriter(w), inodes: map[[2]uint64]string{}, buf: make([]byte, copyBuffer)}
}

// PackUpper writes the upper folder of an overlay as a layer tar: whiteouts for what it removes, everything else as it is.
func PackUpper(ctx context.Context, upper *dir.Dir, w io.Writer) error {
	p := newPacker(w)
	p.layer = true
	if err := p.children(ctx, upper, ""); err != nil {
		return err
	}
	return p.tw.Close()
}

// children writes what is in the folder d, whose own name in the archive is prefix.
func (p *packer) children(ctx context.Context, d *dir.Dir, prefix string) error {
	if len(prefix) > maxName {
		return errdefs.New(errdefs.InvalidParameter, "path of more than %d bytes", maxName)
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		err := p.entry(ctx, d, name, path.Join(prefix, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since it was listed
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry writes what has that name in the folder d, and all beneath it, as target.
func (p *packer) entry(ctx context.Context, d *dir.Dir, name, target string) error {
	st, err := d.Stat(name)
	if err != nil {
		return err
	}
	if p.layer && st.IsWhiteout() {
		return p.mark(path.Join(path.Dir(target), whiteout+path.Base(target)))
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		return nil // an archive cannot hold a socket
	}
	if st.IsDir() {
		return p.folder(ctx, d, name, target, st)
	}
	h := header(p.name(target), st)
	if st.Links > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := p.inodes[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.write(h)
		}
		p.inodes[key] = h.Name
	}
	if st.IsRegular() {
		return p.file(ctx, d, name, h, st)
	}
	if st.IsSymlink() {
		if h.Linkname, err = d.Readlink(name); err != nil {
			return err
		}
	}
	node, err := d.Node(name)
	if err != nil {
		return err
	}
	if err := errors.Join(addXattrs(h, node), node.Close()); err != nil {
		return err
	}
	return p.write(h)
}

func (p *packer) folder(ctx context.Context, parent *dir.Dir, name, target string, st dir.Stat) error {
	d, err := parent.Child(name)
	if err != nil {
		return err
	}
	return errors.Join(p.openFolder(ctx, d, target, st), d.Close())
}

func (p *packer) openFolder(ctx context.Context, d *dir.Dir, target string, st dir.Stat) error {
	h := header(p.name(target)+"/", st)
	if err := addXattrs(h, d.Self()); err != nil {
		return err
	}
	if err := p.write(h); err != nil {
		return err
	}
	if p.layer && opaque(d) {
		if err := p.mark(path.Join(target, opaqueMarker)); err != nil {
			return err
		}
	}
	return p.children(ctx, d, target)
}

// name returns what the archive calls a path. A prefix of "/" gives "/", "/bin" and so on, as Docker's archives of a whole container have it.
func (p *packer) name(target string) string {
	switch {
	case p.prefix == "":
		return target
	case target == "":
		return strings.TrimSuffix(p.prefix, "/")
	default:
		return strings.TrimSuffix(p.prefix, "/") + "/" + target
	}
}

// mark writes an empty file whose name is all that matters.
func (p *packer) mark(name string) error {
	return p.write(&tar.Header{Typeflag: tar.TypeReg, Name: p.name(name), Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

func (p *packer) file(ctx context.Context, d *dir.Dir, name string, h *tar.Header, st dir.Stat) (err error) {
	f, err := d.File(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := addXattrs(h, dir.NodeOf(f)); err != nil {
		return err
	}
	if err := p.write(h); err != nil {
		return err
	}
	// A file that shrinks meanwhile is filled up, one that grows is cut off: its size is in the header.
	for left := st.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		buf := p.buf[:min(left, int64(len(p.buf)))]
		n, err := io.ReadFull(f, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read %q: %w", h.Name, err)
		}
		clear(buf[n:])
		if _, err := p.tw.Write(buf); err != nil {
			return err
		}
		left -= int64(len(buf))
	}
	return nil
}

func (p *packer) write(h *tar.Header) error {
	if err := p.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write archive: %q: %w", h.Name, err)
	}
	return nil
}

// header makes an entry with times in whole seconds, as Docker's are.
func header(name string, st dir.Stat) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.UID), Gid: int(st.GID), ModTime: st.ModTime.Truncate(time.Second), Format: tar.FormatPAX,
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case syscall.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case syscall.S_IFCHR:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(st.Major), int64(st.Minor)
	case syscall.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(st.Major), int64(st.Minor)
	case syscall.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	}
	return h
}

func addXattrs(h *tar.Header, n dir.Node) error {
	names, err := n.Listxattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") || name == "security.selinux" {
			continue
		}
		value, found, err := n.Getxattr(name)
		if err != nil {
			return err
		}
		if found {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[paxXattr+name] = value
		}
	}
	return nil
}
