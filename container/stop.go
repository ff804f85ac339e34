package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/signal"
)

// defaultStopTimeout is how long stop waits before it kills, in seconds.
const defaultStopTimeout = 10

// killDeadline is how long the daemon waits for a killed process to be gone before it says so.
const killDeadline = 10 * time.Second

// StopOptions shape Stop and Restart.
type StopOptions struct {
	Signal  string // empty: the container's
	Timeout *int   // seconds; nil: the container's; negative: wait for ever
}

// stopSignal returns the signal that asks the container to end.
func (r *Record) stopSignal() syscall.Signal {
	if r.Config.StopSignal != "" {
		if sig, err := signal.Parse(r.Config.StopSignal); err == nil {
			return sig
		}
	}
	return syscall.SIGTERM
}

// Stop asks the container to end and kills it after the time-out. NotModified: it does not run.
func (s *Service) Stop(ctx context.Context, ref string, o StopOptions) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	return s.stop(ctx, c, o, true)
}

// stop goes on when the client gives up: the container has its time to end all the same.
func (s *Service) stop(ctx context.Context, c *Container, o StopOptions, manual bool) error {
	ctx = context.WithoutCancel(ctx)
	c.op.Lock() // after a start that is under way, or an end
	stopping := sync.OnceFunc(c.op.Unlock)
	defer stopping()
	rec := c.Record()
	sig := rec.stopSignal()
	if o.Signal != "" {
		var err error
		if sig, err = signal.Parse(o.Signal); err != nil {
			return err
		}
	}
	c.mu.Lock()
	alive := c.rec.State.alive()
	if manual {
		c.rec.ManuallyStopped = true
	}
	if alive {
		c.stopping = true
	}
	wasRestarting := c.rec.State == Restarting
	if wasRestarting {
		c.endWaiting()
	}
	saved, task, ends := c.rec, c.task, c.ends
	c.mu.Unlock()
	stopping()
	if !alive {
		if wasRestarting {
			s.saveLogged(saved)
			s.publish(&saved, "stop", nil)
			return nil
		}
		return errdefs.New(errdefs.NotModified, "container %s is already stopped", saved.ID)
	}
	if manual {
		s.saveLogged(saved) // the policy must know of it even if the daemon dies now
	}
	timeout := defaultStopTimeout
	if s.opts.StopTimeout > 0 {
		timeout = s.opts.StopTimeout
	}
	if rec.Config.StopTimeout != nil {
		timeout = *rec.Config.StopTimeout
	}
	if o.Timeout != nil {
		timeout = *o.Timeout
	}
	if err := task.Signal(ctx, "", sig); err != nil && !gone(err) {
		return err
	}
	if rec.State == Paused { // a frozen process sees no signal
		if err := task.Resume(ctx); err != nil && !gone(err) {
			return err
		}
	}
	s.publish(&saved, "kill", map[string]string{"signal": strconv.Itoa(int(sig))})
	wait := ctx
	if timeout >= 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
		defer cancel()
	}
	if err := c.waitEnd(wait, ends); err != nil {
		if err := s.killAndWait(ctx, c); err != nil {
			return err
		}
	}
	after := c.Record()
	s.publish(&after, "stop", nil)
	return nil
}

