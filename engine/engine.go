// Package engine composes the services of a daemon: it opens them in order over one data root, recovers what an earlier
// process left, and closes them. It has no operations of its own.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"gantry/db"
	"gantry/event"
)

// Options say where and how an engine lives.
type Options struct {
	DataRoot string // images, volumes and records; 0700
	ExecRoot string // sockets and state of running containers, lost at boot; 0700
	Log      *slog.Logger
}

// Engine is the set of open services.
type Engine struct {
	DB     *db.DB
	Events *event.Bus

	closers []func() error // undone in reverse order
}

// Open opens all services. On failure everything already opened is closed again.
func Open(_ context.Context, o Options) (e *Engine, err error) {
	e = &Engine{Events: &event.Bus{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
			e = nil
		}
	}()
	for _, dir := range []string{o.DataRoot, o.ExecRoot, filepath.Join(o.DataRoot, "tmp"), filepath.Join(o.ExecRoot, "c")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return e, fmt.Errorf("create root directory: %w", err)
		}
	}
	if e.DB, err = db.Open(filepath.Join(o.DataRoot, "gantry.db")); err != nil {
		return e, err
	}
	e.closers = append(e.closers, e.DB.Close)
	return e, nil
}

// Close closes the services, newest first. Containers keep running.
func (e *Engine) Close() error {
	var errs []error
	for i := len(e.closers) - 1; i >= 0; i-- {
		errs = append(errs, e.closers[i]())
	}
	e.closers = nil
	return errors.Join(errs...)
}
