package image

import (
	"context"
	"crypto/sha256"
	"errors"
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

// blobFrom is blob from an offset on.
func (s *Service) blobFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	r, err := s.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	if f, ok := r.(io.Seeker); ok {
		_, err = f.Seek(offset, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r, offset)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// has reports whether a blob is here, as it is or as a recipe whose layer is unpacked.
func (s *Service) has(d ocispec.Descriptor, unpacked map[digest.Digest]bool) bool {
	size, err := s.content.Size(d.Digest)
	if err != nil || size != d.Size {
		return false
	}
	_, suspect := s.suspects.Load(d.Digest)
	switch {
	case s.content.Whole(d.Digest):
		return !suspect
	case suspect:
		return false
	}
	r, err := s.content.Recipe(d.Digest)
	if err != nil {
		return false
	}
	return r.Close() == nil && unpacked[r.Layer]
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
			err = errdefs.New(errdefs.Internal, "blob %s cannot be made anew of layer %s: %w: check with \"gantry system fsck --layers\", or pull the image again", d, r.Layer, err)
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
