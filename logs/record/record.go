// Package record has the vocabulary that the log drivers share: what a container wrote, and what a reader gets back.
package record

import (
	"time"

	"gantry/logs/watch"
)

// Stream is the output stream that a line came from.
type Stream uint8

// The two output streams of a process. A terminal's output is all Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// MaxLine is the number of bytes after which a line is cut into partial messages, 16 KiB as in Docker.
const MaxLine = 16 << 10

// Partial marks a message that is one piece of a longer line.
type Partial struct {
	ID      string // the same in all pieces of one line
	Ordinal int    // 1 for the first piece
	Last    bool   // the piece that the line feed ended
}

// Message is one line, or one piece of a line, on its way to a driver. Line has no line feed and is only valid during the call.
type Message struct {
	Stream  Stream
	Time    time.Time
	Line    []byte
	Partial *Partial // nil for a whole line
}

// Open reports whether the line goes on in a further message: its text ends without a line feed.
func (m *Message) Open() bool { return m.Partial != nil && !m.Partial.Last }

// Driver takes the messages of one container. One goroutine at a time calls it.
type Driver interface {
	// Write takes one message. The driver may keep it in memory until Flush.
	Write(m *Message) error
	// Flush hands all messages taken so far to their destination, where a reader sees them.
	Flush() error
	// Close flushes and gives back the driver's resources.
	Close() error
}

// Attribute is one pair of a log's extra attributes (labels, environment, tag).
type Attribute struct{ Key, Value string }

// Entry is one message as read back. Line and Attributes are only valid until the next entry is asked for.
type Entry struct {
	Stream     Stream
	Time       time.Time
	Line       []byte // with its line feed; a piece of a longer line has none
	Partial    *Partial
	Attributes []Attribute // sorted by key; only with ReadOptions.Details
}

// ReadOptions choose what a reader returns.
type ReadOptions struct {
	Since, Until   time.Time // zero: no limit
	Tail           int       // the last n messages of both streams; negative: all
	Follow         bool
	Stdout, Stderr bool
	Details        bool           // fill Entry.Attributes
	Watcher        *watch.Watcher // wakes those who follow; nil: one of its own for this call
}
