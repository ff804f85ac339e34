package zstandard

const (
	doubleShort = 15
	doubleLong  = 17
)

// double is klauspost/compress at its default level: a table of five bytes each, and one of eight, whose matches are preferred.
type double struct {
	scan
	short, long []place
	stale       uint64 // what the routine for one block takes the hash of where it is to take that of the position
}

func newDouble(w *window) *double {
	return &double{scan: scan{w: w}, short: make([]place, 1<<doubleShort), long: make([]place, 1<<doubleLong)}
}

func (f *double) block(start, end int, alone bool) { f.enter(start, end, 16, 10, alone) }

// index takes down positions in the last match.
func (f *double) index(d []byte, at, base int) {
	first, last := at-f.length+1, at-2
	for _, i := range [2]int{first, last} {
		v := load8(d, i)
		f.long[hash8(v, doubleLong)] = place{uint32(i + base + 1), uint32(v)}
	}
	for _, i := range [2]int{first, last} {
		v := load8(d, i) >> 8
		f.short[hash5(v, doubleShort)] = place{uint32(i + base + 2), uint32(v)}
		f.stale = v >> 8
	}
}

func (f *double) next() sequence {
	d, base := f.view()
	at, emit, limit := f.at-base, f.emit-base, f.limit-base
	if at >= limit {
		return f.over()
	}
	again := f.phase == repeating
	if f.phase == matched {
		f.index(d, at, base)
		again = f.sequences > 3 || f.alone && f.sequences > 2
	}
	if again {
		if from, ok := f.again(d, at, f.last[1], base); ok {
			v := load8(d, at)
			hashed := v
			if f.alone {
				hashed = f.stale
			}
			here := place{uint32(at + base + 1), uint32(v)}
			f.long[hash8(v, doubleLong)] = here
			f.short[hash5(hashed, doubleShort)] = here
			f.last[0], f.last[1] = f.last[1], f.last[0]
			return f.found(sequence{0, 4 + same(d, at+4, from+4), 1}, repeating)
		}
	}
	repeat := f.sequences > 2
	for {
		v := load8(d, at)
		long, short := &f.long[hash8(v, doubleLong)], &f.short[hash5(v, doubleShort)]
		cl, cs := *long, *short
		now := uint32(at + base + 1)
		*long, *short = place{now, uint32(v)}, place{now, uint32(v)}
		if repeat {
			if from, ok := f.again(d, at+1, f.last[0], base); ok {
				n := back(d, at+1, from, emit+1, f.least(at, base))
				return f.found(sequence{at + 1 - n - emit, n + 4 + same(d, at+5, from+4), 1}, searching)
			}
		}
		reach := f.reach(at, base)
		offset := now - cl.at
		if offset-1 >= reach || uint32(v) != cl.bytes {
			offset = now - cs.at
			if offset-1 >= reach || uint32(v) != cs.bytes {
				at += 1 + (at-emit)>>7
				if at >= limit {
					return f.over()
				}
				continue
			}
			then := load8(d, at+1)
			long = &f.long[hash8(then, doubleLong)]
			later := now + 1 - long.at
			ok := later-1 < f.reach(at+1, base) && uint32(then) == long.bytes
			*long = place{now + 1, uint32(then)}
			if ok {
				offset = later
				at++
			}
		}
		from := at - int(offset)
		f.push(int(offset))
		n := back(d, at, from, emit, f.least(at, base))
		return f.found(sequence{at - n - emit, n + 4 + same(d, at+4, from+4), int(offset) + 3}, matched)
	}
}
