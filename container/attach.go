package container

import (
	"context"
	"errors"
	"iter"
	"os"

	"gantry/errdefs"
	"gantry/logs"
	"gantry/shim"
)

// AttachOptions shape Attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool // first what was logged so far
	Stream                bool // then what is to come
	DetachKeys            []byte
}

// CheckAttach tells before the connection is taken over why an attach cannot be.
func (s *Service) CheckAttach(ref string) (tty bool, err error) {
	c, err := s.Get(ref)
	if err != nil {
		return false, err
	}
	rec := c.Record()
	if rec.State == Paused {
		return false, errdefs.New(errdefs.Conflict, "container %s is paused, unpause the container before attach", rec.ID)
	}
	if rec.State == Restarting {
		return false, errdefs.New(errdefs.Conflict, "container %s is restarting, wait until the container is running", rec.ID)
	}
	return rec.Config.Tty, nil
}

// Attach hands a client's connection to the container's supervisor; for one that does not run, at its next start.
// The connection is taken over in any case. Attach returns once that is done, not when the session ends.
func (s *Service) Attach(ctx context.Context, ref string, conn *os.File, prefix []byte, o AttachOptions) error {
	c, err := s.Get(ref)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	rec := c.Record()
	st := shim.Stream{Conn: conn, Stdin: o.Stdin && rec.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr, Mux: !rec.Config.Tty, DetachKeys: o.DetachKeys, Prefix: prefix}
	if !o.Stream {
		return conn.Close()
	}
	c.mu.Lock()
	task := c.task
	if task == nil {
		c.waiting = append(c.waiting, st)
		c.mu.Unlock()
		s.publish(&rec, "attach", nil)
		return nil
	}
	c.mu.Unlock()
	if err := task.Attach(ctx, st); err != nil {
		return err
	}
	s.publish(&rec, "attach", nil)
	return nil
}

// Resize sets the size of the container's terminal, in characters.
func (s *Service) Resize(ctx context.Context, ref string, rows, cols uint16) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	task, err := c.runningTask()
	if err != nil {
		return err
	}
	if err := task.Resize(ctx, "", rows, cols); err != nil {
		return err
	}
	rec := c.Record()
	s.publish(&rec, "resize", nil)
	return nil
}

// Logs returns what the container wrote.
func (s *Service) Logs(ctx context.Context, ref string, o logs.ReadOptions) (tty bool, _ iter.Seq2[logs.Entry, error], err error) {
	c, err := s.Get(ref)
	if err != nil {
		return false, nil, err
	}
	rec := c.Record()
	var done <-chan struct{}
	if o.Follow {
		done = s.waitDone(ctx, c)
	}
	return rec.Config.Tty, logs.Read(ctx, rec.LogConfig, o, done), nil
}
