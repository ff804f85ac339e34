package zstandard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"gantry/archive/corrections"

	"github.com/cespare/xxhash/v2"
)

// rebuilder makes a stream of its recipe and contents.
type rebuilder struct {
	c     *corrections.Coder
	m     *model
	w     *window
	plain io.Reader
	out   *bufio.Writer
	at    int // position
	sum   *xxhash.Digest
}

// Rebuild writes the stream whose contents plain has and whose recipe recipe has. What is written need not be that stream if either is damaged: the caller compares digests.
func Rebuild(ctx context.Context, plain, recipe io.Reader, w io.Writer) error {
	window := &window{}
	r := &rebuilder{c: corrections.NewReader(bufio.NewReader(recipe)), w: window, plain: plain, out: bufio.NewWriterSize(w, 256<<10), sum: xxhash.New()}
	r.m = newModel(r.c, window)
	list := predictors(window)
	n := r.c.Tree(corrections.NewTree(8), 0)
	if n >= len(list) {
		return corrections.ErrDamaged
	}
	r.m.m = list[n]()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		item := r.c.Tree(r.m.items, 0)
		if err := r.c.Err(); err != nil {
			return err
		}
		var err error
		switch item {
		case itemEnd:
			return r.out.Flush()
		case itemFrame:
			err = r.frame(ctx)
		case itemSkipped:
			err = r.skipped(ctx)
		default:
			err = corrections.ErrDamaged
		}
		if err != nil {
			return err
		}
	}
}

func (r *rebuilder) frame(ctx context.Context) error {
	f := &frame{}
	r.m.header(f, r.at)
	if err := r.c.Err(); err != nil {
		return err
	}
	head, _ := f.append(nil)
	_, _ = r.out.Write(head) // its error is that of Flush
	r.sum.Reset()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := &block{frame: f, start: r.at}
		f = nil
		if err := r.block(b); err != nil {
			return err
		}
		r.w.forget(max(r.m.begin, r.at-maxWindow))
		if b.last {
			break
		}
	}
	if r.m.frame.summed() {
		_, _ = r.out.Write(binary.LittleEndian.AppendUint32(nil, uint32(r.sum.Sum64()))) // as above
	}
	return nil
}

func (r *rebuilder) block(b *block) error {
	r.m.opening(b)
	if err := r.c.Err(); err != nil {
		return err
	}
	if err := r.fill(b.size); err != nil {
		return err
	}
	contents := r.w.bytes(b.start, b.start+b.size)
	_, _ = r.sum.Write(contents) // never fails
	body := r.m.contents(b)
	if err := r.c.Err(); err != nil {
		return err
	}
	size := b.size
	switch b.kind {
	case raw:
		body = contents
	case repeated:
		if b.size == 0 || bytes.Count(contents, contents[:1]) != b.size {
			return corrections.ErrDamaged
		}
		body = contents[:1]
	default:
		size = len(body)
	}
	head := size<<3 | b.kind<<1
	if b.last {
		head |= 1
	}
	_, err := r.out.Write(append([]byte{byte(head), byte(head >> 8), byte(head >> 16)}, body...))
	r.at += b.size
	return err
}

// fill reads so many bytes of contents.
func (r *rebuilder) fill(n int) error {
	r.w.room(n)
	at := len(r.w.data)
	got, err := io.ReadFull(r.plain, r.w.data[at:at+n])
	r.w.data = r.w.data[:at+got]
	r.w.end += got
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrections.ErrDamaged
	}
	return err
}

// skipped writes a frame that is no contents.
func (r *rebuilder) skipped(ctx context.Context) error {
	kind := r.c.Tree(r.m.skippable, 0)
	size := r.c.Raw(32, 0)
	out := binary.LittleEndian.AppendUint32(nil, skippableMagic+uint32(kind))
	_, err := r.out.Write(binary.LittleEndian.AppendUint32(out, size))
	for left := size; left > 0 && err == nil; {
		n := min(left, 4096)
		left -= n
		out = out[:0]
		for ; n >= 4; n -= 4 {
			out = binary.BigEndian.AppendUint32(out, r.c.Raw(32, 0))
		}
		for range n {
			out = append(out, byte(r.c.Raw(8, 0)))
		}
		if _, err = r.out.Write(out); err == nil {
			err = errors.Join(r.c.Err(), ctx.Err())
		}
	}
	return err
}
