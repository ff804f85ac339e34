package deflate

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"gantry/archive/corrections"
)

const (
	maxLit   = 286 // literals, the end of the block, and lengths
	maxDist  = 30
	maxCodes = 320 // what a header may give lengths for
	maxBits  = 15
	endBlock = 256
)

// code is a prefix code for reading and for writing.
type code struct {
	table []uint16 // by the next width bits: symbol<<4 | its bits; 0: no symbol
	width int
	words []uint16 // by symbol: the bits, first bit lowest
	lens  []byte
}

// set makes c the canonical code (RFC 1951, 3.2.2) with these lengths. An incomplete code is refused but for one of at most one symbol, as zlib does.
func (c *code) set(lens []byte) error {
	var count, next [maxBits + 2]int
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	at, used, longest := 0, 0, 1
	for l := 1; l <= maxBits; l++ {
		at = (at + count[l-1]) << 1
		next[l] = at
		used += count[l]
		if count[l] > 0 {
			longest = l
		}
		if at+count[l] > 1<<l {
			return corrections.Unsupported("a Huffman code is oversubscribed")
		}
	}
	if used > 1 && at+count[maxBits] != 1<<maxBits || used == 1 && longest != 1 {
		return corrections.Unsupported("a Huffman code is incomplete")
	}
	c.width = longest
	c.table = slices.Grow(c.table[:0], 1<<longest)[:1<<longest]
	clear(c.table)
	c.words = slices.Grow(c.words[:0], len(lens))[:len(lens)]
	c.lens = append(c.lens[:0], lens...)
	for sym, l := range lens {
		if l == 0 {
			continue
		}
		word := bits.Reverse16(uint16(next[l])) >> (16 - l)
		next[l]++
		c.words[sym] = word
		for i := int(word); i < len(c.table); i += 1 << l {
			c.table[i] = uint16(sym)<<4 | uint16(l)
		}
	}
	return nil
}

// read returns the next symbol; -1 when there is none of these bits.
func (c *code) read(b *bitReader) int {
	b.need(maxBits)
	e := c.table[b.bits&(1<<c.width-1)]
	if e == 0 {
		return -1
	}
	b.drop(int(e & 15))
	return int(e >> 4)
}

// write writes a symbol; one that the code has not is what a damaged recipe asks for.
func (c *code) write(b *bitWriter, sym int) bool {
	if sym >= len(c.lens) || c.lens[sym] == 0 {
		return false
	}
	b.put(uint32(c.words[sym]), int(c.lens[sym]))
	return true
}

// fixedLens are the lengths of the codes of fixed blocks (RFC 1951, 3.2.6).
func fixedLens() (lit, dist []byte) {
	lit, dist = make([]byte, 288), make([]byte, 32)
	for i := range lit {
		switch {
		case i < 144:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		case i < 280:
			lit[i] = 7
		default:
			lit[i] = 8
		}
	}
	for i := range dist {
		dist[i] = 5
	}
	return lit, dist
}

// chooser is how an encoder chooses the lengths of a code for symbols of some frequencies. lens has as many elements as freq.
type chooser func(freq []int, limit int, lens []byte)

// tree node of treeLengths
type huffNode struct {
	freq, depth, parent int
}

