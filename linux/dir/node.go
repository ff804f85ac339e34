package dir

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Node is an open file of any type whose attributes are read and changed.
type Node struct {
	fd   int
	path bool // opened with O_PATH: some calls must go through /proc
}

// NodeOf returns f as a node. It shares f's descriptor: do not close both.
func NodeOf(f *os.File) Node { return Node{int(f.Fd()), false} }

// Close closes the node.
func (n Node) Close() error { return unix.Close(n.fd) }

// File turns a node made by Create into an os.File, which then owns the descriptor.
func (n Node) File(name string) *os.File { return os.NewFile(uintptr(n.fd), name) }

// Write writes to a node made by Create.
func (n Node) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		m, err := unix.Write(n.fd, p[total:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return total, err
		}
		total += m
	}
	return total, nil
}

// Skip moves a node made by Create n bytes on, leaving a hole.
func (n Node) Skip(bytes int64) error {
	_, err := unix.Seek(n.fd, bytes, unix.SEEK_CUR)
	return err
}

// Truncate sets the size of a node made by Create.
func (n Node) Truncate(size int64) error { return unix.Ftruncate(n.fd, size) }

// Stat describes the node.
func (n Node) Stat() (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return Stat{}, err
	}
	return convert(&st), nil
}

// Chown gives the node to uid and gid, and drops setuid and setgid bits.
func (n Node) Chown(uid, gid int) error {
	return unix.Fchownat(n.fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// Chmod sets the permission bits, setuid, setgid and sticky among them.
func (n Node) Chmod(mode uint32) error {
	if n.path {
		return unix.Chmod(n.proc(), mode)
	}
	return unix.Fchmod(n.fd, mode)
}

// SetTimes sets the times of last access and change.
func (n Node) SetTimes(access, modify time.Time) error {
	ts := [2]unix.Timespec{timespec(access), timespec(modify)}
	var empty [1]byte
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(n.fd), uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&ts[0])), unix.AT_EMPTY_PATH, 0, 0)
	runtime.KeepAlive(&ts)
	if errno != 0 {
		return errno
	}
	return nil
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// Setxattr sets an extended attribute.
func (n Node) Setxattr(name, value string) error {
	if n.path {
		return unix.Setxattr(n.proc(), name, []byte(value), 0)
	}
	return unix.Fsetxattr(n.fd, name, []byte(value), 0)
}

// Removexattr takes an extended attribute away; there need not be one.
func (n Node) Removexattr(name string) error {
	var err error
	if n.path {
		err = unix.Removexattr(n.proc(), name)
	} else {
		err = unix.Fremovexattr(n.fd, name)
	}
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// Getxattr returns an extended attribute; found is false when there is none, or the file system has none at all.
func (n Node) Getxattr(name string) (value string, found bool, err error) {
	buf := make([]byte, 256)
	for {
		var size int
		if n.path {
			size, err = unix.Getxattr(n.proc(), name, buf)
		} else {
			size, err = unix.Fgetxattr(n.fd, name, buf)
		}
		switch {
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<16:
			buf = make([]byte, 1<<16)
		case errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP):
			return "", false, nil
		case err != nil:
			return "", false, err
		default:
			return string(buf[:size]), true, nil
		}
	}
}

// Listxattr returns the names of all extended attributes.
func (n Node) Listxattr() ([]string, error) {
	var buf []byte
	for {
		var size int
		var err error
		if n.path {
			size, err = unix.Listxattr(n.proc(), buf)
		} else {
			size, err = unix.Flistxattr(n.fd, buf)
		}
		switch {
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case errors.Is(err, unix.ERANGE):
			buf = nil
		case err != nil:
			return nil, err
		case size == 0:
			return nil, nil
		case buf == nil:
			buf = make([]byte, size)
		default:
			var names []string
			for part := range bytes.SplitSeq(bytes.TrimRight(buf[:size], "\x00"), []byte{0}) {
				names = append(names, string(part))
			}
			return names, nil
		}
	}
}

func (n Node) proc() string { return "/proc/self/fd/" + strconv.Itoa(n.fd) }
