package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/linux/seccomp"
)

// agentTime is how long the agent that answers for seccomp may take to accept a listener.
const agentTime = 10 * time.Second

// seccomp gives the process its filter: the one in the bundle, or one compiled from the specification.
func (c *creation) seccomp() error {
	s := c.b.Spec.Linux.Seccomp
	filter := c.b.Seccomp
	if filter == nil && s != nil {
		compile := c.b.Compile
		if compile == nil {
			compile = seccomp.Compile
		}
		var err error
		if filter, err = compile(s); err != nil {
			return err
		}
	}
	if len(filter) == 0 {
		return nil
	}
	if seccomp.Notifies(filter) {
		if s == nil || s.ListenerPath == "" {
			return errdefs.New(errdefs.InvalidParameter, "linux.seccomp.listenerPath: missing, and there are rules with SCMP_ACT_NOTIFY")
		}
		if c.in.SendListener = c.inside; c.inside {
			for i, rule := range s.Syscalls {
				if rule.Action == specs.ActNotify && slices.Contains(rule.Names, "sendmsg") {
					return errdefs.New(errdefs.NotImplemented, "linux.seccomp.syscalls[%d]: SCMP_ACT_NOTIFY cannot be used for sendmsg without root's rights: the process passes its listener by it", i)
				}
			}
		}
		if err := fd.Serves(s.ListenerPath); err != nil {
			return noAgent(err)
		}
	}
	var err error
	c.in.Seccomp, c.in.AsksExec = filter, asksExec(s, filter)
	c.in.SeccompFlags, err = seccomp.Flags(s, filter)
	return err
}

// asksExec reports whether an agent is asked about the execution of the program: it may never answer, and who starts a process does not wait
// for that.
func asksExec(s *specs.LinuxSeccomp, filter []byte) bool {
	return s != nil && seccomp.Notifies(filter) && slices.ContainsFunc(s.Syscalls, func(rule specs.LinuxSyscall) bool {
		return rule.Action == specs.ActNotify && slices.Contains(rule.Names, "execve")
	})
}

// errSilent is of a process that ended when its filter was loaded.
var errSilent = errors.New("the process ended before it could tell of its seccomp listener: the filter does not let it write")

// SeccompFlags returns the flags of seccomp(2) with which the container's filter is loaded; ok is false if it has none.
func (c *Container) SeccompFlags() (flags uint64, ok bool) {
	filter, err := c.seccomp()
	if len(filter) == 0 || err != nil {
		return 0, false
	}
	flags, err = seccomp.Flags(c.spec.Linux.Seccomp, filter)
	return flags, err == nil
}

func noAgent(err error) error {
	return fmt.Errorf("linux.seccomp.listenerPath: failed to connect with seccomp agent specified in the seccomp profile: %w", err)
}

// listenerOf returns what passes the listener of a process's filter to the agent that the specification names; nil if there is none.
func (c *Container) listenerOf(ctx context.Context, p *Process, filter []byte, status specs.ContainerState) func(*os.File) error {
	if !seccomp.Notifies(filter) || c.spec.Linux.Seccomp == nil {
		return nil
	}
	s := c.spec.Linux.Seccomp
	return func(listener *os.File) error {
		data, err := json.Marshal(specs.ContainerProcessState{
			Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: p.Pid, Metadata: s.ListenerMetadata,
			State: specs.State{Version: specs.Version, ID: c.id, Status: status, Pid: c.init.Pid, Bundle: c.bundle, Annotations: c.spec.Annotations},
		})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, agentTime)
		defer cancel()
		conn, err := fd.DialUnix(ctx, s.ListenerPath)
		if err != nil {
			return noAgent(err)
		}
		defer conn.Close()
		if err := conn.SetWriteDeadline(time.Now().Add(agentTime)); err != nil {
			return err
		}
		if err := fd.Send(conn, data, listener); err != nil {
			return fmt.Errorf("pass the listener to the seccomp agent: %w", err)
		}
		return nil
	}
}

// passListener takes the listener that the child has told of and passes it on, before the child goes on: what its filter asks about from
// here on, its own steps included, there is somebody to answer.
func (p *Process) passListener() error {
	pass := p.pass
	if pass == nil {
		return errors.New("the process has a seccomp listener that nobody is to get")
	}
	p.pass = nil
	listener, err := p.child.Listener()
	if err == nil {
		err = errors.Join(pass(listener), listener.Close())
	}
	if err == nil {
		err = p.child.Go()
	}
	if err != nil {
		_ = p.Signal(syscall.SIGKILL) // it may be gone; what it waits with may be a call that nobody answers
	}
	return err
}
