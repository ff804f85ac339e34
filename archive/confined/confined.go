// Package confined unpacks layers in a process of its own. A layer is whatever its author put into it, and what reads it (gzip, zstd, tar, the paths in it) is most
// of the code that strangers reach without a password; so that reader gets nothing to damage. It is this very program executed anew, in namespaces of its own:
//
//	/layer   the folder to unpack into, nodev, nosuid and noexec; not there when the layer becomes a file, which is a descriptor
//	/proc    its own processes, read-only
//
// and nothing else: no network, no other file of the host, no capability but those that giving files their owners, modes, attributes and device numbers takes, and of
// the kernel's system calls those that a Go program and this work need. The stream comes by a pipe, the result goes by another.
//
// A child whose parent is killed sees the end of the pipe and ends; until then it holds the lock on the file Job.Lock, so that who finds what it left can wait for it. One that
// crashes leaves what it has unpacked, for its parent to remove.
package confined

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"gantry/archive"
	"gantry/archive/recipe"
	"gantry/errdefs"
	"gantry/linux/clone"
	"gantry/linux/dir"
	"gantry/linux/fd"
	"gantry/linux/mount"
)

// Job is one layer to unpack.
type Job struct {
	Folder string         // to unpack into, empty
	Image  *os.File       // instead of Folder: to write as an EROFS image, empty
	Lock   *os.File       // open in the child until it ends; it may only be a file that it does no harm to read
	Lower  []*os.File     // the layers beneath, top first, as detached mounts; for the rare layer that links into one
	Limits archive.Limits // of the layer
	other  task           // to be done instead; zero: it is unpacked
}

// maxResult is how much a child may say.
const maxResult = 64 << 10

// answer is what the child writes to its parent.
type answer struct {
	Result   archive.Unpacked
	Error    string
	Kind     errdefs.Kind
	NotExist bool          // the error is fs.ErrNotExist
	Refused  bool          // the error is recipe.ErrUnsupported
	Errno    syscall.Errno // that the error is, if any
}

// order is what the child is told.
type order struct {
	Image  bool // not a folder
	Lower  int  // how many descriptors of layers there are, from firstLower on
	Limits archive.Limits
	Other  task
}

// Unpack unpacks the layer that r has, compressed or not, and reads r to its end. Errors: those of archive.Apply, of r, and Exhausted when the layer takes too much
// memory. What is in the folder after an error is for the caller to remove.
func Unpack(ctx context.Context, r io.Reader, j Job) (archive.Unpacked, error) {
	if !Possible {
		return j.here(ctx, r)
	}
	c, err := start(j)
	if err != nil {
		return archive.Unpacked{}, fmt.Errorf("unpack in a confined process: %w", err)
	}
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	result, err := c.result(ctx, j, c.feed(r))
	if err == nil && (result.DiffID.Validate() != nil || result.Size < 0) {
		err = errors.New("unpack in a confined process: the answer is not valid")
	}
	return result, err
}

// result waits for the child; rerr is what was wrong with its stream.
func (c *child) result(ctx context.Context, j Job, rerr error) (archive.Unpacked, error) {
	a, err := c.end()
	switch {
	case ctx.Err() != nil:
		return archive.Unpacked{}, errdefs.With(errdefs.Canceled, ctx.Err())
	case rerr != nil:
		return archive.Unpacked{}, rerr
	case err != nil:
		return archive.Unpacked{}, c.explain(err, j.Limits)
	case a.Error != "":
		return archive.Unpacked{}, a.err()
	}
	return a.Result, nil
}

// here unpacks in this process.
func (j Job) here(ctx context.Context, r io.Reader) (archive.Unpacked, error) {
	o := archive.ApplyOptions{Lower: lower(j.Lower), Limits: j.Limits}
	if j.Image != nil {
		return archive.UnpackImage(ctx, j.Image, r, o)
	}
	root, err := os.Open(j.Folder)
	if err != nil {
		return archive.Unpacked{}, err
	}
	u, err := archive.Unpack(ctx, root, r, o)
	return u, errors.Join(err, root.Close())
}

func (a answer) err() error {
	err := errors.New(a.Error)
	if a.NotExist {
		err = remote{a.Error, fs.ErrNotExist}
	}
	if a.Refused {
		err = remote{a.Error, recipe.ErrUnsupported}
	}
	if dir.Lacking(a.Errno) {
		err = remote{a.Error, a.Errno}
	}
	if a.Kind == errdefs.Internal {
		return err
	}
	return errdefs.With(a.Kind, err)
}

