package corrections

import (
	"errors"
	"io"
	"math/bits"
)

// Prob is the probability that a bit is 0, in 65536ths, as it was so far.
type Prob uint16

// Even is the probability of a bit that nothing is known of.
const Even Prob = 1 << 15

const (
	adaptRate = 5
	minRange  = 1 << 24
)

// Coder is a binary range coder with adaptive probabilities (G. N. N. Martin, "Range encoding", 1979; carries are held back as in LZMA). It goes in both directions, so that what is described and how
// that is read back is one piece of code: each method takes a value and returns it, or ignores it and returns what was read.
type Coder struct {
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

// NewWriter returns a coder that writes.
func NewWriter(w io.Writer) *Coder { return &Coder{w: w, width: 1<<32 - 1, pending: 1} }

// NewReader returns a coder that reads.
func NewReader(r io.ByteReader) *Coder {
	c := &Coder{r: r, width: 1<<32 - 1}
	for range 5 {
		c.code = c.code<<8 | uint32(c.next())
	}
	return c
}

func (c *Coder) next() byte {
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

// Bit codes one bit.
func (c *Coder) Bit(p *Prob, b bool) bool {
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
func (c *Coder) shift() {
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

func (c *Coder) flush() {
	if c.err == nil {
		_, c.err = c.w.Write(c.out)
	}
	c.out = c.out[:0]
}

// Close ends what is written.
func (c *Coder) Close() error {
	for range 5 {
		c.shift()
	}
	c.flush()
	return c.err
}

// Raw codes n bits, at most 32, of which nothing is known.
func (c *Coder) Raw(n int, v uint32) uint32 {
	var got uint32
	for i := n - 1; i >= 0; i-- {
		p := Even
		got <<= 1
		if c.Bit(&p, v>>i&1 != 0) {
			got |= 1
		}
	}
	return got
}

// Tree is the probabilities of the bits of a number of a few bits, each under those before it.
type Tree []Prob

// NewTree returns one for numbers of n bits.
func NewTree(n int) Tree {
	t := make(Tree, 1<<n)
	for i := range t {
		t[i] = Even
	}
	return t
}

// Tree codes a number that t has the bits for.
func (c *Coder) Tree(t Tree, v int) int {
	n := bits.Len(uint(len(t))) - 1
	at := 1
	for i := n - 1; i >= 0; i-- {
		b := c.Bit(&t[at], v>>i&1 != 0)
		at <<= 1
		if b {
			at |= 1
		}
	}
	return at - len(t)
}

// Number codes a number from 0 to 2^31: how many bits it has, and those.
func (c *Coder) Number(t Tree, v int) int {
	n := c.Tree(t, bits.Len32(uint32(v)))
	if n < 2 {
		return n
	}
	if n > 31 {
		c.Fail()
		return 0
	}
	return 1<<(n-1) | int(c.Raw(n-1, uint32(v)))
}

// Fail says that what is read is no recipe.
func (c *Coder) Fail() {
	if c.err == nil {
		c.err = ErrDamaged
	}
}

// Reads reports whether the coder reads.
func (c *Coder) Reads() bool { return c.w == nil }

// Err returns the error of the first write or read that failed; then values mean nothing.
func (c *Coder) Err() error { return c.err }
