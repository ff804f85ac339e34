package logs

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"gantry/logs/record"
)

// Writer cuts what a container writes into messages for its driver, with Docker's rules: a message ends at a line feed, or after
// record.MaxLine bytes. Errors of the driver are counted, not returned: a full disk does not stop the container.
type Writer struct {
	mu     sync.Mutex // guards all below; the streams of one container come from two goroutines
	driver Driver
	failed int   // messages that the driver refused
	err    error // the first of its errors
}

// NewWriter returns a Writer that owns d.
func NewWriter(d Driver) *Writer { return &Writer{driver: d} }

// Output returns the writer of one stream. Its Close logs what is left without a line feed.
func (w *Writer) Output(s Stream) *Output { return &Output{w: w, stream: s} }

// Close closes the driver. It returns the number of messages that were lost, and why the first of them was.
func (w *Writer) Close() (lost int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(w.driver.Close())
	return w.failed, w.err
}

func (w *Writer) note(err error) {
	if err == nil {
		return
	}
	w.failed++
	if w.err == nil {
		w.err = err
	}
}

// Output takes one stream of a container, by one goroutine at a time.
type Output struct {
	w       *Writer
	stream  Stream
	held    []byte          // the beginning of a line whose end has not come yet, at most record.MaxLine bytes
	piece   *record.Partial // the last piece of a line that goes on
	started time.Time       // when the first piece of that line came
	message Message
}

// Write logs p, which came at the given time. Every line that p ends is with the driver, and visible to readers, on return.
func (o *Output) Write(p []byte, at time.Time) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	for len(p) > 0 {
		room := record.MaxLine - len(o.held)
		i := bytes.IndexByte(p[:min(len(p), room)], '\n')
		switch {
		case i >= 0:
			o.log(p[:i], at, true)
			p = p[i+1:]
		case len(p) >= room:
			o.log(p[:room], at, false)
			p = p[room:]
		default:
			o.held = append(o.held, p...)
			p = nil
		}
	}
	o.w.note(o.w.driver.Flush())
}

// Close logs a last line that no line feed ended.
func (o *Output) Close(at time.Time) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if len(o.held) > 0 {
		o.log(nil, at, false)
	}
	o.w.note(o.w.driver.Flush())
}

// log logs what is held and rest as one message; ended says that a line feed followed.
func (o *Output) log(rest []byte, at time.Time, ended bool) {
	line := rest
	if len(o.held) > 0 {
		o.held = append(o.held, rest...)
		line = o.held
	}
	m := &o.message
	m.Stream, m.Time, m.Line, m.Partial = o.stream, at, line, nil
	if o.piece != nil || !ended {
		if o.piece == nil {
			// Unique within the log: a stream has one line at a time.
			id := o.stream.String() + strconv.FormatInt(time.Now().UnixNano(), 16)
			o.piece, o.started = &record.Partial{ID: id}, at
		}
		o.piece.Ordinal++
		o.piece.Last = ended
		m.Partial, m.Time = o.piece, o.started
	}
	o.w.note(o.w.driver.Write(m))
	if ended {
		o.piece = nil
	}
	if cap(o.held) > 2<<10 { // long lines are rare: do not keep the memory
		o.held = nil
	} else {
		o.held = o.held[:0]
	}
}
