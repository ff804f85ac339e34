package mount

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/linux/fd"
)

// maxOptions is the longest text of options that mount(2) takes.
const maxOptions = 4095

// olderOverlay is overlay for kernels without "lowerdir+". There fsconfig takes no more than 255 bytes for all the layers, mount(2) a
// page for all the options; so that a page is enough for hundreds of layers, whatever their paths, a layer's name is the number of its
// descriptor. mount(2) needs a place, which a mount namespace of a thread's own gives: it ends with the thread, the copy that is
// returned stays.
func olderOverlay(o OverlayOptions) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	aside(func() {
		f, err := mountAside(o)
		done <- result{f, err}
	})
	r := <-done
	return r.f, r.err
}

// mountAside mounts an overlay where nobody else sees it and returns a detached copy. It leaves the thread in another namespace, and in
// another directory.
func mountAside(o OverlayOptions) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	options, release, err := shortOptions(o) // opened in this namespace: an overlay takes no layers from another
	if err != nil {
		return nil, err
	}
	defer release()
	source, flags := o.Source, uintptr(0)
	if source == "" {
		source = "overlay"
	}
	if o.ReadOnly {
		flags = unix.MS_RDONLY
	}
	if err := unix.Chdir("/proc/self/fd"); err != nil { // of the process, whose descriptors all threads share
		return nil, err
	}
	const place = "/proc" // a directory that is always there; the working directory is what was below
	if err := unix.Mount(source, place, "overlay", flags, options); err != nil {
		return nil, err
	}
	n, err := unix.OpenTree(unix.AT_FDCWD, place, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	return os.NewFile(uintptr(n), source), nil
}

// shortOptions returns mount(2)'s options, in which directories are descriptors of this process; they stay open until release.
func shortOptions(o OverlayOptions) (options string, release func(), err error) {
	var open []*os.File
	release = func() {
		for _, f := range open {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	dirs := o.Lower
	if o.Upper != "" {
		dirs = append(slices.Clone(dirs), o.Upper, o.Work)
	}
	var names []string
	for _, dir := range dirs {
		f, err := fd.Dir(dir)
		if err != nil {
			return "", nil, err
		}
		open = append(open, f)
		names = append(names, strconv.Itoa(int(f.Fd())))
	}
	n := len(o.Lower)
	options = "lowerdir=" + strings.Join(names[:n], ":")
	if o.Upper != "" {
		options += ",upperdir=" + names[n] + ",workdir=" + names[n+1]
		if o.Volatile {
			options += ",volatile"
		}
	}
	for _, kv := range plainOptions() {
		options += "," + kv[0] + "=" + kv[1]
	}
	if o.UserXattr {
		options += ",userxattr"
	}
	if len(options) > maxOptions {
		return "", nil, fmt.Errorf("%d layers are too many for this kernel (Linux 6.7 takes 500)", n)
	}
	return options, release, nil
}
