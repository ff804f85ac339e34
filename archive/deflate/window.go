package deflate

import (
	"encoding/binary"
	"math/bits"
)

// history is how far back a match may lead.
const history = 32 << 10

// window is what there is of the contents at a time: the bytes from base to end. Positions count from the beginning of the stream.
type window struct {
	data []byte
	base int
	end  int
}

func (w *window) put(b byte) {
	w.data = append(w.data, b)
	w.end++
}

// copy repeats the bytes from distance back.
func (w *window) copy(length, distance int) {
	at := len(w.data) - distance
	w.end += length
	if distance >= length {
		w.data = append(w.data, w.data[at:at+length]...)
		return
	}
	for range length {
		w.data = append(w.data, w.data[at])
		at++
	}
}

// bytes returns those from one position to another.
func (w *window) bytes(from, to int) []byte { return w.data[from-w.base : to-w.base] }

// common returns how many bytes are the same at the beginning of two pieces of contents, of which the first is the shorter.
func common(x, y []byte) int {
	n := 0
	for n+8 <= len(x) {
		if d := binary.LittleEndian.Uint64(x[n:]) ^ binary.LittleEndian.Uint64(y[n:]); d != 0 {
			return n + bits.TrailingZeros64(d)/8
		}
		n += 8
	}
	for n < len(x) && x[n] == y[n] {
		n++
	}
	return n
}

// forget drops what is too far back from a position to matter, if that is worth its while.
func (w *window) forget(before int) {
	drop := before - scanHeld - scanWindow - 1024 - w.base
	if drop < 1<<18 {
		return
	}
	n := copy(w.data, w.data[drop:])
	w.data = w.data[:n]
	if cap(w.data) > 4<<20 && n < 1<<20 { // after a large block
		w.data = append(make([]byte, 0, 1<<20), w.data...)
	}
	w.base += drop
}
