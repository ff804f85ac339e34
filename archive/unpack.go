package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/dir"
)

const (
	maxEntries   = 1 << 24 // of one archive
	maxName      = 4096    // bytes of a path: what the kernel takes
	maxXattrName = 255     // bytes of an extended attribute's name: what the kernel takes
	maxXattr     = 1 << 16 // bytes of its value
	maxDirs      = 128     // folders kept open
	copyBuffer   = 256 << 10
	sparseBlock  = 4096
	whiteout     = ".wh."
	whiteoutMeta = ".wh..wh."
	opaqueMarker = ".wh..wh..opq"
	opaqueXattr  = "trusted.overlay.opaque"
	paxXattr     = "SCHILY.xattr."
)

// errLeaves is wrapped by the refusal of an entry whose path leads out of the root.
var errLeaves = errors.New("path leads out of the root")

// unpacker applies the entries of one archive beneath root.
type unpacker struct {
	root      *dir.Dir
	layer     bool   // whiteouts are marks, not files
	chown     bool   // set owners
	owner     *Owner // of everything; nil: as the archive says
	base      string // folder beneath root that the archive is for
	noReplace bool   // a folder and a file do not replace each other
	lower     func(name string) (*dir.Dir, string, error)

	dirs      map[string]*dir.Dir   // open folders by clean path, all beneath root
	stale     []*dir.Dir            // folders that no name in dirs leads to any more, in use until the entry is done
	times     map[string]folderTime // of folders, set at the end since their contents change them
	buf       []byte
	budget    *budget
	size      int64
	opaque    bool // the root itself hides what is beneath it
	usesLower bool
}

// folderTime is when a folder was changed last, as the archive says.
type folderTime struct {
	ino  uint64 // tells the folder from one that took its place
	time time.Time
}

func newUnpacker(root *dir.Dir) *unpacker {
	return &unpacker{root: root, dirs: map[string]*dir.Dir{}, times: map[string]folderTime{}, buf: make([]byte, copyBuffer), budget: unlimited()}
}

// close closes all open folders.
func (u *unpacker) close() {
	u.forget()
	for _, d := range u.stale {
		_ = d.Close() // read only
	}
	u.stale = u.stale[:0]
}

// forget makes the next entry walk its path anew, since a folder or a symbolic link is about to be replaced.
func (u *unpacker) forget() {
	for _, d := range u.dirs {
		u.stale = append(u.stale, d)
	}
	clear(u.dirs)
}

// unpack applies all entries and then the times of folders.
func (u *unpacker) unpack(ctx context.Context, r io.Reader) error {
	defer u.close()
	err := u.budget.each(ctx, r, func(name string, h *tar.Header, r io.Reader) error {
		if len(u.dirs)+len(u.stale) >= maxDirs {
			u.close()
		}
		return u.entry(ctx, name, h, r)
	})
	if err != nil {
		return err
	}
	return u.setTimes()
}

// each calls apply with each entry of a tar that stands for something, and the name within the root that it is for: empty for the root, which is a folder.
func (b *budget) each(ctx context.Context, r io.Reader, apply func(name string, h *tar.Header, r io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformed(err)
		}
		if err := b.entry(); err != nil {
			return err
		}
		name, err := nameOf(h)
		if err == nil && h.Typeflag != tar.TypeXGlobalHeader {
			err = apply(name, h, tr)
		}
		if err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, refine(err))
		}
	}
}

// nameOf checks what an entry is and returns what it is for.
func nameOf(h *tar.Header) (string, error) {
	if err := knownType(h.Typeflag); err != nil || h.Typeflag == tar.TypeXGlobalHeader {
		return "", err
	}
	name, err := local(h.Name)
	if err == nil && name == "" && h.Typeflag != tar.TypeDir {
		err = errdefs.New(errdefs.InvalidParameter, "the root is not a folder in the archive")
	}
	return name, err
}

// malformed gives what archive/tar finds wrong its kind; errors of the stream beneath keep theirs.
func malformed(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errdefs.New(errdefs.InvalidParameter, "read archive: %w", err)
	}
	return fmt.Errorf("read archive: %w", err)
}

// refine gives errors of the file system their kind.
func refine(err error) error {
	switch {
	case dir.SpaceError(err):
		return errdefs.With(errdefs.Exhausted, err)
	case errors.Is(err, errLeaves), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return errdefs.With(errdefs.InvalidParameter, err)
	default:
		return err
	}
}

