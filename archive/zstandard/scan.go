package zstandard

import (
	"encoding/binary"
	"math/bits"
)

// matcher predicts what an encoder makes of contents.
type matcher interface {
	// frame begins a frame at a position; matches are from no further back than window.
	frame(start, window int)
	// block begins a block. alone says that it is the only one of its frame.
	block(start, end int, alone bool)
	// next returns the next sequence of the block; one without length when the rest is literals.
	next() sequence
	// took says what came instead of what next returned last, and its offset.
	took(s sequence, offset int)
	// passed says that the block, gone through, is none of sequences.
	passed()
}

// predictors lists the predictors by their numbers in recipes, which never change.
func predictors(w *window) []func() matcher {
	list := []func() matcher{
		func() matcher { return newDouble(w) },
		func() matcher { return newFast(w) },
		func() matcher { return newBetter(w) },
	}
	for _, o := range []libOptions{
		{long: 17, short: 16, least: 5}, // level 3
		{short: 14, least: 7},           // 1
		{short: 16, least: 6},           // 2
		{long: 18, short: 18, least: 5}, // 4
	} {
		list = append(list, func() matcher { return newLib(o, w) })
	}
	return append(list, func() matcher { return newBest(w) })
}

// place is where some bytes were last: their position + 1, modulo 2^32, and the first four of them.
type place struct{ at, bytes uint32 }

// What an encoder does next.
const (
	searching = iota
	matched   // it has written a match that it searched for
	repeating // it has written one at the offset before the last
)

// scan is what the encoders of klauspost/compress have in common: they go through a block, look at each position for an earlier one with the same bytes, and take bigger steps the longer they find none.
type scan struct {
	w          *window
	begin      int // of the frame
	window     int
	start, end int  // of the block
	limit      int  // no match is searched for from here on
	alone      bool // the frame has one block: another routine of the encoder
	at, emit   int  // where it is, and up to where sequences go
	length     int  // of the last match
	sequences  int  // of the block, so far
	phase      int
	last       [2]int // offsets
	before     [2]int // last, before the last prediction
	mark       int    // emit before it
	counted    int    // sequences before it
}

func (s *scan) frame(start, window int) {
	s.begin, s.window, s.last = start, window, [2]int{1, 4}
}

// enter begins a block that is searched if it has so many bytes, but for the last margin of them.
func (s *scan) enter(start, end, least, margin int, alone bool) {
	s.start, s.end, s.limit, s.alone, s.at, s.emit, s.sequences, s.phase = start, end, end-margin, alone, start, start, 0, searching
	if end-start < least {
		s.limit = start
	}
}

// found takes down a sequence that is predicted, and that it is at the end of it.
func (s *scan) found(q sequence, phase int) sequence {
	s.sequences++
	s.emit += q.literals + q.length
	s.at, s.length, s.phase = s.emit, q.length, phase
	return q
}

// over takes down that no more sequences are predicted.
func (s *scan) over() sequence {
	s.at = s.end
	return sequence{}
}

func (s *scan) took(q sequence, offset int) {
	s.last = s.before
	switch offset {
	case s.last[0]:
	case s.last[1]:
		s.last[0], s.last[1] = s.last[1], s.last[0]
	default:
		s.last[0], s.last[1] = offset, s.last[0]
	}
	s.emit = s.mark + q.literals + q.length
	s.at, s.length, s.sequences = s.emit, q.length, s.counted+1
	switch {
	case q.length == 0:
		s.at = s.end
	case q.value > 3:
		s.phase = matched
	case q.literals == 0:
		s.phase = repeating
	default:
		s.phase = searching
	}
}

func (s *scan) passed() {}

// view returns the contents up to the end of the block, and the position of their first byte. It is called first of all by next.
func (s *scan) view() (d []byte, base int) {
	s.before, s.mark, s.counted = s.last, s.emit, s.sequences
	return s.w.data[:s.end-s.w.base], s.w.base
}

// push takes down a new offset.
func (s *scan) push(offset int) { s.last[0], s.last[1] = offset, s.last[0] }

// least returns the first place in d that a match which is searched for at another may begin at.
func (s *scan) least(at, base int) int { return max(at-s.window, s.begin-base) }

// reach returns from how far back, at a place in d, a match may be.
func (s *scan) reach(at, base int) uint32 { return uint32(min(s.window-1, at+base-s.begin)) }

// back returns by how much a match may begin earlier, up to two places in d that it and what it repeats may begin at.
func back(d []byte, at, from, least, leastFrom int) int {
	n := 0
	for from-n > leastFrom && at-n > least && d[from-n-1] == d[at-n-1] {
		n++
	}
	return n
}

// again returns the place in d that a repeated offset leads to, if the same four bytes are there as at the other.
func (s *scan) again(d []byte, at, offset, base int) (from int, ok bool) {
	from = at - offset
	return from, from >= s.begin-base && load4(d, from) == load4(d, at)
}

func load4(d []byte, at int) uint32 { return binary.LittleEndian.Uint32(d[at:]) }
func load8(d []byte, at int) uint64 { return binary.LittleEndian.Uint64(d[at:]) }

// Hashes of the first bytes of eight.
func hash5(v uint64, bits int) uint32 { return uint32(v << 24 * 889523592379 >> (64 - bits)) }
func hash6(v uint64, bits int) uint32 { return uint32(v << 16 * 227718039650203 >> (64 - bits)) }
func hash7(v uint64, bits int) uint32 { return uint32(v << 8 * 58295818150454627 >> (64 - bits)) }
func hash8(v uint64, bits int) uint32 { return uint32(v * 0xcf1bbcdcb7a56463 >> (64 - bits)) }

// same returns how many bytes from two positions on are the same, up to the end of the block.
func same(d []byte, a, b int) int {
	n := 0
	for ; a+n+8 <= len(d); n += 8 {
		if x := binary.LittleEndian.Uint64(d[a+n:]) ^ binary.LittleEndian.Uint64(d[b+n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for a+n < len(d) && d[a+n] == d[b+n] {
		n++
	}
	return n
}
