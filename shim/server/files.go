package server

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// pipe returns a pipe in blocking mode, as programs expect their standard streams.
func pipe() (r, w *os.File, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var copied *os.File
	cerr := raw.Control(func(fd uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 3)
		if errno != 0 {
			err = os.NewSyscallError("fcntl", errno)
			return
		}
		copied = os.NewFile(n, f.Name())
	})
	if err == nil {
		err = cerr
	}
	return copied, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// setSize sets the size of a terminal in characters.
func setSize(terminal *os.File, rows, cols uint16) error {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	size := [4]uint16{rows, cols}
	cerr := raw.Control(func(fd uintptr) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
			err = fmt.Errorf("resize terminal: %w", errno)
		}
	})
	if err == nil {
		err = cerr
	}
	return err
}

// writeRecord replaces the file at path with v as JSON; a reader sees the old or the new one.
func writeRecord(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
