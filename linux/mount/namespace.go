package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// FromProcess returns a detached copy of what is mounted at path as the process sees it. path must be a mount of
// type fsMagic (statfs(2)): another is refused, so that the process cannot offer something else in its place.
func FromProcess(pid int, path string, fsMagic int64) (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	defer func() { _ = ns.Close() }() // a descriptor only
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	aside(func() {
		f, err := copyFrom(ns, path)
		done <- result{f, err}
	})
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("copy mount %s of process %d: %w", path, pid, r.err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.f.Fd()), &st); err != nil || st.Type != fsMagic {
		_ = r.f.Close() // refused
		return nil, errdefs.New(errdefs.InvalidParameter, "copy mount %s of process %d: another file system is mounted there", path, pid)
	}
	return r.f, nil
}

// Tmpfs is the type of a tmpfs for FromProcess.
const Tmpfs = unix.TMPFS_MAGIC

func copyFrom(ns *os.File, path string) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns wants a file system state of the thread's own
		return nil, err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	n, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), path), nil
}
