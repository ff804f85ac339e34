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

	"gantry/archive/erofs"
	"gantry/errdefs"
	"gantry/linux/dir"
)

// maxFollowed is how many symbolic links one path may lead through: the kernel's own limit.
const maxFollowed = 40

// UnpackImage is Unpack to an EROFS image instead of a folder: the image shows, file for file, what the folder would have. f is empty. Errors: InvalidParameter, too, for
// what the format cannot hold (extended attributes of more than 256 KiB).
func UnpackImage(ctx context.Context, f erofs.File, r io.Reader, o ApplyOptions) (Unpacked, error) {
	var u Unpacked
	err := o.stream(r, func(plain *hashReader) (err error) {
		u.Applied, err = image(ctx, f, plain, o)
		return err
	}, &u.DiffID)
	return u, err
}

// image writes an uncompressed layer tar as an EROFS image.
func image(ctx context.Context, f erofs.File, r *hashReader, o ApplyOptions) (Applied, error) {
	p := &imager{w: erofs.NewWriter(f), root: newFolder(), lower: o.Lower, cache: map[string]*imageFolder{}, budget: &budget{limits: o.Limits.OrDefault()}}
	if err := p.budget.each(ctx, r, p.entry); err != nil {
		return Applied{}, err
	}
	id := [16]byte(r.h.Sum(nil)) // the same layer gives the same image, bit by bit
	if err := p.w.Close(p.finish(p.root), id); err != nil {
		return Applied{}, refine(err)
	}
	return Applied{Size: p.size, Opaque: p.opaque, UsesLower: p.usesLower}, nil
}

// imager writes the entries of one archive to an image. Files are written as they come, the tree of names is kept to the end.
type imager struct {
	w      *erofs.Writer
	root   *imageFolder
	lower  func(name string) (*dir.Dir, string, error)
	cache  map[string]*imageFolder // by clean path
	budget *budget
	white  *imageFile // the one inode of all whiteouts
	copies []*imageFile

	size      int64
	opaque    bool
	usesLower bool
}

// imageFolder is a folder, and imageFile anything else. A name has one of the two.
type imageFolder struct {
	inode  erofs.Inode
	opaque bool
	names  map[string]imageNode
}

type imageFile struct {
	nid    erofs.NID
	mode   uint16
	links  uint32
	target string // of a symbolic link
}

type imageNode struct {
	folder *imageFolder
	file   *imageFile
}

func newFolder() *imageFolder {
	return &imageFolder{inode: erofs.Inode{Mode: syscall.S_IFDIR | 0o755}, names: map[string]imageNode{}}
}

// entry does what unpacker.entry does.
func (p *imager) entry(name string, h *tar.Header, r io.Reader) error {
	if name == "" {
		return p.describe(p.root, h)
	}
	parentName, base := path.Split(name)
	parentName = strings.TrimSuffix(parentName, "/")
	if strings.HasPrefix(base, whiteout) {
		return p.whiteout(parentName, base)
	}
	if len(base) > erofs.MaxName {
		return errdefs.With(errdefs.InvalidParameter, syscall.ENAMETOOLONG)
	}
	parent, err := p.folder(parentName)
	if err != nil {
		return err
	}
	old, there := parent.names[base]
	if there && (old.folder != nil || old.file.mode&syscall.S_IFMT == syscall.S_IFLNK) {
		if old.folder == nil || h.Typeflag != tar.TypeDir {
			clear(p.cache)
		}
	}
	if h.Typeflag == tar.TypeDir {
		d := old.folder
		if d == nil {
			d = newFolder()
			d.opaque = there && old.file == p.white
			p.unlink(old)
			parent.names[base] = imageNode{folder: d}
		}
		return p.describe(d, h)
	}
	if there {
		p.unlink(old)
		delete(parent.names, base)
	}
	f, err := p.file(h, r)
	if err != nil {
		return err
	}
	parent.names[base] = imageNode{file: f}
	return nil
}

// unlink counts a name less of what had it, and of all beneath a folder.
func (p *imager) unlink(n imageNode) {
	if n.file != nil {
		n.file.links--
		return
	}
	if n.folder != nil {
		for _, child := range n.folder.names {
			p.unlink(child)
		}
	}
}

