package zstandard

import (
	"math/bits"
)

// sequence is so many literals, then a match of some length. value is its offset + 3, or 1 to 3: one of the last three.
type sequence struct{ literals, length, value int }

// kinds of codes of a sequence
const (
	literalLengths = iota
	offsets
	matchLengths
)

const (
	leastMatch = 3
	maxOffset  = 28 // bits of a value
)

// codes is how a number is written: a code, and bits that say how much more than the least it is.
type codes struct {
	least []int
	bits  []byte
}

func newCodes(first, plain int, extra ...byte) *codes {
	c := &codes{}
	for range plain {
		c.least, c.bits = append(c.least, first), append(c.bits, 0)
		first++
	}
	for _, b := range extra {
		c.least, c.bits = append(c.least, first), append(c.bits, b)
		first += 1 << b
	}
	return c
}

//nolint:gochecknoglobals // constants: RFC 8878, 3.1.1.3.2.1
var (
	literalCodes = newCodes(0, 16, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	matchCodes   = newCodes(leastMatch, 32, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
)

// code returns the code of a number that there is one for.
func (c *codes) code(v int) byte {
	low, high := 0, len(c.least)
	if d := v - c.least[0]; d < 16 {
		return byte(d)
	}
	for high-low > 1 {
		if mid := (low + high) / 2; c.least[mid] <= v {
			low = mid
		} else {
			high = mid
		}
	}
	return byte(low)
}

// coded returns the codes of a sequence.
func (s sequence) coded() [3]byte {
	return [3]byte{literalLengths: literalCodes.code(s.literals), offsets: byte(bits.Len(uint(s.value)) - 1), matchLengths: matchCodes.code(s.length)}
}

// limits of tables, by kind of code: their size, and the highest code.
func tableLimits(kind int) (log, symbol int) {
	return [3]int{9, 8, 9}[kind], [3]int{35, 31, 52}[kind]
}

// predefined are the tables that are not described (RFC 8878, appendix A), by kind.
//
//nolint:gochecknoglobals // constants
var predefined = [3]*fse{
	newFSE([]int16{4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1}, 6),
	newFSE([]int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}, 5),
	newFSE([]int16{
		1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		-1, -1, -1, -1, -1, -1, -1,
	}, 6),
}

// readSequences reads n sequences with tables.
func readSequences(data []byte, n int, tables *[3]*fse) ([]sequence, bool) {
	var b backward
	if !b.set(data) {
		return nil, false
	}
	ll, of, ml := tables[literalLengths], tables[offsets], tables[matchLengths]
	l, o, m := b.take(ll.log), b.take(of.log), b.take(ml.log)
	list := make([]sequence, n)
	for i := range list {
		le, oe, me := ll.state[l], of.state[o], ml.state[m]
		if int(le.symbol) >= len(literalCodes.bits) || int(me.symbol) >= len(matchCodes.bits) || oe.symbol >= maxOffset {
			return nil, false
		}
		s := &list[i]
		s.value = 1<<oe.symbol + int(b.take(int(oe.symbol)))
		s.length = matchCodes.least[me.symbol] + int(b.take(int(matchCodes.bits[me.symbol])))
		s.literals = literalCodes.least[le.symbol] + int(b.take(int(literalCodes.bits[le.symbol])))
		if i+1 < n {
			l = uint32(le.base) + b.take(int(le.bits))
			m = uint32(me.base) + b.take(int(me.bits))
			o = uint32(oe.base) + b.take(int(oe.bits))
		}
	}
	return list, b.done()
}

// writeSequences is the inverse. It reports whether the tables have all codes.
func writeSequences(out []byte, list []sequence, tables *[3]*fse) ([]byte, bool) {
	w := bitWriter{out: out}
	var state [3]uint32
	for i := len(list) - 1; i >= 0; i-- {
		s := list[i]
		c := s.coded()
		for k, t := range tables {
			if !t.has(c[k]) {
				return nil, false
			}
		}
		if i == len(list)-1 {
			for k, t := range tables {
				state[k] = t.first(c[k])
			}
		} else {
			for _, k := range [3]int{offsets, matchLengths, literalLengths} {
				state[k] = tables[k].put(&w, state[k], c[k])
			}
		}
		w.put(uint32(s.literals-literalCodes.least[c[literalLengths]]), int(literalCodes.bits[c[literalLengths]]))
		w.put(uint32(s.length-matchCodes.least[c[matchLengths]]), int(matchCodes.bits[c[matchLengths]]))
		w.put(uint32(s.value-1<<c[offsets]), int(c[offsets]))
	}
	for _, k := range [3]int{matchLengths, offsets, literalLengths} {
		w.put(state[k]&(1<<tables[k].log-1), tables[k].log)
	}
	return w.close(), true
}

// recent are the last three offsets.
type recent [3]int

// offset returns the offset that a sequence means, and takes it down.
func (r *recent) offset(s sequence) int {
	n := s.value - 1 // place among the last three
	if s.literals == 0 {
		n++
	}
	var v int
	switch {
	case s.value > 3:
		v, n = s.value-3, 2
	case n == 3:
		v, n = r[0]-1, 2
	default:
		v = r[n]
	}
	copy(r[1:n+1], r[:n])
	r[0] = v
	return v
}