// waitEnd waits until the run of the container after so many ends has ended too and all that it held is given back.
func (c *Container) waitEnd(ctx context.Context, ends int) error {
	for {
		c.mu.Lock()
		alive, changed := c.rec.State.alive() && c.ends == ends, c.changed
		c.mu.Unlock()
		if !alive {
			return nil
		}
		select {
		case <-changed:
		case <-c.removed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// killAndWait kills the container and waits for its end, with a deadline: a process in uninterruptible sleep must not
// hold the caller for ever.
func (s *Service) killAndWait(ctx context.Context, c *Container) error {
	c.mu.Lock()
	task, paused, ends := c.task, c.rec.State == Paused, c.ends
	c.stopping = true
	c.mu.Unlock()
	if task != nil { // else it is ending
		if err := task.Signal(ctx, "", syscall.SIGKILL); err != nil && !gone(err) {
			return err
		}
		if paused {
			if err := task.Resume(ctx); err != nil && !gone(err) {
				return err
			}
		}
	}
	wait, cancel := context.WithTimeout(ctx, killDeadline)
	defer cancel()
	if err := c.waitEnd(wait, ends); err != nil {
		return errdefs.New(errdefs.Internal, "container %s was killed and did not end within %v: a process of it may be in uninterruptible sleep", c.ID(), killDeadline)
	}
	return nil
}

// Kill sends a signal to the container's process.
func (s *Service) Kill(ctx context.Context, ref, name string) error {
	c, err := s.Get(ref)
	if err != nil {
		return fmt.Errorf("Cannot kill container: %s: %w", ref, err)
	}
	sig := syscall.SIGKILL
	if name != "" {
		if sig, err = signal.Parse(name); err != nil {
			return err
		}
	}
	c.mu.Lock()
	ends := c.ends
	c.mu.Unlock()
	rec := c.Record()
	if rec.State == Restarting && s.killRestarting(c, sig) {
		return nil
	}
	task, err := c.runningTask()
	if err != nil {
		return errdefs.New(errdefs.Conflict, "Cannot kill container: %s: %w", ref, err)
	}
	ending := sig == syscall.SIGKILL || sig == rec.stopSignal()
	if ending {
		c.mu.Lock()
		c.rec.ManuallyStopped = true
		c.stopping = true
		saved := c.rec
		c.mu.Unlock()
		s.saveLogged(saved)
	}
	if err := task.Signal(ctx, "", sig); err != nil {
		if gone(err) {
			return errdefs.New(errdefs.Conflict, "Cannot kill container: %s: container %s is not running", ref, rec.ID)
		}
		return err
	}
	if ending && rec.State == Paused {
		if err := task.Resume(ctx); err != nil && !gone(err) {
			return err
		}
	}
	s.publish(&rec, "kill", map[string]string{"signal": strconv.Itoa(int(sig))})
	if sig == syscall.SIGKILL {
		wait, cancel := context.WithTimeout(ctx, killDeadline)
		defer cancel()
		if err := c.waitEnd(wait, ends); err != nil && !errors.Is(err, context.Canceled) {
			return errdefs.New(errdefs.Internal, "container %s was killed and did not end within %v", rec.ID, killDeadline)
		}
	}
	return nil
}

// killRestarting takes back the restart that a container waits for, as Docker does: there is no process to get the signal, which
// is known to have been meant to end it unless the container has another signal for that. False: it does not wait any more.
func (s *Service) killRestarting(c *Container, sig syscall.Signal) bool {
	c.op.Lock()
	defer c.op.Unlock()
	c.mu.Lock()
	if c.rec.State != Restarting {
		c.mu.Unlock()
		return false
	}
	c.rec.ManuallyStopped = true
	if c.rec.Config.StopSignal == "" || sig == syscall.SIGKILL || sig == c.rec.stopSignal() {
		c.endWaiting()
	}
	saved := c.rec
	c.mu.Unlock()
	s.saveLogged(saved)
	return true
}

// Restart stops the container, if it runs, and starts it. What is asked for is on record first: a daemon that starts anew in
// between finishes it.
func (s *Service) Restart(ctx context.Context, ref string, o StopOptions) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	if err := s.restart(ctx, c, o); err != nil {
		return fmt.Errorf("Cannot restart container %s: %w", ref, err)
	}
	return nil
}

func (s *Service) restart(ctx context.Context, c *Container, o StopOptions) error {
	c.mu.Lock()
	asked := c.rec.State.alive()
	c.rec.RestartAsked = asked
	if asked {
		c.rec.ManuallyStopped = false
	}
	saved := c.rec
	c.mu.Unlock()
	if asked {
		if err := s.saveState(saved); err != nil {
			c.update(func(r *Record) { r.RestartAsked = false })
			return fmt.Errorf("restart container %s: %w", saved.ID, err)
		}
	}
	if err := s.stop(ctx, c, o, false); err != nil && !errdefs.Is(err, errdefs.NotModified) {
		s.saveLogged(c.update(func(r *Record) { r.RestartAsked = false }))
		return err
	}
	c.mu.Lock()
	c.cancelRestart()
	c.rec.ManuallyStopped = false
	c.mu.Unlock()
	if err := s.start(ctx, c, nil); err != nil {
		return err
	}
	rec := c.Record()
	s.publish(&rec, "restart", nil)
	return nil
}

// Pause freezes the container's processes.
func (s *Service) Pause(ctx context.Context, ref string) error { return s.freeze(ctx, ref, onPause) }

// Unpause thaws them.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	return s.freeze(ctx, ref, onUnpause)
}

func (s *Service) freeze(ctx context.Context, ref string, v verb) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.Record()
	next, err := rec.State.on(v, rec.ID)
	if err != nil {
		return err
	}
	task, err := c.runningTask()
	if err != nil {
		return err
	}
	if v == onPause {
		err = task.Pause(ctx)
	} else {
		err = task.Resume(ctx)
	}
	if err != nil {
		return errdefs.New(errdefs.KindOf(err), "cannot %s container %s: %w", v, rec.ID, err)
	}
	saved := c.update(func(r *Record) { r.State = next })
	s.saveLogged(saved)
	s.publish(&saved, string(v), nil)
	return nil
}
