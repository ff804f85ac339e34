package deflate

import (
	"bufio"
	"errors"
	"io"
)

// bitReader reads a stream of bits, the lowest of a byte first.
type bitReader struct {
	r    *bufio.Reader
	bits uint64
	n    int   // bits that there are
	over bool  // there are no more: the last beyond of n are made up, and zero
	err  error // of the first read that failed; then what is read means nothing
}

const beyond = 64

// need sees to n bits, at most 48.
func (b *bitReader) need(n int) {
	for b.n < n {
		c, err := b.r.ReadByte()
		if err != nil {
			if b.err == nil && !errors.Is(err, io.EOF) {
				b.err = err
			}
			b.over = true
			b.n += beyond
			return
		}
		b.bits |= uint64(c) << b.n
		b.n += 8
	}
}

// take returns n bits, at most 32.
func (b *bitReader) take(n int) uint32 {
	b.need(n)
	v := uint32(b.bits & (1<<n - 1))
	b.drop(n)
	return v
}

func (b *bitReader) drop(n int) {
	b.bits >>= n
	b.n -= n
	if b.over && b.n < beyond && b.err == nil {
		b.err = io.ErrUnexpectedEOF
	}
}

// align drops the bits up to the next byte, and returns them.
func (b *bitReader) align() byte { return byte(b.take(b.n & 7)) }

// more reports whether there is another byte. The reader is aligned.
func (b *bitReader) more() bool {
	b.need(8)
	return b.err == nil && (!b.over || b.n >= beyond+8)
}

// bitWriter is the inverse.
type bitWriter struct {
	w    io.Writer
	out  []byte
	bits uint64
	n    int
	err  error // of the first write that failed
}

// put writes n bits, at most 32.
func (b *bitWriter) put(v uint32, n int) {
	b.bits |= uint64(v) << b.n
	b.n += n
	for b.n >= 32 {
		b.out = append(b.out, byte(b.bits), byte(b.bits>>8), byte(b.bits>>16), byte(b.bits>>24))
		b.bits >>= 32
		b.n -= 32
	}
	if len(b.out) >= 64<<10 {
		b.write()
	}
}

// align writes the bits up to the next byte.
func (b *bitWriter) align(v byte) { b.put(uint32(v), -b.n&7) }

// bytes writes whole bytes. The writer is aligned.
func (b *bitWriter) bytes(p []byte) {
	for ; b.n > 0; b.n -= 8 {
		b.out = append(b.out, byte(b.bits))
		b.bits >>= 8
	}
	b.out = append(b.out, p...)
	if len(b.out) >= 64<<10 {
		b.write()
	}
}

// flush writes what waits. The writer is aligned.
func (b *bitWriter) flush() error {
	b.bytes(nil)
	b.write()
	return b.err
}

func (b *bitWriter) write() {
	if b.err == nil {
		_, b.err = b.w.Write(b.out)
	}
	b.out = b.out[:0]
}
