// Package store keeps what runtime commands need to know of containers between two calls: a directory for each container, below one
// root.
//
//	ROOT/ID/config.json   the specification, as it was at creation
//	ROOT/ID/state.json    oci.State: first as an intent without a process, then complete; replaced by rename, so always readable
//	ROOT/ID/start.sock    where the container's init waits for start
//	ROOT/ID/end           what delete has to do, as package early reads it, if that is plain and no verb has changed the container since create
//	ROOT/ID/go.sock       the same by a second name, when it is complete and the start is nothing but the go-ahead
//	ROOT/@seccomp/        compiled seccomp filters (seccomp.Cache), of all containers; no container has such a name
//
// Locks: a verb that changes a container holds an exclusive lock (flock) on its directory, and no other lock at the same time. Verbs
// that only look, send a signal or run a further process take none: state.json is complete at every moment, and processes are named
// by descriptors that do not change hands. Nobody waits with a lock for what a container does by itself.
//
// A process that is killed leaves its lock to the kernel, and a directory whose state has no process (or which has no state at all): a
// container half made. It does not exist for any verb but delete, which takes back what the intent names.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"gantry/errdefs"
	"gantry/linux/mount"
	"gantry/linux/seccomp"
	"gantry/oci"
	"gantry/oci/document"
	"gantry/oci/early"
)

// Store is a directory of containers.
type Store struct{ root string }

// Errors in the words that the callers of runtimes look for.
var (
	ErrNotExist  = errdefs.With(errdefs.NotFound, errors.New("container does not exist"))
	ErrExist     = errdefs.With(errdefs.Conflict, errors.New("container with given ID already exists"))
	ErrInvalidID = errdefs.With(errdefs.InvalidParameter, errors.New("invalid container ID format"))
)

// New returns the store at root, an absolute path, which need not exist yet.
func New(root string) Store { return Store{root} }

// maxID is how long a name of a directory may be.
const maxID = 255

// CheckID refuses names that are no container's: other than letters, digits and "_+-.", or a directory's own.
func CheckID(id string) error {
	if id == "" || id == "." || id == ".." || len(id) > maxID {
		return ErrInvalidID
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '-', c == '.':
		default:
			return ErrInvalidID
		}
	}
	return nil
}

// Dir is the locked directory of one container.
type Dir struct {
	Path string
	lock *os.File
}

// Make makes the directory of a new container, locked; ErrExist if there is one.
func (s Store) Make(id string) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	d := &Dir{Path: filepath.Join(s.root, id)}
	for {
		err := os.Mkdir(d.Path, 0o711) // a user namespace's root must get through to what hooks put there
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(s.root, 0o700); err == nil {
				err = os.Mkdir(d.Path, 0o711)
			}
		}
		if errors.Is(err, fs.ErrExist) {
			return nil, ErrExist
		}
		if err != nil {
			return nil, err
		}
		if err := d.take(syscall.LOCK_EX); !errors.Is(err, ErrNotExist) { // else a delete came first
			return d, err
		}
	}
}

// Lock locks the directory of a container that exists, complete or half made; ErrNotExist if there is none.
func (s Store) Lock(id string) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	d := &Dir{Path: filepath.Join(s.root, id)}
	return d, d.take(syscall.LOCK_EX)
}

// take opens and locks the directory, and makes sure that it still is where it was.
func (d *Dir) take(how int) error {
	f, err := os.OpenFile(d.Path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotExist
	}
	if err != nil {
		return err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("lock %s: %w", d.Path, err)
	}
	mine, err1 := f.Stat()
	now, err2 := os.Lstat(d.Path)
	if err1 != nil || err2 != nil || !os.SameFile(mine, now) {
		f.Close()
		return ErrNotExist
	}
	d.lock = f
	return nil
}

// Unlock gives the lock back. A directory may be unlocked twice.
func (d *Dir) Unlock() {
	if d.lock != nil {
		d.lock.Close()
		d.lock = nil
	}
}

// Remove removes the directory with everything in it, and the lock. A name comes free only when all else is gone.
func (d *Dir) Remove() error {
	defer d.Unlock()
	if _, err := os.Lstat(d.CriuRoot()); err == nil { // of a restore that was cut short: what is mounted there is not ours to remove
		if err := d.DropCriuRoot(); err != nil {
			return err
		}
	}
	return os.RemoveAll(d.Path)
}

// Socket is where the container's init waits for start.
func (d *Dir) Socket() string { return filepath.Join(d.Path, early.Socket) }

// Plain says that the container is complete, and that its start is nothing but the go-ahead.
func (d *Dir) Plain() error { return os.Link(d.Socket(), filepath.Join(d.Path, early.Plain)) }

// WriteEnd says what delete has to do.
func (d *Dir) WriteEnd(e oci.End) error {
	return os.WriteFile(filepath.Join(d.Path, early.End), early.AppendEnd(nil, e.Pid, e.Birth, e.Cgroup), 0o600)
}

// DropEnd is for who changes what delete has to do.
func (d *Dir) DropEnd() error {
	err := os.Remove(filepath.Join(d.Path, early.End))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// WriteConfig keeps the specification's text.
func (d *Dir) WriteConfig(data []byte) error {
	return os.WriteFile(filepath.Join(d.Path, "config.json"), data, 0o600)
}

// Write replaces the container's state. It is not synced to disk: a container does not survive the machine.
func (d *Dir) Write(s oci.State) error {
	data, err := document.Append(nil, s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(d.Path, ".state.json")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return os.Rename(tmp, filepath.Join(d.Path, "state.json"))
}

// Read returns a container's state, without its specification. ErrNotExist if there is none or it is half made; what an intent names is
// returned all the same.
func (s Store) Read(id string) (oci.State, error) {
	var st oci.State
	if err := CheckID(id); err != nil {
		return st, err
	}
	data, err := os.ReadFile(filepath.Join(s.root, id, "state.json"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return st, ErrNotExist
	}
	if err != nil {
		return st, err
	}
	if err := document.Decode(data, &st); err != nil {
		return st, fmt.Errorf("state of container %s: %w", id, err)
	}
	if st.Pid == 0 {
		return st, ErrNotExist
	}
	return st, nil
}

// Filters is the folder of compiled seccomp filters.
func (s Store) Filters() seccomp.Cache { return seccomp.Cache{Dir: filepath.Join(s.root, "@seccomp")} }

// Config returns the path of a container's specification.
func (s Store) Config(id string) string { return filepath.Join(s.root, id, "config.json") }

// List returns the names of all directories, half-made containers' included.
func (s Store) List() ([]fs.DirEntry, error) {
	all, err := os.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	var dirs []fs.DirEntry
	for _, e := range all {
		if e.IsDir() {
			dirs = append(dirs, e)
		}
	}
	return dirs, nil
}

// CriuRoot is where a restore mounts the root file system for criu, as long as that works.
func (d *Dir) CriuRoot() string { return filepath.Join(d.Path, "criu-root") }

// DropCriuRoot takes that mount away. Nothing below it is ever removed: rmdir takes nothing but an empty directory.
func (d *Dir) DropCriuRoot() error {
	err := mount.Unmount(d.CriuRoot())
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist) {
		err = nil // it is not mounted
	}
	if err != nil {
		return err
	}
	if err := os.Remove(d.CriuRoot()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
