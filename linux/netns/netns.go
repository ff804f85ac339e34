// Package netns makes network namespaces and opens things inside them.
//
// A namespace belongs to a thread. Each function here locks its goroutine to a thread, changes that thread's namespace
// for the time of one callback and changes it back; a thread that cannot be brought back is thrown away. Sockets stay
// in the namespace in which they were opened.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const current = "/proc/thread-self/ns/net"

// New makes a network namespace in which everything is still down, runs setup inside it and returns its descriptor. The
// namespace lives as long as a descriptor, socket or process of it.
func New(setup func() error) (*os.File, error) {
	var ns *os.File
	err := visit(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() (err error) {
		if ns, err = open(current); err != nil {
			return err
		}
		return setup()
	})
	if err != nil {
		if ns != nil {
			_ = ns.Close()
		}
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return ns, nil
}

// Do runs f inside the namespace. Goroutines that f starts are not inside.
func Do(ns *os.File, f func() error) error {
	return visit(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return nil
	}, f)
}

// OfProcess opens the network namespace of a process.
func OfProcess(pid int) (*os.File, error) {
	return open(fmt.Sprintf("/proc/%d/ns/net", pid))
}

// Dup returns a further descriptor of the namespace.
func Dup(ns *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), ns.Name()), nil
}

func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func visit(enter, inside func() error) error {
	runtime.LockOSThread()
	home, err := open(current)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = inside()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return fmt.Errorf("leave network namespace: %w", back) // still locked: the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}
