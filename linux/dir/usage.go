package dir

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Usage returns how many bytes of the disk a file takes up, or a folder with all beneath, the folders' own among them, each inode counted once: what du says. What comes and goes
// meanwhile does not matter; there need not be anything.
func Usage(ctx context.Context, path string) (bytes int64, err error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.IsDir() && st.Nlink > 1 && seen[inode{st.Dev, st.Ino}] {
			return nil
		}
		if !info.IsDir() && st.Nlink > 1 {
			seen[inode{st.Dev, st.Ino}] = true
		}
		bytes += Allocated(info)
		return nil
	})
	return bytes, err
}

// Allocated returns how many bytes of the disk a file takes up.
func Allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
