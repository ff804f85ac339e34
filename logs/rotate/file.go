// Package rotate is the storage of the log drivers that keep files: one active file and its older generations <path>.1, <path>.2
// (or .1.gz, ...), written by one process and read by others at the same time.
package rotate

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Limits bound what the files of one log may take.
type Limits struct {
	MaxSize  int64 // bytes after which a file is rotated; 0 or less: never
	MaxFiles int   // files including the active one; 1: the active file is emptied instead
	Compress bool  // gzip the older generations
}

// File is the active file. One goroutine at a time uses it.
type File struct {
	path    string
	limits  Limits
	header  []byte // begins each file
	file    *os.File
	size    int64
	packing sync.WaitGroup // compression of the youngest generation
}

// Open opens or makes the active file for appending; header begins each new file. repair looks at the end of a file that a crash may
// have torn and returns the size up to which it is good.
func Open(path string, header []byte, l Limits, repair func(*os.File, int64) (int64, error)) (*File, error) {
	f := &File{path: path, limits: l, header: header}
	if err := f.open(); err != nil {
		return nil, err
	}
	if f.size > 0 {
		good, err := repair(f.file, f.size)
		if err == nil && good != f.size {
			err = f.file.Truncate(good)
		}
		if err != nil {
			f.file.Close()
			return nil, fmt.Errorf("repair log %s: %w", path, err)
		}
		f.size = good
	}
	if f.size == 0 {
		if err := f.append(header); err != nil {
			f.file.Close()
			return nil, err
		}
	}
	return f, nil
}

func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return fmt.Errorf("open log: %w", err)
	}
	f.file, f.size = file, info.Size()
	return nil
}

// Room returns how many bytes the active file takes before it is rotated; at least 1.
func (f *File) Room() int64 {
	if f.limits.MaxSize <= 0 {
		return 1 << 62
	}
	if f.size >= f.limits.MaxSize {
		return f.limits.MaxSize // the next Write rotates
	}
	return f.limits.MaxSize - f.size
}

// Write appends whole records, after a rotation if the active file is full. After an error the file holds none or some of the
// records, each of them whole.
func (f *File) Write(records []byte) error {
	if f.limits.MaxSize > 0 && f.size >= f.limits.MaxSize && f.size > int64(len(f.header)) {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	return f.append(records)
}

func (f *File) append(records []byte) error {
	if len(records) == 0 {
		return nil
	}
	n, err := f.file.Write(records)
	if err != nil {
		if n > 0 { // a torn record would hide what follows it
			if terr := f.file.Truncate(f.size); terr != nil {
				err = errors.Join(err, terr)
			}
		}
		return fmt.Errorf("write log: %w", err)
	}
	f.size += int64(n)
	return nil
}

// Close ends compression and closes the file.
func (f *File) Close() error {
	f.packing.Wait()
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// rotate makes the active file the youngest generation, and the oldest go.
func (f *File) rotate() error {
	f.packing.Wait() // it works on path.1
	if f.limits.MaxFiles <= 1 {
		if err := f.file.Truncate(0); err != nil {
			return fmt.Errorf("rotate log: %w", err)
		}
		f.size = 0
		return f.append(f.header)
	}
	for i := f.limits.MaxFiles - 1; i >= 1; i-- {
		for _, suffix := range [...]string{"", packed} {
			from := generation(f.path, i) + suffix
			var err error
			if i == f.limits.MaxFiles-1 {
				err = os.Remove(from)
			} else {
				err = os.Rename(from, generation(f.path, i+1)+suffix)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("rotate log: %w", err)
			}
		}
	}
	if err := os.Rename(f.path, generation(f.path, 1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate log: %w", err)
	}
	old := f.file
	if err := f.open(); err != nil {
		f.file = old // goes on with the renamed file; the next Write tries again
		return err
	}
	if !f.limits.Compress {
		old.Close()
	} else {
		f.packing.Go(func() {
			// An error leaves the generation as it is: readers take both forms.
			_ = pack(old, generation(f.path, 1))
			old.Close()
		})
	}
	if f.size == 0 {
		return f.append(f.header)
	}
	return nil
}

// packed ends the name of a compressed generation.
const packed = ".gz"

func generation(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// pack compresses the file at path, open as file, to path.gz and removes it. The gzip header keeps the inode number, so that a
// reader that has the old file open finds its place among the generations.
func pack(file *os.File, path string) (err error) {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	temporary := path + packed + ".tmp"
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		out.Close()
		if err != nil {
			os.Remove(temporary)
		}
	}()
	z := gzip.NewWriter(out)
	z.Extra = packHeader(info)
	if _, err = io.Copy(z, io.NewSectionReader(file, 0, info.Size())); err != nil {
		return err
	}
	if err = z.Close(); err != nil {
		return err
	}
	if err = os.Chtimes(temporary, time.Now(), info.ModTime()); err != nil { // readers skip by it
		return err
	}
	if err = os.Rename(temporary, path+packed); err != nil {
		return err
	}
	return os.Remove(path)
}

// identity tells one file from all others, also after it was compressed.
type identity struct {
	device, inode uint64
	packed        int64 // modification time in ns of a compressed file; its inode number may be in use again
}

// is reports whether id, of a file that is open if it is not compressed, and other are of one file.
func (id identity) is(other identity) bool {
	if id.packed == 0 {
		other.packed = 0
	}
	return id == other
}

func identify(info fs.FileInfo) identity {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return identity{device: st.Dev, inode: st.Ino}
	}
	return identity{}
}

// packHeader is an RFC 1952 extra subfield "GI" with the device and inode numbers, 8 bytes each, little endian.
func packHeader(info fs.FileInfo) []byte {
	id := identify(info)
	b := binary.LittleEndian.AppendUint64([]byte{'G', 'I', 16, 0}, id.device)
	return binary.LittleEndian.AppendUint64(b, id.inode)
}

// identifyPacked returns which file was compressed: what packHeader wrote, else the compressed file itself.
func identifyPacked(extra []byte, info fs.FileInfo) identity {
	id := identify(info)
	if len(extra) == 20 && string(extra[:4]) == "GI\x10\x00" {
		id.device, id.inode = binary.LittleEndian.Uint64(extra[4:]), binary.LittleEndian.Uint64(extra[12:])
	}
	id.packed = info.ModTime().UnixNano()
	return id
}
