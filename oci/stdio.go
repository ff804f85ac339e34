package oci

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/fd"
	"gantry/linux/pty"
	"gantry/linux/safepath"
)

// prepareTerminal gives the terminal its first size, owner and ways.
func prepareTerminal(master, slave *os.File, s *specs.Box, uid uint32, plainNewlines bool) error {
	if plainNewlines {
		if err := pty.KeepNewlines(master); err != nil {
			return err
		}
	}
	if s != nil {
		if err := pty.Resize(master, uint16(s.Height), uint16(s.Width)); err != nil {
			return err
		}
	}
	if uid == 0 {
		return nil
	}
	if err := slave.Chown(int(uid), -1); err != nil {
		return fmt.Errorf("give terminal to user %d: %w", uid, err)
	}
	return nil
}

// standardFiles returns the three standard streams, /dev/null for those that io lacks, and the files opened for that. Streams are
// given to the process's user, so that it can open /dev/stdout again.
func standardFiles(io Stdio, user specs.User) (files [3]clone.FD, opened []*os.File, err error) {
	var null *os.File
	for i, f := range []*os.File{io.Stdin, io.Stdout, io.Stderr} {
		name := [...]string{"stdin", "stdout", "stderr"}[i]
		switch {
		case f == nil:
			if null == nil {
				if null, err = os.OpenFile("/dev/null", os.O_RDWR, 0); err != nil {
					return files, opened, err
				}
				opened = append(opened, null)
			}
			f = null
		case user.UID != 0 && !isNull(f):
			err := f.Chown(int(user.UID), int(user.GID))
			if err != nil && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EROFS) {
				return files, opened, fmt.Errorf("give %s to user %d: %w", name, user.UID, err)
			}
		}
		// Dup3 onto itself is an error, and onto another's number a loss: all come from above the standard numbers.
		if f != null && clone.Number(f) < 3 {
			d, err := fd.Dup(f)
			if err != nil {
				return files, opened, err
			}
			opened = append(opened, d)
			f = d
		}
		files[i] = clone.FD{Name: name, File: f}
	}
	return files, opened, nil
}

// isNull reports whether f is the host's /dev/null, which is everybody's.
func isNull(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && st.Sys().(*syscall.Stat_t).Rdev == safepath.Device(1, 3)
}

// nulls tells which files are the host's /dev/null.
func nulls(files [3]clone.FD) (list [3]bool) {
	for i, f := range files {
		list[i] = isNull(f.File)
	}
	return list
}
