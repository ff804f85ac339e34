package deflate

import (
	"math/bits"

	"gantry/archive/corrections"
)

// Limits of what a recipe is made for. What encoders make is far below; a stream beyond keeps its bytes.
const (
	maxTokens = 1 << 20 // of a block
	maxBlock  = 9 << 20 // bytes of a block's contents
	maxHeader = 64 << 10
)

// ErrUnsupported is the error of a stream that no recipe is made for.
var ErrUnsupported = corrections.ErrUnsupported

// token is a literal, whose byte the contents tell, or a match: its length<<16 and its distance.
type token uint32

func match(length, distance int) token { return token(length<<16 | distance) }

func (t token) literal() bool { return t == 0 }
func (t token) length() int   { return int(t >> 16) }
func (t token) distance() int { return int(t & 0xffff) }

// size returns how many bytes of contents a token stands for.
func (t token) size() int {
	if t == 0 {
		return 1
	}
	return int(t >> 16)
}

// Kinds of blocks, as in their headers.
const (
	stored = iota
	fixed
	dynamic
)

// block is one block of a stream, with what surrounds it.
type block struct {
	start  int    // position of its contents
	gzip   []byte // header of the gzip member that begins here
	kind   int
	final  bool // the last of its member
	pad    byte // bits before the length of a stored block; zero, usually
	size   int  // bytes of contents
	tokens []token
	tree   *trees
	endPad byte // bits after the last block of a member
	sealed bool // its encoder did not see beyond
	sight  int  // how many bytes beyond it the predictor sees
}

// trees are the codes of a dynamic block as its header describes them.
type trees struct {
	lits, dists int            // lengths given
	lens        [maxCodes]byte // of the literals, then of the distances
	runs        []run
	codes       int // lengths of the code below that are given
	code        [19]byte
}

// run is a symbol of the code that the lengths of codes are written in: a length, or a repetition (16 to 18) of extra more than the least.
type run struct{ sym, extra byte }

// runExtra returns how many bits a symbol has after it, and the least number that it repeats.
func runExtra(sym byte) (bits, least int) {
	switch sym {
	case 16:
		return 2, 3
	case 17:
		return 3, 3
	case 18:
		return 7, 11
	default:
		return 0, 1
	}
}

// codeOrder is the order in which the lengths of that code come (RFC 1951, 3.2.7).
var codeOrder = [19]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} //nolint:gochecknoglobals // a constant

// lengthSymbol and distanceSymbol return the symbol of a length or distance, and the number and value of the bits after it.
func lengthSymbol(n int) (sym, bits int, extra uint32) {
	if n == 258 {
		return 285, 0, 0
	}
	n -= 3
	if n < 8 {
		return 257 + n, 0, 0
	}
	bits = log2(n) - 2
	return 257 + 4*bits + n>>bits, bits, uint32(n & (1<<bits - 1))
}

func distanceSymbol(n int) (sym, bits int, extra uint32) {
	n--
	if n < 4 {
		return n, 0, 0
	}
	bits = log2(n) - 1
	return 2*bits + n>>bits, bits, uint32(n & (1<<bits - 1))
}

func log2(n int) int { return bits.Len(uint(n)) - 1 }

// lengthOf and distanceOf are the inverse: the least of a symbol and the bits after it.
func lengthOf(sym int) (least, bits int) {
	switch n := sym - 257; {
	case sym == 285:
		return 258, 0
	case n < 8:
		return n + 3, 0
	default:
		bits = n/4 - 1
		return (4+n%4)<<bits + 3, bits
	}
}

func distanceOf(sym int) (least, bits int) {
	if sym < 4 {
		return sym + 1, 0
	}
	bits = sym/2 - 1
	return (2+sym%2)<<bits + 1, bits
}
