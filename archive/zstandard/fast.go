package zstandard

const fastBits = 15

// fast is klauspost/compress at its level "fastest": one table, of six bytes each, and two positions looked at in each step.
type fast struct {
	scan
	table []place
}

func newFast(w *window) *fast { return &fast{scan{w: w}, make([]place, 1<<fastBits)} }

func (f *fast) block(start, end int, alone bool) { f.enter(start, end, 10, 8, alone) }

func (f *fast) next() sequence {
	d, base := f.view()
	at, emit, limit := f.at-base, f.emit-base, f.limit-base
	if at >= limit {
		return f.over()
	}
	// Repeated offsets are not used before the block has three sequences; one of the two routines looks at that before it has counted the one that it is at.
	if f.phase == matched && (f.sequences > 3 || f.alone && f.sequences > 2) {
		if from, ok := f.again(d, at, f.last[1], base); ok {
			v := load8(d, at)
			f.table[hash6(v, fastBits)] = place{uint32(at + base + 1), uint32(v)}
			f.last[0], f.last[1] = f.last[1], f.last[0]
			return f.found(sequence{0, 4 + same(d, at+4, from+4), 1}, searching)
		}
	}
	repeat := f.sequences > 2
	for {
		v := load8(d, at)
		first, second := &f.table[hash6(v, fastBits)], &f.table[hash6(v>>8, fastBits)]
		c1, c2 := *first, *second
		now := uint32(at + base + 1)
		*first = place{now, uint32(v)}
		*second = place{now + 1, uint32(v >> 8)}
		if repeat {
			if from, ok := f.again(d, at+2, f.last[0], base); ok {
				n := back(d, at+2, from, emit+1, f.least(at, base))
				return f.found(sequence{at + 2 - n - emit, n + 4 + same(d, at+6, from+4), 1}, searching)
			}
		}
		offset := now - c1.at
		if offset-1 >= f.reach(at, base) || uint32(v) != c1.bytes {
			offset = now + 1 - c2.at
			if offset-1 >= f.reach(at+1, base) || uint32(v>>8) != c2.bytes {
				at += 2 + (at-emit)>>5
				if at >= limit {
					return f.over()
				}
				continue
			}
			at++
		}
		from := at - int(offset)
		f.push(int(offset))
		n := back(d, at, from, emit, f.least(at, base))
		return f.found(sequence{at - n - emit, n + 4 + same(d, at+4, from+4), int(offset) + 3}, matched)
	}
}
