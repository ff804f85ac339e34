// Package mount makes mounts by descriptor with the mount API of Linux 5.2 to 5.12 (fsopen, fsmount, open_tree, mount_setattr,
// move_mount). A mount made here is detached: nobody sees it, it lives as long as its descriptor, and it costs no mount table entry
// on the host unless it is moved to a place.
package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Attr is a set of per-mount attributes.
type Attr uint64

// Per-mount attributes.
const (
	ReadOnly    Attr = unix.MOUNT_ATTR_RDONLY
	NoSuid      Attr = unix.MOUNT_ATTR_NOSUID
	NoDev       Attr = unix.MOUNT_ATTR_NODEV
	NoExec      Attr = unix.MOUNT_ATTR_NOEXEC
	NoAtime     Attr = unix.MOUNT_ATTR_NOATIME
	StrictAtime Attr = unix.MOUNT_ATTR_STRICTATIME
	NoDirAtime  Attr = unix.MOUNT_ATTR_NODIRATIME
	NoSymFollow Attr = unix.MOUNT_ATTR_NOSYMFOLLOW

	atimeMask = unix.MOUNT_ATTR__ATIME // the atime attributes are one field of three values, zero of which is relatime
)

// Propagation says how mounts below a mount spread to its copies; zero leaves it as it is.
type Propagation uint64

// Kinds of propagation.
const (
	Private    Propagation = unix.MS_PRIVATE
	Slave      Propagation = unix.MS_SLAVE
	Shared     Propagation = unix.MS_SHARED
	Unbindable Propagation = unix.MS_UNBINDABLE
)

// Context is a file system being configured.
type Context struct {
	n      int
	fsType string
}

// Open begins the configuration of a new file system of the given type.
func Open(fsType string) (*Context, error) {
	n, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, errdefs.New(errdefs.InvalidParameter, "open file system: the kernel has no %q: %w", fsType, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open file system %s: %w", fsType, err)
	}
	return &Context{n, fsType}, nil
}

// Close ends the configuration; a mount already made stays.
func (c *Context) Close() error { return unix.Close(c.n) }

// Set sets an option with a value.
func (c *Context) Set(key, value string) error {
	if err := unix.FsconfigSetString(c.n, key, value); err != nil {
		return c.wrap(fmt.Sprintf("option %s=%s", key, value), err)
	}
	return nil
}

// Flag sets an option without a value.
func (c *Context) Flag(key string) error {
	if err := unix.FsconfigSetFlag(c.n, key); err != nil {
		return c.wrap("option "+key, err)
	}
	return nil
}

// Mount creates the file system and returns a detached mount of it.
func (c *Context) Mount(attr Attr) (*os.File, error) {
	if err := unix.FsconfigCreate(c.n); err != nil {
		return nil, c.wrap("create", err)
	}
	n, err := unix.Fsmount(c.n, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return nil, c.wrap("mount", err)
	}
	return os.NewFile(uintptr(n), c.fsType), nil
}

// wrap adds what the kernel said about the file system to err.
func (c *Context) wrap(what string, err error) error {
	var said []string
	for range 4 {
		var buf [512]byte
		n, rerr := unix.Read(c.n, buf[:])
		if rerr != nil || n <= 2 {
			break
		}
		said = append(said, strings.TrimSpace(string(buf[2:n]))) // after "e ", "w " or "i "
	}
	if len(said) > 0 {
		return fmt.Errorf("%s: %s: %w (%s)", c.fsType, what, err, strings.Join(said, "; "))
	}
	return fmt.Errorf("%s: %s: %w", c.fsType, what, err)
}

