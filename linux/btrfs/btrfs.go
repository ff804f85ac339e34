// Package btrfs makes, copies and deletes subvolumes of a btrfs.
package btrfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// The ioctls take one page: struct btrfs_ioctl_vol_args, and its second version.
const (
	subvolCreate = 0x5000940e
	snapDestroy  = 0x5000940f
	snapCreateV2 = 0x50009417

	firstInode = 256 // of the root of every subvolume
)

type args struct {
	_    int64
	name [4088]byte
}

type argsV2 struct {
	source int64
	_      uint64
	flags  uint64
	_      [4]uint64
	name   [4040]byte
}

// Is reports whether a path lies on a btrfs.
func Is(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Type == unix.BTRFS_SUPER_MAGIC, nil
}

// IsSubvolume reports whether a folder of a btrfs is the root of a subvolume. There need not be such a folder.
func IsSubvolume(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Ino == firstInode && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Create makes an empty subvolume.
func Create(path string) error {
	var a args
	return in("create subvolume", path, a.name[:], func(parent *os.File) error { return ioctl(parent, subvolCreate, unsafe.Pointer(&a)) })
}

// Snapshot makes a subvolume that is a writable copy of another and shares its data.
func Snapshot(path, source string) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	a := argsV2{source: int64(from.Fd())}
	err = in("snapshot subvolume to", path, a.name[:], func(parent *os.File) error { return ioctl(parent, snapCreateV2, unsafe.Pointer(&a)) })
	return errors.Join(err, from.Close())
}

// Delete deletes a subvolume with all that is in it but other subvolumes: then it fails with ENOTEMPTY.
func Delete(path string) error {
	var a args
	return in("delete subvolume", path, a.name[:], func(parent *os.File) error { return ioctl(parent, snapDestroy, unsafe.Pointer(&a)) })
}

// in puts the name of a path where the kernel wants it and calls with its folder.
func in(what, path string, name []byte, call func(parent *os.File) error) error {
	base := filepath.Base(path)
	if len(base) >= 256 {
		return errdefs.New(errdefs.InvalidParameter, "%s %s: the name is too long", what, path)
	}
	copy(name, base)
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = errors.Join(call(parent), parent.Close())
	if errors.Is(err, unix.ENOTTY) {
		return errdefs.New(errdefs.InvalidParameter, "%s %s: this is not a btrfs", what, path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, &os.PathError{Op: "ioctl", Path: path, Err: err})
	}
	return nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
