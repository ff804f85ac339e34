package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/ns"
	"gantry/oci/initproc"
)

// hookTable is a specification's hooks by the name of their point in the life cycle.
func hookTable(h *specs.Hooks) map[string][]specs.Hook {
	if h == nil {
		return nil
	}
	//lint:ignore SA1019 prestart hooks are deprecated and in use
	prestart := h.Prestart
	return map[string][]specs.Hook{
		"prestart": prestart, "createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer,
		"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop,
	}
}

// hookOutput is how much of a hook's error output an error shows.
const hookOutput = 4 << 10

// lastWords is how long the output of a hook that has ended is read, if what it started keeps it open.
const lastWords = 100 * time.Millisecond

// hooks runs the hooks of one point, in order, and stops at the first that fails, unless the container's life is to go on all the same
// (poststart, poststop). Each gets the container's state as JSON on standard
// input.
func (c *Container) hooks(ctx context.Context, point string, status specs.ContainerState) error {
	list := hookTable(c.spec.Hooks)[point]
	if len(list) == 0 {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: c.id, Status: status, Pid: c.init.Pid, Bundle: c.bundle, Annotations: c.spec.Annotations}
	if status == specs.StateStopped {
		state.Pid = 0
	}
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	goOn := point == "poststart" || point == "poststop"
	var failed []error
	for i, h := range list {
		hctx, cancel := ctx, func() {}
		if h.Timeout != nil && *h.Timeout > 0 {
			hctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		}
		if point == "createContainer" || point == "startContainer" {
			err = c.hookInside(hctx, point, h, data)
		} else {
			err = hookOutside(hctx, h, data)
		}
		cancel()
		if err != nil {
			err = fmt.Errorf("error running %s hook #%d: %s: %w", point, i, h.Path, err)
			if failed = append(failed, err); !goOn {
				break
			}
		}
	}
	return errors.Join(failed...)
}

func hookOutside(ctx context.Context, h specs.Hook, state []byte) error {
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdin = bytes.NewReader(state)
	var out bytes.Buffer
	cmd.Stderr = &out
	cmd.WaitDelay = lastWords
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return withOutput(err, out.Bytes())
	}
	return nil
}

func withOutput(err error, out []byte) error {
	text := strings.TrimSpace(string(out[:min(len(out), hookOutput)]))
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}

// hookInside runs a hook in the container's namespaces.
func (c *Container) hookInside(ctx context.Context, point string, h specs.Hook, state []byte) error {
	stdin, toHook, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	defer toHook.Close()
	fromHook, stderr, err := os.Pipe()
	if err != nil {
		return err
	}
	defer fromHook.Close()
	defer stderr.Close()
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	env := h.Env
	if point == "startContainer" && env == nil { // what the container's own program is to get
		env = c.initEnvironment()
	}
	e := initproc.Hook{Path: h.Path, Args: args, Env: env, Stdin: clone.FD{Name: "stdin", File: stdin}, Stderr: clone.FD{Name: "stderr", File: stderr}, Target: clone.FD{Name: "init", File: c.init.Pidfd}}
	o := clone.Options{}
	e.Join, _, e.Fork = c.joins()
	e.InUser = c.has(specs.UserNamespace)
	if !e.Fork && c.has(specs.PIDNamespace) {
		o.PidNamespace = c.init.Pidfd
	}
	if point == "createContainer" {
		e.Dir = c.rootPlace
	}
	if point == "startContainer" { // as the container's own program
		if e.Seccomp, err = c.seccomp(); err != nil {
			return err
		}
		e.SeccompFlags, _ = c.SeccompFlags()
		e.SendListener = !ns.Privileged()
		if !c.has(specs.MountNamespace) {
			root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", c.init.Pid), syscall.O_DIRECTORY|oPath, 0)
			if err != nil {
				return err
			}
			defer root.Close()
			e.Root = &clone.FD{Name: "root", File: root}
		}
	}
	child, err := clone.Start(e.Script(), o)
	if err != nil {
		return err
	}
	p := newProcess(child, nil)
	p.pass = c.listenerOf(ctx, p, e.Seccomp, specs.StateCreated)
	stdin.Close()
	stderr.Close()
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(syscall.SIGKILL) }) // it may have ended
	defer stop()
	if _, err := p.await(h.Path); err != nil {
		p.kill(ctx)
		return err
	}
	defer p.Close()
	if _, err := toHook.Write(state); err != nil && !errors.Is(err, syscall.EPIPE) { // a hook need not read it
		return err
	}
	toHook.Close()
	output := make(chan []byte, 1)
	go func() {
		out, _ := io.ReadAll(io.LimitReader(fromHook, hookOutput)) // what came before an error is what there is
		_, _ = io.Copy(io.Discard, fromHook)                       // so that the hook does not wait for a reader
		output <- out
	}()
	st, err := p.Wait(context.WithoutCancel(ctx))
	_ = fromHook.SetReadDeadline(time.Now().Add(lastWords)) // a pipe, which has deadlines
	out := <-output
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return withOutput(ctx.Err(), out)
	case st.Signal != 0:
		return withOutput(fmt.Errorf("signal: %v", st.Signal), out)
	case st.Code != 0:
		return withOutput(fmt.Errorf("exit status %d", st.Code), out)
	}
	return nil
}
