package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/oci"
)

// execution is what exec is told by flags.
type execution struct {
	session
	process, cwd, user, label, apparmor string
	env, caps, gids, cgroups            []string
	tty, noNewPrivs, ignorePaused       bool
	noNewPrivsGiven                     *option
}

// execFailed is the exit code of an exec that runs nothing.
const execFailed = 255

func (a *app) exec() func(context.Context) error {
	var e execution
	a.stopAt = 1
	e.declare(a)
	e.preserveFlag(a)
	a.text(&e.cwd, "cwd", "current working directory in the container")
	a.many(&e.env, "env,e", "set environment variables")
	a.on(&e.tty, "tty,t", "allocate a pseudo-TTY")
	a.text(&e.user, "user,u", "UID (format: <uid>[:<gid>])")
	a.many(&e.gids, "additional-gids,g", "additional gids")
	a.text(&e.process, "process,p", "path to the process.json")
	a.on(&e.detach, "detach,d", "detach from the container's process")
	a.text(&e.label, "process-label", "SELinux label of the process")
	a.text(&e.apparmor, "apparmor", "AppArmor profile of the process")
	e.noNewPrivsGiven = a.on(&e.noNewPrivs, "no-new-privs", "set the no new privileges value for the process")
	a.many(&e.caps, "cap,c", "add a capability to the bounding set for the process")
	a.many(&e.cgroups, "cgroup", "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.")
	a.on(&e.ignorePaused, "ignore-paused", "allow exec in a paused container")
	return func(ctx context.Context) error {
		code, err := a.execIn(ctx, &e)
		if err != nil {
			a.log.fail("exec failed: " + oneLine(err))
			return exitError(execFailed)
		}
		if code != 0 {
			return exitError(code)
		}
		return nil
	}
}

func (a *app) execIn(ctx context.Context, e *execution) (int, error) {
	c, s, err := a.load()
	if err != nil {
		return 0, err
	}
	switch s.Status() {
	case specs.StateStopped:
		return 0, errors.New("cannot exec in a stopped container")
	case paused:
		if !e.ignorePaused {
			return 0, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
		}
	}
	p, err := e.processOf(s.Spec, a.args[1:])
	if err != nil {
		return 0, err
	}
	o := oci.ExecOptions{Stdio: oci.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, PlainNewlines: !e.detach}}
	if l := s.Spec.Linux; l != nil && l.Seccomp != nil {
		if o.Seccomp, err = a.store.Filters().Compile(l.Seccomp); err != nil {
			return 0, err
		}
	}
	if o.Cgroups, err = subCgroups(e.cgroups); err != nil {
		return 0, err
	}
	if err := e.checkTerminal(p); err != nil {
		return 0, err
	}
	if o.Preserve, err = a.inherit(e.preserve, p); err != nil {
		return 0, err
	}
	conn, err := e.pidfdConn()
	if err != nil {
		return 0, err
	}
	defer conn.close()
	proc, err := c.Exec(ctx, p, o)
	if err != nil {
		return 0, startError(err)
	}
	a.log.debugf("process %d runs in the container", proc.Pid)
	a.warnings(proc.Warnings)
	var f *foreground
	if !e.detach {
		f, err = watch(proc, false)
	}
	if err == nil {
		err = e.handOver(proc, conn)
	}
	if err != nil {
		_ = proc.Signal(9) // nobody knows of it
		return 0, err
	}
	if e.detach {
		return 0, nil
	}
	return f.wait(ctx)
}

// processOf is the process that flags and command ask for.
func (e *execution) processOf(s *specs.Spec, command []string) (*specs.Process, error) {
	p := new(specs.Process)
	if e.process != "" {
		if err := oci.ReadJSON(e.process, p); err != nil {
			return nil, err
		}
		return p, nil
	}
	*p = *s.Process
	if len(command) == 0 {
		return nil, errors.New("exec args cannot be empty")
	}
	p.Args, p.Terminal = command, e.tty
	p.Env = append(append([]string{}, p.Env...), e.env...)
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.noNewPrivsGiven.given {
		p.NoNewPrivileges = e.noNewPrivs
	}
	if len(e.caps) > 0 {
		var sets specs.LinuxCapabilities
		if p.Capabilities != nil {
			sets = *p.Capabilities
		}
		add := func(list []string) []string { return append(append([]string{}, list...), e.caps...) }
		sets.Bounding, sets.Effective, sets.Permitted = add(sets.Bounding), add(sets.Effective), add(sets.Permitted)
		if sets.Inheritable != nil { // ambient capabilities need it
			sets.Ambient = add(sets.Ambient)
		}
		p.Capabilities = &sets
	}
	if e.user != "" {
		uid, gid, hasGid := strings.Cut(e.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("bad uid: %w", err)
		}
		p.User.UID = uint32(n)
		if hasGid {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return nil, fmt.Errorf("bad gid: %w", err)
			}
			p.User.GID = uint32(n)
		}
	}
	p.User.AdditionalGids = append([]uint32{}, p.User.AdditionalGids...)
	for _, g := range e.gids {
		n, err := strconv.ParseInt(g, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("bad additional gid: %w", err)
		}
		if n < 0 || n >= 1<<32 {
			return nil, fmt.Errorf("additional-gids must be a positive number %d", n)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	return p, nil
}

// subCgroups reads "path", or any number of "controller[,controller...]:path".
func subCgroups(args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	paths := map[string]string{}
	for _, arg := range args {
		controllers, path, named := strings.Cut(arg, ":")
		if !named {
			if len(args) != 1 {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", arg)
			}
			paths[""] = arg
			continue
		}
		for _, c := range strings.Split(controllers, ",") {
			if c == "" {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (empty <controller> prefix)", arg)
			}
			if _, twice := paths[c]; twice {
				return nil, fmt.Errorf("invalid --cgroup argument(s): controller %s specified multiple times", c)
			}
			paths[c] = path
		}
	}
	return paths, nil
}
