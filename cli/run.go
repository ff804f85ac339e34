package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"gantry/client"
)

func runCommand() *command {
	return &command{
		name: "run", aliases: "container run, run", use: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
		short: "Create and run a new container from an image", min: 1, max: -1, firstArgEndsFlags: true,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			r := running{app: a}
			fs.BoolVarP(&r.detach, "detach", "d", false, "Run container in background and print container ID")
			fs.StringVar(&r.keys, "detach-keys", "", "Override the key sequence for detaching a container")
			fs.BoolVar(&r.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
			r.flags.add(a, fs)
			return func(ctx context.Context, args []string) error {
				req, err := r.flags.request(fs, args, a.lookupEnv)
				if err == nil && r.detach && len(r.flags.attach) > 0 {
					return errors.New("conflicting options: cannot specify both --attach and --detach")
				}
				if err == nil {
					err = r.flags.checkPull()
				}
				if err != nil {
					return &exitError{code: 125, msg: a.runMessage("run", err), err: err}
				}
				return r.run(ctx, req)
			}
		},
	}
}

// running is one run of a container in the foreground or background.
type running struct {
	*app
	flags            containerFlags
	detach, sigProxy bool
	keys             string
}

func (r *running) run(ctx context.Context, req container.CreateRequest) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	if !r.detach {
		if err := r.checkTerminal(req.AttachStdin, req.Tty); err != nil {
			return err
		}
	}
	if req.Tty {
		req.HostConfig.ConsoleSize[0], req.HostConfig.ConsoleSize[1] = r.size()
	}
	id, err := r.create(ctx, c, &r.flags, req)
	if err != nil {
		return r.failed(err)
	}
	attached := req.AttachStdin || req.AttachStdout || req.AttachStderr
	if !attached {
		fmt.Fprintln(r.out, id)
		if err := c.ContainerStart(ctx, id, "", "", ""); err != nil {
			return r.failed(err)
		}
		return nil
	}
	return r.foreground(ctx, c, id, req)
}

// foreground attaches to the container, starts it and waits for its end.
func (r *running) foreground(ctx context.Context, c *client.Client, id string, req container.CreateRequest) error {
	keys, err := r.detachKeys(r.keys)
	if err != nil {
		return err
	}
	if r.sigProxy && !req.Tty {
		r.forwardSignals(ctx, c, id)
	}
	cond := container.WaitConditionNextExit
	if req.HostConfig.AutoRemove {
		cond = container.WaitConditionRemoved
	}
	var wait func() (container.WaitResponse, error)
	watched := make(chan error, 1)
	go func() { // on a connection of its own, while the other attaches
		var err error
		wait, err = c.ContainerWait(ctx, id, cond)
		watched <- err
	}()
	stream, err := c.ContainerAttach(ctx, id, client.AttachOptions{
		Stream: true, Stdin: req.AttachStdin, Stdout: req.AttachStdout, Stderr: req.AttachStderr, DetachKeys: r.keys,
	})
	if err != nil {
		return err
	}
	s := session{stream: stream, tty: req.Tty, detachKeys: keys}
	if req.AttachStdin {
		s.stdin = r.stdin
	}
	if req.AttachStdout {
		s.stdout = r.out
	}
	if req.AttachStderr {
		s.stderr = r.err
		if req.Tty {
			s.stderr = r.out
		}
	}
	if err := <-watched; err != nil {
		_ = stream.Close()
		return err
	}
	if err := c.ContainerStart(ctx, id, "", "", ""); err != nil {
		_ = stream.Close()
		if req.HostConfig.AutoRemove {
			_, _ = wait() // so that the container is gone when we say that it failed
		}
		return r.failed(err)
	}
	if req.Tty && r.terminalOut() {
		defer r.followSize(ctx, func(ctx context.Context, rows, cols uint) error { return c.ContainerResize(ctx, id, rows, cols) })()
	}
	if err := r.pump(ctx, s); err != nil {
		if errors.Is(err, errDetached) {
			return nil
		}
		return err
	}
	// Without AttachStdout the streams end with our input; without --rm a detached container goes on.
	return exitOf(wait)
}

// exitOf waits for a container and turns its status into our exit code.
func exitOf(wait func() (container.WaitResponse, error)) error {
	end, err := wait()
	if err != nil {
		return &exitError{code: 125, msg: err.Error(), err: err}
	}
	if end.Error != nil && end.Error.Message != "" {
		return &exitError{code: 125, msg: "Error waiting for container: " + end.Error.Message}
	}
	if end.StatusCode != 0 {
		return &exitError{code: int(end.StatusCode)}
	}
	return nil
}

// failed gives the error of a container that could not be made or started docker's exit codes: 127 when there is no such
// command in it, 126 when the command cannot be executed, 125 otherwise.
func (r *running) failed(err error) error {
	return &exitError{code: startCode(err), msg: r.runMessage("run", err), err: err}
}

func startCode(err error) int {
	var ce *client.ConnectionError
	msg := err.Error()
	switch {
	case errors.As(err, &ce):
		return 125
	case strings.Contains(msg, "executable file not found"), strings.Contains(msg, "no such file or directory"), strings.Contains(msg, "system cannot find the file specified"):
		return 127
	case strings.Contains(msg, "permission denied"), strings.Contains(msg, "is a directory"):
		return 126
	}
	return 125
}
