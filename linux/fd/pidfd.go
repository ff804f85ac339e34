package fd

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pidfd opens a descriptor of the process pid; it refers to that process for ever, even after the number is used again. It is
// non-blocking, so that Go's poller can wait for the process's end (the descriptor becomes readable).
func Pidfd(pid int) (*os.File, error) {
	n, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(n), "pidfd"), nil
}

// Take returns a copy of the descriptor that has the given number in the process of pidfd.
func Take(pidfd *os.File, number int) (*os.File, error) {
	var f *os.File
	err := control(pidfd, func(n int) error {
		taken, err := unix.PidfdGetfd(n, number, 0)
		if err == nil {
			f = os.NewFile(uintptr(taken), "taken")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pidfd_getfd: %w", err)
	}
	return f, nil
}

// Signal sends sig to the process of pidfd; os.ErrProcessDone when it has ended.
func Signal(pidfd *os.File, sig syscall.Signal) error {
	err := control(pidfd, func(n int) error { return unix.PidfdSendSignal(n, sig, nil, 0) })
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("send signal %d: %w", sig, err)
	}
	return nil
}

// WaitGone blocks until the process of pidfd, which need not be a child, has ended. Closing pidfd ends the wait with an error.
func WaitGone(pidfd *os.File) error {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	err = c.Read(func(n uintptr) bool {
		p := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
		ready, err := unix.Poll(p, 0)
		return err == nil && ready > 0
	})
	if err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	return nil
}

// control runs f with f's number without making the descriptor blocking, as File.Fd would have in older Go.
func control(file *os.File, f func(n int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if c.Control(func(n uintptr) { inner = f(int(n)) }) != nil {
		return os.ErrClosed // the one reason; its error is of a package that nobody can name
	}
	return inner
}
