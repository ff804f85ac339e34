package zstandard

import (
	"encoding/binary"
	"math/bits"
)

// backward reads a stream of bits from its end: the highest bit that is set in its last byte comes before the first.
type backward struct {
	data []byte // not yet taken in
	bits uint64
	n    int // bits that there are, in the lowest places of bits; below zero once more were taken than there are
}

// set begins a stream, and reports whether it is one.
func (b *backward) set(data []byte) bool {
	if len(data) == 0 || data[len(data)-1] == 0 {
		return false
	}
	last := data[len(data)-1]
	*b = backward{data: data[:len(data)-1], bits: uint64(last), n: bits.Len8(last) - 1}
	return true
}

// need takes in bytes until there are 57 bits, or all.
func (b *backward) need() {
	if b.n <= 32 && b.n >= 0 && len(b.data) >= 4 {
		at := len(b.data) - 4
		b.bits = b.bits<<32 | uint64(binary.LittleEndian.Uint32(b.data[at:]))
		b.data = b.data[:at]
		b.n += 32
	}
	for b.n <= 56 && b.n >= 0 && len(b.data) > 0 {
		at := len(b.data) - 1
		b.bits = b.bits<<8 | uint64(b.data[at])
		b.data = b.data[:at]
		b.n += 8
	}
}

// peek returns the next n bits, at most 32; those that there are not are zero.
func (b *backward) peek(n int) uint32 {
	if b.n < n {
		b.need()
	}
	if b.n >= n {
		return uint32(b.bits >> (b.n - n) & (1<<n - 1))
	}
	if b.n <= 0 {
		return 0
	}
	return uint32(b.bits & (1<<b.n - 1) << (n - b.n))
}

// take returns the next n bits, at most 32.
func (b *backward) take(n int) uint32 {
	v := b.peek(n)
	b.n -= n
	return v
}

// done reports whether all was read, and no more.
func (b *backward) done() bool { return b.n == 0 && len(b.data) == 0 }

// bitWriter writes bits, the lowest of a byte first.
type bitWriter struct {
	out  []byte
	bits uint64
	n    int
}

// put writes n bits, at most 32.
func (b *bitWriter) put(v uint32, n int) {
	b.bits |= uint64(v) << b.n
	b.n += n
	if b.n >= 32 {
		b.out = binary.LittleEndian.AppendUint32(b.out, uint32(b.bits))
		b.bits >>= 32
		b.n -= 32
	}
}

// close writes the bit that ends a stream that is read backward, and what fills the byte.
func (b *bitWriter) close() []byte {
	b.put(1, 1)
	return b.pad()
}

// pad fills the last byte.
func (b *bitWriter) pad() []byte {
	for ; b.n > 0; b.n -= 8 {
		b.out = append(b.out, byte(b.bits))
		b.bits >>= 8
	}
	return b.out
}
