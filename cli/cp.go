package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/term"
	"github.com/spf13/pflag"

	"gantry/client"
)

func cpCommand() *command {
	return &command{
		name: "cp", aliases: "container cp, cp", use: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{cp} [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		short: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
		min:   2, max: 2,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			c := copying{app: a}
			fs.BoolVarP(&c.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
			fs.BoolVarP(&c.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
			fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
			return func(ctx context.Context, args []string) error { return c.run(ctx, args[0], args[1]) }
		},
	}
}

// copying is one cp.
type copying struct {
	*app
	archive, follow, quiet bool
}

// splitCopyArg splits CONTAINER:PATH. What starts with a slash or a dot is a local path.
func splitCopyArg(arg string) (container, p string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	container, p, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, p
}

func (c *copying) run(ctx context.Context, src, dst string) error {
	if src == "" {
		return errors.New("source can not be empty")
	}
	if dst == "" {
		return errors.New("destination can not be empty")
	}
	srcCtr, srcPath := splitCopyArg(src)
	dstCtr, dstPath := splitCopyArg(dst)
	switch {
	case srcCtr != "" && dstCtr != "":
		return errors.New("copying between containers is not supported")
	case srcCtr == "" && dstCtr == "":
		return errors.New("must specify at least one container source")
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	if srcCtr != "" {
		return c.fromContainer(ctx, api, srcCtr, srcPath, dstPath)
	}
	return c.toContainer(ctx, api, srcPath, dstCtr, dstPath)
}

// rootedPath makes a container's path absolute and keeps what its end says: "/." means the contents, "/" a directory.
func rootedPath(p string) string {
	clean := path.Join("/", p)
	switch {
	case clean == "/":
		if p == "/." || p == "." || strings.HasSuffix(p, "/.") {
			return "/."
		}
	case strings.HasSuffix(p, "/.") || p == ".":
		return clean + "/."
	case strings.HasSuffix(p, "/"):
		return clean + "/"
	}
	return clean
}

// contents reports whether a path names what is in a directory and not the directory.
func contents(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

// saysDirectory reports whether a path can only be a directory's.
func saysDirectory(p string) bool { return strings.HasSuffix(p, "/") || contents(p) }

func (c *copying) fromContainer(ctx context.Context, api *client.Client, ctr, srcPath, dstPath string) error {
	src := rootedPath(srcPath)
	wanted := path.Base(src)
	if c.follow {
		st, err := api.ContainerStatPath(ctx, ctr, src)
		if err == nil && st.Mode&fs.ModeSymlink != 0 {
			target := st.LinkTarget
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(strings.TrimSuffix(src, "/")), target)
			}
			src = rootedPath(target)
		}
	}
	r, st, err := api.CopyFromContainer(ctx, ctr, src)
	if err != nil {
		return c.copyError(err, ctr, src)
	}
	defer r.Close()
	if dstPath == "-" {
		if c.terminalOut() {
			return errors.New("cowardly refusing to write an archive to a terminal; redirect the output")
		}
		_, err := io.Copy(c.out, r)
		return err
	}
	dir, name, err := localDestination(dstPath, wanted, st.Mode.IsDir(), contents(src))
	if err != nil {
		return err
	}
	count := &countingReader{r: r}
	if err := extract(dir, name, contents(src), c.archive && os.Geteuid() == 0, count); err != nil {
		return fmt.Errorf("copy %s:%s to %s: %w", ctr, srcPath, dstPath, err)
	}
	c.report(count.n, dstPath)
	return nil
}

// localDestination decides where a copy goes: into which directory and under what name; an empty name keeps the entries below
// the archive's root as they are named.
func localDestination(dst, name string, srcIsDir, srcContents bool) (dir, as string, err error) {
	st, err := os.Stat(dst)
	switch {
	case err == nil && st.IsDir():
		if srcContents {
			return dst, ".", nil
		}
		if name == "/" || name == "." {
			return dst, ".", nil
		}
		return dst, name, nil
	case err == nil:
		if saysDirectory(dst) {
			return "", "", errors.New("not a directory")
		}
		if srcIsDir {
			return "", "", errors.New("cannot copy directory")
		}
		if !st.Mode().IsRegular() { // a copy to /dev/null must not put a file in its place
			return "", "", fmt.Errorf("invalid output path: %q must be a directory or a regular file: got a device", dst)
		}
		return filepath.Dir(dst), filepath.Base(dst), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	}
	if saysDirectory(dst) && !srcIsDir {
		return "", "", errors.New("no such directory")
	}
	dst = filepath.Clean(dst)
	parent := filepath.Dir(dst)
	if _, err := os.Stat(parent); err != nil {
		return "", "", fmt.Errorf("invalid output path: directory %q does not exist", parent)
	}
	return parent, filepath.Base(dst), nil
}

func (c *copying) toContainer(ctx context.Context, api *client.Client, srcPath, ctr, dstPath string) error {
	dst := rootedPath(dstPath)
	st, err := api.ContainerStatPath(ctx, ctr, dst)
	exists := err == nil
	if err != nil && !client.IsStatus(err, client.StatusNotFound) {
		return c.copyError(err, ctr, dst)
	}
	if exists && st.Mode&fs.ModeSymlink != 0 {
		target := st.LinkTarget
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(strings.TrimSuffix(dst, "/")), target)
		}
		dst = rootedPath(target)
		st, err = api.ContainerStatPath(ctx, ctr, dst)
		exists = err == nil
	}
	if !exists { // tell a missing container from a missing path
		if _, err := api.ContainerStatPath(ctx, ctr, "/"); err != nil {
			return c.copyError(err, ctr, dst)
		}
	}
	if srcPath == "-" {
		if !exists || !st.Mode.IsDir() {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", ctr, dstPath)
		}
		return api.CopyToContainer(ctx, ctr, dst, c.stdin, false, c.archive)
	}
	local, info, err := c.localSource(srcPath)
	if err != nil {
		return err
	}
	dir, name, err := containerDestination(dst, filepath.Base(filepath.Clean(srcPath)), exists, exists && st.Mode.IsDir(), info.IsDir(), contents(srcPath))
	if err != nil {
		return err
	}
	pr, pw := io.Pipe()
	count := &countingReader{r: pr}
	go func() { pw.CloseWithError(archiveTree(pw, local, name)) }()
	err = api.CopyToContainer(ctx, ctr, dir, count, false, c.archive)
	_ = pr.CloseWithError(err)
	if err != nil {
		return c.copyError(err, ctr, dst)
	}
	c.report(count.n, ctr+":"+dst)
	return nil
}

