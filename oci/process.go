package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"gantry/linux/clone"
	"gantry/linux/fd"
	"gantry/oci/initproc"
)

// Process is a process of a container that this process started.
type Process struct {
	Pid     int
	Pidfd   *os.File
	Console *os.File // master of the pseudo terminal, or nil; the caller closes it
	// Warnings tells, of a process that Exec started, what Container.Warnings tells of a container.
	Warnings []string

	child  *clone.Child
	pass   func(listener *os.File) error // gives a seccomp listener to who answers it
	ward   bool                          // a process that another process started: its status is not ours to take
	once   sync.Once
	done   chan struct{} // closed when status and err are set
	status ExitStatus
	err    error
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	Code       int            // 128+n when killed by signal n
	Signal     syscall.Signal // zero when it was not killed
	CoreDumped bool
}

// ExecError says why a program could not be executed.
type ExecError struct {
	Path  string // what was to be executed
	Errno syscall.Errno
	Found bool // it is there, and may be executed as far as its mode goes: what it needs to run is missing
}

// Error has the words that runc's callers look for.
func (e *ExecError) Error() string {
	switch {
	case e.Found:
		return fmt.Sprintf("exec %s: %v", e.Path, e.Errno)
	case !strings.Contains(e.Path, "/") && (e.Errno == syscall.ENOENT || e.Errno == syscall.EACCES):
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Path)
	case e.Errno == syscall.ENOENT:
		return fmt.Sprintf("exec: %q: stat %s: %v", e.Path, e.Path, e.Errno)
	}
	return fmt.Sprintf("exec: %q: %v", e.Path, e.Errno)
}

// Unwrap returns the errno.
func (e *ExecError) Unwrap() error { return e.Errno }

func newProcess(c *clone.Child, console *os.File) *Process {
	return &Process{Pid: c.Pid, Pidfd: c.Pidfd, Console: console, child: c, done: make(chan struct{})}
}

// Wait waits for the process's end; every caller gets the same answer. It waits in Go's poller, not in a thread. Of a process that
// another process started the status is not known, and zero.
func (p *Process) Wait(ctx context.Context) (ExitStatus, error) {
	p.once.Do(func() {
		go func() {
			defer close(p.done)
			if p.ward {
				p.err = fd.WaitGone(p.Pidfd)
				return
			}
			e, err := fd.Wait(p.Pidfd)
			p.err = err
			p.status = ExitStatus{Code: e.Code, Signal: e.Signal, CoreDumped: e.CoreDumped}
			if e.Signal != 0 {
				p.status.Code = 128 + int(e.Signal)
			}
		}()
	})
	select {
	case <-p.done:
		return p.status, p.err
	case <-ctx.Done():
		return ExitStatus{}, ctx.Err()
	}
}

// Signal sends sig to the process; os.ErrProcessDone when it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	if p.Pidfd == nil {
		return os.ErrProcessDone
	}
	if err := fd.Signal(p.Pidfd, sig); errors.Is(err, os.ErrClosed) {
		return os.ErrProcessDone // Close came in between
	} else if err != nil {
		return fmt.Errorf("signal process %d: %w", p.Pid, err)
	}
	return nil
}

// Close releases the process's descriptors, but not the Console. Nobody may be in Wait.
func (p *Process) Close() error {
	if p.Pidfd == nil {
		return nil
	}
	return errors.Join(p.closeSync(), p.Pidfd.Close())
}

// closeSync ends the talk with the child and lets its script go, which is the larger part of what a container takes here.
func (p *Process) closeSync() error {
	if p.child == nil || p.child.Sync == nil {
		return nil
	}
	err := p.child.Sync.Close()
	p.child = nil
	return err
}

// kill ends a process that is not to be, and takes its status.
func (p *Process) kill(ctx context.Context) {
	_ = fd.Signal(p.Pidfd, syscall.SIGKILL) // it may be gone already
	_, _ = p.Wait(context.WithoutCancel(ctx))
	if p.Console != nil {
		p.Console.Close()
	}
	p.Close()
}

// await waits until the child is ready or has executed its program. name is what it is to execute.
func (p *Process) await(name string) (clone.Message, error) {
	m, err := p.child.Next()
	if err == nil && m == clone.Listening {
		if err = p.passListener(); err == nil {
			m, err = p.child.Next()
		}
	} else if err == nil && m == clone.Executed && p.pass != nil {
		err = errSilent
	}
	var f *clone.Failure
	if errors.As(err, &f) && slices.Contains([]string{"execve", "fail", "faccessat"}, f.Call) {
		return 0, &ExecError{Path: name, Errno: f.Errno, Found: f.What == initproc.Execute && f.Errno != syscall.EACCES}
	}
	return m, err
}