// FS makes a file system of the given type with classic mount options ("mode=755", "nosuid", ...) and returns a detached mount.
// source may be empty.
func FS(fsType, source string, options []string) (*os.File, error) {
	o, err := Parse(options)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", fsType, err)
	}
	c, err := Open(fsType)
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	defer c.Close()
	if source != "" {
		if err := c.Set("source", source); err != nil {
			return nil, fmt.Errorf("mount: %w", err)
		}
	}
	for _, d := range o.Data {
		key, value, ok := strings.Cut(d, "=")
		if ok {
			err = c.Set(key, value)
		} else {
			err = c.Flag(key)
		}
		if err != nil {
			return nil, fmt.Errorf("mount: %w", err)
		}
	}
	f, err := c.Mount(o.Set)
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return f, nil
}

// Bind returns a detached copy of the mount at path, from path's directory or file downwards; with recursive, of those below it
// too. A symbolic link at the end of path is followed.
func Bind(path string, recursive bool) (*os.File, error) {
	return bind(unix.AT_FDCWD, path, recursive)
}

// BindAt is Bind of a path relative to dir, which must be attached in this mount namespace; an empty path is dir itself.
func BindAt(dir *os.File, path string, recursive bool) (*os.File, error) {
	return bind(int(dir.Fd()), path, recursive)
}

func bind(dir int, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	n, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "bind", Path: path, Err: err}
	}
	return os.NewFile(uintptr(n), path), nil
}

// SetAttr changes attributes and propagation of the mount m, with recursive of those below it too.
func SetAttr(m *os.File, set, clear Attr, p Propagation, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if set&atimeMask != 0 || clear&atimeMask != 0 {
		clear |= atimeMask // the kernel wants the field named whole
	}
	attr := unix.MountAttr{Attr_set: uint64(set), Attr_clr: uint64(clear), Propagation: uint64(p)}
	err := unix.MountSetattr(int(m.Fd()), "", flags, &attr)
	if errors.Is(err, unix.ENOSYS) {
		return errdefs.New(errdefs.NotImplemented, "set attributes of mount %s: needs Linux 5.12: %w", m.Name(), err)
	}
	if err != nil {
		return fmt.Errorf("set attributes of mount %s: %w", m.Name(), err)
	}
	return nil
}

// IsProc reports whether f lies on a procfs.
func IsProc(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}

// Locked returns those attributes of the mount f that a user namespace other than the one it was made in could not take away; the kernel
// keeps them in copies of it (mount_namespaces(7), "restrictions on mount namespaces").
func Locked(f *os.File) (Attr, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("read attributes of mount: %w", err)
	}
	var a Attr
	for flag, attr := range map[int64]Attr{unix.ST_RDONLY: ReadOnly, unix.ST_NOSUID: NoSuid, unix.ST_NODEV: NoDev, unix.ST_NOEXEC: NoExec} {
		if st.Flags&flag != 0 {
			a |= attr
		}
	}
	return a, nil
}

// MapIDs makes the mount m, which must be attached nowhere, translate owners as the user namespace users does, with recursive of those
// below it too.
func MapIDs(m, users *os.File, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	if err := unix.MountSetattr(int(m.Fd()), "", flags, &attr); err != nil {
		return fmt.Errorf("map owners of mount %s (its file system must support that): %w", m.Name(), err)
	}
	return nil
}

// MoveTo attaches the mount m at path.
func MoveTo(m *os.File, path string) error {
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return &os.PathError{Op: "move mount to", Path: path, Err: err}
	}
	return nil
}

// Unmount detaches what is mounted at path, at once for new users and in truth when the last user is gone. No mount there is no error.
func Unmount(path string) error {
	err := unix.Unmount(filepath.Clean(path), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "unmount", Path: path, Err: err}
}

// Withdraw is Unmount of the mount m from path, if that is what is mounted there.
func Withdraw(m *os.File, path string) error {
	mine, err := idOf(int(m.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	if there, err := idOf(unix.AT_FDCWD, path, 0); err != nil || there != mine {
		return nil
	}
	return Unmount(path)
}

// idOf returns the number of the mount that a path lies on.
func idOf(dir int, path string, flags int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st); err != nil {
		return 0, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Mnt_id, nil
}
