package deflate

import "encoding/binary"

// matcher predicts what an encoder does.
type matcher interface {
	// begin says that a member begins at a position, with nothing before it.
	begin(at int)
	// predict returns the token at a position, of contents up to end; 0 for a literal.
	predict(at, end int) token
	// advance says which token it really was, whether or not it was predicted.
	advance(at int, t token)
	// pass says that the contents between two positions are in a block without matches.
	pass(at, to, end int)
	// flush says that the encoder was told to emit what it had.
	flush(at int)
}

// chainOptions are an encoder that follows chains of earlier places with the same hash, as all of zlib's family does. Numbers are as in zlib's configuration_table and Go's levels.
type chainOptions struct {
	golang    bool // Go's compress/flate: a hash of four bytes, no shorter matches, and a window that moves differently
	klauspost bool // another hash of four bytes; the rest is lazy's
	good      int  // a match from this length on makes the search for a better one cost a quarter
	lazy      int  // shorter matches are emitted only if none at the next byte is longer
	nice      int  // a match of this length is not improved
	chain     int  // places looked at
	skip      int  // of an encoder that is not lazy: in longer matches, nothing is entered into the chains
	greedy    bool // not lazy
}

const (
	hashBits3, hashBits4 = 15, 17
	windowMask           = history - 1
	zlibFar              = history - 262 // zlib's MAX_DIST
	goMove               = 2*history - 261
	tooFar               = 4096 // matches of the least length are not worth their distance beyond
)

// chain is the matcher of chainOptions. Places are positions+1 from origin.
type chain struct {
	o      chainOptions
	w      *window
	origin int
	start  int // of the member
	next   int // the first position that is not in the chains
	moved  int // where Go's window begins
	head   []int32
	prev   [history]int32

	pending, pendingAt int // a better match was found one byte later: its token, and where; -1
	least              int
}

func newChain(o chainOptions, w *window) *chain {
	c := &chain{o: o, w: w, pendingAt: -1}
	if o.golang || o.klauspost {
		c.head, c.least = make([]int32, 1<<hashBits4), 4
	} else {
		c.head, c.least = make([]int32, 1<<hashBits3), 3
	}
	return c
}

func (c *chain) begin(at int) {
	c.start, c.next, c.moved, c.pendingAt = at, at, at, -1
	if at-c.origin > 1<<29 {
		c.origin = at
		clear(c.head)
		clear(c.prev[:])
	}
}

// rebase keeps places small in a member without an end.
func (c *chain) rebase() {
	by := int32(c.next - 2*history - c.origin)
	if c.o.klauspost { // the others are as they were
		by &^= windowMask
	}
	c.origin += int(by)
	for _, t := range [][]int32{c.head, c.prev[:]} {
		for i := range t {
			t[i] = max(0, t[i]-by)
		}
	}
}

// enter puts all positions before end into the chains that have enough bytes.
func (c *chain) enter(end, limit int) {
	if end > limit-c.least+1 {
		end = limit - c.least + 1
	}
	if c.next = max(c.next, end-history-1, c.w.base); c.next >= end { // after a long stored block, what is too far back is left out
		return
	}
	if c.next-c.origin > 1<<30 {
		c.rebase()
	}
	data := c.w.data[c.next-c.w.base:]
	at := c.next - c.origin
	for i := range end - c.next {
		h := c.hash(data[i:])
		c.prev[at&windowMask] = c.head[h]
		at++
		c.head[h] = int32(at)
	}
	c.next = end
}

func (c *chain) hash(data []byte) uint32 {
	switch {
	case c.o.golang:
		return binary.BigEndian.Uint32(data) * 0x1e35a7bd >> (32 - hashBits4)
	case c.o.klauspost:
		return binary.LittleEndian.Uint32(data) * 2654435761 >> (32 - hashBits4)
	default:
		return (uint32(data[0])<<10 ^ uint32(data[1])<<5 ^ uint32(data[2])) & (1<<hashBits3 - 1)
	}
}

// find looks for a match at a position that is longer than floor.
func (c *chain) find(at, end, floor int) (length, distance int) {
	c.enter(at+1, end)
	most := min(258, end-at)
	if most <= floor || most < c.least || c.next <= at {
		return 0, 0
	}
	nice := min(c.o.nice, most)
	tries := c.o.chain
	if floor >= c.o.good && !c.o.golang {
		tries >>= 2
	}
	lowest := max(c.start, at-history)
	if c.o.golang {
		for at-c.moved >= goMove {
			c.moved += history
		}
		lowest = max(lowest, c.moved)
	} else {
		lowest = max(c.start+1, at-zlibFar) // the very first byte is never matched
	}
	data, base := c.w.data, c.w.base
	here := data[at-base : at-base+most]
	best := floor
	for place := int(c.prev[(at-c.origin)&windowMask]); tries > 0; tries-- {
		from := place - 1 + c.origin
		if place == 0 || from < lowest || from >= at {
			break
		}
		there := data[from-base : from-base+most]
		if there[best] == here[best] && there[0] == here[0] {
			n := common(here, there)
			if n > best && !(c.o.golang && n == c.least && at-from > tooFar) {
				best, length, distance = n, n, at-from
				if n >= nice {
					break
				}
			}
		}
		if !c.o.golang { // only the first place may be as far as that
			lowest = max(c.start+1, at-zlibFar+1)
		}
		place = int(c.prev[(from-c.origin)&windowMask])
	}
	return length, distance
}

func (c *chain) predict(at, end int) token {
	floor := c.least - 1
	if c.o.greedy {
		if n, d := c.find(at, end, floor); n >= c.least {
			return match(n, d)
		}
		return 0
	}
	var n, d int
	if c.pendingAt == at {
		t := token(c.pending)
		n, d = t.length(), t.distance()
	} else {
		n, d = c.first(at, end)
	}
	c.pendingAt = -1
	if n < c.least {
		return 0
	}
	if n < c.o.lazy && at+1 < end {
		better := n
		if c.o.golang {
			better = c.least - 1
		}
		if end-at-1 > n || !c.o.golang {
			if m, e := c.find(at+1, end, better); m > n {
				c.pending, c.pendingAt = int(match(m, e)), at+1
				return 0
			}
		}
	}
	return match(n, d)
}

// first looks for a match where none is pending.
func (c *chain) first(at, end int) (int, int) {
	n, d := c.find(at, end, c.least-1)
	if !c.o.golang && n == c.least && d > tooFar {
		return 0, 0
	}
	return n, d
}

func (c *chain) pass(int, int, int) { c.pendingAt = -1 }

func (c *chain) flush(int) { c.pendingAt = -1 }

func (c *chain) advance(at int, t token) {
	if t.literal() {
		return
	}
	c.pendingAt = -1
	if c.o.greedy && t.length() > c.o.skip && c.next <= at+1 {
		c.next = at + t.length()
	}
}
