package zstandard

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"gantry/archive/corrections"

	"github.com/cespare/xxhash/v2"
)

// parser takes a stream apart.
type parser struct {
	r      *bufio.Reader
	w      *window
	inside bool // a frame has begun and not ended
	frame  frame
	start  int // of the frame's contents
	sum    *xxhash.Digest
	tables tables
	recent recent
}

// skipped is a frame that is no contents: its magic number less the least of them, and how long it is. It has not been read.
type skipped struct {
	kind int
	size uint32
}

func (p *parser) read(n int) ([]byte, error) {
	data := make([]byte, n)
	if _, err := io.ReadFull(p.r, data); err != nil {
		return nil, p.cut(err)
	}
	return data, nil
}

// cut makes the end of the stream, where there is to be none, an error of it.
func (p *parser) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrections.Unsupported("it is cut off")
	}
	return fmt.Errorf("read zstd stream: %w", err)
}

// next reads a block, or the beginning of a frame to be skipped; neither at the end. A block's contents are in the window then.
func (p *parser) next() (*block, *skipped, error) {
	b := &block{}
	if !p.inside {
		if _, err := p.r.Peek(1); errors.Is(err, io.EOF) {
			return nil, nil, nil
		}
		magic, err := p.read(4)
		if err != nil {
			return nil, nil, err
		}
		switch m := binary.LittleEndian.Uint32(magic); {
		case m&^15 == skippableMagic:
			size, err := p.read(4)
			if err != nil {
				return nil, nil, err
			}
			return nil, &skipped{int(m & 15), binary.LittleEndian.Uint32(size)}, nil
		case m != frameMagic:
			return nil, nil, corrections.Unsupported("something comes after its end")
		}
		if err := p.begin(); err != nil {
			return nil, nil, err
		}
		f := p.frame
		b.frame = &f
	}
	if err := p.block(b); err != nil {
		return nil, nil, err
	}
	if b.last {
		p.inside = false
		return b, nil, p.close()
	}
	return b, nil, nil
}

// begin reads the header of a frame.
func (p *parser) begin() error {
	head, err := p.read(1)
	if err != nil {
		return err
	}
	f := frame{descriptor: head[0]}
	if !f.single() {
		if head, err = p.read(1); err != nil {
			return err
		}
		f.window = head[0]
	}
	field, err := p.read(f.sizeField())
	if err != nil {
		return err
	}
	f.size = binary.LittleEndian.Uint64(append(field, make([]byte, 8)...))
	if len(field) == 2 {
		f.size += 256
	}
	p.frame, p.inside, p.start, p.sum, p.tables, p.recent = f, true, p.w.end, xxhash.New(), tables{}, recent{1, 4, 8}
	return f.check()
}

// close reads what comes after the last block of a frame.
func (p *parser) close() error {
	if p.frame.sizeField() > 0 && uint64(p.w.end-p.start) != p.frame.size {
		return corrections.Unsupported("a frame has not the size that it says")
	}
	if !p.frame.summed() {
		return nil
	}
	sum, err := p.read(4)
	if err == nil && binary.LittleEndian.Uint32(sum) != uint32(p.sum.Sum64()) {
		err = corrections.Unsupported("a checksum is wrong")
	}
	return err
}

func (p *parser) block(b *block) error {
	head, err := p.read(3)
	if err != nil {
		return err
	}
	h := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	b.last, b.kind, b.start = h&1 == 1, h>>1&3, p.w.end
	size := h >> 3
	if size > min(maxBlock, int(p.frame.windowSize())) {
		return corrections.Unsupported("a block is too long")
	}
	p.w.room(maxBlock)
	switch b.kind {
	case raw:
		b.body, err = p.read(size)
		p.w.put(b.body)
		b.body = nil
	case repeated:
		if head, err = p.read(1); err == nil && size == 0 {
			err = corrections.Unsupported("a block repeats a byte zero times")
		} else if err == nil {
			p.w.put(bytes.Repeat(head, size))
		}
	case compressed:
		if b.body, err = p.read(size); err == nil {
			err = p.compressed(b)
		}
	default:
		err = corrections.Unsupported("a block of no known kind")
	}
	if err != nil {
		return err
	}
	b.size = p.w.end - b.start
	_, _ = p.sum.Write(p.w.bytes(b.start, p.w.end)) // never fails
	return nil
}

// compressed reads a block's body, and finds out whether that can be made anew.
func (p *parser) compressed(b *block) error {
	again := p.tables
	literals, err := p.tables.read(b)
	if err != nil {
		return err
	}
	most := min(maxBlock, int(p.frame.windowSize()))
	rest := literals
	for _, s := range b.sequences {
		offset := p.recent.offset(s)
		if s.literals > len(rest) {
			return corrections.Unsupported("a block has too few literals")
		}
		p.w.put(rest[:s.literals])
		rest = rest[s.literals:]
		if p.w.end-b.start+s.length > most {
			return corrections.Unsupported("a block has too much in it")
		}
		if offset <= 0 || offset > p.w.end-p.start || offset > int(p.frame.windowSize()) {
			return corrections.Unsupported("a match is from before the beginning")
		}
		p.w.copy(s.length, offset)
	}
	if p.w.put(rest); p.w.end-b.start > most {
		return corrections.Unsupported("a block has too much in it")
	}
	body, ok := again.write(b, literals)
	b.asIs = !ok || !bytes.Equal(body, b.body)
	if !b.asIs {
		b.body = nil
	}
	return nil
}
