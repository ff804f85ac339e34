package deflate

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"math"
	"slices"

	"gantry/archive/corrections"
)

const (
	// ahead is how many bytes beyond a block a predictor may look: a match at its last byte, and one at the next.
	ahead = 1 << 10
	// farthest is how many it may look at most.
	farthest = lazyWindow + ahead
	// sample is how many bytes the predictors are tried on.
	sample    = 256 << 10
	maxSample = 4096 // blocks
	// maxSight is among how many blocks an end is looked for of what their encoder saw.
	maxSight = 16
	// heat is how many bytes all of them are tried on, and contenders how many of the best are tried on the whole sample.
	heat       = 16 << 10
	contenders = 8
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
	ended  bool
}

// Describe reads a gzip stream, writes what is in it to plain and its recipe to recipe. Errors: ErrUnsupported, for one that is malformed or beyond the limits, and those of reading and writing.
func Describe(ctx context.Context, r io.Reader, plain, recipe io.Writer) error {
	w := &window{}
	d := &describer{p: &parser{bits: &bitReader{r: bufio.NewReaderSize(r, 256<<10)}, w: w}, w: w, c: corrections.NewWriter(recipe), plain: plain}
	d.m = newModel(d.c)
	chosen := false
	for !d.ended {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.parse(); err != nil {
			return err
		}
		if !chosen && !d.ended && (w.end < sample+farthest || len(d.ready(farthest)) == 0) && len(d.waits) < maxSample {
			continue
		}
		if !chosen {
			d.choose()
			chosen = true
		}
		if err := d.code(); err != nil {
			return err
		}
	}
	d.c.Bit(&d.m.gzip, false)
	if err := d.rest(); err != nil {
		return err
	}
	return d.c.Close()
}

// parse takes in one block, or the end of the stream.
func (d *describer) parse() error {
	b, err := d.p.next()
	if err != nil {
		return err
	}
	if n := len(d.waits); n > 0 && !d.waits[n-1].sealed {
		d.waits[n-1].sealed = b == nil || b.size == 0 || b.gzip != nil
	}
	if d.ended = b == nil; !d.ended {
		b.sealed = b.final
		d.waits = append(d.waits, b)
	}
	_, err = d.plain.Write(d.w.bytes(d.gaveTo, d.w.end))
	d.gaveTo = d.w.end
	return err
}

// sight is how many bytes beyond a block among those that wait a predictor sees that looks so far ahead.
func (d *describer) sight(n, far int) int {
	end := d.waits[n].start + d.waits[n].size
	switch {
	case d.waits[n].sealed:
		return 0
	case far == ahead:
		return far
	}
	for _, b := range d.waits[n:min(n+maxSight, len(d.waits))] {
		if at := b.start + b.size; b.sealed && at-end < far {
			return at - end
		}
	}
	return min(far, d.w.end-end)
}

// choose codes which predictor is the best.
func (d *describer) choose() {
	list := predictors()
	best := d.best(list)
	d.c.Tree(corrections.NewTree(8), best)
	d.m.use(list[best], d.w)
}

// best tries predictors on what waits. How they do at the beginning says which are tried on the rest.
func (d *describer) best(list []predictor) int {
	order, first := make([]int, len(list)), make([]int, len(list))
	for i, p := range list {
		order[i], first[i] = i, d.try(p, heat, math.MaxInt)
		if first[i] == 0 && d.try(p, math.MaxInt, 1) == 0 {
			return i
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(first[a], first[b]) })
	best, least := 0, math.MaxInt
	for n, i := range order {
		if n >= contenders && first[i] > first[order[n-1]] {
			break
		}
		if wrong := d.try(list[i], math.MaxInt, least); wrong < least {
			best, least = i, wrong
		}
	}
	return best
}

// try returns how many predictions of what waits, up to a position, are wrong; it may stop when there are no fewer than least.
func (d *describer) try(p predictor, to, least int) int {
	m := p.make(d.w)
	wrong := 0
	for n, b := range d.ready(farthest) {
		if b.gzip != nil {
			m.begin(b.start)
		}
		at := b.start
		end := min(at+b.size+d.sight(n, p.ahead), d.w.end)
		if len(b.tokens) == b.size || b.kind == stored {
			m.pass(at, at+b.size, end)
		} else {
			for _, t := range b.tokens {
				if m.predict(at, end) != t {
					wrong++
				}
				m.advance(at, t)
				if at += t.size(); at >= to || wrong >= least {
					return wrong
				}
			}
		}
		if b.sealed {
			m.flush(b.start + b.size)
		}
		if b.start+b.size >= to {
			break
		}
	}
	return wrong
}

// ready returns those blocks beyond which enough is known for a predictor that looks so far ahead. What one sees that looks further than others is in the recipe, and may be less if too many blocks wait.
func (d *describer) ready(far int) []*block {
	n := 0
	if far > ahead {
		n = max(0, len(d.waits)-maxSample)
	}
	for n < len(d.waits) && (d.ended || n+1 < len(d.waits)) {
		if b := d.waits[n]; !d.ended && !b.sealed && b.start+b.size+far > d.w.end {
			break
		}
		n++
	}
	return d.waits[:n]
}

// code codes the blocks that are ready.
func (d *describer) code() error {
	ready := d.ready(d.m.ahead)
	for n, b := range ready {
		if b.gzip != nil {
			d.c.Bit(&d.m.gzip, true)
			d.m.begin(b)
			d.m.m.begin(b.start)
		}
		b.sight = d.sight(n, d.m.ahead)
		_, plain := d.m.opening(b)
		at := b.start
		end := min(at+b.size+b.sight, d.w.end)
		if plain || b.kind == stored {
			d.m.m.pass(at, at+b.size, end)
		} else {
			for _, t := range b.tokens {
				d.m.token(at, end, t)
				at += t.size()
			}
		}
		if b.sealed {
			d.m.m.flush(b.start + b.size)
		}
		if b.kind == dynamic {
			d.m.trees.code(d.c, b, d.w.bytes(b.start, b.start+b.size))
		}
		if b.final {
			d.m.closing(b)
		}
	}
	d.waits = d.waits[:copy(d.waits, d.waits[len(ready):])]
	keep := d.w.end
	if len(d.waits) > 0 {
		keep = d.waits[0].start
	}
	d.w.forget(keep)
	return d.c.Err()
}

// rest codes what comes after the last member.
func (d *describer) rest() error {
	for d.p.bits.more() {
		d.c.Bit(&d.m.more, true)
		d.c.Tree(d.m.bytes, int(d.p.bits.take(8)))
	}
	d.c.Bit(&d.m.more, false)
	return d.p.bits.err
}
