package dir

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Unnamed makes a file in a folder that has no name, to be read and written, and goes with its last descriptor (O_TMPFILE): a killed process leaves nothing of it.
func Unnamed(folder string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(folder, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "make a file without a name in", Path: folder, Err: err}
	}
	return os.NewFile(uintptr(fd), folder+"/(unnamed)"), nil
}
