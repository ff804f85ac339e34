package zstandard

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"gantry/archive/corrections"
)

const (
	huffmanBits = 11 // of a code at most
	weightLog   = 6  // of the table of weights at most
)

// huffman is a prefix code of literals (RFC 8878, 4.2).
type huffman struct {
	log   int
	lens  []byte // by symbol, as far as there are
	codes [256]uint16
	table []uint16 // by the next log bits: symbol<<4 | its bits
}

// newHuffman makes the code of weights: of a symbol of weight w the code has log + 1 - w bits. The last symbol's is what is missing.
func newHuffman(weights []byte) (*huffman, error) {
	total := 0
	for _, w := range weights {
		if w > huffmanBits {
			return nil, corrections.Unsupported("a Huffman code is too long")
		}
		if w > 0 {
			total += 1 << (w - 1)
		}
	}
	h := &huffman{log: bits.Len(uint(total))}
	left := 1<<h.log - total
	if total == 0 || h.log > huffmanBits || left&(left-1) != 0 || len(weights) > 255 {
		return nil, corrections.Unsupported("the weights of a Huffman code do not add up")
	}
	weights = append(slices.Clone(weights), byte(bits.Len(uint(left))))
	h.lens = make([]byte, len(weights))
	h.table = make([]uint16, 1<<h.log)
	at := 0
	for w := byte(1); int(w) <= h.log; w++ {
		for s, is := range weights {
			if is != w {
				continue
			}
			l := h.log + 1 - int(w)
			h.lens[s], h.codes[s] = byte(l), uint16(at>>(w-1))
			for range 1 << (w - 1) {
				h.table[at] = uint16(s)<<4 | uint16(l)
				at++
			}
		}
	}
	return h, nil
}

// readHuffman reads the description of a code, and says how long it is.
func readHuffman(data []byte) (*huffman, int, error) {
	if len(data) == 0 {
		return nil, 0, corrections.Unsupported("a Huffman code is cut off")
	}
	size := int(data[0])
	if size >= 128 {
		n := size - 127
		size = 1 + (n+1)/2
		if size > len(data) {
			return nil, 0, corrections.Unsupported("a Huffman code is cut off")
		}
		weights := make([]byte, n)
		for i := range weights {
			weights[i] = data[1+i/2] >> (4 - 4*(i%2)) & 15
		}
		h, err := newHuffman(weights)
		return h, size, err
	}
	if size++; size > len(data) {
		return nil, 0, corrections.Unsupported("a Huffman code is cut off")
	}
	weights, err := readWeights(data[1:size])
	if err != nil {
		return nil, 0, err
	}
	h, err := newHuffman(weights)
	return h, size, err
}

// readWeights reads weights that are written with a table of their own: two states take turns.
func readWeights(data []byte) ([]byte, error) {
	norm, log, n, err := readNorm(data, weightLog, 15)
	if err != nil {
		return nil, err
	}
	f := newFSE(norm, log)
	var b backward
	if !b.set(data[n:]) || b.peek(0) != 0 {
		return nil, corrections.Unsupported("weights of a Huffman code are cut off")
	}
	state := [2]uint32{b.take(log), b.take(log)}
	if b.n < 0 {
		return nil, corrections.Unsupported("weights of a Huffman code are cut off")
	}
	var weights []byte
	for i := 0; ; i ^= 1 {
		if len(weights) >= 254 {
			return nil, corrections.Unsupported("a Huffman code has too many weights")
		}
		e := f.state[state[i]]
		weights = append(weights, e.symbol)
		state[i] = uint32(e.base) + b.take(int(e.bits))
		if b.n < 0 {
			return append(weights, f.state[state[i^1]].symbol), nil
		}
	}
}

// read reads literals, and reports whether that is what the stream has.
func (h *huffman) read(data, out []byte) bool {
	var b backward
	if !b.set(data) {
		return false
	}
	for i := range out {
		e := h.table[b.peek(h.log)]
		out[i] = byte(e >> 4)
		b.n -= int(e & 15)
	}
	return b.done()
}

// write writes literals, and reports whether the code has them all.
func (h *huffman) write(out, literals []byte) ([]byte, bool) {
	w := bitWriter{out: out}
	for i := len(literals) - 1; i >= 0; i-- {
		s := literals[i]
		if int(s) >= len(h.lens) || h.lens[s] == 0 {
			return nil, false
		}
		w.put(uint32(h.codes[s]), int(h.lens[s]))
	}
	return w.close(), true
}

// readFour and writeFour are read and write for four streams, the lengths of the first three before them.
func (h *huffman) readFour(data, out []byte) bool {
	part := (len(out) + 3) / 4
	if len(data) < 6 || 3*part > len(out) {
		return false
	}
	sizes, data := data[:6], data[6:]
	for i := range 4 {
		n := len(data)
		to := len(out)
		if i < 3 {
			n, to = int(binary.LittleEndian.Uint16(sizes[2*i:])), part
		}
		if n > len(data) || !h.read(data[:n], out[:to]) {
			return false
		}
		data, out = data[n:], out[to:]
	}
	return true
}

func (h *huffman) writeFour(out, literals []byte) ([]byte, bool) {
	part := (len(literals) + 3) / 4
	if 3*part > len(literals) {
		return nil, false
	}
	sizes := len(out)
	out = append(out, make([]byte, 6)...)
	for i := range 4 {
		n := len(literals)
		if i < 3 {
			n = part
		}
		start := len(out)
		var ok bool
		if out, ok = h.write(out, literals[:n]); !ok {
			return nil, false
		}
		literals = literals[n:]
		if size := len(out) - start; i < 3 {
			if size > 0xffff {
				return nil, false
			}
			binary.LittleEndian.PutUint16(out[sizes+2*i:], uint16(size))
		}
	}
	return out, true
}
