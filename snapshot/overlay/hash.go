package overlay

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

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
func (r *hashReader) drain(ctx context.Context) error {
	for {
		r.rest = nil
		if _, err := r.Read(nil); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
	}
}

func (r *hashReader) digest() digest.Digest { return digest.NewDigest(digest.SHA256, r.h) }
