package zstandard

import "math/bits"

const (
	bestShort  = 18
	bestLong   = 22
	bestMargin = 12
	goodEnough = 250     // bytes of a match that needs no better one
	notWorth   = 1048592 // cost of a match that is none
)

// best is klauspost/compress at its level "best": of four and of eight bytes each it knows the last two places; of all matches at a position and near it, it takes the one that it reckons to save most.
type best struct {
	scan
	short, long [][2]uint32 // positions + 1, the last one first
	offsets     recent
	were        recent // offsets, before the last prediction
	perByte     int    // bits of a literal, times 1024
	from, to    int    // positions that are to be taken down
}

func newBest(w *window) *best {
	return &best{scan: scan{w: w}, short: make([][2]uint32, 1<<bestShort), long: make([][2]uint32, 1<<bestLong)}
}

func (f *best) frame(start, window int) {
	f.scan.frame(start, window)
	f.offsets, f.from, f.to = recent{1, 4, 8}, 0, 0
}

func (f *best) block(start, end int, alone bool) {
	f.index(f.w.data, f.w.base)
	f.enter(start, end, 16, bestMargin, alone)
	d := f.w.bytes(start, end)
	if len(d) > leastMatch && same(d, 1, 0) == len(d)-1 {
		f.limit, f.phase = start, constantBlock
	}
	f.perByte = 1024
	if len(d) > 0 {
		f.perByte = max(1024, entropy(d)*1024/len(d))
	}
}

func (f *best) took(q sequence, offset int) {
	f.scan.took(q, offset)
	f.offsets = f.were
	o := &f.offsets
	switch offset {
	case o[0]:
	case o[1]:
		o[0], o[1] = o[1], o[0]
	default:
		o[0], o[1], o[2] = offset, o[0], o[1]
	}
	f.from, f.to = f.at-q.length+1, min(f.at, f.limit)
}

func hash4(v uint64, bits int) uint32 { return uint32(v) * 2654435761 >> (32 - bits) }

func (f *best) note(v uint64, at uint32) {
	l, s := &f.long[hash8(v, bestLong)], &f.short[hash4(v, bestShort)]
	l[0], l[1] = at, l[0]
	s[0], s[1] = at, s[0]
}

// index takes down the positions of the last match.
func (f *best) index(d []byte, base int) {
	for i := f.from; i < f.to; i++ {
		f.note(load8(d, i-base), uint32(i+1))
	}
	f.from, f.to = 0, 0
}

// candidate is a match that may be taken.
type candidate struct {
	at, from int // places in the contents at hand
	length   int
	repeat   int // its value, if it is one of the last offsets; -1: it is not; 0: there is no candidate yet
	cost     int // bits that it takes, less those that it saves
}

// price reckons what a match costs.
func (f *best) price(c *candidate) {
	m := matchCodes.code(c.length)
	value := c.repeat
	if value < 0 {
		value = c.at - c.from + 3
	}
	o := bits.Len(uint(value)) - 1
	of, ml := predefined[offsets], predefined[matchLengths]
	c.cost = o + int(matchCodes.bits[m]) + int(ml.delta[m]>>16)
	if o < len(of.delta) {
		c.cost += int(of.delta[o] >> 16)
	}
	if c.cost -= c.length * f.perByte >> 10; c.cost > 0 {
		c.length, c.cost = 0, notWorth
	}
}

// improve takes the match of two places instead of the one that is the best so far, if it is better.
func (f *best) improve(d []byte, b *candidate, at, from, emit, base, repeat int) {
	if delta := at - from; delta >= f.window || delta <= 0 || from < f.begin-base || load4(d, from) != load4(d, at) {
		return
	}
	if b.length > 16 {
		left := len(d) - (b.at + b.length)
		if left <= 0 {
			return
		}
		if check := b.length - (at - b.at) - 8; left > 2 && check > 4 && load4(d, from+check) != load4(d, at+check) {
			return
		}
	}
	c := candidate{at: at, from: from, length: 4 + same(d, at+4, from+4), repeat: repeat}
	if b.repeat <= 0 {
		n := back(d, at, from, emit, f.least(at, base))
		c.at, c.from, c.length = at-n, from-n, c.length+n
	}
	f.price(&c)
	if b.cost >= notWorth || c.cost-b.cost+(c.at-b.at)*f.perByte>>10 < 0 {
		*b = c
	}
}

