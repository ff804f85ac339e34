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
	"gantry/linux/fd"
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

// hooks runs the hooks of one point, in order, and stops at the first that fails. Each gets the container's state as JSON on standard
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
	for _, h := range list {
		hctx, cancel := ctx, func() {}
		if h.Timeout != nil && *h.Timeout > 0 {
			hctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		}
		if point == "createContainer" || point == "startContainer" {
			err = c.hookInside(hctx, h, data)
		} else {
			err = hookOutside(hctx, h, data)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("%s hook %s: %w", point, h.Path, err)
		}
	}
	return nil
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
	if err := cmd.Run(); err != nil {
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
func (c *Container) hookInside(ctx context.Context, h specs.Hook, state []byte) error {
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
	e := initproc.Hook{Path: h.Path, Args: args, Env: h.Env, Stdin: clone.FD{Name: "stdin", File: stdin}, Stderr: clone.FD{Name: "stderr", File: stderr}, Target: clone.FD{Name: "init", File: c.init.Pidfd}}
	o := clone.Options{}
	for _, t := range c.kinds() {
		if t == specs.PIDNamespace {
			o.PidNamespace = c.init.Pidfd
			continue
		}
		e.Join |= ns.Flag(t)
	}
	child, err := clone.Start(e.Script(), o)
	if err != nil {
		return err
	}
	p := newProcess(child, nil)
	stdin.Close()
	stderr.Close()
	if _, err := p.await(h.Path); err != nil {
		p.kill(ctx)
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = fd.Signal(p.Pidfd, syscall.SIGKILL) }) // it may have ended
	defer stop()
	defer p.Close()
	if _, err := toHook.Write(state); err != nil && !errors.Is(err, syscall.EPIPE) { // a hook need not read it
		return err
	}
	toHook.Close()
	out, err := io.ReadAll(io.LimitReader(fromHook, hookOutput))
	if err != nil {
		return err
	}
	st, err := p.Wait(context.WithoutCancel(ctx))
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return withOutput(ctx.Err(), out)
	case st.Code != 0:
		return withOutput(fmt.Errorf("exit status %d", st.Code), out)
	}
	return nil
}
