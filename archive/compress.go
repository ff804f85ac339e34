package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"gantry/errdefs"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Compression is how a stream is compressed.
type Compression string

// The kinds of compression that are recognized.
const (
	Plain Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
)

// Bounds of the memory that a stream may ask for.
const (
	maxWindow     = 128 << 20 // of zstd
	maxDictionary = 64 << 20  // of xz, whose highest level takes that
)

// Detect says how a stream that begins with these bytes is compressed; ten are enough.
func Detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd // the second is a skippable frame
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return XZ
	default:
		return Plain
	}
}

// Decompress returns the stream uncompressed, whatever it is compressed with, and what that was. Closing it does not close r.
// Errors: InvalidParameter for a compression that is not supported or a malformed stream.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, Plain, fmt.Errorf("read archive: %w", err)
	}
	kind := Detect(head)
	switch kind {
	case Gzip:
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, kind, errdefs.New(errdefs.InvalidParameter, "read gzip stream: %w", err)
		}
		return z, kind, nil
	case Zstd:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, kind, errdefs.New(errdefs.InvalidParameter, "read zstd stream: %w", err)
		}
		return z.IOReadCloser(), kind, nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(br)), kind, nil
	case XZ:
		z, err := xz.NewReader(br, maxDictionary)
		if err != nil {
			return nil, kind, errdefs.New(errdefs.InvalidParameter, "read xz stream: %w", err)
		}
		return io.NopCloser(z), kind, nil
	default:
		return io.NopCloser(br), kind, nil
	}
}
