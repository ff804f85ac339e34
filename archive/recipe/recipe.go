// Package recipe keeps of a layer's blob what the unpacked layer does not have, so that layer and recipe together give the blob back, bit by bit. Of the tar that is everything but the contents of
// files; of its compression it is what archive/deflate or archive/zstandard describes.
//
// A recipe is two streams in one file: frames of the one among frames of the other, since both are written, and read, side by side.
//
//	1 byte    how the tar is compressed: "n" not at all, "g" gzip, "z" zstd
//	frames    1 byte stream ("t" tar, "z" compression), 4 bytes length, that many bytes
//
// The last frame, of a stream of its own ("s"), is the SHA-256 of all before it; older recipes have none.
//
// Recipes come from a process that has seen outside data: reading one has limits, and ends with an error or a stream whose digest is still to be compared.
package recipe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"gantry/archive"
	"gantry/archive/corrections"
	"gantry/archive/deflate"
	"gantry/archive/zstandard"
	"gantry/errdefs"
	"gantry/linux/dir"
)

// ErrUnsupported is the error of a blob that no recipe is made for: its compression or its tar is one that cannot be described, or the recipe would be too large.
var ErrUnsupported = corrections.ErrUnsupported

const (
	kindPlain, kindGzip, kindZstd = 'n', 'g', 'z'
	streamTar, streamBytes        = 't', 'z'
	streamSum                     = 's'

	frameSize = 64 << 10
	frameHead = 5
)

// Describe reads a layer's blob, whose contents are unpacked beneath layer, and writes its recipe, of at most so many bytes. Errors: ErrUnsupported.
func Describe(ctx context.Context, blob io.Reader, layer *dir.Dir, w io.Writer, most int64) error {
	br := bufio.NewReaderSize(blob, 256<<10)
	head, err := br.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read blob: %w", err)
	}
	out := &frameWriter{w: w, left: most, hash: sha256.New()}
	var kind byte
	switch c := archive.Detect(head); c {
	case archive.Plain:
		kind = kindPlain
	case archive.Gzip:
		kind = kindGzip
	case archive.Zstd:
		kind = kindZstd
	default:
		return fmt.Errorf("%w: its compression is %s", ErrUnsupported, c)
	}
	if err := out.raw([]byte{kind}); err != nil {
		return err
	}
	tar := out.stream(streamTar)
	if kind == kindPlain {
		return errors.Join(record(ctx, br, layer, tar), tar.Flush(), out.sum())
	}
	// One goroutine takes the compression apart, this one the tar that comes out of it.
	plain, contents := io.Pipe()
	var taken error
	var group sync.WaitGroup
	group.Go(func() {
		bytes := out.stream(streamBytes)
		feed := bufio.NewWriterSize(contents, 256<<10)
		if kind == kindZstd {
			taken = zstandard.Describe(ctx, br, feed, bytes)
		} else {
			taken = deflate.Describe(ctx, br, feed, bytes)
		}
		taken = errors.Join(taken, feed.Flush(), bytes.Flush())
		contents.CloseWithError(taken) //nolint:errcheck // never fails
	})
	err = record(ctx, plain, layer, tar)
	plain.CloseWithError(err) //nolint:errcheck // never fails
	group.Wait()
	if taken != nil && !errors.Is(taken, io.ErrClosedPipe) {
		return taken
	}
	return errors.Join(err, tar.Flush(), out.sum())
}

// Rebuild writes the blob that a recipe, of size bytes, and the layer give, at most so many bytes. Whether it is the right one only its digest tells.
func Rebuild(ctx context.Context, recipe io.ReaderAt, size int64, layer *dir.Dir, w io.Writer, most int64) error {
	var kind [1]byte
	if _, err := recipe.ReadAt(kind[:], 0); err != nil {
		return damaged(err)
	}
	tar := &frameReader{r: recipe, at: 1, end: size, stream: streamTar}
	out := &limitedWriter{w: w, left: most}
	switch kind[0] {
	case kindPlain:
		return replay(ctx, tar, layer, out)
	case kindGzip, kindZstd:
		plain, contents := io.Pipe()
		var replayed error
		var group sync.WaitGroup
		group.Go(func() {
			feed := bufio.NewWriterSize(contents, 256<<10)
			replayed = errors.Join(replay(ctx, tar, layer, feed), feed.Flush())
			contents.CloseWithError(replayed) //nolint:errcheck // never fails
		})
		again := deflate.Rebuild
		if kind[0] == kindZstd {
			again = zstandard.Rebuild
		}
		err := again(ctx, plain, &frameReader{r: recipe, at: 1, end: size, stream: streamBytes}, out)
		plain.CloseWithError(io.ErrClosedPipe) //nolint:errcheck // never fails
		group.Wait()
		if replayed != nil && !errors.Is(replayed, io.ErrClosedPipe) {
			return replayed
		}
		return err
	default:
		return damaged(errors.New("its kind is not known"))
	}
}