// inode returns what the header says of the inode.
func (p *imager) inode(h *tar.Header, kind uint16) (erofs.Inode, error) {
	if err := validOwner(h.Uid, h.Gid); err != nil {
		return erofs.Inode{}, err
	}
	attrs, err := p.budget.xattrs(h)
	if err != nil {
		return erofs.Inode{}, err
	}
	t := storable(h.ModTime)
	i := erofs.Inode{Mode: kind | uint16(h.Mode)&0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid), Seconds: t.Unix(), Nanos: uint32(t.Nanosecond()), Links: 1}
	if kind == syscall.S_IFLNK {
		i.Mode = kind | 0o777
	}
	for _, a := range attrs {
		space, _, _ := strings.Cut(a.name, ".")
		if kind != syscall.S_IFREG && kind != syscall.S_IFDIR && space == "user" {
			continue // the kernel has none of these on other files
		}
		switch {
		case space == "user", space == "trusted", space == "security":
		case a.name == "system.posix_acl_access", a.name == "system.posix_acl_default":
		default:
			continue // no file system has it
		}
		i.Xattrs = append(i.Xattrs, erofs.Xattr{Name: a.name, Value: a.value})
	}
	return i, nil
}

// describe gives a folder what the header says; what it had from an earlier one of the same name stays unless it is said anew.
func (p *imager) describe(d *imageFolder, h *tar.Header) error {
	i, err := p.inode(h, syscall.S_IFDIR)
	if err != nil {
		return err
	}
	old := d.inode.Xattrs
	for _, x := range i.Xattrs {
		old = setXattr(old, x)
	}
	i.Xattrs = old
	d.inode = i
	return nil
}

func setXattr(list []erofs.Xattr, x erofs.Xattr) []erofs.Xattr {
	for i := range list {
		if list[i].Name == x.Name {
			list[i] = x
			return list
		}
	}
	return append(list, x)
}

// file writes what is no folder.
func (p *imager) file(h *tar.Header, r io.Reader) (*imageFile, error) {
	kind := map[byte]uint16{tar.TypeSymlink: syscall.S_IFLNK, tar.TypeChar: syscall.S_IFCHR, tar.TypeBlock: syscall.S_IFBLK, tar.TypeFifo: syscall.S_IFIFO}[h.Typeflag]
	switch h.Typeflag {
	case tar.TypeLink:
		return p.link(h)
	case tar.TypeChar, tar.TypeBlock:
		if err := validDevice(h); err != nil {
			return nil, err
		}
	case tar.TypeSymlink, tar.TypeFifo:
	default:
		kind = syscall.S_IFREG
		if err := p.budget.bytes(h.Size); err != nil {
			return nil, err
		}
	}
	i, err := p.inode(h, kind)
	if err != nil {
		return nil, err
	}
	f := &imageFile{mode: i.Mode, links: 1}
	switch kind {
	case syscall.S_IFREG:
		f.nid, err = p.w.Regular(i, h.Size, r, isSparse(h))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = malformed(err)
		}
		p.size += h.Size
	case syscall.S_IFLNK:
		f.target = h.Linkname
		f.nid, err = p.w.Symlink(i, h.Linkname)
	default:
		if kind != syscall.S_IFIFO {
			i.Rdev = uint32(h.Devminor)&0xff | uint32(h.Devmajor)<<8 | uint32(h.Devminor)&^0xff<<12
		}
		f.nid, err = p.w.Special(i)
	}
	return f, err
}

// link returns the file that a hard link names, or a copy of it from the layers beneath.
func (p *imager) link(h *tar.Header) (*imageFile, error) {
	target, err := linkName(h)
	if err != nil {
		return nil, err
	}
	folderName, base := path.Split(target)
	folderName = strings.TrimSuffix(folderName, "/")
	var n imageNode
	d, err := p.walk(folderName)
	if err == nil {
		var ok bool
		if n, ok = d.names[base]; !ok {
			err = &fs.PathError{Op: "stat", Path: base, Err: syscall.ENOENT}
		}
	}
	if errors.Is(err, fs.ErrNotExist) && p.lower != nil {
		n.file, err = p.copyUp(folderName, target, base)
	}
	if err != nil {
		return nil, fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	if n.folder != nil || n.file == p.white {
		return nil, errdefs.New(errdefs.InvalidParameter, "link to %q, which is no file", h.Linkname)
	}
	if n.file.links++; n.file.links == 2 {
		p.copies = append(p.copies, n.file)
	}
	return n.file, nil
}

// copyUp copies a file from the layers beneath to the same path in this one.
func (p *imager) copyUp(folderName, target, base string) (f *imageFile, err error) {
	from, fromBase, err := p.lower(target)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	st, err := from.Stat(fromBase)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, errdefs.New(errdefs.InvalidParameter, "copy up %q: is a folder", target)
	}
	folder, err := p.folder(folderName)
	if err != nil {
		return nil, err
	}
	h := header(base, st)
	node, err := from.Node(fromBase)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(addXattrs(h, node), node.Close()); err != nil {
		return nil, err
	}
	h.ModTime = st.ModTime
	var r io.Reader
	switch {
	case st.IsRegular():
		file, err := from.File(fromBase)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		r = file
	case st.IsSymlink():
		if h.Linkname, err = from.Readlink(fromBase); err != nil {
			return nil, err
		}
	}
	size := p.size
	if f, err = p.file(h, r); err != nil {
		return nil, fmt.Errorf("copy up %q: %w", target, err)
	}
	p.size = size // as with a folder: it is the one of the layers beneath
	p.usesLower = true
	folder.names[base] = imageNode{file: f}
	return f, nil
}

