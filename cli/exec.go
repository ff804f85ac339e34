package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

func execCommand() *command {
	return &command{
		name: "exec", aliases: "container exec, exec", use: "[OPTIONS] CONTAINER COMMAND [ARG...]",
		short: "Execute a command in a running container", min: 2, max: -1, firstArgEndsFlags: true,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			e := execution{app: a}
			fs.BoolVarP(&e.detach, "detach", "d", false, "Detached mode: run command in the background")
			fs.StringVar(&e.keys, "detach-keys", "", "Override the key sequence for detaching a container")
			fs.VarP(&listValue{values: &e.env, check: checkEnv(a.lookupEnv)}, "env", "e", "Set environment variables")
			fs.Var(&listValue{values: &e.envFile}, "env-file", "Read in a file of environment variables")
			fs.BoolVarP(&e.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
			fs.BoolVar(&e.privileged, "privileged", false, "Give extended privileges to the command")
			fs.BoolVarP(&e.tty, "tty", "t", false, "Allocate a pseudo-TTY")
			fs.StringVarP(&e.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
			fs.StringVarP(&e.workdir, "workdir", "w", "", "Working directory inside the container")
			return func(ctx context.Context, args []string) error { return e.run(ctx, args[0], args[1:]) }
		},
	}
}

// execution is one exec.
type execution struct {
	*app
	detach, interactive, privileged, tty bool
	keys, user, workdir                  string
	env, envFile                         []string
}

func (e *execution) run(ctx context.Context, id string, cmd []string) error {
	env, err := readKeyValueFiles(e.envFile, e.env, e.lookupEnv)
	if err != nil {
		return err
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	req := container.ExecCreateRequest{
		User: e.user, Privileged: e.privileged, Tty: e.tty, DetachKeys: e.keys, Env: env, WorkingDir: e.workdir, Cmd: cmd,
	}
	keys, err := e.detachKeys(e.keys)
	if err != nil {
		return err
	}
	if e.keys == "" {
		req.DetachKeys = e.config().DetachKeys
	}
	if !e.detach {
		req.AttachStdin, req.AttachStdout, req.AttachStderr = e.interactive, true, true
		if err := e.checkTerminal(req.AttachStdin, e.tty); err != nil {
			return err
		}
	}
	var size *[2]uint
	if e.tty {
		rows, cols := e.size()
		size = &[2]uint{rows, cols}
		req.ConsoleSize = size
	}
	execID, err := c.ExecCreate(ctx, id, req)
	if err != nil {
		return err
	}
	if execID == "" {
		return errors.New("exec ID empty")
	}
	start := container.ExecStartRequest{Detach: e.detach, Tty: e.tty, ConsoleSize: size}
	if e.detach {
		return c.ExecStart(ctx, execID, start)
	}
	stream, err := c.ExecAttach(ctx, execID, start)
	if err != nil {
		return err
	}
	s := session{stream: stream, stdout: e.out, stderr: e.err, tty: e.tty, detachKeys: keys}
	if e.interactive {
		s.stdin = e.stdin
	}
	if e.tty && e.terminalIn() {
		defer e.followSize(ctx, func(ctx context.Context, rows, cols uint) error { return c.ExecResize(ctx, execID, rows, cols) })()
	}
	if err := e.pump(ctx, s); err != nil {
		return err
	}
	end, err := c.ExecInspect(ctx, execID)
	if err != nil {
		return err
	}
	if end.ExitCode != nil && *end.ExitCode != 0 {
		return &exitError{code: *end.ExitCode}
	}
	return nil
}
