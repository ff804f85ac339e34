// Package logs keeps what containers write: it chooses the log driver, opens it for the shim and reads it back for the daemon.
package logs

import (
	"context"
	"iter"

	"gantry/errdefs"
	"gantry/logs/jsonfile"
	"gantry/logs/local"
	"gantry/logs/none"
	"gantry/logs/record"
	"gantry/logs/watch"
)

// The shared vocabulary of the drivers, under the names that callers use.
type (
	Stream      = record.Stream
	Message     = record.Message
	Driver      = record.Driver
	Entry       = record.Entry
	Attribute   = record.Attribute
	ReadOptions = record.ReadOptions
	Watcher     = watch.Watcher
)

// The streams of a process.
const (
	Stdout = record.Stdout
	Stderr = record.Stderr
)

// Config says where and how one container's output is kept. It travels to the shim as JSON.
type Config struct {
	Driver      string            // json-file (also when empty), local or none
	Options     map[string]string `json:",omitempty"` // as in --log-opt
	Path        string            // the log file; its rotated siblings lie beside it. json-file: <dir>/<id>-json.log
	ContainerID string            // 64 hex digits
	Name        string            // without leading slash
	Image       string            // as the user named it
	ImageID     string            `json:",omitempty"`
	Labels      map[string]string `json:",omitempty"` // the container's labels; the "labels" option picks some
	Env         []string          `json:",omitempty"` // the container's environment; the "env" option picks some
	Attributes  map[string]string `json:",omitempty"` // what each message carries: set by package attributes, which the shim does not link
}

// Open returns the driver of a container that starts.
func Open(c Config) (Driver, error) {
	s, err := c.settings()
	if err != nil {
		return nil, err
	}
	var d Driver
	switch s.driver {
	case None:
		return none.Driver{}, nil
	case Local:
		d, err = local.Open(c.Path, s.limits, s.attributes)
	default:
		d, err = jsonfile.Open(c.Path, s.limits, s.attributes)
	}
	if err != nil {
		return nil, err
	}
	if s.buffer > 0 {
		d = newQueue(d, s.buffer)
	}
	return d, nil
}

// Read returns what the container wrote, oldest first. With Follow it goes on until ctx is done, or until done is closed (the
// container ended, its log is flushed; nil: never) and the last message has been returned. An Entry is valid until the next one is
// asked for. A log that does not exist is empty. A driver that cannot be read back gives an error of kind NotImplemented.
func Read(ctx context.Context, c Config, o ReadOptions, done <-chan struct{}) iter.Seq2[Entry, error] {
	switch c.Driver {
	case "", JSONFile:
		return jsonfile.Read(ctx, c.Path, o, done)
	case Local:
		return local.Read(ctx, c.Path, o, done)
	}
	return func(yield func(Entry, error) bool) {
		yield(Entry{}, errdefs.New(errdefs.NotImplemented, "configured logging driver does not support reading"))
	}
}

// NewWatcher returns what several calls of Read share, by ReadOptions.Watcher, to be woken: the kernel limits each user's number of
// inotify instances. It must be closed.
func NewWatcher() (*Watcher, error) { return watch.New() }
