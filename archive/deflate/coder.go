package deflate

import (
	"errors"
	"io"
	"math/bits"
)

// prob is the probability that a bit is 0, in 65536ths, as it was so far.
type prob uint16

const (
	even      = 1 << 15 // of a bit that nothing is known of
	adaptRate = 5
	minRange  = 1 << 24
)

// coder is a binary range coder with adaptive probabilities (G. N. N. Martin, "Range encoding", 1979; carries are held back as in LZMA). It goes in both directions, so that what is described and how
// that is read back is one piece of code: each method takes a value and returns it, or ignores it and returns what was read.
type coder struct {
	w   io.Writer // nil: it reads
	r   io.ByteReader
	out []byte
	err error // of the first write or read that failed; then values mean nothing

	low     uint64
	width   uint32
	code    uint32
	cache   byte
	pending int64 // bytes that a carry may still change, 0xff but for the first
}

func newWriter(w io.Writer) *coder { return &coder{w: w, width: 1<<32 - 1, pending: 1} }

func newReader(r io.ByteReader) *coder {
	c := &coder{r: r, width: 1<<32 - 1}
	for range 5 {
		c.code = c.code<<8 | uint32(c.next())
	}
	return c
}

func (c *coder) next() byte {
	if c.err != nil {
		return 0
	}
	b, err := c.r.ReadByte()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	c.err = err
	return b
}

// bit codes one bit.
func (c *coder) bit(p *prob, b bool) bool {
	bound := (c.width >> 16) * uint32(*p)
	if c.w == nil {
		b = c.code >= bound
	}
	if b {
		c.low += uint64(bound)
		c.code -= bound
		c.width -= bound
		*p -= *p >> adaptRate
	} else {
		c.width = bound
		*p += (1<<16 - 1 - *p) >> adaptRate
	}
	for c.width < minRange {
		c.width <<= 8
		if c.w == nil {
			c.code = c.code<<8 | uint32(c.next())
		} else {
			c.shift()
		}
	}
	return b
}

// shift puts out the highest byte of low, once no carry can change it.
func (c *coder) shift() {
	if c.low < 0xff000000 || c.low >= 1<<32 {
		carry := byte(c.low >> 32)
		for c.out = append(c.out, c.cache+carry); c.pending > 1; c.pending-- {
			c.out = append(c.out, 0xff+carry)
		}
		c.pending = 0
		c.cache = byte(c.low >> 24)
		if len(c.out) >= 32<<10 {
			c.flush()
		}
	}
	c.pending++
	c.low = c.low & 0x00ffffff << 8
}

func (c *coder) flush() {
	if c.err == nil {
		_, c.err = c.w.Write(c.out)
	}
	c.out = c.out[:0]
}

// close ends what is written.
func (c *coder) close() error {
	for range 5 {
		c.shift()
	}
	c.flush()
	return c.err
}

// raw codes n bits, at most 32, of which nothing is known.
func (c *coder) raw(n int, v uint32) uint32 {
	var got uint32
	for i := n - 1; i >= 0; i-- {
		p := prob(even)
		got <<= 1
		if c.bit(&p, v>>i&1 != 0) {
			got |= 1
		}
	}
	return got
}

// tree is the probabilities of the bits of a number of a few bits, each under those before it.
type tree []prob

func newTree(n int) tree {
	t := make(tree, 1<<n)
	for i := range t {
		t[i] = even
	}
	return t
}

// tree codes a number that t has the bits for.
func (c *coder) tree(t tree, v int) int {
	n := bits.Len(uint(len(t))) - 1
	at := 1
	for i := n - 1; i >= 0; i-- {
		b := c.bit(&t[at], v>>i&1 != 0)
		at <<= 1
		if b {
			at |= 1
		}
	}
	return at - len(t)
}

// number codes a number from 0 to 2^31: how many bits it has, and those.
func (c *coder) number(t tree, v int) int {
	n := c.tree(t, bits.Len32(uint32(v)))
	if n < 2 {
		return n
	}
	if n > 31 {
		c.fail()
		return 0
	}
	return 1<<(n-1) | int(c.raw(n-1, uint32(v)))
}

// fail says that what is read is no recipe.
func (c *coder) fail() {
	if c.err == nil {
		c.err = errDamaged
	}
}