// folder returns the folder of that path, making it and its parents where they are missing.
func (p *imager) folder(name string) (*imageFolder, error) {
	if name == "" {
		return p.root, nil
	}
	if d, ok := p.cache[name]; ok {
		return d, nil
	}
	d, err := p.walk(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		d, err = p.makeFolder(name)
	}
	if err != nil {
		return nil, err
	}
	if len(p.cache) >= maxDirs {
		clear(p.cache)
	}
	p.cache[name] = d
	return d, nil
}

func (p *imager) makeFolder(name string) (*imageFolder, error) {
	parentName, base := path.Split(name)
	parent, err := p.folder(strings.TrimSuffix(parentName, "/"))
	if err != nil {
		return nil, err
	}
	if len(base) > erofs.MaxName {
		return nil, errdefs.With(errdefs.InvalidParameter, syscall.ENAMETOOLONG)
	}
	d := newFolder()
	if old, ok := parent.names[base]; ok {
		if old.file == nil || old.file != p.white {
			return p.walk(name) // a file or a link to nowhere: the error says so
		}
		d.opaque = true // the layer removes a folder and then fills it anew
		p.unlink(old)
	}
	parent.names[base] = imageNode{folder: d}
	return d, nil
}

// walk finds a folder by its path; symbolic links on the way are followed inside the root.
func (p *imager) walk(name string) (*imageFolder, error) {
	fail := func(errno syscall.Errno) (*imageFolder, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errno}
	}
	at := []*imageFolder{p.root}
	rest := []string{name}
	for followed := 0; len(rest) > 0; {
		part, after, more := strings.Cut(rest[len(rest)-1], "/")
		if more {
			rest[len(rest)-1] = after
		} else {
			rest = rest[:len(rest)-1]
		}
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		n, ok := at[len(at)-1].names[part]
		switch {
		case !ok:
			return fail(syscall.ENOENT)
		case n.folder != nil:
			at = append(at, n.folder)
		case n.file.mode&syscall.S_IFMT != syscall.S_IFLNK:
			return fail(syscall.ENOTDIR)
		default:
			if followed++; followed > maxFollowed {
				return fail(syscall.ELOOP)
			}
			if strings.HasPrefix(n.file.target, "/") {
				at = at[:1]
			}
			rest = append(rest, n.file.target)
		}
	}
	return at[len(at)-1], nil
}

// whiteout does what unpacker.whiteout does.
func (p *imager) whiteout(parentName, base string) error {
	if base == opaqueMarker {
		if parentName == "" {
			p.opaque = true
			return nil
		}
		d, err := p.folder(parentName)
		if err == nil {
			d.opaque = true
		}
		return err
	}
	gone, err := whiteoutName(base)
	if gone == "" || err != nil {
		return err
	}
	parent, err := p.folder(parentName)
	if err != nil {
		return err
	}
	if len(gone) > erofs.MaxName {
		return errdefs.With(errdefs.InvalidParameter, syscall.ENAMETOOLONG)
	}
	if n, ok := parent.names[gone]; ok {
		if n.folder != nil {
			n.folder.opaque = true // a folder of this layer takes the place of the one beneath
		}
		return nil
	}
	if p.white == nil {
		nid, err := p.w.Special(erofs.Inode{Mode: syscall.S_IFCHR, Links: 1})
		if err != nil {
			return err
		}
		p.white = &imageFile{nid: nid, mode: syscall.S_IFCHR}
		p.copies = append(p.copies, p.white)
	}
	p.white.links++
	parent.names[gone] = imageNode{file: p.white}
	return nil
}

// finish turns the tree of names into the writer's, and corrects the number of names of files that have several.
func (p *imager) finish(d *imageFolder) *erofs.Dir {
	for _, f := range p.copies {
		_ = p.w.Relink(f.nid, f.links) // Close has the error
	}
	return d.dir()
}

func (d *imageFolder) dir() *erofs.Dir {
	t := &erofs.Dir{Inode: d.inode, Entries: make([]erofs.Entry, 0, len(d.names)+2)}
	if d.opaque {
		t.Inode.Xattrs = setXattr(t.Inode.Xattrs, erofs.Xattr{Name: opaqueXattr, Value: "y"})
	}
	for name, n := range d.names {
		if n.folder != nil {
			t.Entries = append(t.Entries, erofs.Entry{Name: name, Dir: n.folder.dir()})
		} else {
			t.Entries = append(t.Entries, erofs.Entry{Name: name, NID: n.file.nid, Mode: n.file.mode})
		}
	}
	return t
}
