package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"gantry/archive/confined"
	"gantry/content"
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blob opens a layer's blob, as it is or made anew of its recipe and the layer. What is made anew ends with an error instead of its last bytes unless its digest is right. Errors: NotFound.
func (s *Service) blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	f, err := s.content.Open(d)
	if err == nil {
		return f, nil
	}
	if !errdefs.Is(err, errdefs.NotFound) {
		return nil, err
	}
	r, err := s.content.Recipe(d)
	if err != nil {
		return nil, err
	}
	layer, err := s.o.Snapshots.Open(ctx, r.Layer)
	if err != nil {
		return nil, errors.Join(errdefs.New(errdefs.NotFound, "blob %s is not here as it is, and cannot be made anew: %w: pull the image again", d, err), r.Close())
	}
	return rebuild(ctx, d, r, layer, false), nil
}

// sound opens a blob whose bytes leave the store: one that is damaged ends with an error instead of its last bytes, and counts as damaged from then on, as if fsck had found it.
func (s *Service) sound(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	r, err := s.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	v := &verified{ReadCloser: r, digest: d, failed: func(err error) error { return s.isDamaged(ctx, d, err) }}
	if f, ok := r.(*os.File); ok { // what is made anew is verified by who makes it
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		v.left, v.hash = st.Size(), sha256.New()
	}
	return v, nil
}

// soundFrom is sound from an offset on; what comes before is read, too.
func (s *Service) soundFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	r, err := s.sound(ctx, d)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// verified is a blob that is verified while it is read.
type verified struct {
	io.ReadCloser
	digest digest.Digest
	hash   hash.Hash // nil: ReadCloser verifies it
	left   int64     // bytes
	failed func(error) error
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, v.failed(err)
	}
	if v.hash == nil {
		return n, err
	}
	v.hash.Write(p[:n])
	v.left -= int64(n)
	if v.left > 0 && err == nil {
		return n, nil
	}
	if got := digest.NewDigest(digest.SHA256, v.hash); got != v.digest {
		return 0, v.failed(fmt.Errorf("its digest is %s", got))
	}
	return n, err
}

// has reports whether a blob is here, as it is or as a recipe whose layer is unpacked. What cannot be told for now is not here.
func (s *Service) has(d ocispec.Descriptor, unpacked map[digest.Digest]bool) bool {
	here, err := s.holdsBlob(d, unpacked)
	return here && err == nil
}

// holdsBlob is has that says when it cannot be told, for want of something.
func (s *Service) holdsBlob(d ocispec.Descriptor, unpacked map[digest.Digest]bool) (bool, error) {
	if s.suspect(d.Digest) {
		return false, nil
	}
	if s.content.Whole(d.Digest) {
		size, err := s.content.Size(d.Digest)
		return err == nil && size == d.Size, nil
	}
	r, err := s.content.Recipe(d.Digest)
	if lacking(err) {
		return false, err
	}
	if err != nil {
		return false, nil //nolint:nilerr // it is damaged, or there is none
	}
	return r.Size == d.Size && unpacked[r.Layer], r.Close()
}

// rebuilding is a blob that is being made anew.
type rebuilding struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// rebuild makes a blob anew. It closes recipe and layer in the end.
func rebuild(ctx context.Context, d digest.Digest, r *content.Recipe, layer *os.File, idle bool) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	out, in := io.Pipe()
	b := &rebuilding{out, cancel, make(chan struct{})}
	go func() {
		defer close(b.done)
		c := &checked{w: in, hash: sha256.New()}
		err := confined.Rebuild(ctx, r.File, r.Offset, r.Length, layer, c, r.Size, idle)
		if err == nil {
			err = c.end(d, r.Size)
		}
		if ctx.Err() == nil && err != nil {
			err = errdefs.New(errdefs.KindOf(err), "blob %s cannot be made anew of layer %s: %w", d, r.Layer, err)
		}
		in.CloseWithError(errors.Join(err, r.Close(), layer.Close())) //nolint:errcheck // never fails
	}()
	return b
}

// Close ends the making, and waits for its end.
func (b *rebuilding) Close() error {
	b.cancel()
	err := b.PipeReader.Close()
	<-b.done
	return err
}

// checked hands on what is written to it, and the last piece only when all of it has the right digest.
type checked struct {
	w    io.Writer
	hash hash.Hash
	size int64
	held []byte
}

func (c *checked) Write(p []byte) (int, error) {
	if len(c.held) > 0 {
		if _, err := c.w.Write(c.held); err != nil {
			return 0, err
		}
	}
	c.hash.Write(p)
	c.size += int64(len(p))
	c.held = append(c.held[:0], p...)
	return len(p), nil
}

func (c *checked) end(d digest.Digest, size int64) error {
	if got := digest.NewDigest(digest.SHA256, c.hash); got != d || c.size != size {
		return errdefs.New(errdefs.Internal, "what comes of it has %d bytes and digest %s", c.size, got)
	}
	_, err := c.w.Write(c.held)
	return err
}
