// Package jsonfile is Docker's json-file log driver: one JSON object a line, with the members log, stream, attrs and time.
package jsonfile

import (
	"context"
	"io"
	"iter"
	"os"
	"time"

	"gantry/logs/record"
	"gantry/logs/rotate"
)

// Driver writes one container's log.
type Driver struct {
	rotate.Buffer
	after [3][]byte // what follows the text of a message, up to its time; by stream
	stamp stamp
}

// Open opens or makes the log at path. attributes are added to each message as "attrs".
func Open(path string, l rotate.Limits, attributes []record.Attribute) (*Driver, error) {
	file, err := rotate.Open(path, nil, l, repair)
	if err != nil {
		return nil, err
	}
	d := &Driver{Buffer: rotate.Buffer{File: file}}
	attrs := ""
	if len(attributes) > 0 {
		attrs = `"attrs":` + string(appendAttributes(nil, attributes)) + `,`
	}
	for _, s := range [...]record.Stream{record.Stdout, record.Stderr} {
		d.after[s] = []byte(`","stream":"` + s.String() + `",` + attrs + `"time":"`)
	}
	return d, nil
}

// repair drops a line that was written in part.
func repair(f *os.File, size int64) (int64, error) {
	start, _, err := lastLines(f, 0, size, 1)
	if err != nil {
		return 0, err
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], size-1); err != nil {
		return 0, err
	}
	if b[0] == '\n' {
		return size, nil
	}
	return start, nil
}

// Write implements record.Driver.
func (d *Driver) Write(m *record.Message) error {
	b := append(d.Bytes, `{"log":"`...)
	b = appendText(b, m.Line)
	if !m.Open() {
		b = append(b, `\n`...)
	}
	b = append(b, d.after[m.Stream]...)
	b = d.stamp.append(b, m.Time)
	return d.Added(append(b, "\"}\n"...))
}

// Read returns the messages of the log at path; see logs.Read.
func Read(ctx context.Context, path string, o record.ReadOptions, done <-chan struct{}) iter.Seq2[record.Entry, error] {
	return rotate.Read(ctx, path, func() rotate.Format { return &format{} }, o, done)
}

// format implements rotate.Format.
type format struct {
	text []byte // unescaped
	last stamp
}

func (*format) Start(io.ReaderAt, int64) (int64, error) { return 0, nil }

func (*format) Tail(f io.ReaderAt, start, size int64, n int) (int64, int, error) {
	return lastLines(f, start, size, n)
}

func (*format) Since(f io.ReaderAt, start, size int64, t time.Time) (int64, error) {
	return search(f, start, size, t)
}
