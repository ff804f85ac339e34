package zstandard

import (
	"bytes"

	"gantry/archive/corrections"
)

// Limits of what a recipe is made for.
const (
	maxBlock  = 128 << 10 // as the format has it
	maxWindow = 32 << 20  // what the encoders of container images use at most
	minWindow = 1 << 10
)

// ErrUnsupported is the error of a stream that no recipe is made for.
var ErrUnsupported = corrections.ErrUnsupported

// Kinds of blocks, and of literals, as in their headers.
const (
	raw      = iota
	repeated // one byte
	compressed
	treeless // literals with the last code
)

// Modes of tables of sequences.
const (
	modePredefined = iota
	modeConstant
	modeDescribed
	modeRepeat
)

// block is one block of a frame.
type block struct {
	frame *frame // that begins with it
	start int    // position of its contents
	size  int    // bytes of contents
	last  bool   // of its frame
	kind  int
	body  []byte // of a compressed one: as it came
	asIs  bool   // it is in the recipe so

	literals    int    // kind of them
	format      int    // of their header: its length, and the number of streams
	tree        []byte // description of their code, where it is a new one
	sequences   []sequence
	modes       [3]int    // of the tables, by kind of code
	description [3][]byte // of new ones
}

// tables are those that a later block of the frame may use again.
type tables struct {
	literals  *huffman
	sequences [3]*fse
}

// read takes the body of a compressed block apart, and returns its literals.
func (t *tables) read(b *block) ([]byte, error) {
	literals, rest, err := t.readLiterals(b)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return nil, corrections.Unsupported("a block is cut off")
	}
	n, size := int(rest[0]), 1
	switch {
	case n == 255 && len(rest) >= 3:
		n, size = int(rest[1])+int(rest[2])<<8+0x7f00, 3
	case n >= 128 && n < 255 && len(rest) >= 2:
		n, size = (n-128)<<8+int(rest[1]), 2
	case n >= 128:
		return nil, corrections.Unsupported("a block is cut off")
	}
	rest = rest[size:]
	if n == 0 {
		if len(rest) > 0 {
			return nil, corrections.Unsupported("a block goes on after its end")
		}
		return literals, nil
	}
	if n > maxBlock/leastMatch {
		return nil, corrections.Unsupported("a block has too many sequences")
	}
	if rest, err = t.readTables(b, rest); err != nil {
		return nil, err
	}
	var ok bool
	if b.sequences, ok = readSequences(rest, n, &t.sequences); !ok {
		return nil, corrections.Unsupported("sequences of a block are malformed")
	}
	return literals, nil
}

// literalsHeader is how long a header is, and how many bits a size in it has.
func literalsHeader(kind, format int) (length, bits int) {
	switch {
	case kind >= compressed && format < 2:
		return 3, 10
	case kind >= compressed:
		return format + 2, 4*format + 6
	case format&1 == 0:
		return 1, 5
	case format == 1:
		return 2, 12
	default:
		return 3, 20
	}
}

func (t *tables) readLiterals(b *block) (literals, rest []byte, err error) {
	short := corrections.Unsupported("literals of a block are cut off")
	body := b.body
	if len(body) == 0 {
		return nil, nil, short
	}
	b.literals, b.format = int(body[0]&3), int(body[0]>>2&3)
	length, bits := literalsHeader(b.literals, b.format)
	if len(body) < length {
		return nil, nil, short
	}
	var head uint64
	for i, v := range body[:length] {
		head |= uint64(v) << (8 * i)
	}
	head >>= 4
	if length == 1 {
		head = uint64(body[0] >> 3)
		b.format = 0
	}
	size := int(head & (1<<bits - 1))
	if size > maxBlock {
		return nil, nil, corrections.Unsupported("a block has too many literals")
	}
	rest = body[length:]
	switch b.literals {
	case raw:
		if size > len(rest) {
			return nil, nil, short
		}
		return rest[:size], rest[size:], nil
	case repeated:
		if len(rest) == 0 {
			return nil, nil, short
		}
		return bytes.Repeat(rest[:1], size), rest[1:], nil
	}
	coded := int(head >> bits)
	if coded > len(rest) {
		return nil, nil, short
	}
	data, rest := rest[:coded], rest[coded:]
	if b.literals == compressed {
		h, n, err := readHuffman(data)
		if err != nil {
			return nil, nil, err
		}
		t.literals, b.tree, data = h, data[:n], data[n:]
	}
	if t.literals == nil {
		return nil, nil, corrections.Unsupported("literals of a block have no code")
	}
	literals = make([]byte, size)
	read := t.literals.readFour
	if b.format == 0 {
		read = t.literals.read
	}
	if !read(data, literals) {
		return nil, nil, corrections.Unsupported("literals of a block are malformed")
	}
	return literals, rest, nil
}