// remote is an error of the child.
type remote struct {
	text string
	is   error
}

func (e remote) Error() string { return e.text }
func (e remote) Unwrap() error { return e.is }

// child is a running one.
type child struct {
	*clone.Child
	in     *os.File // the stream
	out    *os.File // its answer
	errors *os.File // what it says when it dies
}

// start clones a child and sees it execute.
func start(j Job) (_ *child, err error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			if r, w, err = os.Pipe(); err == nil {
				open = append(open, r, w)
			}
		}
		return r, w
	}
	c := &child{}
	in, inParent := pipe()
	outParent, out := pipe()
	errParent, errOut := pipe()
	if err != nil {
		return nil, err
	}
	var folder *os.File
	target := j.Image
	if target == nil {
		if folder, err = mount.Bind(j.Folder, false); err != nil {
			return nil, err
		}
		open = append(open, folder)
		if err := mount.SetAttr(folder, mount.NoDev|mount.NoSuid|mount.NoExec, 0, mount.Private, false); err != nil {
			return nil, err
		}
		target = j.Lock // so that the descriptors after it have the same numbers
	}
	s, err := script(j, folder, append([]*os.File{in, out, errOut, j.Lock, target}, j.Lower...))
	if err != nil {
		return nil, err
	}
	if c.Child, err = clone.Start(s, clone.Options{Namespaces: namespaces}); err != nil {
		return nil, err
	}
	if m, merr := c.Next(); merr != nil || m != clone.Executed {
		_, werr := fd.Wait(c.Pidfd)
		return nil, errors.Join(merr, werr, c.Sync.Close(), c.Pidfd.Close())
	}
	c.in, c.out, c.errors = inParent, outParent, errParent
	open = slices.DeleteFunc(open, func(f *os.File) bool { return f == inParent || f == outParent || f == errParent })
	return c, err
}

func (c *child) kill() { _ = fd.Signal(c.Pidfd, syscall.SIGKILL) } // it is gone, or goes

// feed gives the child the stream, and returns what was wrong with that.
func (c *child) feed(r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := c.in.Write(buf[:n]); werr != nil { // the child has ended, and says why
				return c.in.Close()
			}
		}
		if errors.Is(err, io.EOF) {
			return c.in.Close()
		}
		if err != nil {
			c.kill() // nobody is interested in what comes of half a layer
			return errors.Join(err, c.in.Close())
		}
	}
}

// end takes the child's answer and status.
func (c *child) end() (answer, error) {
	var said, complaint []byte
	var group sync.WaitGroup
	group.Go(func() { said, _ = io.ReadAll(io.LimitReader(c.out, maxResult)) }) // an error is an answer that is cut off
	group.Go(func() {
		complaint, _ = io.ReadAll(io.LimitReader(c.errors, maxResult))
		_, _ = io.Copy(io.Discard, c.errors)
	})
	exit, err := fd.Wait(c.Pidfd)
	group.Wait()
	err = errors.Join(err, c.out.Close(), c.errors.Close(), c.Sync.Close(), c.Pidfd.Close())
	var a answer
	switch {
	case err != nil:
		return a, err
	case exit.Signal != 0 || exit.Code != 0:
		return a, &crash{exit, string(complaint)}
	}
	if err := json.NewDecoder(bytes.NewReader(said)).Decode(&a); err != nil {
		return a, fmt.Errorf("read the answer: %w", err)
	}
	return a, nil
}

// crash is the end of a child that gave no answer.
type crash struct {
	exit      fd.Exit
	complaint string
}

func (e *crash) Error() string {
	how := fmt.Sprintf("exit code %d", e.exit.Code)
	if e.exit.Signal != 0 {
		how = e.exit.Signal.String()
	}
	first, _, _ := strings.Cut(strings.TrimSpace(e.complaint), "\n")
	return fmt.Sprintf("the process that unpacks ended early (%s) %.256q", how, first)
}

// explain says which limit a child died of.
func (c *child) explain(err error, l archive.Limits) error {
	var dead *crash
	if errors.As(err, &dead) && (strings.Contains(dead.complaint, "out of memory") || strings.Contains(dead.complaint, "cannot allocate memory")) {
		return l.MemoryExceeded()
	}
	return err
}

// limit clips a bound to what the kernel takes.
func limit(n int64) uint64 {
	if n <= 0 {
		return math.MaxUint64
	}
	return uint64(n)
}
