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

	"gantry/errdefs"
	"gantry/linux/dir"
)

// ApplyOptions shapes Apply.
type ApplyOptions struct {
	// Lower finds a path in the layers beneath, for the rare layer that has a hard link into one: the folder, which Apply closes, and
	// the name in it. Its error is of kind NotFound when there is none. Nil: there are no layers beneath.
	Lower func(path string) (*dir.Dir, string, error)
	// Limits bound the archive.
	Limits Limits
}

// Applied is what Apply did.
type Applied struct {
	Size      int64 // bytes of all files
	Opaque    bool  // the layer hides everything beneath it
	UsesLower bool  // contents of the layers beneath were needed
}

// Apply unpacks an uncompressed layer tar into the empty folder root, in the form that overlayfs reads: a whiteout becomes a character
// device 0:0, an opaque folder the attribute trusted.overlay.opaque. It reads r up to the end of the archive, not to the end of r.
// Errors: InvalidParameter for a malformed or hostile archive and for one that exceeds a limit, Exhausted when the disk is full.
func Apply(ctx context.Context, root *os.File, r io.Reader, o ApplyOptions) (Applied, error) {
	d, err := dir.Of(root)
	if err != nil {
		return Applied{}, err
	}
	u := newUnpacker(d)
	u.layer, u.chown, u.lower = true, true, o.Lower
	u.budget.limits = o.Limits.OrDefault()
	err = errors.Join(u.unpack(ctx, r), d.Close())
	return Applied{Size: u.size, Opaque: u.opaque, UsesLower: u.usesLower}, err
}

// copyUp copies a file from the layers beneath to the same path in this one and returns its folder.
func (u *unpacker) copyUp(folderName, target, base string) (folder *dir.Dir, err error) {
	from, fromBase, err := u.lower(target)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	st, err := from.Stat(fromBase)
	if err != nil {
		return nil, err
	}
	if folder, err = u.folder(folderName); err != nil {
		return nil, err
	}
	u.usesLower = true
	if err := CopyNode(folder, base, from, fromBase, st); err != nil {
		return nil, fmt.Errorf("copy up %q: %w", target, err)
	}
	return folder, nil
}

// CopyNode copies a file, symbolic link, FIFO or device, but no folder, with owner, mode, extended attributes and times.
func CopyNode(to *dir.Dir, name string, from *dir.Dir, fromName string, st dir.Stat) (err error) {
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return copyFile(to, name, from, fromName, st)
	case syscall.S_IFLNK:
		target, err := from.Readlink(fromName)
		if err != nil {
			return err
		}
		if err := to.Symlink(target, name); err != nil {
			return err
		}
	case syscall.S_IFDIR:
		return errdefs.New(errdefs.InvalidParameter, "is a folder")
	default:
		if err := to.Mknod(name, st.Mode, st.Major, st.Minor); err != nil {
			return err
		}
	}
	source, err := from.Node(fromName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	node, err := to.Node(name)
	if err != nil {
		return err
	}
	return errors.Join(CopyAttributes(node, source, st), node.Close())
}

func copyFile(to *dir.Dir, name string, from *dir.Dir, fromName string, st dir.Stat) (err error) {
	in, err := from.File(fromName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	node, err := to.Create(name)
	if err != nil {
		return err
	}
	out := node.File(name)
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return CopyAttributes(node, dir.NodeOf(in), st)
}

// CopyAttributes gives a node the owner, mode, extended attributes and times of another, except what overlayfs keeps there for itself.
func CopyAttributes(to, from dir.Node, st dir.Stat) error {
	if err := to.Chown(int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if !st.IsSymlink() {
		if err := to.Chmod(st.Mode & 0o7777); err != nil {
			return err
		}
	}
	names, err := from.Listxattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value, found, err := from.Getxattr(name)
		if err != nil {
			return err
		}
		if !found { // gone since it was listed
			continue
		}
		if err := to.Setxattr(name, value); err != nil && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	return to.SetTimes(st.ModTime, st.ModTime)
}

// FindLower finds a path in a stack of unpacked layers, top first, as overlayfs would: whiteouts and opaque folders hide what is beneath.
// It follows no symbolic links. The caller closes the folder.
func FindLower(layers []*dir.Dir, name string) (*dir.Dir, string, error) {
	folderName, base := path.Split(name)
	parts := elements(folderName)
	for _, layer := range layers {
		d, last, err := descend(layer, parts)
		if err == nil {
			st, serr := d.Stat(base)
			if serr == nil && !st.IsWhiteout() {
				return d, base, nil
			}
			hides := serr == nil || opaque(d)
			if cerr := d.Close(); cerr != nil {
				return nil, "", cerr
			}
			if hides {
				break
			}
			if !errors.Is(serr, fs.ErrNotExist) {
				return nil, "", serr
			}
			continue
		}
		if last || !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, "", errdefs.New(errdefs.NotFound, "%q: %w", name, fs.ErrNotExist)
}

// elements splits a path.
func elements(name string) []string {
	return strings.FieldsFunc(path.Clean("/"+name), func(r rune) bool { return r == '/' })
}

// descend opens the folder that parts lead to. last says that nothing beneath this layer can be seen through it.
func descend(layer *dir.Dir, parts []string) (d *dir.Dir, last bool, err error) {
	d, err = layer.Sub("")
	for _, part := range parts {
		if err != nil {
			return nil, false, err
		}
		next, nerr := d.Child(part)
		if nerr != nil && !errors.Is(nerr, fs.ErrNotExist) {
			last = true // a whiteout or a file hides the folder beneath
		}
		last = last || opaque(d)
		if err = errors.Join(nerr, d.Close()); err != nil {
			return nil, last, err
		}
		d = next
	}
	return d, false, err
}

func opaque(d *dir.Dir) bool {
	value, found, err := d.Self().Getxattr(opaqueXattr)
	return err == nil && found && value == "y"
}
