package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/oci"
	"gantry/shim/wire"
)

// create makes the container of a request, up to the point where its program is executed.
func create(ctx context.Context, r *wire.StartRequest, b bundle, stdio [3]*os.File) (container, error) {
	if r.Runtime != "" {
		f, err := createForeign(ctx, r, b, stdio)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	c, err := oci.Create(ctx, oci.Bundle{
		ID: r.ID, Dir: r.Dir, Spec: r.Spec, Root: b.root, Namespaces: b.namespaces, Mounts: b.mounts, Seccomp: r.Seccomp, DieWithParent: true,
	}, oci.Stdio{Stdin: stdio[0], Stdout: stdio[1], Stderr: stdio[2]})
	if err != nil {
		return nil, startError("create", err)
	}
	return &builtin{c, filepath.Base(r.Spec.Process.Args[0]) == pid1Name}, nil
}

// pid1Name is the name of the init of containers that are run with --init.
const pid1Name = "docker-init"

// builtin is a container of package oci.
type builtin struct {
	c    *oci.Container
	pid1 bool // its program is our init
}

func (b *builtin) Start(ctx context.Context) error { return startError("create", b.c.Start(ctx)) }

func (b *builtin) Main() process { return &builtinProcess{b.c.Init(), b.pid1} }

func (b *builtin) Cgroup() *cgroup.Cgroup { return b.c.Cgroup() }

func (b *builtin) Warnings() []string { return b.c.Warnings() }

func (b *builtin) Mounts() []string { return nil }

func (b *builtin) Delete(ctx context.Context) error { return b.c.Delete(ctx) }

func (b *builtin) Exec(ctx context.Context, r *wire.ExecRequest, stdio [3]*os.File) (process, error) {
	o := oci.ExecOptions{Stdio: oci.Stdio{Stdin: stdio[0], Stdout: stdio[1], Stderr: stdio[2]}, Seccomp: r.Seccomp}
	if r.NoSeccomp {
		o.Seccomp = []byte{}
	}
	p, err := b.c.Exec(ctx, r.Process, o)
	if err != nil {
		return nil, startError("exec", err)
	}
	return &builtinProcess{p, false}, nil
}

type builtinProcess struct {
	p    *oci.Process
	pid1 bool
}

func (b *builtinProcess) Pid() int { return b.p.Pid }

func (b *builtinProcess) Console() *os.File { return b.p.Console }

// Signal sends a signal. Our init gets it once it has started its program: before, it has no handler yet and would die of it, with
// an exit code that means nothing.
func (b *builtinProcess) Signal(sig syscall.Signal) error {
	if b.pid1 && sig != syscall.SIGKILL {
		awaitChild(b.p.Pid)
	}
	return b.p.Signal(sig)
}

// awaitChild waits until a process has a child, is gone, or has had time enough for it. The kernel tells nobody about the children of
// others, so it is asked again and again.
func awaitChild(pid int) {
	const enough, again = 2 * time.Second, time.Millisecond
	tick := time.NewTicker(again)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < enough && !hasChild(pid); <-tick.C {
	}
}

// hasChild reports whether one of the process's threads has a child. A process that is gone, or of a kernel without
// CONFIG_PROC_CHILDREN, is not worth waiting for either.
func hasChild(pid int) bool {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // only a malformed pattern fails
	for _, list := range lists {
		if children, err := os.ReadFile(list); err == nil && len(children) > 0 {
			return true
		}
	}
	return len(lists) == 0
}

func (b *builtinProcess) Close() { b.p.Close() }

func (b *builtinProcess) Wait(ctx context.Context) (int, error) {
	status, err := b.p.Wait(ctx)
	return status.Code, err
}

// startError gives the error of a runtime Docker's words, and its exit code if the program was at fault.
func startError(verb string, err error) error {
	var e *oci.ExecError
	if err == nil || !errors.As(err, &e) {
		if err != nil {
			err = fmt.Errorf("OCI runtime %s failed: %w", verb, err)
		}
		return err
	}
	failed := &wire.Error{Kind: errdefs.InvalidParameter, ExitCode: 126}
	if e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR || e.Errno == syscall.EACCES && !strings.Contains(e.Path, "/") {
		failed.ExitCode = 127
	}
	failed.Message = fmt.Sprintf("OCI runtime %s failed: %[1]s failed: unable to start container process: %v", verb, e)
	return errdefs.With(failed.Kind, failed)
}
