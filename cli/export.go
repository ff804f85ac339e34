package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

func exportCommand() *command {
	return &command{
		name: "export", aliases: "container export, export", use: "[OPTIONS] CONTAINER",
		short: "Export a container's filesystem as a tar archive", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				if *output == "" && a.terminalOut() {
					return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
				}
				if err := checkOutput(*output); err != nil {
					return fmt.Errorf("failed to export container: %w", err)
				}
				r, err := c.ContainerExport(ctx, args[0])
				if err != nil {
					return err
				}
				defer r.Close()
				return a.writeOutput(*output, r)
			}
		},
	}
}

// checkOutput checks that a file can be put at path: its directory is there, and nothing but a regular file is in its place.
func checkOutput(path string) error {
	if path == "" {
		return nil
	}
	dir := filepath.Dir(filepath.Clean(path))
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid output path: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil //nolint:nilerr // not there yet; creating it tells more
	}
	if st.IsDir() {
		return errors.New("cannot write to a directory")
	}
	if st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0 {
		return fmt.Errorf("invalid output path: %q got a device", path)
	}
	return nil
}

// writeOutput copies r to standard output, or to a file that appears whole or not at all.
func (a *app) writeOutput(path string, r io.Reader) error {
	if path == "" {
		_, err := io.Copy(a.out, r)
		return err
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, r)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