// treeLengths are those of zlib and GNU gzip: Huffman's tree, in which of two nodes of the same weight the flatter goes first, and what is too deep is pushed up afterwards.
// They always give two symbols a code.
func treeLengths(freq []int, limit int, lens []byte) {
	clear(lens)
	nodes := make([]huffNode, len(freq), 2*len(freq)+2)
	heap := make([]int, 1, len(freq)+2) // from 1 on, the lightest first
	last := -1
	for i, f := range freq {
		nodes[i].freq = f
		if f > 0 {
			heap = append(heap, i)
			last = i
		}
	}
	for len(heap) < 3 {
		i := 0
		if last < 2 {
			last++
			i = last
		}
		if i >= len(nodes) {
			return
		}
		nodes[i].freq = 1
		heap = append(heap, i)
	}
	less := func(a, b int) bool {
		x, y := nodes[a], nodes[b]
		return x.freq < y.freq || x.freq == y.freq && x.depth <= y.depth
	}
	sink := func(at int) {
		v := heap[at]
		for child := 2 * at; child < len(heap); child *= 2 {
			if child+1 < len(heap) && less(heap[child+1], heap[child]) {
				child++
			}
			if less(v, heap[child]) {
				break
			}
			heap[at] = heap[child]
			at = child
		}
		heap[at] = v
	}
	for i := (len(heap) - 1) / 2; i >= 1; i-- {
		sink(i)
	}
	var order []int // nodes as they leave the heap: the lightest first
	for len(heap) > 2 {
		a := heap[1]
		heap[1] = heap[len(heap)-1]
		heap = heap[:len(heap)-1]
		sink(1)
		b := heap[1]
		order = append(order, a, b)
		n := len(nodes)
		nodes = append(nodes, huffNode{freq: nodes[a].freq + nodes[b].freq, depth: max(nodes[a].depth, nodes[b].depth) + 1})
		nodes[a].parent, nodes[b].parent = n, n
		heap[1] = n
		sink(1)
	}
	depth := make([]int, len(nodes))
	var count [maxBits + 1]int
	over := 0
	for i := len(order) - 1; i >= 0; i-- {
		n := order[i]
		if depth[n] = depth[nodes[n].parent] + 1; depth[n] > limit {
			depth[n] = limit
			over++
		}
		if n < len(freq) {
			count[depth[n]]++
			lens[n] = byte(depth[n])
		}
	}
	if over == 0 {
		return
	}
	for ; over > 0; over -= 2 {
		l := limit - 1
		for l > 0 && count[l] == 0 {
			l--
		}
		count[l]--
		count[l+1] += 2
		count[limit]--
	}
	at := 0
	for l := limit; l > 0; l-- {
		for n := count[l]; n > 0 && at < len(order); at++ {
			if order[at] < len(freq) {
				lens[order[at]] = byte(l)
				n--
			}
		}
	}
}

// mergeLengths are those of Go's encoders: the best there are within the limit (package-merge: Larmore and Hirschberg, 1990), the longer for the rarer symbol and, of two, the one that comes first.
func mergeLengths(freq []int, limit int, lens []byte) {
	clear(lens)
	type leaf struct{ sym, freq int }
	var leaves []leaf
	for i, f := range freq {
		if f > 0 {
			leaves = append(leaves, leaf{i, f})
		}
	}
	if len(leaves) <= 2 {
		for _, l := range leaves {
			lens[l.sym] = 1
		}
		return
	}
	slices.SortStableFunc(leaves, func(a, b leaf) int { return cmp.Compare(a.freq, b.freq) })
	// A package of a level is a leaf or two packages of the level before. Only how many leaves are among the first of a level matters for the lengths.
	type level struct{ isLeaf []bool }
	levels := make([]level, limit)
	var packages []int // weights
	for i := range levels {
		var merged []int
		var is []bool
		for l, p := 0, 0; l < len(leaves) || p+1 < len(packages); {
			pair := math.MaxInt
			if p+1 < len(packages) {
				pair = packages[p] + packages[p+1]
			}
			if l < len(leaves) && leaves[l].freq < pair {
				merged, is = append(merged, leaves[l].freq), append(is, true)
				l++
			} else {
				merged, is = append(merged, pair), append(is, false)
				p += 2
			}
		}
		packages, levels[i].isLeaf = merged, is
	}
	for take, i := 2*len(leaves)-2, limit-1; i >= 0 && take > 0; i-- {
		n := 0
		for _, leaf := range levels[i].isLeaf[:min(take, len(levels[i].isLeaf))] {
			if leaf {
				lens[leaves[n].sym]++
				n++
			}
		}
		take = 2 * (take - n)
	}
}
