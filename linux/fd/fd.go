// Package fd works on file descriptors themselves: sealed in-memory copies of executables, descriptors passed over unix sockets,
// process descriptors, and unix sockets whose path is longer than the 108 bytes an address holds.
package fd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// SealedCopy returns a copy of the file at path in an anonymous memory file that nobody, whatever their privilege, can write, grow or
// shrink any more. It can be executed (Path gives a name for that); processes that run it share its pages, and a container that
// reaches it through /proc/PID/exe cannot change it (CVE-2019-5736). The descriptor is close-on-exec.
func SealedCopy(path string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("sealed copy: %w", err)
	}
	defer src.Close()
	const exec = 0x10 // MFD_EXEC, Linux 6.3: says that the file is meant to be executed; older kernels refuse the flag
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	name := filepath.Base(path)
	n, err := unix.MemfdCreate(name, flags|exec)
	if errors.Is(err, unix.EINVAL) {
		n, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("sealed copy of %s: memfd_create: %w", path, err)
	}
	f := os.NewFile(uintptr(n), path)
	if err := copyAll(f, src); err != nil {
		f.Close()
		return nil, fmt.Errorf("sealed copy of %s: %w", path, err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	for range 20 { // the kernel waits a moment for those who look at pages just now, such as its own compaction, before it says EBUSY
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("sealed copy of %s: add seals: %w", path, err)
	}
	return f, nil
}

// copyAll copies src inside the kernel.
func copyAll(dst, src *os.File) error {
	for {
		n, err := unix.Sendfile(int(dst.Fd()), int(src.Fd()), nil, 1<<30)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a source that cannot be mapped
			_, err = io.Copy(dst, src)
			return err
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// IsSealed reports whether f is a memory file that cannot be written any more.
func IsSealed(f *os.File) bool {
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	want := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	return err == nil && seals&want == want
}

// Path returns the name under /proc/self/fd by which this process and its children (which keep their parent's numbers) reach f. It
// is good as long as f is open.
func Path(f *os.File) string {
	p := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	runtime.KeepAlive(f)
	return p
}

// Dup returns a second, close-on-exec descriptor of the same open file, numbered 3 or higher.
func Dup(f *os.File) (*os.File, error) {
	n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}

// Dir opens the directory at path as a handle for the *at calls and for Path; it gives no access to the directory's contents.
func Dir(path string) (*os.File, error) {
	n, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(n), path), nil
}

// CloseOnExec marks all descriptors but standard input, output and error, so that no program started from here on inherits one that
// this process itself inherited from its parent.
func CloseOnExec() error {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	return nil
}
