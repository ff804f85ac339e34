// Package pty opens pseudo terminals on a given devpts file system.
package pty

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
	"gantry/linux/safepath"
)

// Open makes a pseudo terminal on the devpts file system that devpts, a directory handle or detached mount, is the root of. number is
// the slave's name there. The slave does not become anyone's controlling terminal by this.
func Open(devpts *os.File) (master, slave *os.File, number int, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(devpts.Fd()), &st); err != nil {
		return nil, nil, 0, fmt.Errorf("open pseudo terminal: %w", err)
	}
	if st.Type != unix.DEVPTS_SUPER_MAGIC { // never open what a container calls ptmx (CVE-2025-52565)
		return nil, nil, 0, errdefs.New(errdefs.InvalidParameter, "open pseudo terminal: not a devpts file system")
	}
	master, err = safepath.OpenNoFollow(devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("open pseudo terminal: %w", err)
	}
	m, err := master.SyscallConn()
	if err != nil {
		master.Close()
		return nil, nil, 0, fmt.Errorf("open pseudo terminal: %w", err)
	}
	var inner error
	err = m.Control(func(fd uintptr) {
		if inner = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); inner != nil {
			return
		}
		if number, inner = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); inner != nil {
			return
		}
		// By the master itself, not by name: what is at a name in a container is the container's choice.
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			inner = errno
			return
		}
		slave = os.NewFile(n, "pts")
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		master.Close()
		return nil, nil, 0, fmt.Errorf("open pseudo terminal: %w", err)
	}
	return master, slave, number, nil
}

// Resize sets the size of the terminal that master belongs to; the kernel tells its processes by SIGWINCH.
func Resize(master *os.File, rows, columns uint16) error {
	c, err := master.SyscallConn()
	if err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	var inner error
	if err := c.Control(func(fd uintptr) {
		inner = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	if inner != nil {
		return fmt.Errorf("resize terminal: %w", inner)
	}
	return nil
}

// Raw gives what is typed at terminal f to its reader as it comes, and returns what puts the terminal back as it was. A file that is
// no terminal is left alone.
func Raw(f *os.File) (restore func(), err error) {
	n := int(f.Fd())
	old, err := unix.IoctlGetTermios(n, unix.TCGETS)
	if err != nil {
		return func() {}, nil
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(n, unix.TCSETS, &raw); err != nil {
		return func() {}, fmt.Errorf("make terminal raw: %w", err)
	}
	return func() { _ = unix.IoctlSetTermios(n, unix.TCSETS, old) }, nil // it may be gone
}

// KeepNewlines has the terminal of master pass newlines on as they are written, without a carriage return: whoever reads them has a
// terminal of his own that adds it, or none.
func KeepNewlines(master *os.File) error {
	n := int(master.Fd())
	t, err := unix.IoctlGetTermios(n, unix.TCGETS)
	if err == nil {
		t.Oflag &^= unix.ONLCR
		err = unix.IoctlSetTermios(n, unix.TCSETS, t)
	}
	if err != nil {
		return fmt.Errorf("change terminal: %w", err)
	}
	return nil
}

// Follow gives the terminal of master the size of the terminal f.
func Follow(master, f *os.File) error {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return fmt.Errorf("read terminal size: %w", err)
	}
	return Resize(master, size.Row, size.Col)
}

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
