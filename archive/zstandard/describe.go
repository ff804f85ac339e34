package zstandard

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"

	"gantry/archive/corrections"
)

const (
	// sample is how many bytes the predictors are tried on.
	sample    = 512 << 10
	maxSample = 4096 // blocks
)

// describer makes the recipe of a stream.
type describer struct {
	p      *parser
	w      *window
	c      *corrections.Coder
	m      *model
	waits  []*block // parsed, and not yet coded
	plain  io.Writer
	gaveTo int // contents given to plain
}

// Describe reads a zstd stream, writes what is in it to plain and its recipe to recipe. Errors: ErrUnsupported, for one that is malformed or beyond the limits, and those of reading and writing.
func Describe(ctx context.Context, r io.Reader, plain, recipe io.Writer) error {
	w := &window{}
	d := &describer{p: &parser{r: bufio.NewReaderSize(r, 256<<10), w: w}, w: w, c: corrections.NewWriter(recipe), plain: plain}
	d.m = newModel(d.c, w)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, skip, err := d.p.next()
		if err != nil {
			return err
		}
		if _, err := plain.Write(w.bytes(d.gaveTo, w.end)); err != nil {
			return err
		}
		if d.gaveTo = w.end; b != nil {
			d.waits = append(d.waits, b)
		}
		if d.m.m == nil && b != nil && w.end < sample && len(d.waits) < maxSample {
			continue
		}
		if d.m.m == nil {
			d.choose()
		}
		for _, b := range d.waits {
			d.block(b)
		}
		d.waits = d.waits[:0]
		w.forget(max(d.p.start, w.end-maxWindow))
		switch {
		case skip != nil:
			err = d.skip(*skip)
		case b == nil:
			d.c.Tree(d.m.items, itemEnd)
			return d.c.Close()
		}
		if err == nil {
			err = d.c.Err()
		}
		if err != nil {
			return err
		}
	}
}

// choose tries the predictors on what waits, and codes which one is the best.
func (d *describer) choose() {
	best, least := 0, -1
	list := predictors(d.w)
	for i, make := range list {
		if wrong := d.try(make(), least); least < 0 || wrong < least {
			best, least = i, wrong
		}
		if least == 0 {
			break
		}
	}
	d.c.Tree(corrections.NewTree(8), best)
	d.m.m = list[best]()
}

// try returns how many predictions of what waits are wrong; it may stop when there are no fewer than least.
func (d *describer) try(m matcher, least int) int {
	wrong := 0
	var last recent
	for _, b := range d.waits {
		if b.frame != nil {
			m.frame(b.start, int(b.frame.windowSize()))
			last = recent{1, 4, 8}
		}
		m.block(b.start, b.start+b.size, b.frame != nil && b.last)
		if b.kind != compressed {
			for m.next().length > 0 {
			}
			m.passed()
			continue
		}
		for i := range len(b.sequences) + 1 {
			var s sequence
			offset := 0
			if i < len(b.sequences) {
				s = b.sequences[i]
				offset = last.offset(s)
			}
			if m.next() == s {
				continue
			}
			wrong++
			if s.length > 0 {
				m.took(s, offset)
			}
		}
		if wrong >= least && least >= 0 {
			break
		}
	}
	return wrong
}

func (d *describer) block(b *block) {
	if b.frame != nil {
		d.c.Tree(d.m.items, itemFrame)
		d.m.header(b.frame, b.start)
	}
	d.m.opening(b)
	d.m.contents(b)
}

// skip codes a frame that is no contents.
func (d *describer) skip(s skipped) error {
	d.c.Tree(d.m.items, itemSkipped)
	d.c.Tree(d.m.skippable, s.kind)
	d.c.Raw(32, s.size)
	for left := s.size; left > 0; {
		n := min(left, 4096)
		data, err := d.p.read(int(n))
		if err != nil {
			return err
		}
		left -= n
		for ; len(data) >= 4; data = data[4:] {
			d.c.Raw(32, binary.BigEndian.Uint32(data))
		}
		for _, v := range data {
			d.c.Raw(8, uint32(v))
		}
		if d.c.Err() != nil {
			break
		}
	}
	return d.c.Err()
}
