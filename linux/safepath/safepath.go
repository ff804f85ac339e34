// Package safepath walks paths inside a directory tree that an adversary controls. Every path is resolved by the kernel with the
// tree's root as "/", so that no symbolic link, "..", or rename at the same moment leads outside, and no magic link of procfs is
// followed (openat2, Linux 5.6).
package safepath

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// Open opens name inside root with the open(2) flags given (O_CLOEXEC is added). mode counts when O_CREAT is among them.
func Open(root *os.File, name string, flags int, mode uint32) (*os.File, error) {
	return open(root, name, flags, mode, resolve)
}

// OpenHandle opens name inside root, whatever it is, as a handle (O_PATH).
func OpenHandle(root *os.File, name string) (*os.File, error) {
	return Open(root, name, unix.O_PATH, 0)
}

// OpenNoFollow is Open for a path no component of which may be a symbolic link.
func OpenNoFollow(root *os.File, name string, flags int, mode uint32) (*os.File, error) {
	return open(root, name, flags, mode, resolve|unix.RESOLVE_NO_SYMLINKS)
}

func open(root *os.File, name string, flags int, mode uint32, how uint64) (*os.File, error) {
	if strings.ContainsRune(name, 0) {
		return nil, errdefs.New(errdefs.InvalidParameter, "open %q: zero byte in path", name)
	}
	if name == "" {
		name = "."
	}
	h := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: how}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		h.Mode = uint64(mode)
	}
	for range 128 {
		n, err := unix.Openat2(int(root.Fd()), name, &h)
		runtime.KeepAlive(root)
		switch {
		case err == nil:
			return os.NewFile(uintptr(n), name), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // EAGAIN: something was renamed during the walk
		case errors.Is(err, unix.ENOSYS):
			return nil, errdefs.New(errdefs.NotImplemented, "open %s: needs Linux 5.6: %w", name, err)
		}
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: unix.EAGAIN}
}

// MaxLinks is how many dangling links MkdirAll goes along; as many as the kernel follows.
const MaxLinks = 40

// MkdirAll makes the directory name inside root and every missing one above it, with mode (no umask), and returns a handle
// (O_PATH) of it. Directories that exist, or are reached by links, stay as they are; a link to nothing gets its target made.
func MkdirAll(root *os.File, name string, mode uint32) (*os.File, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	if f, err := Open(root, name, flags, 0); err == nil || !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	parts := strings.Split(name, "/")
	if len(parts) == 1 && name != "" { // mostly, and mostly there is no link
		f, err := mkdir(root, name, mode)
		if err == nil || !errors.Is(err, unix.ELOOP) {
			return f, err
		}
	}
	at, err := Open(root, ".", flags, 0)
	if err != nil {
		return nil, err
	}
	done, links := "", 0 // at is root/done
	for i := 0; i < len(parts); i++ {
		part := parts[i]
		if part == "" || part == "." {
			continue
		}
		next, err := Open(root, done+"/"+part, flags, 0)
		if errors.Is(err, unix.ENOENT) && part != ".." {
			next, err = mkdir(at, part, mode)
			target, ok := "", false
			if errors.Is(err, unix.ELOOP) {
				target, ok = Readlink(at, part)
			}
			if ok {
				if links++; links > MaxLinks {
					at.Close()
					return nil, &os.PathError{Op: "mkdir", Path: name, Err: unix.ELOOP}
				}
				// Go on as the link says, from the directory it is in or from the root.
				parts = append(strings.Split(target, "/"), parts[i+1:]...)
				i = -1
				if strings.HasPrefix(target, "/") {
					done = ""
					at.Close()
					if at, err = Open(root, ".", flags, 0); err != nil {
						return nil, err
					}
				}
				continue
			}
		}
		at.Close()
		if err != nil {
			return nil, fmt.Errorf("make directory %s/%s: %w", done, part, err)
		}
		at, done = next, done+"/"+part
	}
	return at, nil
}

// mkdir makes the directory name in at and opens it by its own name, following no link: what stands there now must be a directory.
func mkdir(at *os.File, name string, mode uint32) (*os.File, error) {
	err := unix.Mkdirat(int(at.Fd()), name, mode)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	made := err == nil
	f, err := OpenNoFollow(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil && made {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil {
			mode |= st.Mode & unix.S_ISGID // inherited from the directory above
		}
		err = unix.Fchmodat(int(at.Fd()), name, mode, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) { // before Linux 6.6: the umask stays in force
			err = nil
		}
		if err != nil {
			f.Close()
		}
	}
	return f, err
}

// Readlink returns the target of the link name in at; false if that is none.
func Readlink(at *os.File, name string) (string, bool) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(at.Fd()), name, buf)
	if err != nil || n == 0 {
		return "", false
	}
	return string(buf[:n]), true
}

// Parent opens the directory above name inside root as a handle (O_PATH), and returns name's last component for use with the *at
// calls. name must have one: not empty, "." or "..".
func Parent(root *os.File, name string) (*os.File, string, error) {
	dir, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" || base == "." || base == ".." {
		return nil, "", errdefs.New(errdefs.InvalidParameter, "path %q has no last component", name)
	}
	f, err := Open(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, "", err
	}
	return f, base, nil
}

// Mknod makes the device, FIFO or file name in the directory at, with exactly the mode given (type and permissions); dev counts for
// devices.
func Mknod(at *os.File, name string, mode uint32, dev uint64) error {
	if err := unix.Mknodat(int(at.Fd()), name, mode, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	if err := unix.Fchmodat(int(at.Fd()), name, mode&0o7777, 0); err != nil { // the umask
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}

// Device returns the number of the device major:minor.
func Device(major, minor int64) uint64 { return unix.Mkdev(uint32(major), uint32(minor)) }

// Symlink makes the symbolic link name to target in the directory at.
func Symlink(at *os.File, name, target string) error {
	if err := unix.Symlinkat(target, int(at.Fd()), name); err != nil {
		return &os.PathError{Op: "symlink", Path: name, Err: err}
	}
	return nil
}

// Chown changes the owner of name in the directory at, not following a link.
func Chown(at *os.File, name string, uid, gid int) error {
	if err := unix.Fchownat(int(at.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	return nil
}
