package mount

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"gantry/linux/safepath"
)

// Inner is something that a Tree shows below its root.
type Inner struct {
	Mount    *os.File // detached
	Target   string   // in the tree; made when it is not there
	ReadOnly bool
}

// Tree is a file system with others mounted in it that nobody sees but who has its root. Kernels before 6.15 mount nothing into a
// detached mount, so it lives in a mount namespace of a thread's own, which ends with it at the latest when this process does.
type Tree struct {
	Root *os.File // to walk from (safepath); closed by Close

	end   chan struct{}
	ended chan struct{}
}

// NewTree mounts the inner ones into root, a detached mount, in their order. It owns root and them from now on, also after an error.
// With readOnly the root itself is for reading.
func NewTree(root *os.File, inner []Inner, readOnly bool) (*Tree, error) {
	t := &Tree{Root: root, end: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error)
	aside(func() {
		defer close(t.ended)
		err := t.build(inner, readOnly)
		ready <- err
		if err == nil {
			<-t.end
			_ = unix.Unmount(treePlace, unix.MNT_DETACH) // at once, not some time after the thread's end
		}
	})
	err := <-ready
	for _, in := range inner {
		_ = in.Mount.Close() // in its place, or of no use
	}
	if err != nil {
		<-t.ended
		_ = root.Close() // a mount that nothing else holds
		return nil, err
	}
	return t, nil
}

// treePlace is where the tree is in its namespace: a directory that is always there.
const treePlace = "/proc"

func (t *Tree) build(inner []Inner, readOnly bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := MoveTo(t.Root, treePlace); err != nil {
		return err
	}
	for _, in := range inner {
		if err := t.place(in); err != nil {
			return fmt.Errorf("mount %s: %w", in.Target, err)
		}
	}
	if readOnly {
		return SetAttr(t.Root, ReadOnly, 0, 0, false)
	}
	return nil
}

func (t *Tree) place(in Inner) error {
	fi, err := in.Mount.Stat()
	if err != nil {
		return err
	}
	target, err := t.target(in.Target, fi.IsDir())
	if err != nil {
		return err
	}
	defer func() { _ = target.Close() }() // a handle
	if err := unix.MoveMount(int(in.Mount.Fd()), "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move mount to", Path: in.Target, Err: err}
	}
	if in.ReadOnly {
		return SetAttr(in.Mount, ReadOnly, 0, 0, true)
	}
	return nil
}

// target opens, and if need be makes, the place for a mount.
func (t *Tree) target(name string, dir bool) (*os.File, error) {
	f, err := safepath.Open(t.Root, name, unix.O_PATH, 0)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	if dir {
		return safepath.MkdirAll(t.Root, name, 0o755)
	}
	folder, base := path.Split(path.Clean("/" + name))
	parent, err := safepath.MkdirAll(t.Root, folder, 0o755)
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }() // a handle
	if err := safepath.Mknod(parent, base, unix.S_IFREG|0o644, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return safepath.OpenNoFollow(parent, base, unix.O_PATH, 0)
}

// Close takes the tree apart. What of it is still open stays usable.
func (t *Tree) Close() error {
	err := t.Root.Close()
	close(t.end)
	<-t.ended
	return err
}
