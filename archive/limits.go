package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"math"

	"gantry/errdefs"
)

// Limits bound what one layer may be and cost, under the names that they have in the daemon's configuration. Zero is the default.
type Limits struct {
	Entries int64 // max-layer-entries: of the archive
	Size    int64 // max-layer-size: bytes of the uncompressed stream, and of the files and extended attributes it unpacks to, holes included
	Ratio   int64 // max-layer-ratio: bytes of the uncompressed stream for each compressed one, once there is a gibibyte
	Memory  int64 // max-layer-memory: bytes of the process that unpacks it
}

// DefaultLimits are far above any image that people make, and far below what hurts.
func DefaultLimits() Limits {
	return Limits{Entries: 4 << 20, Size: 100 << 30, Ratio: 256, Memory: 2 << 30}
}

// OrDefault returns the limits with the default for each that is zero.
func (l Limits) OrDefault() Limits {
	d := DefaultLimits()
	for _, one := range []struct{ value, otherwise *int64 }{{&l.Entries, &d.Entries}, {&l.Size, &d.Size}, {&l.Ratio, &d.Ratio}, {&l.Memory, &d.Memory}} {
		if *one.value == 0 {
			*one.value = *one.otherwise
		}
	}
	return l
}

// freeOutput is how many bytes a stream may give before the ratio counts: small layers of zeros are common, and harmless.
const freeOutput = 1 << 30

// exceeded is the error of a layer, or an archive of layers, that goes beyond the limit of that name.
func exceeded(name string, format string, args ...any) error {
	return errdefs.New(errdefs.InvalidParameter, "the archive %s: raise %s in the daemon's configuration if it is to be trusted", fmt.Sprintf(format, args...), name)
}

// MemoryExceeded is the error of a layer that took more memory than Limits.Memory.
func (l Limits) MemoryExceeded() error {
	return exceeded("max-layer-memory", "takes more than %d bytes of memory to unpack", l.OrDefault().Memory)
}

// budget is what is left of the limits for one archive.
type budget struct {
	limits  Limits
	entries int64
	size    int64
}

// unlimited is the budget of an archive that only the kernel's own limits bound.
func unlimited() *budget { return &budget{limits: Limits{Entries: maxEntries, Size: math.MaxInt64}} }

// entry counts one entry.
func (b *budget) entry() error {
	if b.entries++; b.entries > b.limits.Entries {
		return exceeded("max-layer-entries", "has more than %d entries", b.limits.Entries)
	}
	return nil
}

// bytes counts n bytes of a file or of extended attributes.
func (b *budget) bytes(n int64) error {
	if b.size += n; n < 0 || b.size > b.limits.Size || b.size < 0 {
		return exceeded("max-layer-size", "has more than %d bytes", b.limits.Size)
	}
	return nil
}

// bounded is an uncompressed stream that ends with an error where the limits are exceeded.
type bounded struct {
	r      io.ReadCloser
	source *counter // of the compressed stream; nil: it is not compressed
	limits Limits
	out    int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.out += int64(n)
	switch {
	case b.out > b.limits.Size:
		return n, exceeded("max-layer-size", "has more than %d bytes", b.limits.Size)
	case b.source != nil && b.out > freeOutput && b.out/b.limits.Ratio > b.source.n:
		return n, exceeded("max-layer-ratio", "grows to more than %d times its compressed size", b.limits.Ratio)
	}
	return n, err
}

func (b *bounded) Close() error { return b.r.Close() }

// counter counts what is read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Entries calls f with each entry of an uncompressed tar that stands for something, and the name that it has beneath the tar's root: empty for the root itself, which is a folder.
// Errors: InvalidParameter for a malformed or hostile archive and for one that exceeds the limits of entries and sizes.
func Entries(ctx context.Context, r io.Reader, l Limits, f func(name string, h *tar.Header, r io.Reader) error) error {
	b := &budget{limits: l.OrDefault()}
	return b.each(ctx, r, func(name string, h *tar.Header, r io.Reader) error {
		if err := b.bytes(h.Size); err != nil {
			return err
		}
		return f(name, h, r)
	})
}

// DecompressImages is Decompress of a stream of whatever size, as archives of several images are, whose growth is limited.
func DecompressImages(r io.Reader, l Limits) (io.ReadCloser, Compression, error) {
	l.Size = math.MaxInt64
	return DecompressLayer(r, l)
}

// DecompressLayer is Decompress of a stream whose size and growth are limited.
func DecompressLayer(r io.Reader, l Limits) (io.ReadCloser, Compression, error) {
	source := &counter{r: r}
	plain, kind, err := Decompress(source)
	if err != nil {
		return nil, kind, err
	}
	b := &bounded{r: plain, source: source, limits: l.OrDefault()}
	if kind == Plain {
		b.source = nil
	}
	return b, kind, nil
}
