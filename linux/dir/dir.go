// Package dir walks and changes folders by descriptor. A name given to a method is one path element, taken from the folder itself and
// never followed when it is a symbolic link; only Sub and Resolve take whole paths, and these are resolved as if the folder were the root
// of the file system (openat2 with RESOLVE_IN_ROOT, Linux 5.6).
package dir

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is an open folder.
type Dir struct{ fd int }

// Open opens a folder by its path on the host.
func Open(path string) (*Dir, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{fd}, nil
}

// Of returns the folder that f has open, by a descriptor of its own. f may be a mount that is attached nowhere.
func Of(f *os.File) (*Dir, error) {
	defer runtime.KeepAlive(f)
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return &Dir{fd}, nil
}

// Close closes the folder.
func (d *Dir) Close() error { return unix.Close(d.fd) }

// Path returns a path that leads to the folder as long as it is open, in this process.
func (d *Dir) Path() string { return "/proc/self/fd/" + strconv.Itoa(d.fd) }

// Sub opens a folder beneath by its path; symbolic links on the way are followed inside d. The empty path is d itself.
func (d *Dir) Sub(path string) (*Dir, error) {
	fd, err := d.resolve(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &Dir{fd}, nil
}

func (d *Dir) resolve(path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 128 { // EAGAIN: a rename elsewhere made ".." unsafe to judge
		fd, err := unix.Openat2(d.fd, path, &how)
		if err == nil {
			return fd, nil
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return -1, &fs.PathError{Op: "open", Path: path, Err: unix.EAGAIN}
}

// Resolve returns where a path beneath leads in the end, as an absolute path in d.
func (d *Dir) Resolve(path string) (string, error) {
	fd, err := d.resolve(path, unix.O_PATH)
	if err != nil {
		return "", err
	}
	target := Node{fd, true}
	full, err := os.Readlink(target.proc())
	if err = errors.Join(err, target.Close()); err != nil {
		return "", err
	}
	own, err := os.Readlink(d.Path())
	if err != nil {
		return "", err
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(full, own), "/"), nil
}

// Child opens the folder of that name.
func (d *Dir) Child(name string) (*Dir, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &Dir{fd}, nil
}

// File opens the regular file of that name for reading. What is not a regular file is not opened, since opening a device or FIFO may do something: the
// error is EINVAL.
func (d *Dir) File(name string) (*os.File, error) {
	n, err := d.Node(name)
	if err != nil {
		return nil, err
	}
	fd := -1
	st, err := n.Stat()
	switch {
	case err == nil && !st.IsRegular():
		err = unix.EINVAL
	case err == nil:
		fd, err = retry(func() (int, error) { return unix.Open(n.proc(), unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	}
	if err = errors.Join(err, n.Close()); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Mkdir makes a folder. The process's umask applies to mode.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.wrap("mkdir", name, unix.Mkdirat(d.fd, name, mode))
}

// Symlink makes a symbolic link that says target.
func (d *Dir) Symlink(target, name string) error {
	return d.wrap("symlink", name, unix.Symlinkat(target, d.fd, name))
}

// Link makes a further name of oldName in old. A symbolic link is linked itself.
func (d *Dir) Link(old *Dir, oldName, name string) error {
	return d.wrap("link", name, unix.Linkat(old.fd, oldName, d.fd, name, 0))
}

// Mknod makes a device, FIFO or socket; mode has the type in it (syscall.S_IFCHR...). The process's umask applies.
func (d *Dir) Mknod(name string, mode uint32, major, minor uint32) error {
	return d.wrap("mknod", name, unix.Mknodat(d.fd, name, mode, int(unix.Mkdev(major, minor))))
}

// Create makes a regular file, which must not be there yet, open for writing.
func (d *Dir) Create(name string) (Node, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return Node{-1, false}, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	return Node{fd, false}, nil
}

// Node opens whatever has that name only to read or change its attributes.
func (d *Dir) Node(name string) (Node, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return Node{-1, true}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return Node{fd, true}, nil
}

// Self returns the folder itself as a node. It shares d's descriptor: close only one.
func (d *Dir) Self() Node { return Node{d.fd, false} }

// Remove removes a file or an empty folder.
func (d *Dir) Remove(name string) error {
	err := unix.Unlinkat(d.fd, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
	}
	return d.wrap("remove", name, err)
}

// RemoveAll removes whatever has that name, with all beneath it; there need not be anything.
func (d *Dir) RemoveAll(name string) error {
	err := unix.Unlinkat(d.fd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return d.wrap("remove", name, err)
	}
	root, err := os.OpenRoot(d.Path())
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(name), root.Close())
}

// Readlink returns what a symbolic link says.
func (d *Dir) Readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, buf)
	if err != nil {
		return "", d.wrap("readlink", name, err)
	}
	return string(buf[:n]), nil
}

// Names returns the names in the folder, sorted.
func (d *Dir) Names() ([]string, error) {
	entries, err := os.ReadDir(d.Path())
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// SyncFS makes everything on f's file system durable, and reports write errors since f was opened or last asked.
func SyncFS(f *os.File) error {
	defer runtime.KeepAlive(f)
	return unix.Syncfs(int(f.Fd()))
}

func (d *Dir) wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func retry(f func() (int, error)) (int, error) {
	for {
		fd, err := f()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// Stat describes a file.
type Stat struct {
	Mode         uint32 // type and permissions, as syscall.S_IF*
	UID, GID     uint32
	Size         int64
	Blocks       int64 // of 512 bytes
	Links        uint64
	Dev, Ino     uint64
	Major, Minor uint32 // of a device node
	ModTime      time.Time
	ChangeTime   time.Time
}

// IsDir reports whether it is a folder.
func (s Stat) IsDir() bool { return s.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsRegular reports whether it is a regular file.
func (s Stat) IsRegular() bool { return s.Mode&unix.S_IFMT == unix.S_IFREG }

// IsSymlink reports whether it is a symbolic link.
func (s Stat) IsSymlink() bool { return s.Mode&unix.S_IFMT == unix.S_IFLNK }

// IsWhiteout reports whether it is overlayfs's mark for a removed file: a character device 0:0.
func (s Stat) IsWhiteout() bool {
	return s.Mode&unix.S_IFMT == unix.S_IFCHR && s.Major == 0 && s.Minor == 0
}

// Stat describes what has that name.
func (d *Dir) Stat(name string) (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stat{}, d.wrap("stat", name, err)
	}
	return convert(&st), nil
}

// StatSelf describes the folder.
func (d *Dir) StatSelf() (Stat, error) { return d.Self().Stat() }

func convert(st *unix.Stat_t) Stat {
	return Stat{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Blocks: st.Blocks, Links: uint64(st.Nlink), Dev: uint64(st.Dev), Ino: st.Ino,
		Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)), ModTime: time.Unix(st.Mtim.Unix()), ChangeTime: time.Unix(st.Ctim.Unix()),
	}
}

// Lacking reports whether err means that the machine lacks descriptors or memory for now: it says nothing of the file.
func Lacking(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN}, func(e error) bool { return errors.Is(err, e) })
}

// SpaceError reports whether err means that the disk, its inodes or a quota are used up.
func SpaceError(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// Free returns how many bytes those who are not root may still write to f's file system; known is false where it does not say.
func Free(f *os.File) (bytes int64, known bool, err error) {
	defer runtime.KeepAlive(f)
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, false, &fs.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	return int64(st.Bavail) * st.Bsize, st.Blocks > 0, nil
}

// SyncData makes what was written to f durable, and its size.
func SyncData(f *os.File) error {
	defer runtime.KeepAlive(f)
	return unix.Fdatasync(int(f.Fd()))
}
