package archive

import (
	"context"
	"io"
	"os"
	"time"

	"gantry/errdefs"
)

// PathStat describes one path in a container, as `docker cp` asks for it.
type PathStat struct {
	Name       string // last element of the path
	Size       int64  // bytes
	Mode       os.FileMode
	ModTime    time.Time
	LinkTarget string // where a symbolic link leads, as an absolute path in the container; empty for all else
}

// TarOptions shapes Tar.
type TarOptions struct {
	// Contents leaves the folder itself out and names its entries relative to it, as `docker export` does for "/".
	Contents bool
	// Name replaces the last element of the path as the name of the first entry.
	Name string
}

// ExtractOptions shapes Extract.
type ExtractOptions struct {
	NoOverwriteDirNonDir bool // refuse to replace a folder by a file or a file by a folder
	CopyUIDGID           bool // keep the archive's owners; otherwise all is given to root
}

// Stat describes a path inside root. A path that ends in a slash or in "/." must be a folder; otherwise a symbolic link in
// the last place is described itself. Errors: NotFound.
func Stat(root *os.File, path string) (PathStat, error) {
	return PathStat{}, errdefs.New(errdefs.NotImplemented, "stat in container: not implemented")
}

// Tar writes the path inside root, with all beneath it, to w. Errors: NotFound.
func Tar(ctx context.Context, root *os.File, path string, w io.Writer, o TarOptions) error {
	return errdefs.New(errdefs.NotImplemented, "copy from container: not implemented")
}

// Extract unpacks a tar stream (plain, gzip, bzip2 or zstd) into the folder path inside root. Whiteouts are ordinary files here.
// Errors: NotFound when the folder is missing, InvalidParameter when it is none or the archive is malformed.
func Extract(ctx context.Context, root *os.File, path string, r io.Reader, o ExtractOptions) error {
	return errdefs.New(errdefs.NotImplemented, "copy to container: not implemented")
}
