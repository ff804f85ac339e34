package recipe

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"

	"gantry/errdefs"
	"gantry/linux/dir"

	"github.com/klauspost/compress/zstd"
)

// The record of a tar is, compressed by zstd, a list of pieces: a number, of which the lowest bit says what the rest counts. 0: that many bytes, which follow; 1: that many bytes from the
// beginning of a file of the layer, whose path follows, its length first.
const (
	maxPath    = 64 << 10
	piece      = 64 << 10 // compared, and written, at once
	zstdWindow = 1 << 20
)

// record writes the record of a tar. What is not, byte for byte, in the layer is in the record: headers, padding, files that a later entry replaced, and all that tar says nothing of.
func record(ctx context.Context, r io.Reader, layer *dir.Dir, w io.Writer) (err error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	c := &recorder{files: files{layer: layer}, r: r, w: z, theirs: make([]byte, piece), ours: make([]byte, piece)}
	defer c.files.close()
	tr := tar.NewReader(c)
	for {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if errors.Is(err, tar.ErrHeader) {
				err = fmt.Errorf("%w: %w", ErrUnsupported, err)
			}
			return err
		}
		if h.Typeflag == tar.TypeReg && h.Size > 0 {
			if err := c.file(h, tr); err != nil {
				return err
			}
		}
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, c.theirs); err != nil {
		return err
	}
	return c.flush()
}

// recorder hands a tar to its reader, and takes down what that reads.
type recorder struct {
	files        files
	r            io.Reader
	w            io.Writer
	quiet        bool   // what is read is not taken down
	literal      []byte // taken down, and not yet written
	err          error  // of writing it
	theirs, ours []byte
}

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if !c.quiet {
		c.take(p[:n])
	}
	if c.err != nil {
		err = c.err
	}
	return n, err
}

func (c *recorder) take(p []byte) {
	c.literal = append(c.literal, p...)
	if len(c.literal) >= piece {
		c.err = c.flush()
	}
}

// flush writes what was taken down.
func (c *recorder) flush() error {
	if len(c.literal) == 0 || c.err != nil {
		return c.err
	}
	_, err := c.w.Write(append(binary.AppendUvarint(nil, uint64(len(c.literal))<<1), c.literal...))
	c.literal = c.literal[:0]
	return err
}

// file compares the contents of an entry with the layer's file, and takes down where they are, or, from where they differ on, what they are.
func (c *recorder) file(h *tar.Header, tr io.Reader) error {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") { // its contents are not as they look
			return nil
		}
	}
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	f, err := c.files.open(name)
	if unwell(err) {
		return err
	}
	if err != nil {
		return nil //nolint:nilerr // then it is taken down as it is read
	}
	c.quiet = true
	var same int64
	for left := h.Size; left > 0; {
		n := min(left, piece)
		if _, err := io.ReadFull(tr, c.theirs[:n]); err != nil {
			return errors.Join(err, f.Close())
		}
		left -= n
		if same >= 0 {
			_, err := io.ReadFull(f, c.ours[:n])
			if unwell(err) {
				return errors.Join(err, f.Close())
			}
			if err == nil && bytes.Equal(c.ours[:n], c.theirs[:n]) {
				same += n
				continue
			}
			c.refer(name, same)
			same = -1
		}
		c.take(c.theirs[:n])
	}
	c.refer(name, same)
	c.quiet = false
	return errors.Join(c.err, f.Close())
}

// unwell reports whether an error of opening or reading a file says something of the machine, and nothing of the layer.
func unwell(err error) bool { return dir.Lacking(err) || errors.Is(err, syscall.EIO) }

// refer takes down a piece of a file of the layer.
func (c *recorder) refer(name string, n int64) {
	if n <= 0 || c.err != nil {
		return
	}
	if c.err = c.flush(); c.err == nil {
		b := binary.AppendUvarint(nil, uint64(n)<<1|1)
		b = binary.AppendUvarint(b, uint64(len(name)))
		_, c.err = c.w.Write(append(b, name...))
	}
}

// replay writes the tar of a record.
func replay(ctx context.Context, record io.Reader, layer *dir.Dir, w io.Writer) error {
	z, err := zstd.NewReader(record, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return damaged(err)
	}
	defer z.Close()
	r := bufio.NewReaderSize(z, piece)
	c := files{layer: layer}
	defer c.close()
	buf := make([]byte, piece)
	for {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		n, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		from, what := io.Reader(r), "the record"
		var f io.Closer
		if n&1 == 1 {
			name, err := readPath(r)
			if err != nil {
				return damaged(err)
			}
			file, err := c.open(name)
			if err != nil {
				return errdefs.New(errdefs.Internal, "the layer lacks a file: %w", err)
			}
			from, f, what = file, file, name
		}
		err = copyN(w, from, n>>1, buf, what)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
}

func readPath(r *bufio.Reader) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return "", err
	}
	if n > maxPath {
		return "", errors.New("a path is too long")
	}
	name := make([]byte, n)
	_, err = io.ReadFull(r, name)
	return string(name), err
}

func copyN(w io.Writer, r io.Reader, n uint64, buf []byte, what string) error {
	for n > 0 {
		p := buf[:min(n, uint64(len(buf)))]
		if _, err := io.ReadFull(r, p); err != nil {
			return errdefs.New(errdefs.Internal, "%s has too little: %w", what, err)
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		n -= uint64(len(p))
	}
	return nil
}

// files opens files of a layer. Symbolic links on the way are followed inside it, as they were when it was unpacked.
type files struct {
	layer  *dir.Dir
	name   string // of the folder that is open
	folder *dir.Dir
}

func (f *files) open(name string) (io.ReadCloser, error) {
	parent, base := path.Split(name)
	parent = strings.TrimSuffix(parent, "/")
	if f.folder == nil || f.name != parent {
		f.close()
		var err error
		if f.folder, err = f.layer.Sub(parent); err != nil {
			f.folder = nil
			return nil, err
		}
		f.name = parent
	}
	return f.folder.File(base)
}

func (f *files) close() {
	if f.folder != nil {
		_ = f.folder.Close() // read only
		f.folder = nil
	}
}
