package local

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gantry/logs/record"
)

// format implements rotate.Format.
type format struct {
	attributes []record.Attribute // of the file begun last
	line       []byte             // text with its line feed
	partial    record.Partial
}

// Start implements rotate.Format.
func (r *format) Start(f io.ReaderAt, size int64) (int64, error) {
	r.attributes = nil
	if size < fixedHeader {
		return 0, nil // its writer is about to write the header
	}
	var b [fixedHeader]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	length := binary.LittleEndian.Uint32(b[len(magic):])
	if string(b[:len(magic)]) != magic || length > maxHeader {
		return 0, fmt.Errorf("log file header: %w", errDamaged)
	}
	if size < fixedHeader+int64(length) {
		return 0, nil
	}
	text := make([]byte, length)
	if _, err := f.ReadAt(text, fixedHeader); err != nil {
		return 0, err
	}
	var pairs map[string]string
	if err := json.Unmarshal(text, &pairs); err != nil {
		return 0, fmt.Errorf("log file header: %w", errDamaged)
	}
	for k, v := range pairs {
		r.attributes = append(r.attributes, record.Attribute{Key: k, Value: v})
	}
	slices.SortFunc(r.attributes, func(a, b record.Attribute) int { return strings.Compare(a.Key, b.Key) })
	return fixedHeader + int64(length), nil
}

// Next implements rotate.Format. A file that was read before its header was there begins with it.
func (r *format) Next(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, nil
	}
	length := int(binary.LittleEndian.Uint32(b))
	if string(b[:4]) == magic[:4] {
		if len(b) < fixedHeader {
			return 0, nil
		}
		length = int(binary.LittleEndian.Uint32(b[len(magic):]))
		if length > maxHeader {
			return 0, errDamaged
		}
		if fixedHeader+length > len(b) {
			return 0, nil
		}
		return fixedHeader + length, nil
	}
	if length < minBody || length > maxBody {
		return 0, errDamaged
	}
	size := 4 + length + 4
	if size > len(b) {
		return 0, nil
	}
	if int(binary.LittleEndian.Uint32(b[4+length:])) != length {
		return 0, errDamaged
	}
	return size, nil
}

// Decode implements rotate.Format.
func (r *format) Decode(b []byte, e *record.Entry, details bool) bool {
	if string(b[:4]) == magic[:4] {
		return false
	}
	body := b[4 : len(b)-4]
	flags := body[0]
	e.Stream = record.Stdout
	if flags&flagStderr != 0 {
		e.Stream = record.Stderr
	}
	e.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(body[1:]))).UTC()
	text := body[minBody:]
	if flags&flagPartial != 0 {
		if len(text) < partialBytes {
			return false
		}
		r.partial = record.Partial{
			ID:      fmt.Sprintf("%016x", binary.LittleEndian.Uint64(text)),
			Ordinal: int(binary.LittleEndian.Uint32(text[8:])),
			Last:    flags&flagLast != 0,
		}
		e.Partial = &r.partial
		text = text[partialBytes:]
	}
	e.Line = text
	if flags&flagPartial == 0 || flags&flagLast != 0 {
		r.line = append(append(r.line[:0], text...), '\n')
		e.Line = r.line
	}
	if details {
		e.Attributes = append(e.Attributes, r.attributes...)
	}
	return true
}

// before returns where the record that ends at offset end begins; false: what ends there is not a record.
func before(f io.ReaderAt, start, end int64) (int64, bool, error) {
	if end-start < 4+minBody+4 {
		return 0, false, nil
	}
	var b [4]byte
	if _, err := f.ReadAt(b[:], end-4); err != nil {
		return 0, false, err
	}
	length := int64(binary.LittleEndian.Uint32(b[:]))
	begin := end - 8 - length
	if length < minBody || length > maxBody || begin < start {
		return 0, false, nil
	}
	if _, err := f.ReadAt(b[:], begin); err != nil {
		return 0, false, err
	}
	return begin, int64(binary.LittleEndian.Uint32(b[:])) == length, nil
}

// Tail implements rotate.Format.
func (r *format) Tail(f io.ReaderAt, start, size int64, n int) (offset int64, found int, err error) {
	offset = size
	for found < n && offset > start {
		begin, ok, err := before(f, start, offset)
		if err != nil {
			return 0, 0, err
		}
		if !ok {
			if offset == size { // being written: leave out what is not whole
				return r.tailForward(f, start, size, n)
			}
			break
		}
		offset = begin
		found++
	}
	return offset, found, nil
}

// tailForward is Tail for a file with a torn end.
func (r *format) tailForward(f io.ReaderAt, start, size int64, n int) (offset int64, found int, err error) {
	var last []int64 // the offsets of the last n records, as a ring
	offset = start
	err = r.scan(f, start, size, func(at int64, _ int, _ time.Time) bool {
		if found < n {
			last = append(last, at)
		} else {
			last[found%n] = at
		}
		found++
		return true
	})
	switch {
	case found > n:
		return last[found%n], n, err
	case found > 0:
		return last[0], found, err
	}
	return offset, 0, err
}

// Since implements rotate.Format: it looks at lengths and times only.
func (r *format) Since(f io.ReaderAt, start, size int64, t time.Time) (offset int64, err error) {
	offset = start
	err = r.scan(f, start, size, func(at int64, length int, when time.Time) bool {
		if !when.Before(t) {
			return false
		}
		offset = at + int64(length)
		return true
	})
	return offset, err
}

// scan calls each with the offset, length and time of the whole records in f[start:size] until it returns false.
func (r *format) scan(f io.ReaderAt, start, size int64, each func(offset int64, length int, t time.Time) bool) error {
	buf := make([]byte, scanBlock)
	for start < size {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-start)], start)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		b := buf[:n]
		for {
			length, err := r.Next(b)
			if err != nil || length == 0 {
				break
			}
			at := time.Unix(0, int64(binary.LittleEndian.Uint64(b[5:])))
			if string(b[:4]) == magic[:4] {
				at = time.Time{}
			}
			if !each(start, length, at) {
				return nil
			}
			start += int64(length)
			b = b[length:]
		}
		if len(b) == n { // not even one whole record
			return nil
		}
	}
	return nil
}
