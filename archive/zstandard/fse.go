package zstandard

import (
	"math/bits"

	"gantry/archive/corrections"
)

// fse is a table of finite state entropy (RFC 8878, 4.1), to be read and written with.
type fse struct {
	log   int
	norm  []int16 // by symbol: how many states it has; -1: one, of those at the end
	state []fseState
	next  []uint16 // states, those of the first symbol first, each symbol's in order
	from  []int32  // by symbol: where its states are in next, less how many it has
	delta []uint32 // by symbol: what makes the number of bits that it takes of a state, times 65536
}

// fseState is what a state stands for when it is read.
type fseState struct {
	symbol, bits byte
	base         uint16
}

func count(norm int16) int {
	if norm < 0 {
		return 1
	}
	return int(norm)
}

// newFSE makes the table of a distribution, of which readNorm or a chooser has seen to that it adds up.
func newFSE(norm []int16, log int) *fse {
	size := 1 << log
	f := &fse{log: log, norm: norm, state: make([]fseState, size), next: make([]uint16, size), from: make([]int32, len(norm)), delta: make([]uint32, len(norm))}
	high := size - 1
	for s, n := range norm {
		if n < 0 {
			f.state[high].symbol = byte(s)
			high--
		}
	}
	at, step := 0, size>>1+size>>3+3
	for s, n := range norm {
		for range n {
			f.state[at].symbol = byte(s)
			for at = (at + step) & (size - 1); at > high; at = (at + step) & (size - 1) {
			}
		}
	}
	fill := make([]int, len(norm))
	seen := make([]int, len(norm))
	sum := 0
	for s, n := range norm {
		c := count(n)
		fill[s], f.from[s], seen[s] = sum, int32(sum-c), c
		sum += c
		if c > 0 {
			most := log + 1 - bits.Len(uint(c-1)) // bits of the highest states
			if c == 1 {
				most = log
			}
			f.delta[s] = uint32(most)<<16 - uint32(c)<<most
		}
	}
	for i := range f.state {
		e := &f.state[i]
		f.next[fill[e.symbol]] = uint16(i)
		fill[e.symbol]++
		n := seen[e.symbol]
		seen[e.symbol]++
		e.bits = byte(log + 1 - bits.Len(uint(n)))
		e.base = uint16(n<<e.bits - size)
	}
	return f
}

// constant is the table of one symbol, which takes no bits.
func constant(symbol byte) *fse {
	norm := make([]int16, int(symbol)+1)
	norm[symbol] = 1
	f := &fse{norm: norm, state: []fseState{{symbol: symbol}}, next: []uint16{0}, from: make([]int32, len(norm))}
	f.from[symbol] = -1
	return f
}

// has reports whether a symbol can be written.
func (f *fse) has(symbol byte) bool { return int(symbol) < len(f.norm) && f.norm[symbol] != 0 }

// first returns the state that encoders end in before the last symbol: of those of the symbol, one that takes the fewest bits.
func (f *fse) first(symbol byte) uint32 {
	if f.log == 0 {
		return 1
	}
	delta := f.delta[symbol]
	n := (delta + 1<<15) >> 16
	return uint32(1<<f.log) + uint32(f.next[int32((n<<16-delta)>>n)+f.from[symbol]])
}

// put writes a symbol: bits of the state, which becomes another.
func (f *fse) put(w *bitWriter, state uint32, symbol byte) uint32 {
	if f.log == 0 {
		return state
	}
	k := (state + f.delta[symbol]) >> 16
	w.put(state&(1<<k-1), int(k))
	return uint32(1<<f.log) + uint32(f.next[int32(state>>k)+f.from[symbol]])
}

// readNorm reads the description of a table (RFC 8878, 4.1.1), and says how long it is.
func readNorm(data []byte, maxLog, maxSymbol int) (norm []int16, log, size int, err error) {
	at := 0 // in bits
	peek := func(n int) int {
		v := 0
		for i := range n {
			if p := at + i; p>>3 < len(data) {
				v |= int(data[p>>3]>>(p&7)&1) << i
			}
		}
		return v
	}
	log = peek(4) + 5
	at = 4
	if log > maxLog {
		return nil, 0, 0, corrections.Unsupported("a table is too large")
	}
	for left, width := 1<<log+1, log+1; left > 1; {
		if len(norm) > maxSymbol {
			return nil, 0, 0, corrections.Unsupported("a table has too many symbols")
		}
		for left < 1<<(width-1) {
			width--
		}
		threshold := 1 << (width - 1)
		short := 2*threshold - 1 - left
		v := peek(width)
		if low := v & (threshold - 1); low < short {
			v = low
			at += width - 1
		} else {
			if v >= threshold {
				v -= short
			}
			at += width
		}
		v--
		if left -= count(int16(v)); left < 1 {
			return nil, 0, 0, corrections.Unsupported("a table is more than full")
		}
		norm = append(norm, int16(v))
		if v == 0 {
			for more := 3; more == 3; {
				more = peek(2)
				at += 2
				for range more {
					norm = append(norm, 0)
				}
				if len(norm) > maxSymbol+1 {
					return nil, 0, 0, corrections.Unsupported("a table has too many symbols")
				}
			}
		}
	}
	if size = (at + 7) / 8; size > len(data) {
		return nil, 0, 0, corrections.Unsupported("a table is cut off")
	}
	return norm, log, size, nil
}

// writeNorm is the inverse.
func writeNorm(out []byte, norm []int16, log int) []byte {
	w := bitWriter{out: out}
	w.put(uint32(log-5), 4)
	left, width := 1<<log+1, log+1
	for s := 0; left > 1 && s < len(norm); s++ {
		for left < 1<<(width-1) {
			width--
		}
		threshold := 1 << (width - 1)
		short := 2*threshold - 1 - left
		v := int(norm[s]) + 1
		left -= count(norm[s])
		n := width
		if v < short {
			n--
		} else if v >= threshold {
			v += short
		}
		w.put(uint32(v), n)
		if norm[s] == 0 {
			run := 0
			for s+1 < len(norm) && norm[s+1] == 0 {
				run++
				s++
			}
			for ; run >= 3; run -= 3 {
				w.put(3, 2)
			}
			w.put(uint32(run), 2)
		}
	}
	return w.pad()
}
