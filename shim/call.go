package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/shim/wire"
)

// call sends one request and waits for its answer.
func (t *Task) call(ctx context.Context, m wire.Method, request, result any, files ...*os.File) error {
	answer := make(chan wire.Frame, 1)
	t.mu.Lock()
	if t.ended != nil {
		defer t.mu.Unlock()
		return &unsentError{t.ended}
	}
	t.last++
	id := t.last
	t.pending[id] = answer
	t.mu.Unlock()

	if err := t.conn.Send(wire.Request, m, id, request, files...); err != nil {
		t.forget(id)
		return &unsentError{err}
	}
	select {
	case f, ok := <-answer:
		if !ok {
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.ended
		}
		return decode(&f, result)
	case <-ctx.Done():
		t.forget(id)
		return errdefs.With(errdefs.Canceled, ctx.Err())
	}
}

// unsentError says that a request never reached the shim as a whole, so that it has done nothing of it.
type unsentError struct{ cause error }

func (e *unsentError) Error() string { return e.cause.Error() }
func (e *unsentError) Unwrap() error { return e.cause }

func (t *Task) forget(id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, id)
}

// decode turns an answer into its result or its error.
func decode(f *wire.Frame, result any) error {
	f.Close()
	if f.Kind != wire.Failure {
		if result == nil {
			return nil
		}
		return f.Decode(result)
	}
	var e wire.Error
	if err := f.Decode(&e); err != nil {
		return err
	}
	if e.ExitCode != 0 {
		return errdefs.With(e.Kind, &ExecError{Message: e.Message, Code: e.ExitCode})
	}
	return errdefs.With(e.Kind, errors.New(e.Message))
}

// receive hands answers to those who wait and events to the channel, until the connection ends.
func (t *Task) receive() {
	var err error
	for {
		var f wire.Frame
		if f, err = t.conn.Receive(); err != nil {
			break
		}
		if f.Kind != wire.Announcement {
			t.mu.Lock()
			answer := t.pending[f.ID]
			delete(t.pending, f.ID)
			t.mu.Unlock()
			if answer != nil {
				answer <- f
			} else {
				f.Close()
			}
			continue
		}
		var e Event
		if f.Close(); f.Decode(&e) != nil {
			continue // of a newer shim
		}
		t.mu.Lock()
		over := t.exited // nobody need take what comes after the last event, and answers must not wait for it
		t.exited = over || e.Kind == EventExit
		t.mu.Unlock()
		if !over {
			t.events <- e
		}
	}
	t.conn.Close()
	t.mu.Lock()
	t.ended = errdefs.With(errdefs.Unavailable, fmt.Errorf("the container's shim is gone: %w", err))
	for id, answer := range t.pending {
		delete(t.pending, id)
		close(answer)
	}
	lost := !t.exited && !t.left
	t.mu.Unlock()
	if lost {
		t.events <- Event{Kind: EventClosed}
	}
	close(t.events)
	if t.pid != 0 {
		reapChild(t.pid)
	}
}

// reapChild waits for a child that is ending, without a thread parked for it.
func reapChild(pid int) {
	if pidfd, err := fd.Pidfd(pid); err == nil {
		_ = fd.WaitGone(pidfd)
		pidfd.Close()
	}
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}
