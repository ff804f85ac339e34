package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

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
	return &builtin{c}, nil
}

// builtin is a container of package oci.
type builtin struct{ c *oci.Container }

func (b *builtin) Start(ctx context.Context) error { return startError("create", b.c.Start(ctx)) }

func (b *builtin) Main() process { return &builtinProcess{b.c.Init()} }

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
	return &builtinProcess{p}, nil
}

type builtinProcess struct{ p *oci.Process }

func (b *builtinProcess) Pid() int { return b.p.Pid }

func (b *builtinProcess) Console() *os.File { return b.p.Console }

func (b *builtinProcess) Signal(sig syscall.Signal) error { return b.p.Signal(sig) }

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
	reason := e.Errno.Error()
	switch {
	case e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR:
		failed.ExitCode = 127
		if strings.ContainsRune(e.Path, filepath.Separator) {
			reason = "stat " + e.Path + ": no such file or directory"
		} else {
			reason = "executable file not found in $PATH"
		}
	}
	failed.Message = fmt.Sprintf("OCI runtime %s failed: %[1]s failed: unable to start container process: exec: %[2]q: %[3]s", verb, e.Path, reason)
	return errdefs.With(failed.Kind, failed)
}
