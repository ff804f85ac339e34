package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"gantry/client"
)

func attachCommand() *command {
	return &command{
		name: "attach", aliases: "container attach, attach", use: "[OPTIONS] CONTAINER",
		short: "Attach local standard input, output, and error streams to a running container", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var noStdin, proxy bool
			var keys string
			fs.StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching a container")
			fs.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
			fs.BoolVar(&proxy, "sig-proxy", true, "Proxy all received signals to the process")
			return func(ctx context.Context, args []string) error { return a.attach(ctx, args[0], keys, noStdin, proxy) }
		},
	}
}

func (a *app) attach(ctx context.Context, id, givenKeys string, noStdin, proxy bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	info, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case !info.State.Running:
		return errors.New("You cannot attach to a stopped container, start it first") //nolint:staticcheck // docker's words
	case info.State.Paused:
		return errors.New("You cannot attach to a paused container, unpause it first") //nolint:staticcheck // docker's words
	case info.State.Restarting:
		return errors.New("You cannot attach to a restarting container, wait until it is running") //nolint:staticcheck // docker's words
	}
	stdin := !noStdin && info.Config.OpenStdin
	if err := a.checkTerminal(!noStdin, info.Config.Tty); err != nil {
		return err
	}
	keys, err := a.detachKeys(givenKeys)
	if err != nil {
		return err
	}
	if proxy && !info.Config.Tty {
		a.forwardSignals(ctx, c, id)
	}
	wait, err := c.ContainerWait(ctx, id, "")
	if err != nil {
		return err
	}
	stream, err := c.ContainerAttach(ctx, id, client.AttachOptions{Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: givenKeys})
	if err != nil {
		return err
	}
	s := session{stream: stream, stdout: a.out, stderr: a.err, tty: info.Config.Tty, detachKeys: keys}
	if stdin {
		s.stdin = a.stdin
	}
	if info.Config.Tty && a.terminalOut() {
		// A size that is not ours first: only a change makes a shell draw its prompt again.
		if rows, cols := a.size(); rows > 0 && cols > 0 {
			_ = c.ContainerResize(ctx, id, rows+1, cols+1)
		}
		defer a.followSize(ctx, func(ctx context.Context, rows, cols uint) error { return c.ContainerResize(ctx, id, rows, cols) })()
	}
	if err := a.pump(ctx, s); err != nil {
		return err
	}
	return attachExit(ctx, c, id, wait)
}

// attachExit turns the end of an attached container into our exit code.
func attachExit(ctx context.Context, c *client.Client, id string, wait func() (container.WaitResponse, error)) error {
	end, err := wait()
	if err != nil {
		return err
	}
	if end.Error != nil && end.Error.Message != "" {
		return errors.New(end.Error.Message)
	}
	if end.StatusCode != 0 {
		return &exitError{code: int(end.StatusCode)}
	}
	return nil
}
