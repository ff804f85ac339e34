package deflate

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"gantry/archive/corrections"
)

// rebuilder makes a stream of its recipe and contents.
type rebuilder struct {
	c     *corrections.Coder
	m     *model
	w     *window
	plain io.Reader
	over  bool // there are no more contents
	out   *bitWriter
	pos   int
	start int // of the member
	crc   uint32
	lit   code
	dist  code
	codes code
}

// Rebuild writes the stream whose contents plain has and whose recipe recipe has. What is written need not be that stream if either is damaged: the caller compares digests.
func Rebuild(ctx context.Context, plain, recipe io.Reader, w io.Writer) error {
	window := &window{}
	r := &rebuilder{c: corrections.NewReader(bufio.NewReader(recipe)), w: window, plain: plain, out: &bitWriter{w: w}}
	r.m = newModel(r.c)
	list := predictors()
	n := r.c.Tree(corrections.NewTree(8), 0)
	if n >= len(list) {
		return fmt.Errorf("it is of another version: %w", corrections.ErrDamaged)
	}
	r.m.use(list[n], window)
	for inside := false; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.c.Err() != nil {
			return r.c.Err()
		}
		b := &block{start: r.pos}
		if !inside {
			if !r.c.Bit(&r.m.gzip, false) {
				return r.rest()
			}
			r.m.begin(b)
			r.m.m.begin(r.pos)
			r.out.bytes(b.gzip)
			r.start, r.crc = r.pos, 0
		}
		if err := r.block(b); err != nil {
			return err
		}
		inside = !b.final
	}
}

// fill reads contents up to a position, or to their end.
func (r *rebuilder) fill(to int) error {
	n := to - r.w.end
	if n <= 0 || r.over {
		return nil
	}
	at := len(r.w.data)
	if cap(r.w.data)-at < n {
		r.w.data = append(make([]byte, 0, at+n+1<<18), r.w.data...)
	}
	got, err := io.ReadFull(r.plain, r.w.data[at:at+n])
	r.w.data = r.w.data[:at+got]
	r.w.end += got
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		r.over, err = true, nil
	}
	return err
}

func (r *rebuilder) block(b *block) error {
	tokens, plain := r.m.opening(b)
	if r.c.Err() != nil {
		return r.c.Err()
	}
	end := b.start + b.size + b.sight
	if err := r.fill(end); err != nil {
		return err
	}
	if r.w.end < b.start+b.size {
		return corrections.ErrDamaged
	}
	end = min(end, r.w.end)
	if plain || b.kind == stored {
		r.m.m.pass(b.start, b.start+b.size, end)
		b.tokens = make([]token, tokens)
	} else if err := r.tokens(b, tokens, end); err != nil {
		return err
	}
	if b.sealed {
		r.m.m.flush(b.start + b.size)
	}
	contents := r.w.bytes(b.start, b.start+b.size)
	r.crc = crc32.Update(r.crc, crc32.IEEETable, contents)
	if b.kind == dynamic {
		r.m.trees.code(r.c, b, contents)
	}
	if b.final {
		r.m.closing(b)
	}
	if r.c.Err() != nil {
		return r.c.Err()
	}
	if err := r.write(b, contents); err != nil {
		return err
	}
	r.pos = b.start + b.size
	r.w.forget(r.pos)
	return r.out.err
}

// tokens finds the tokens of a block.
func (r *rebuilder) tokens(b *block, n, end int) error {
	at := b.start
	for range n {
		t := r.m.token(at, end, 0)
		at += t.size()
		if at > b.start+b.size || r.c.Err() != nil {
			return corrections.ErrDamaged
		}
		b.tokens = append(b.tokens, t)
	}
	if at != b.start+b.size {
		return corrections.ErrDamaged
	}
	return nil
}

func (r *rebuilder) write(b *block, contents []byte) error {
	o := r.out
	header := uint32(b.kind) << 1
	if b.final {
		header |= 1
	}
	o.put(header, 3)
	var err error
	switch b.kind {
	case stored:
		if b.size > 0xffff {
			return corrections.ErrDamaged
		}
		o.align(b.pad)
		o.put(uint32(b.size)|uint32(^uint16(b.size))<<16, 32)
		o.bytes(contents)
	case fixed:
		lit, dist := fixedLens()
		err = errors.Join(r.lit.set(lit), r.dist.set(dist))
	case dynamic:
		err = r.trees(b.tree)
	}
	if err == nil && b.kind != stored && !r.symbols(b, contents) {
		err = corrections.ErrDamaged
	}
	if err == nil && b.final {
		o.align(b.endPad)
		var tail [8]byte
		binary.LittleEndian.PutUint32(tail[:], r.crc)
		binary.LittleEndian.PutUint32(tail[4:], uint32(b.start+b.size-r.start))
		o.bytes(tail[:])
	}
	return err
}

func (r *rebuilder) trees(t *trees) error {
	if err := errors.Join(r.codes.set(t.code[:]), t.set(&r.lit, &r.dist)); err != nil {
		return fmt.Errorf("%w: %w", corrections.ErrDamaged, err)
	}
	o := r.out
	o.put(uint32(t.lits-257), 5)
	o.put(uint32(t.dists-1), 5)
	o.put(uint32(t.codes-4), 4)
	for _, c := range codeOrder[:t.codes] {
		o.put(uint32(t.code[c]), 3)
	}
	for _, run := range t.runs {
		if !r.codes.write(o, int(run.sym)) {
			return corrections.ErrDamaged
		}
		bits, _ := runExtra(run.sym)
		o.put(uint32(run.extra), bits)
	}
	return nil
}

func (r *rebuilder) symbols(b *block, contents []byte) bool {
	o, ok := r.out, true
	at := 0
	for _, t := range b.tokens {
		if t == 0 {
			ok = ok && r.lit.write(o, int(contents[at]))
			at++
			continue
		}
		sym, n, extra := lengthSymbol(t.length())
		ok = ok && r.lit.write(o, sym)
		o.put(extra, n)
		sym, n, extra = distanceSymbol(t.distance())
		ok = ok && r.dist.write(o, sym)
		o.put(extra, n)
		at += t.length()
	}
	return ok && r.lit.write(o, endBlock)
}

// rest writes what comes after the last member.
func (r *rebuilder) rest() error {
	for n := 0; r.c.Bit(&r.m.more, false); n++ {
		if n&0xffff == 0 && r.out.err != nil {
			return r.out.err
		}
		r.out.bytes([]byte{byte(r.c.Tree(r.m.bytes, 0))})
		if r.c.Err() != nil {
			return r.c.Err()
		}
	}
	if r.c.Err() != nil {
		return r.c.Err()
	}
	return r.out.flush()
}
