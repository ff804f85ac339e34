// Package logs keeps what containers write: it chooses the log driver, opens it for the shim and reads it back for the daemon.
package logs

import (
	"context"
	"iter"

	"gantry/errdefs"
	"gantry/logs/record"
)

// The shared vocabulary of the drivers, under the names that callers use.
type (
	Stream      = record.Stream
	Message     = record.Message
	Driver      = record.Driver
	Entry       = record.Entry
	ReadOptions = record.ReadOptions
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
}

// Validate checks the driver's name and the options. Its errors are InvalidParameter with Docker's words.
func Validate(c Config) error { return errdefs.New(errdefs.NotImplemented, "log driver %q is not supported yet", c.Driver) }

// Open returns the driver of a container that starts.
func Open(c Config) (Driver, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "log driver %q is not supported yet", c.Driver)
}

// Read returns what the container wrote, oldest first. With Follow it goes on until ctx is done, or until done is closed (the
// container ended, its log is flushed) and the last message has been returned. An Entry is valid until the next one is asked for.
// A driver that cannot be read back gives an error of kind NotImplemented with Docker's words.
func Read(ctx context.Context, c Config, o ReadOptions, done <-chan struct{}) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		yield(Entry{}, errdefs.New(errdefs.NotImplemented, "log driver %q is not supported yet", c.Driver))
	}
}
