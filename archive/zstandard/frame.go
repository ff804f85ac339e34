package zstandard

import (
	"encoding/binary"

	"gantry/archive/corrections"
)

const (
	frameMagic     = 0xfd2fb528
	skippableMagic = 0x184d2a50 // and 15 more
	maxSize        = 1 << 60    // of a frame's contents
)

// frame is the header of a frame.
type frame struct {
	descriptor byte
	window     byte   // as it is written; of a single segment, none
	size       uint64 // of its contents, when it says so
}

func (f *frame) single() bool { return f.descriptor&0x20 != 0 }
func (f *frame) summed() bool { return f.descriptor&4 != 0 }

// sizeField returns how many bytes the size of the contents has in the header.
func (f *frame) sizeField() int {
	n := 1 << (f.descriptor >> 6)
	if n == 1 && !f.single() {
		return 0
	}
	return n
}

// windowSize returns how far back a match may be.
func (f *frame) windowSize() uint64 {
	if f.single() {
		return max(f.size, minWindow)
	}
	base := uint64(1) << (10 + f.window>>3)
	return base + base/8*uint64(f.window&7)
}

// check reports whether a frame is one that a recipe is made for.
func (f *frame) check() error {
	switch {
	case f.descriptor&8 != 0:
		return corrections.Unsupported("a frame of no known kind")
	case f.descriptor&3 != 0:
		return corrections.Unsupported("a frame needs a dictionary")
	case f.windowSize() > maxWindow || f.size > maxSize:
		return corrections.Unsupported("a frame's window or size is too large")
	}
	return nil
}

// append writes the header; ok is false when its size has no room in it.
func (f *frame) append(out []byte) (_ []byte, ok bool) {
	out = binary.LittleEndian.AppendUint32(out, frameMagic)
	out = append(out, f.descriptor)
	if !f.single() {
		out = append(out, f.window)
	}
	size, n := f.size, f.sizeField()
	if n == 2 {
		size -= 256
	}
	if n < 8 && size>>(8*n) != 0 {
		return out, n == 0
	}
	var field [8]byte
	binary.LittleEndian.PutUint64(field[:], size)
	return append(out, field[:n]...), true
}