// Check writes the tar of a layer that a recipe, of size bytes, and the layer give, after it has seen that the recipe is as it was made. It takes a small part of what Rebuild does; the tar's digest says whether Rebuild will
// succeed. A recipe without a sum is an error.
func Check(ctx context.Context, recipe io.ReaderAt, size int64, layer *dir.Dir, w io.Writer) error {
	if err := checkSum(recipe, size); err != nil {
		return err
	}
	return replay(ctx, &frameReader{r: recipe, at: 1, end: size, stream: streamTar}, layer, w)
}

func checkSum(recipe io.ReaderAt, size int64) error {
	const length = frameHead + sha256.Size
	var last [length]byte
	if size < 1+length {
		return damaged(io.ErrUnexpectedEOF)
	}
	if _, err := recipe.ReadAt(last[:], size-length); err != nil {
		return damaged(err)
	}
	if last[0] != streamSum || binary.LittleEndian.Uint32(last[1:]) != sha256.Size {
		return damaged(errors.New("it has no sum, or no end"))
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(recipe, 0, size-length)); err != nil {
		return damaged(err)
	}
	if !bytes.Equal(hash.Sum(nil), last[frameHead:]) {
		return damaged(errors.New("its sum is another"))
	}
	return nil
}

func damaged(err error) error { return errdefs.New(errdefs.Internal, "the recipe is damaged: %w", err) }

// frameWriter writes the frames of both streams.
type frameWriter struct {
	mu   sync.Mutex // guards all below
	w    io.Writer
	left int64
	hash hash.Hash // of what was written
}

func (f *frameWriter) raw(p []byte) error {
	if f.left -= int64(len(p)); f.left < 0 {
		return fmt.Errorf("%w: its recipe would be too large", ErrUnsupported)
	}
	f.hash.Write(p)
	_, err := f.w.Write(p)
	return err
}

// sum writes the last frame.
func (f *frameWriter) sum() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.raw(f.hash.Sum(binary.LittleEndian.AppendUint32([]byte{streamSum}, sha256.Size)))
}

func (f *frameWriter) stream(id byte) *bufio.Writer {
	return bufio.NewWriterSize(writerFunc(func(p []byte) (int, error) {
		head := binary.LittleEndian.AppendUint32([]byte{id}, uint32(len(p)))
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := f.raw(append(head, p...)); err != nil {
			return 0, err
		}
		return len(p), nil
	}), frameSize)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// frameReader reads one of the streams.
type frameReader struct {
	r       io.ReaderAt
	at, end int64
	left    int64 // of the frame that at is in
	stream  byte
}

func (f *frameReader) Read(p []byte) (int, error) {
	for f.left == 0 {
		if f.at == f.end {
			return 0, io.EOF
		}
		var head [frameHead]byte
		if _, err := f.r.ReadAt(head[:], f.at); err != nil {
			return 0, damaged(err)
		}
		n := int64(binary.LittleEndian.Uint32(head[1:]))
		f.at += frameHead
		if n > f.end-f.at {
			return 0, damaged(io.ErrUnexpectedEOF)
		}
		if head[0] != f.stream {
			f.at += n
			continue
		}
		f.left = n
	}
	n, err := f.r.ReadAt(p[:min(int64(len(p)), f.left)], f.at)
	f.at += int64(n)
	f.left -= int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// limitedWriter refuses more than there is to be.
type limitedWriter struct {
	w    io.Writer
	left int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, damaged(errors.New("it gives more than the blob had"))
	}
	return l.w.Write(p)
}
