// Package local is a log driver for reading back fast in little space. Its files are rotated, and compressed then.
//
// A file is a header and records. All numbers are little endian.
//
//	header: "GANTRYL1", u32 length of what follows, the attributes of all messages as a JSON object of strings
//	record: u32 length of the body, body, u32 length of the body once more (so that a reader can go backwards)
//	body:   u8 flags, i64 time in ns since 1970, [u64 line, u32 piece if flagPartial], text without its line feed
//
// line is the same number in all pieces of one cut line, piece counts them from 1.
package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"gantry/errdefs"
	"gantry/logs/record"
	"gantry/logs/rotate"
)

const (
	magic        = "GANTRYL1"
	maxHeader    = 1 << 20
	maxBody      = record.MaxLine + 64
	minBody      = 1 + 8
	flagStderr   = 1
	flagPartial  = 2
	flagLast     = 4 // with flagPartial: the piece that the line feed ended
	scanBlock    = 64 << 10
	partialBytes = 8 + 4
	fixedHeader  = 8 + 4 // magic and length
)

// Driver writes one container's log.
type Driver struct{ rotate.Buffer }

// Open opens or makes the log at path. attributes belong to each message.
func Open(path string, l rotate.Limits, attributes []record.Attribute) (*Driver, error) {
	pairs := make(map[string]string, len(attributes))
	for _, a := range attributes {
		pairs[a.Key] = a.Value
	}
	text, err := json.Marshal(pairs)
	if err != nil {
		return nil, fmt.Errorf("encode log attributes: %w", err)
	}
	if len(text) > maxHeader {
		return nil, errdefs.New(errdefs.InvalidParameter, "log attributes take %d bytes, at most %d are possible", len(text), maxHeader)
	}
	header := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(text)))
	file, err := rotate.Open(path, append(header, text...), l, repair)
	if err != nil {
		return nil, err
	}
	return &Driver{rotate.Buffer{File: file}}, nil
}

// repair drops a record that was written in part.
func repair(f *os.File, size int64) (int64, error) {
	var r format
	start, err := r.Start(f, size)
	if err != nil {
		return 0, nil // not one of ours, or less than a header: begin again
	}
	if good, err := sound(f, start, size); err != nil || good {
		return size, err
	}
	good := start
	err = r.scan(f, start, size, func(offset int64, length int, _ time.Time) bool {
		good = offset + int64(length)
		return true
	})
	return good, err
}

// sound reports whether the last record is whole.
func sound(f io.ReaderAt, start, end int64) (bool, error) {
	if end == start {
		return true, nil
	}
	_, ok, err := before(f, start, end)
	return ok, err
}

// Write implements record.Driver.
func (d *Driver) Write(m *record.Message) error {
	length := minBody + len(m.Line)
	flags := byte(0)
	if m.Stream == record.Stderr {
		flags |= flagStderr
	}
	if m.Partial != nil {
		length += partialBytes
		flags |= flagPartial
		if m.Partial.Last {
			flags |= flagLast
		}
	}
	b := binary.LittleEndian.AppendUint32(d.Bytes, uint32(length))
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Time.UnixNano()))
	if m.Partial != nil {
		b = binary.LittleEndian.AppendUint64(b, lineNumber(m.Partial.ID))
		b = binary.LittleEndian.AppendUint32(b, uint32(m.Partial.Ordinal))
	}
	b = append(b, m.Line...)
	return d.Added(binary.LittleEndian.AppendUint32(b, uint32(length)))
}

// lineNumber is FNV-1a of a partial message's ID.
func lineNumber(id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return h
}

// Read returns the messages of the log at path; see logs.Read.
func Read(ctx context.Context, path string, o record.ReadOptions, done <-chan struct{}) iter.Seq2[record.Entry, error] {
	return rotate.Read(ctx, path, func() rotate.Format { return &format{} }, o, done)
}

var errDamaged = errors.New("damaged record")
