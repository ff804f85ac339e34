package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// Unpacked is a layer that was unpacked from its stream.
type Unpacked struct {
	Applied
	DiffID digest.Digest // of the uncompressed stream
}

// Unpack is Apply of a stream that may be compressed, and is read to its end.
func Unpack(ctx context.Context, root *os.File, r io.Reader, o ApplyOptions) (Unpacked, error) {
	var u Unpacked
	err := o.stream(r, func(plain *hashReader) (err error) {
		u.Applied, err = Apply(ctx, root, plain, o)
		return err
	}, &u.DiffID)
	return u, err
}

// stream has apply read a layer's stream, and reads on to its end: the digest is that of all of it, padding included.
func (o ApplyOptions) stream(r io.Reader, apply func(plain *hashReader) error, diffID *digest.Digest) error {
	plain, _, err := DecompressLayer(r, o.Limits)
	if err != nil {
		return err
	}
	hashed := newHashReader(plain)
	if err = apply(hashed); err == nil {
		err = hashed.drain()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r) // what comes after the compressed data
	}
	*diffID = hashed.digest()
	return errors.Join(err, plain.Close())
}

// hashReader hashes a stream in large pieces and hands it out in small ones.
type hashReader struct {
	r    io.Reader
	h    hash.Hash
	buf  []byte
	rest []byte // of buf, not yet handed out
	err  error
}

func newHashReader(r io.Reader) *hashReader {
	return &hashReader{r: r, h: sha256.New(), buf: make([]byte, 256<<10)}
}

func (r *hashReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		n := 0
		for n < len(r.buf) && r.err == nil {
			var m int
			m, r.err = r.r.Read(r.buf[n:])
			n += m
		}
		r.h.Write(r.buf[:n])
		r.rest = r.buf[:n]
		if n == 0 {
			return 0, r.err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// drain reads on to the end of the stream.
func (r *hashReader) drain() error {
	for {
		r.rest = nil
		if _, err := r.Read(nil); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (r *hashReader) digest() digest.Digest { return digest.NewDigest(digest.SHA256, r.h) }
