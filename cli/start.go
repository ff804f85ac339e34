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

func startCommand() *command {
	return &command{
		name: "start", aliases: "container start, start", use: "[OPTIONS] CONTAINER [CONTAINER...]",
		short: "Start one or more stopped containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var s starting
			s.app = a
			fs.BoolVarP(&s.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
			fs.StringVar(&s.checkpoint, "checkpoint", "", "Restore from this checkpoint")
			fs.StringVar(&s.checkpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
			fs.StringVar(&s.keys, "detach-keys", "", "Override the key sequence for detaching a container")
			fs.BoolVarP(&s.interactive, "interactive", "i", false, "Attach container's STDIN")
			_ = fs.MarkHidden("checkpoint")
			_ = fs.MarkHidden("checkpoint-dir")
			return s.run
		},
	}
}

type starting struct {
	*app
	attach, interactive             bool
	checkpoint, checkpointDir, keys string
}

func (s *starting) run(ctx context.Context, args []string) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	if s.attach || s.interactive {
		if len(args) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		return s.attached(ctx, c, args[0])
	}
	var failed []string
	for _, id := range args {
		if err := c.ContainerStart(ctx, id, "", s.checkpoint, s.checkpointDir); err != nil {
			fmt.Fprintln(s.err, err)
			failed = append(failed, id)
			var ce *client.ConnectionError
			if errors.As(err, &ce) {
				break
			}
			continue
		}
		fmt.Fprintln(s.out, id)
	}
	if len(failed) > 0 {
		return fmt.Errorf("Error: failed to start containers: %s", strings.Join(failed, ", ")) //nolint:staticcheck // docker's words
	}
	return nil
}

// attached starts one container with our streams on it.
func (s *starting) attached(ctx context.Context, c *client.Client, id string) error {
	info, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return err
	}
	stdin := s.interactive && info.Config.OpenStdin
	if err := s.checkTerminal(stdin, info.Config.Tty); err != nil {
		return err
	}
	keys, err := s.detachKeys(s.keys)
	if err != nil {
		return err
	}
	if !info.Config.Tty {
		s.forwardSignals(ctx, c, info.ID)
	}
	stream, err := c.ContainerAttach(ctx, info.ID, client.AttachOptions{Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: s.keys})
	if err != nil {
		return err
	}
	cond := container.WaitConditionNextExit
	if info.HostConfig.AutoRemove {
		cond = container.WaitConditionRemoved
	}
	wait, err := c.ContainerWait(ctx, info.ID, cond)
	if err == nil {
		err = c.ContainerStart(ctx, info.ID, "", s.checkpoint, s.checkpointDir)
	}
	if err != nil {
		_ = stream.Close()
		return err
	}
	if info.Config.Tty && s.terminalOut() {
		defer s.followSize(ctx, func(ctx context.Context, rows, cols uint) error { return c.ContainerResize(ctx, info.ID, rows, cols) })()
	}
	sess := session{stream: stream, stdout: s.out, stderr: s.err, tty: info.Config.Tty, detachKeys: keys}
	if stdin {
		sess.stdin = s.stdin
	}
	if err := s.pump(ctx, sess); err != nil {
		if errors.Is(err, errDetached) {
			return nil
		}
		return err
	}
	return attachExit(ctx, c, info.ID, wait)
}
