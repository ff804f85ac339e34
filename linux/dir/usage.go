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
	err = Inventory(ctx, path, func(info fs.FileInfo, again bool) {
		if !again {
			bytes += Allocated(info)
		}
	})
	return bytes, err
}

// Inventory calls f with a file, or a folder and all beneath; again says that f has had another name of the same file. What comes and goes meanwhile is left out, and there need not be anything.
func Inventory(ctx context.Context, path string, f func(info fs.FileInfo, again bool)) error {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	return filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
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
		again := false
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !info.IsDir() {
			i := inode{st.Dev, st.Ino}
			again, seen[i] = seen[i], true
		}
		f(info, again)
		return nil
	})
}

// Allocated returns how many bytes of the disk a file takes up.
func Allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
