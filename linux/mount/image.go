package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Image returns a detached, read-only mount of the EROFS image in the file at path. The kernel reads the file itself; there is no loop device. Errors: NotImplemented on
// kernels that cannot do that (before Linux 6.12), or have no EROFS.
func Image(path string) (*os.File, error) {
	c, err := Open("erofs")
	if err != nil {
		return nil, errdefs.New(errdefs.NotImplemented, "mount image: this kernel has no EROFS: %w", err)
	}
	defer c.Close()
	err = c.Set("source", path)
	if err == nil {
		err = c.Flag("ro")
	}
	var m *os.File
	if err == nil {
		m, err = c.Mount(ReadOnly)
	}
	if errors.Is(err, unix.ENOTBLK) {
		return nil, errdefs.New(errdefs.NotImplemented, "mount image %s: needs Linux 6.12 with EROFS images in files: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("mount image %s: %w", path, err)
	}
	return m, nil
}
