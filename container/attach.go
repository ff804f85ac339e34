package container

import (
	"context"
	"errors"
	"iter"
	"os"
	"slices"
	"syscall"
	"time"

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

// attachGrace is how long a start waits for connections that are being taken over; a client that does not take its answer
// for so long may miss the first output.
const attachGrace = 5 * time.Second

// ExpectAttach tells before the connection is taken over why an attach cannot be. From its return until the call of done, which
// belongs after Attach, a start of the container waits: a client starts it as soon as it has the answer to its attach, and must
// not miss the first output.
func (s *Service) ExpectAttach(ref string) (tty bool, done func(), err error) {
	c, err := s.Get(ref)
	if err != nil {
		return false, nil, err
	}
	rec := c.Record()
	if rec.State == Paused {
		return false, nil, errdefs.New(errdefs.Conflict, "Container %s is paused, unpause the container before attach", rec.Name)
	}
	if rec.State == Restarting {
		return false, nil, errdefs.New(errdefs.Conflict, "container %s is restarting, wait until the container is running", rec.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arriving++
	return rec.Config.Tty, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.arriving--
		c.wake()
	}, nil
}

// takeWaiting returns the connections that were attached before a start, once those that are being taken over have arrived.
func (c *Container) takeWaiting() []shim.Stream {
	expired := time.NewTimer(attachGrace)
	defer expired.Stop()
	c.mu.Lock()
	for late := false; c.arriving > 0 && !late; {
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-expired.C:
			late = true
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	streams := c.waiting
	c.waiting = nil
	return streams
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
	if task == nil && c.rec.State.alive() { // it has just ended, so has its output
		c.mu.Unlock()
		return conn.Close()
	}
	if task == nil {
		c.waiting = slices.DeleteFunc(c.waiting, abandoned) // else clients that come and go pile up
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

// abandoned reports whether the client of a waiting connection has gone, and closes the connection then. One that only closed
// its own side, as Docker's does without stdin, is still there: an empty message tells.
func abandoned(st shim.Stream) bool {
	raw, err := st.Conn.SyscallConn()
	if err != nil {
		return false
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, sent = syscall.SendmsgN(int(fd), nil, nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
	})
	if err != nil || !errors.Is(sent, syscall.EPIPE) && !errors.Is(sent, syscall.ECONNRESET) {
		return false
	}
	_ = st.Conn.Close() // of nobody's use
	return true
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

// CheckLogs tells beforehand that a container's log cannot be read.
func (s *Service) CheckLogs(ref string) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	if rec := c.Record(); rec.LogConfig.Driver == "none" {
		return errdefs.New(errdefs.NotImplemented, "configured logging driver does not support reading")
	}
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
