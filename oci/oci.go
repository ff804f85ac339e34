// Package oci is the life cycle of a container as the OCI runtime specification has it, seen from the parent: create, start, exec,
// delete. The child's side is package initproc.
package oci

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
)

// Bundle is what a container is made of.
type Bundle struct {
	ID         string
	Dir        string // the bundle directory: base of a relative Spec.Root.Path
	Spec       *specs.Spec
	Root       *os.File                                 // detached mount of the root file system, or nil: Spec.Root.Path. Create does not close it
	Namespaces map[specs.LinuxNamespaceType]*os.File // namespaces to join, by descriptor; they override paths in Spec
	Seccomp    []byte                                   // compiled filter, or nil: Create compiles Spec.Linux.Seccomp
	// DieWithParent kills the container's init when the calling process ends, however it ends.
	DieWithParent bool
}

// Stdio is the child's end of standard input, output and error; nil is /dev/null. With a terminal it is ignored.
type Stdio struct{ Stdin, Stdout, Stderr *os.File }

// Container is a created container. Its methods are safe for concurrent use.
type Container struct {
	cgroup *cgroup.Cgroup
	init   *Process
}

var errNot = errdefs.New(errdefs.NotImplemented, "oci: not there yet")

// Create sets the container up and returns when its init waits for Start. On error nothing is left.
func Create(ctx context.Context, b Bundle, io Stdio) (*Container, error) { return nil, errNot }

// Start lets init execute the container's program; *ExecError when that fails.
func (c *Container) Start(ctx context.Context) error { return errNot }

// Init returns the container's first process.
func (c *Container) Init() *Process { return c.init }

// ExecOptions are the circumstances of Exec.
type ExecOptions struct {
	Stdio   Stdio
	Seccomp []byte // compiled filter instead of the container's; empty and not nil: none
}

// Exec runs a further process in the container and returns when it has been executed; *ExecError when that fails.
func (c *Container) Exec(ctx context.Context, p *specs.Process, o ExecOptions) (*Process, error) {
	return nil, errNot
}

// Cgroup returns the container's cgroup.
func (c *Container) Cgroup() *cgroup.Cgroup { return c.cgroup }

// Warnings tells what of the specification could not be had on this machine and was replaced by the nearest possible.
func (c *Container) Warnings() []string { return nil }

// Delete kills what is left in the container, removes its cgroup and runs its poststop hooks.
func (c *Container) Delete(ctx context.Context) error { return errNot }

// Process is a process of a container that this process started.
type Process struct {
	Pid     int
	Pidfd   *os.File
	Console *os.File // master of the pseudo terminal, or nil
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	Code       int            // 128+n when killed by signal n
	Signal     syscall.Signal // zero when it was not killed
	CoreDumped bool
}

// Wait waits for the process's end; every caller gets the same answer.
func (p *Process) Wait(ctx context.Context) (ExitStatus, error) { return ExitStatus{}, errNot }

// Signal sends sig to the process; os.ErrProcessDone when it has ended.
func (p *Process) Signal(sig syscall.Signal) error { return errNot }

// Close releases the process's descriptors (not the Console).
func (p *Process) Close() error { return p.Pidfd.Close() }

// ExecError says why a program could not be executed.
type ExecError struct {
	Path  string // what was to be executed
	Errno syscall.Errno
}

func (e *ExecError) Error() string { return fmt.Sprintf("exec: %q: %v", e.Path, e.Errno) }
func (e *ExecError) Unwrap() error { return e.Errno }
