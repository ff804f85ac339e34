// Package shim starts and reaches the supervisors of sandboxes: one small process each, which outlives the daemon.
package shim

import (
	"context"
	"log/slog"

	"gantry/errdefs"
)

// Options configure a Launcher.
type Options struct {
	Exe  string       // the gantry-shim binary; its content is copied once into a sealed memory file
	Warm int          // ready shims to keep
	Log  *slog.Logger // nil: nothing is logged
}

// Launcher starts containers in shims that wait ready. Its methods may be called concurrently.
type Launcher struct{ o Options }

// NewLauncher reads the shim's binary and starts the first ready shims.
func NewLauncher(o Options) (*Launcher, error) { return &Launcher{o: o}, nil }

// Close ends the shims that wait; those with a container stay.
func (l *Launcher) Close() {}

// Start runs a container. An *ExecError says that its program could not be executed.
func (l *Launcher) Start(ctx context.Context, r StartRequest) (*Task, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "start container %s", r.ID)
}