func (f *best) next() sequence {
	d, base := f.view()
	f.were = f.offsets
	at, emit, limit := f.at-base, f.emit-base, f.limit-base
	if f.phase == constantBlock {
		return f.found(sequence{1, len(d) - at - 1, 4}, searching)
	}
	if at >= limit {
		return f.over()
	}
	f.index(d, base)
	for {
		b := f.look(d, at, emit, limit, base)
		if b.length >= 4 {
			return f.take(b, at, emit, limit, base)
		}
		at += 1 + (at-emit)>>9
		if at >= limit {
			return f.over()
		}
	}
}

// look returns the best match at a place, or near it.
func (f *best) look(d []byte, at, emit, limit, base int) candidate {
	b := candidate{at: at, cost: notWorth}
	v := load8(d, at)
	// place turns what a table has into a place in d; what is none is too far back.
	place := func(p uint32, near int) int { return near - int(uint32(near+base+1)-p) }
	cl, cs := f.long[hash8(v, bestLong)], f.short[hash4(v, bestShort)]
	for _, p := range [4]uint32{cl[0], cl[1], cs[0], cs[1]} {
		f.improve(d, &b, at, place(p, at), emit, base, -1)
	}
	o := f.offsets
	if f.sequences > 2 && b.length < goodEnough {
		if at == emit {
			f.improve(d, &b, at, at-o[1], emit, base, 1)
			f.improve(d, &b, at, at-o[2], emit, base, 2)
			if o[0] > 1 {
				f.improve(d, &b, at, at-(o[0]-1), emit, base, 3)
			}
		}
		for _, ahead := range [2]int{1, 3} {
			if ahead == 1 && b.repeat > 0 || ahead == 3 && b.repeat >= 0 {
				break
			}
			for i := range o {
				f.improve(d, &b, at+ahead, at+ahead-o[i], emit, base, i+1)
			}
		}
	}
	f.note(v, uint32(at+base+1))
	if b.length >= goodEnough || b.length < 4 {
		return b
	}
	one, two := load8(d, at+1), load8(d, at+2)
	short, long, long2 := f.short[hash4(one, bestShort)], f.long[hash8(one, bestLong)], f.long[hash8(two, bestLong)]
	for _, p := range [3]uint32{short[0], long[0], long[1]} {
		f.improve(d, &b, at+1, place(p, at+1), emit, base, -1)
	}
	for _, p := range long2 {
		f.improve(d, &b, at+2, place(p, at+2), emit, base, -1)
	}
	// What comes after the match may lead to a longer one, which need not have its first two bytes.
	const skip = 2
	if end := b.at + b.length; b.at > at-skip && end < limit {
		for _, p := range f.long[hash8(load8(d, end), bestLong)] {
			from := place(p, end) - b.length + skip
			if from < f.begin-base {
				break
			}
			f.improve(d, &b, b.at+skip, from, emit, base, -1)
		}
	}
	return b
}

// take makes a sequence of a match that was found from a place on.
func (f *best) take(b candidate, at, emit, limit, base int) sequence {
	end := b.at + b.length
	f.from, f.to = at+1+base, min(end, limit-4)+base
	q := sequence{b.at - emit, b.length, b.at - b.from + 3}
	if b.repeat > 0 {
		f.to = min(end, limit+4) + base
		q.value = b.repeat
	}
	f.offsets.offset(q)
	return f.found(q, searching)
}

// entropy returns how many bits the bytes take, each by its frequency, rounded up for each that there is.
func entropy(d []byte) int {
	var freq [256]uint64
	for _, b := range d {
		freq[b]++
	}
	sum, all := uint64(0), log2(uint64(len(d)))
	for _, n := range freq {
		if n > 0 {
			sum += (n*(all-log2(n)) + 1<<logBits - 1) >> logBits
		}
	}
	return int(sum)
}

// logBits is how many bits of a logarithm come after the point.
const logBits = 40

// log2 returns the logarithm of a number above 0. It is of whole numbers, so that it is the same on every machine.
func log2(n uint64) uint64 {
	whole := bits.Len64(n) - 1
	log, y := uint64(whole), n<<(63-whole) // y is from 1 to 2, with 63 bits after the point
	for range logBits {
		high, _ := bits.Mul64(y, y) // 62 bits after the point
		log <<= 1
		if high>>63 != 0 {
			log |= 1
			y = high
		} else {
			y = high << 1
		}
	}
	return log
}
