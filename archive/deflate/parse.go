package deflate

import (
	"encoding/binary"
	"hash/crc32"

	"gantry/archive/corrections"
)

// parser takes a gzip stream apart.
type parser struct {
	bits    *bitReader
	w       *window
	inside  bool // a member has begun and not ended
	start   int  // of the member's contents
	crc     uint32
	lit     code
	dist    code
	lengths code
}

const (
	gzipCRC     = 2
	gzipExtra   = 4
	gzipName    = 8
	gzipComment = 16
	gzipUnknown = 0xe0
)

// header reads the header of a member (RFC 1952).
func (p *parser) header() ([]byte, error) {
	head := make([]byte, 0, 16)
	get := func(n int) {
		for range n {
			head = append(head, byte(p.bits.take(8)))
		}
	}
	get(10)
	if head[2] != 8 || head[3]&gzipUnknown != 0 {
		return nil, corrections.Unsupported("a gzip header that nobody knows the meaning of")
	}
	if head[3]&gzipExtra != 0 {
		get(2)
		get(int(binary.LittleEndian.Uint16(head[len(head)-2:])))
	}
	for _, flag := range []byte{gzipName, gzipComment} {
		for end := head[3]&flag == 0; !end && p.bits.err == nil; end = head[len(head)-1] == 0 {
			if get(1); len(head) > maxHeader {
				return nil, corrections.Unsupported("a gzip header is too long")
			}
		}
	}
	if head[3]&gzipCRC != 0 {
		get(2)
	}
	if len(head) > maxHeader {
		return nil, corrections.Unsupported("a gzip header is too long")
	}
	return head, p.bits.err
}

// begins reports whether another member follows.
func (p *parser) begins() bool {
	return p.bits.more() && p.bits.bits&0xff == 0x1f && func() bool { p.bits.need(16); return p.bits.bits&0xffff == 0x8b1f }()
}

// next reads a block; nil after the last one of the last member. Its contents are in the window then.
func (p *parser) next() (*block, error) {
	b := &block{}
	if !p.inside {
		if !p.begins() {
			return nil, p.bits.err
		}
		var err error
		if b.gzip, err = p.header(); err != nil {
			return nil, err
		}
		p.inside, p.start, p.crc = true, p.w.end, 0
	}
	b.start = p.w.end
	b.final = p.bits.take(1) == 1
	b.kind = int(p.bits.take(2))
	var err error
	switch b.kind {
	case stored:
		err = p.stored(b)
	case fixed:
		lit, dist := fixedLens()
		if err = p.lit.set(lit); err == nil {
			err = p.dist.set(dist)
		}
	case dynamic:
		err = p.trees(b)
	default:
		err = corrections.Unsupported("a block of no known kind")
	}
	if err == nil && b.kind != stored {
		err = p.tokens(b)
	}
	if err == nil {
		err = p.bits.err
	}
	if err != nil {
		return nil, err
	}
	b.size = p.w.end - b.start
	p.crc = crc32.Update(p.crc, crc32.IEEETable, p.w.bytes(b.start, p.w.end))
	if b.final {
		p.inside = false
		b.endPad = p.bits.align()
		crc, size := p.bits.take(32), p.bits.take(32)
		if p.bits.err == nil && (crc != p.crc || size != uint32(p.w.end-p.start)) {
			return nil, corrections.Unsupported("a checksum of gzip is wrong")
		}
	}
	return b, p.bits.err
}

func (p *parser) stored(b *block) error {
	b.pad = p.bits.align()
	size := p.bits.take(16)
	if p.bits.take(16) != size^0xffff {
		return corrections.Unsupported("the length of a stored block is wrong")
	}
	for range size {
		p.w.put(byte(p.bits.take(8)))
	}
	return nil
}

// trees reads the header of a dynamic block.
func (p *parser) trees(b *block) error {
	t := &trees{lits: int(p.bits.take(5)) + 257, dists: int(p.bits.take(5)) + 1, codes: int(p.bits.take(4)) + 4}
	b.tree = t
	for _, c := range codeOrder[:t.codes] {
		t.code[c] = byte(p.bits.take(3))
	}
	if err := p.lengths.set(t.code[:]); err != nil {
		return err
	}
	for n := 0; n < t.lits+t.dists; {
		sym := p.lengths.read(p.bits)
		if sym < 0 || p.bits.err != nil {
			return corrections.Unsupported("a code of lengths that is none")
		}
		bits, _ := runExtra(byte(sym))
		t.runs = append(t.runs, run{byte(sym), byte(p.bits.take(bits))})
		var ok bool
		if n, ok = t.expand(n, t.runs[len(t.runs)-1]); !ok {
			return corrections.Unsupported("too many lengths of codes")
		}
	}
	return t.set(&p.lit, &p.dist)
}

// expand writes the lengths that a run stands for from place n on.
func (t *trees) expand(n int, r run) (int, bool) {
	_, least := runExtra(r.sym)
	value := r.sym
	switch {
	case r.sym == 16 && n == 0:
		return n, false
	case r.sym == 16:
		value = t.lens[n-1]
	case r.sym > 16:
		value = 0
	}
	for range least + int(r.extra) {
		if n >= t.lits+t.dists {
			return n, false
		}
		t.lens[n] = value
		n++
	}
	return n, true
}

func (t *trees) set(lit, dist *code) error {
	if t.lits > maxLit || t.dists > maxDist {
		return corrections.Unsupported("too many symbols")
	}
	if err := lit.set(t.lens[:t.lits]); err != nil {
		return err
	}
	return dist.set(t.lens[t.lits : t.lits+t.dists])
}

// tokens reads the tokens of a block.
func (p *parser) tokens(b *block) error {
	for {
		sym := p.lit.read(p.bits)
		switch {
		case p.bits.err != nil:
			return p.bits.err
		case sym < 0 || sym >= maxLit:
			return corrections.Unsupported("a symbol that is none")
		case sym == endBlock:
			return nil
		case len(b.tokens) == maxTokens || p.w.end-b.start > maxBlock-258:
			return corrections.Unsupported("a block is too long")
		case sym < endBlock:
			p.w.put(byte(sym))
			b.tokens = append(b.tokens, 0)
			continue
		}
		length, n := lengthOf(sym)
		length += int(p.bits.take(n))
		if length == 258 && sym != 285 {
			return corrections.Unsupported("a length that no encoder writes so")
		}
		sym = p.dist.read(p.bits)
		if sym < 0 || sym >= maxDist {
			return corrections.Unsupported("a distance that is none")
		}
		distance, n := distanceOf(sym)
		distance += int(p.bits.take(n))
		if distance > p.w.end-p.start {
			return corrections.Unsupported("a distance to before the beginning")
		}
		p.w.copy(length, distance)
		b.tokens = append(b.tokens, match(length, distance))
	}
}