// local makes a name of the archive relative to the root: "./a//b/" becomes "a/b", the root itself "".
func local(name string) (string, error) {
	if len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return "", errdefs.New(errdefs.InvalidParameter, "path is not valid")
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case clean == ".":
		return "", nil
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", errLeaves
	default:
		return clean, nil
	}
}

// knownType refuses entries that nobody knows the meaning of.
func knownType(flag byte) error {
	switch flag {
	case tar.TypeXGlobalHeader, tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse, tar.TypeCont:
		return nil
	default:
		return errdefs.New(errdefs.InvalidParameter, "entry type %q is not known", flag)
	}
}

// entry applies one entry.
func (u *unpacker) entry(ctx context.Context, name string, h *tar.Header, r io.Reader) error {
	if name == "" {
		if !u.layer {
			return nil // it is there already, with attributes of its own
		}
		return u.attributes(u.root.Self(), h, name)
	}
	name = path.Join(u.base, name)
	parentName, base := path.Split(name)
	parentName = strings.TrimSuffix(parentName, "/")
	if u.layer && strings.HasPrefix(base, whiteout) {
		return u.whiteout(parentName, base)
	}
	parent, err := u.folder(parentName)
	if err != nil {
		return err
	}
	hide, err := u.makeRoom(parent, name, base, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	return u.create(ctx, parent, name, base, h, r, hide)
}

// folder opens the folder of that path, making it and its parents where they are missing, as Docker does, for root with mode 0755.
func (u *unpacker) folder(name string) (*dir.Dir, error) {
	if name == "" {
		return u.root, nil
	}
	if d, ok := u.dirs[name]; ok {
		return d, nil
	}
	d, err := u.root.Sub(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		d, err = u.makeFolder(name)
	}
	if err != nil {
		return nil, err
	}
	u.dirs[name] = d
	return d, nil
}

func (u *unpacker) makeFolder(name string) (*dir.Dir, error) {
	parentName, base := path.Split(name)
	parent, err := u.folder(strings.TrimSuffix(parentName, "/"))
	if err != nil {
		return nil, err
	}
	hide := false
	if st, err := parent.Stat(base); err == nil {
		if hide = u.layer && st.IsWhiteout(); !hide {
			return u.root.Sub(name) // a file or a link to nowhere: the error says so
		}
		if err := parent.Remove(base); err != nil { // the layer removes a folder and then fills it anew
			return nil, err
		}
	}
	if err := parent.Mkdir(base, 0o755); err != nil {
		return nil, err
	}
	d, err := parent.Child(base)
	if err != nil {
		return nil, err
	}
	err = d.Self().Chmod(0o755) // whatever the umask was
	if hide {
		err = errors.Join(err, d.Self().Setxattr(opaqueXattr, "y"))
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// makeRoom removes what is in the way of a new entry. hide says that a whiteout was there, so that a new folder must be opaque.
func (u *unpacker) makeRoom(parent *dir.Dir, name, base string, folder bool) (hide bool, err error) {
	st, err := parent.Stat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.IsDir() && folder {
		return false, nil
	}
	if u.noReplace && st.IsDir() != folder {
		if st.IsDir() {
			return false, errdefs.New(errdefs.InvalidParameter, "cannot overwrite directory %q with non-directory %q", "/"+name, base)
		}
		return false, errdefs.New(errdefs.InvalidParameter, "cannot overwrite non-directory %q with directory %q", "/"+name, base)
	}
	hide = u.layer && st.IsWhiteout()
	if !st.IsDir() {
		if st.IsSymlink() {
			u.forget()
		}
		return hide, parent.Remove(base)
	}
	u.forget()
	return hide, parent.RemoveAll(base)
}

// whiteout marks what the layer removes from the ones beneath it.
func (u *unpacker) whiteout(parentName, base string) error {
	if base == opaqueMarker {
		if parentName == "" {
			u.opaque = true
			return nil
		}
		d, err := u.folder(parentName)
		if err != nil {
			return err
		}
		return d.Self().Setxattr(opaqueXattr, "y")
	}
	gone, err := whiteoutName(base)
	if gone == "" || err != nil {
		return err
	}
	parent, err := u.folder(parentName)
	if err != nil {
		return err
	}
	st, err := parent.Stat(gone)
	switch {
	case err == nil && st.IsDir(): // a folder of this layer takes the place of the one beneath
		d, err := parent.Child(gone)
		if err != nil {
			return err
		}
		return errors.Join(d.Self().Setxattr(opaqueXattr, "y"), d.Close())
	case err == nil:
		return nil // a file of this layer hides what is beneath
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return parent.Mknod(gone, syscall.S_IFCHR, 0, 0)
}

// whiteoutName returns what a whiteout removes: nothing if it is bookkeeping of aufs.
func whiteoutName(base string) (string, error) {
	if strings.HasPrefix(base, whiteoutMeta) {
		return "", nil
	}
	gone := strings.TrimPrefix(base, whiteout)
	if gone == "" || gone == "." || gone == ".." {
		return "", errdefs.New(errdefs.InvalidParameter, "whiteout names nothing")
	}
	return gone, nil
}

// validDevice refuses device numbers that do not exist, and the one that means something else to overlayfs.
func validDevice(h *tar.Header) error {
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		return errdefs.New(errdefs.InvalidParameter, "character device 0:0 is overlayfs's mark for a removed file")
	}
	if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
		return errdefs.New(errdefs.InvalidParameter, "device number %d:%d is not valid", h.Devmajor, h.Devminor)
	}
	return nil
}

// create makes the entry, whose name is free unless it is a folder.
func (u *unpacker) create(ctx context.Context, parent *dir.Dir, name, base string, h *tar.Header, r io.Reader, hide bool) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(parent, name, base, h, hide)
	case tar.TypeSymlink:
		if err := parent.Symlink(h.Linkname, base); err != nil {
			return err
		}
	case tar.TypeLink:
		return u.link(parent, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		mode := map[byte]uint32{tar.TypeChar: syscall.S_IFCHR, tar.TypeBlock: syscall.S_IFBLK, tar.TypeFifo: syscall.S_IFIFO}[h.Typeflag]
		if err := validDevice(h); err != nil {
			return err
		}
		if err := parent.Mknod(base, mode, uint32(h.Devmajor), uint32(h.Devminor)); err != nil {
			return err
		}
	default:
		return u.file(ctx, parent, name, base, h, r)
	}
	node, err := parent.Node(base)
	if err != nil {
		return err
	}
	return errors.Join(u.attributes(node, h, name), node.Close())
}

func (u *unpacker) directory(parent *dir.Dir, name, base string, h *tar.Header, hide bool) error {
	if err := parent.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, ok := u.dirs[name]
	if !ok {
		var err error
		if d, err = parent.Child(base); err != nil {
			return err
		}
		u.dirs[name] = d
	}
	if hide {
		if err := d.Self().Setxattr(opaqueXattr, "y"); err != nil {
			return err
		}
	}
	return u.attributes(d.Self(), h, name)
}

// linkName returns the path that a hard link is for.
func linkName(h *tar.Header) (string, error) {
	target, err := local(h.Linkname)
	if err != nil {
		return "", fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	if target == "" {
		return "", errdefs.New(errdefs.InvalidParameter, "link to the root")
	}
	return target, nil
}

// link makes a hard link. Its target is a path in the archive's root; with lower, one in a layer beneath is copied up first, as overlayfs would.
func (u *unpacker) link(parent *dir.Dir, base string, h *tar.Header) error {
	target, err := linkName(h)
	if err != nil {
		return err
	}
	target = path.Join(u.base, target)
	folderName, targetBase := path.Split(target)
	folderName = strings.TrimSuffix(folderName, "/")
	var st dir.Stat
	folder, ok := u.dirs[folderName]
	switch {
	case folderName == "":
		folder = u.root
	case !ok:
		if folder, err = u.root.Sub(folderName); err == nil {
			u.dirs[folderName] = folder
		}
	}
	if err == nil {
		st, err = folder.Stat(targetBase)
	}
	if errors.Is(err, fs.ErrNotExist) && u.lower != nil {
		if folder, err = u.copyUp(folderName, target, targetBase); err == nil {
			st, err = folder.Stat(targetBase)
		}
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	if st.IsDir() || u.layer && st.IsWhiteout() {
		return errdefs.New(errdefs.InvalidParameter, "link to %q, which is no file", h.Linkname)
	}
	return parent.Link(folder, targetBase, base)
}

// file writes a regular file.
func (u *unpacker) file(ctx context.Context, parent *dir.Dir, name, base string, h *tar.Header, r io.Reader) (err error) {
	if err := u.budget.bytes(h.Size); err != nil {
		return err
	}
	node, err := parent.Create(base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if isSparse(h) {
		err = u.copySparse(ctx, node, r, h.Size)
	} else {
		err = u.copy(ctx, node, r)
	}
	if err != nil {
		return err
	}
	u.size += h.Size
	return u.attributes(node, h, name)
}

func (u *unpacker) copy(ctx context.Context, node dir.Node, r io.Reader) error {
	for {
		n, err := r.Read(u.buf)
		if n > 0 {
			if _, werr := node.Write(u.buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformed(err)
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
	}
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// copySparse leaves holes where the archive has zeros.
func (u *unpacker) copySparse(ctx context.Context, node dir.Node, r io.Reader, size int64) error {
	var zeros [sparseBlock]byte
	for {
		n, err := io.ReadFull(r, u.buf)
		for rest := u.buf[:n]; len(rest) > 0; {
			block := rest[:min(sparseBlock, len(rest))]
			rest = rest[len(block):]
			if bytes.Equal(block, zeros[:len(block)]) {
				if err := node.Skip(int64(len(block))); err != nil {
					return err
				}
			} else if _, err := node.Write(block); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return node.Truncate(size)
		}
		if err != nil {
			return malformed(err)
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
	}
}

func validOwner(uid, gid int) error {
	if uid < 0 || uid >= 1<<32-1 || gid < 0 || gid >= 1<<32-1 {
		return errdefs.New(errdefs.InvalidParameter, "owner %d:%d is not valid", uid, gid)
	}
	return nil
}

// attributes sets owner, mode, extended attributes and times, in the order in which none undoes another.
func (u *unpacker) attributes(n dir.Node, h *tar.Header, name string) error {
	if u.chown {
		if u.owner != nil {
			h.Uid, h.Gid = u.owner.UID, u.owner.GID
		}
		if err := validOwner(h.Uid, h.Gid); err != nil {
			return err
		}
		if err := n.Chown(h.Uid, h.Gid); err != nil {
			return fmt.Errorf("change owner: %w", err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := n.Chmod(uint32(h.Mode) & 0o7777); err != nil {
			return fmt.Errorf("change mode: %w", err)
		}
	}
	attrs, err := u.budget.xattrs(h)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		err := n.Setxattr(a.name, a.value)
		if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EPERM) && strings.HasPrefix(a.name, "user.") {
			continue // the file system has none, or not for this type of file; Docker leaves them out too
		}
		if err != nil {
			return fmt.Errorf("set extended attribute %q: %w", a.name, err)
		}
	}
	if h.Typeflag == tar.TypeDir {
		st, err := n.Stat()
		u.times[name] = folderTime{st.Ino, h.ModTime}
		return err
	}
	return u.setTime(n, h.ModTime)
}

// xattr is an extended attribute of an entry.
type xattr struct{ name, value string }

// xattrs returns the extended attributes of an entry, but those by which an archive would speak to overlayfs.
func (b *budget) xattrs(h *tar.Header) ([]xattr, error) {
	var list []xattr
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if len(name) > maxXattrName || len(value) > maxXattr {
			return nil, errdefs.New(errdefs.InvalidParameter, "extended attribute %.64q has %d bytes: the kernel takes names of %d and values of %d", name, len(value), maxXattrName, maxXattr)
		}
		if err := b.bytes(int64(len(name) + len(value))); err != nil {
			return nil, err
		}
		list = append(list, xattr{name, value})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list, nil
}

// storable replaces a time that no file system can hold.
func storable(t time.Time) time.Time {
	if t.Unix() < -1<<31 || t.Unix() > 1<<34 {
		return time.Unix(0, 0)
	}
	return t
}

func (u *unpacker) setTime(n dir.Node, t time.Time) error {
	t = storable(t)
	if err := n.SetTimes(t, t); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

func (u *unpacker) setTimes() error {
	names := make([]string, 0, len(u.times))
	for name := range u.times {
		names = append(names, name)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(names)))
	for _, name := range names {
		d, err := u.root.Sub(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			continue // replaced by a later entry
		}
		if err != nil {
			return err
		}
		st, err := d.StatSelf()
		if err == nil && st.Ino == u.times[name].ino {
			err = u.setTime(d.Self(), u.times[name].time)
		}
		if err := errors.Join(err, d.Close()); err != nil {
			return err
		}
	}
	return nil
}