// localSource finds the file to copy; a link at the end is followed when the user says so, with -L or a slash.
func (c *copying) localSource(srcPath string) (string, fs.FileInfo, error) {
	local, err := filepath.Abs(srcPath)
	if err != nil {
		return "", nil, err
	}
	if c.follow || saysDirectory(srcPath) {
		if local, err = filepath.EvalSymlinks(local); err != nil {
			return "", nil, err
		}
	}
	info, err := os.Lstat(local)
	if err != nil {
		return "", nil, err
	}
	if saysDirectory(srcPath) && !info.IsDir() {
		return "", nil, errors.New("not a directory")
	}
	return local, info, nil
}

// containerDestination is localDestination for a path in a container.
func containerDestination(dst, name string, exists, isDir, srcIsDir, srcContents bool) (dir, as string, err error) {
	switch {
	case isDir:
		if srcContents {
			return dst, ".", nil
		}
		return dst, name, nil
	case exists:
		if saysDirectory(dst) {
			return "", "", errors.New("not a directory")
		}
		if srcIsDir {
			return "", "", errors.New("cannot copy directory")
		}
	case saysDirectory(dst) && !srcIsDir:
		return "", "", errors.New("no such directory")
	}
	dst = path.Clean(dst)
	return path.Dir(dst), path.Base(dst), nil
}

func (c *copying) copyError(err error, ctr, p string) error {
	if client.IsStatus(err, client.StatusNotFound) && strings.HasSuffix(err.Error(), ": request returned 404") {
		return fmt.Errorf("Error response from daemon: Could not find the file %s in container %s", p, ctr) //nolint:staticcheck // docker's words
	}
	return err
}

// report says how much was copied.
func (c *copying) report(n int64, where string) {
	if f, ok := c.err.(*os.File); ok && !c.quiet && term.IsTerminal(f.Fd()) {
		fmt.Fprintf(c.err, "Successfully copied %s to %s\n", units.HumanSize(float64(n)), where)
	}
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