func (t *tables) readTables(b *block, rest []byte) ([]byte, error) {
	short := corrections.Unsupported("tables of a block are cut off")
	if len(rest) == 0 || rest[0]&3 != 0 {
		return nil, short
	}
	modes := rest[0]
	rest = rest[1:]
	for k := range b.modes {
		log, symbol := tableLimits(k)
		b.modes[k] = int(modes >> (6 - 2*k) & 3)
		switch b.modes[k] {
		case modePredefined:
			t.sequences[k] = predefined[k]
		case modeConstant:
			if len(rest) == 0 || int(rest[0]) > symbol {
				return nil, short
			}
			t.sequences[k] = constant(rest[0])
			rest = rest[1:]
		case modeDescribed:
			norm, l, n, err := readNorm(rest, log, symbol)
			if err != nil {
				return nil, err
			}
			t.sequences[k] = newFSE(norm, l)
			b.description[k], rest = rest[:n], rest[n:]
		case modeRepeat:
			if t.sequences[k] == nil {
				return nil, corrections.Unsupported("a block has no table")
			}
		}
	}
	return rest, nil
}

// write makes the body of a block of what read has found out, and reports whether it can be made.
func (t *tables) write(b *block, literals []byte) ([]byte, bool) {
	out, ok := t.writeLiterals(b, literals)
	if !ok {
		return nil, false
	}
	n := len(b.sequences)
	switch {
	case n < 128:
		out = append(out, byte(n))
	case n < 0x7f00:
		out = append(out, byte(128+n>>8), byte(n))
	default:
		n -= 0x7f00
		out = append(out, 255, byte(n), byte(n>>8))
	}
	if len(b.sequences) == 0 {
		return out, true
	}
	out = append(out, byte(b.modes[0]<<6|b.modes[1]<<4|b.modes[2]<<2))
	for k, mode := range b.modes {
		switch mode {
		case modePredefined:
			t.sequences[k] = predefined[k]
		case modeConstant:
			symbol := b.sequences[0].coded()[k]
			t.sequences[k] = constant(symbol)
			out = append(out, symbol)
		case modeDescribed:
			log, symbol := tableLimits(k)
			norm, l, n, err := readNorm(b.description[k], log, symbol)
			if err != nil || n != len(b.description[k]) {
				return nil, false
			}
			t.sequences[k] = newFSE(norm, l)
			out = append(out, b.description[k]...)
		case modeRepeat:
			if t.sequences[k] == nil {
				return nil, false
			}
		}
	}
	return writeSequences(out, b.sequences, &t.sequences)
}

func (t *tables) writeLiterals(b *block, literals []byte) ([]byte, bool) {
	length, bits := literalsHeader(b.literals, b.format)
	if len(literals)>>bits > 0 {
		return nil, false
	}
	head := uint64(b.literals) | uint64(b.format)<<2 | uint64(len(literals))<<4
	if length == 1 {
		head = uint64(b.literals) | uint64(len(literals))<<3
	}
	out := make([]byte, length, len(literals)+1024)
	switch b.literals {
	case raw:
		out = append(out, literals...)
	case repeated:
		if len(literals) == 0 || bytes.Count(literals, literals[:1]) != len(literals) {
			return nil, false
		}
		out = append(out, literals[0])
	default:
		if b.literals == compressed {
			h, n, err := readHuffman(b.tree)
			if err != nil || n != len(b.tree) {
				return nil, false
			}
			t.literals = h
			out = append(out, b.tree...)
		}
		if t.literals == nil {
			return nil, false
		}
		write := t.literals.writeFour
		if b.format == 0 {
			write = t.literals.write
		}
		var ok bool
		if out, ok = write(out, literals); !ok {
			return nil, false
		}
		coded := len(out) - length
		if coded>>bits > 0 {
			return nil, false
		}
		head |= uint64(coded) << (4 + bits)
	}
	for i := range length {
		out[i] = byte(head >> (8 * i))
	}
	return out, true
}
