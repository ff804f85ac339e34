package zstandard

const (
	betterShort = 13
	betterLong  = 19
)

// better is klauspost/compress at its level "better": of eight bytes each it knows the last two places, and it looks for a longer match one byte on, and at the end of the one that it has.
type better struct {
	scan
	short []place
	long  [][2]uint32 // positions + 1, the last one first
	from  int         // place from which positions in the last match are taken down
}

func newBetter(w *window) *better {
	return &better{scan: scan{w: w}, short: make([]place, 1<<betterShort), long: make([][2]uint32, 1<<betterLong)}
}

func (f *better) block(start, end int, alone bool) {
	f.enter(start, end, 16, 10, false)
	f.from = -1
	if d := f.w.bytes(start, end); len(d) > leastMatch && same(d, 1, 0) == len(d)-1 {
		f.limit, f.phase = start, constantBlock
	}
}

// constantBlock is the phase of a block of one byte only, which is not searched.
const constantBlock = repeating + 1

func (f *better) took(q sequence, offset int) {
	f.scan.took(q, offset)
	f.from = f.at - q.length + 1
}

func (f *better) enterLong(v uint64, at uint32) {
	l := &f.long[hash8(v, betterLong)]
	l[0], l[1] = at, l[0]
}

// index takes down every other position in the last match.
func (f *better) index(d []byte, at, base int) {
	for i := f.from - base; i < at-1; i += 2 {
		v := load8(d, i)
		f.enterLong(v, uint32(i+base+1))
		f.short[hash5(v>>8, betterShort)] = place{uint32(i + base + 2), uint32(v >> 8)}
	}
}

// eight returns how long the match of a place in d with a position is that so many positions back is, if that is within reach and eight bytes are the same.
func (f *better) eight(d []byte, v uint64, at int, offset, reach uint32) int {
	if offset-1 >= reach {
		return 0
	}
	if from := at - int(offset); load8(d, from) == v {
		return 8 + same(d, at+8, from+8)
	}
	return 0
}

func (f *better) next() sequence {
	d, base := f.view()
	at, emit, limit := f.at-base, f.emit-base, f.limit-base
	if f.phase == constantBlock {
		return f.found(sequence{1, len(d) - at - 1, 4}, searching)
	}
	if at >= limit {
		return f.over()
	}
	again := f.phase == repeating
	if f.phase == matched || f.phase == searching && f.from >= 0 {
		f.index(d, at, base)
		again = f.phase == matched && f.sequences > 3
	}
	f.from = -1
	if again {
		if from, ok := f.again(d, at, f.last[1], base); ok {
			v := load8(d, at)
			f.enterLong(v, uint32(at+base+1))
			f.short[hash5(v, betterShort)] = place{uint32(at + base + 1), uint32(v)}
			f.last[0], f.last[1] = f.last[1], f.last[0]
			return f.found(sequence{0, 4 + same(d, at+4, from+4), 1}, repeating)
		}
	}
	repeat := f.sequences > 2
	for {
		v := load8(d, at)
		now := uint32(at + base + 1)
		long, short := &f.long[hash8(v, betterLong)], &f.short[hash5(v, betterShort)]
		cl, cs := *long, *short
		long[0], long[1] = now, cl[0]
		*short = place{now, uint32(v)}
		f.from = at + base + 1
		if repeat {
			if from, ok := f.again(d, at+1, f.last[0], base); ok {
				n := back(d, at+1, from, emit+1, f.least(at, base))
				return f.found(sequence{at + 1 - n - emit, n + 4 + same(d, at+5, from+4), 1}, searching)
			}
		}
		reach := f.reach(at, base)
		offset := now - cl[0]
		length := f.eight(d, v, at, offset, reach)
		if l := f.eight(d, v, at, now-cl[1], reach); l > length {
			offset, length = now-cl[1], l
		}
		if length == 0 {
			if offset = now - cs.at; offset-1 >= reach || uint32(v) != cs.bytes {
				at += 1 + (at-emit)>>8
				if at >= limit {
					return f.over()
				}
				continue
			}
			at, offset, length = f.later(d, at, base, offset)
		}
		at, offset, length = f.onward(d, at, limit, base, offset, length)
		f.push(int(offset))
		n := back(d, at, at-int(offset), emit, f.least(at, base))
		return f.found(sequence{at - n - emit, length + n, int(offset) + 3}, matched)
	}
}

// later returns the match at a place in d, or a longer one of eight bytes at the next.
func (f *better) later(d []byte, at, base int, offset uint32) (int, uint32, int) {
	from := at - int(offset)
	length := 4 + same(d, at+4, from+4)
	v := load8(d, at+1)
	long := &f.long[hash8(v, betterLong)]
	c := *long
	now := uint32(at + base + 2)
	long[0], long[1] = now, c[0]
	reach := uint32(min(f.window, at+1+base-f.begin))
	for _, p := range c {
		if l := f.eight(d, v, at+1, now-p, reach); l > length {
			return at + 1, now - p, l
		}
	}
	return at, offset, length
}

// onward returns a longer match that what comes after one leads to: it may begin three bytes later, and be found to begin earlier then.
func (f *better) onward(d []byte, at, limit, base int, offset uint32, length int) (int, uint32, int) {
	if at+length >= limit {
		return at, offset, length
	}
	const skip = 3
	start, begin := at, at+skip
	first := load4(d, begin)
	for _, p := range f.long[hash8(load8(d, at+length), betterLong)] {
		o := uint32(start+length+base+1) - p // length may be that of the first already
		if from := begin - int(o); o > 0 && o < uint32(f.window) && from >= f.begin-base && load4(d, from) == first {
			if l := 4 + same(d, begin+4, from+4); l > length {
				at, offset, length = begin, o, l
			}
		}
	}
	return at, offset, length
}
