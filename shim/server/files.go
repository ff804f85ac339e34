package server

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// pipe returns a pipe: the shim's end for the poller, the program's end in blocking mode as it expects its standard streams.
func pipe(weWrite bool) (ours, theirs *os.File, err error) {
	var p [2]int // read end, write end
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if weWrite {
		p[0], p[1] = p[1], p[0]
	}
	theirs = os.NewFile(uintptr(p[1]), "pipe")
	if err := syscall.SetNonblock(p[0], true); err != nil {
		syscall.Close(p[0])
		theirs.Close()
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), theirs, nil
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

// writeRecord writes v as JSON to a new file at path. Unlike os.WriteFile it does not ask the poller about it first.
func writeRecord(path string, v any) error {
	fd, err := createRecord(path, v)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

// createRecord is writeRecord that leaves the file open.
func createRecord(path string, v any) (fd int, err error) {
	fd, err = syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, &os.PathError{Op: "create", Path: path, Err: err}
	}
	if err := overwriteRecord(fd, v); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("write %s: %w", path, err)
	}
	return fd, nil
}

// overwriteRecord replaces the content of the file by v as JSON, which must not be shorter, in one system call: a kill cannot tear it.
func overwriteRecord(fd int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	for {
		n, err := syscall.Pwrite(fd, b, 0)
		if err == syscall.EINTR {
			continue
		}
		if err == nil && n < len(b) {
			err = syscall.ENOSPC
		}
		return err
	}
}

// rename gives the process its name in the lists of processes: it was executed from a descriptor, whose number it has for a name.
func rename() {
	const prSetName = 15
	name := [16]byte{}
	copy(name[:], "gantry-shim")
	_, _, _ = syscall.Syscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&name)), 0) // only for people
}
