package wire

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Listen binds the shim's socket in dir, in place of one that a dead shim left.
func Listen(dir string) (*os.File, error) { return ListenAt(dir, SocketName) }

// ListenAt is Listen for a socket of another name.
func ListenAt(dir, name string) (*os.File, error) {
	var listener *os.File
	err := within(dir, name, func(path string) error {
		s, err := socket()
		if err != nil {
			return err
		}
		err = syscall.Bind(s, &syscall.SockaddrUnix{Name: path})
		if err == syscall.EADDRINUSE {
			if err = syscall.Unlink(path); err == nil {
				err = syscall.Bind(s, &syscall.SockaddrUnix{Name: path})
			}
		}
		if err == nil {
			err = syscall.Listen(s, 16)
		}
		if err != nil {
			syscall.Close(s)
			return err
		}
		listener = os.NewFile(uintptr(s), name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s/%s: %w", dir, name, err)
	}
	return listener, nil
}

// Accept waits for the next connection; os.ErrClosed after the listener's Close.
func Accept(listener *os.File) (*Conn, error) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	rerr := raw.Read(func(s uintptr) bool {
		for {
			fd, _, err = syscall.Accept4(int(s), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
			if err != syscall.EINTR && err != syscall.ECONNABORTED {
				return err != syscall.EAGAIN
			}
		}
	})
	if rerr != nil {
		return nil, rerr
	}
	if err != nil {
		return nil, os.NewSyscallError("accept4", err)
	}
	return NewConn(fd)
}

// Dial connects to the shim that listens in dir. The error wraps ENOENT or ECONNREFUSED if there is none.
func Dial(dir string) (*Conn, error) {
	fd := -1
	err := within(dir, SocketName, func(path string) error {
		s, err := socket()
		if err != nil {
			return err
		}
		if err := syscall.Connect(s, &syscall.SockaddrUnix{Name: path}); err != nil { // EAGAIN: its backlog is full
			syscall.Close(s)
			return err
		}
		fd = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s/%s: %w", dir, SocketName, err)
	}
	return NewConn(fd)
}

func socket() (int, error) {
	return syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
}

// ReceiveFile accepts one connection and returns the file that its sender passes, as runtimes hand over a terminal.
func ReceiveFile(listener *os.File, until time.Time) (*os.File, error) {
	if err := listener.SetReadDeadline(until); err != nil {
		return nil, err
	}
	c, err := Accept(listener)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.file.SetReadDeadline(until); err != nil {
		return nil, err
	}
	for len(c.files) == 0 {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	file := c.files[0]
	c.files = c.files[1:]
	c.drop(io.EOF)
	return file, nil
}

// within calls f with a path of the socket in dir that is short enough for a socket address.
func within(dir, name string, f func(path string) error) error {
	d, err := syscall.Open(dir, syscall.O_DIRECTORY|syscall.O_CLOEXEC|syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(d)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d, name))
}
