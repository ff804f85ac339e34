package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/cgroup"
	"gantry/oci"
	"gantry/oci/early"
	"gantry/oci/store"
)

const paused specs.ContainerState = "paused"

// read returns the state of the container that the command line names, without its specification.
func (a *app) read() (oci.State, error) {
	if a.args[0] == "" {
		return oci.State{}, errEmptyID
	}
	return a.store.Read(a.args[0])
}

// load returns the container with its specification.
func (a *app) load() (*oci.Container, oci.State, error) {
	s, err := a.read()
	if err != nil {
		return nil, s, err
	}
	if s.Spec, _, err = oci.ReadSpec(a.store.Config(s.ID)); err != nil {
		return nil, s, err
	}
	c, err := oci.Load(s)
	return c, s, err
}

// cgroup returns the cgroup of a container that runs.
func cgroupOf(s oci.State) (*cgroup.Cgroup, error) {
	g, err := s.OpenCgroup()
	if g == nil && err == nil {
		err = errors.New("cgroup not exist")
	}
	return g, err
}

// hint says what an error of a cgroup may come of.
func (a *app) hint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		a.log.warn("gantry-oci " + a.verb.name + " failure might be caused by lack of full access to cgroups")
	}
	return err
}

func (a *app) start() func(context.Context) error {
	return func(ctx context.Context) error {
		c, s, err := a.load()
		if err != nil {
			return err
		}
		if sync := early.Sync(); sync != nil {
			c.Begun(sync)
			return startError(c.Start(ctx))
		}
		dir, err := a.store.Lock(s.ID)
		if err != nil {
			return err
		}
		defer dir.Unlock()
		switch st := s.Status(); st {
		case specs.StateCreated:
		case specs.StateStopped:
			return errors.New("cannot start a container that has stopped")
		case specs.StateRunning:
			return errors.New("cannot start an already running container")
		default:
			return fmt.Errorf("cannot start a container in the %s state", st)
		}
		n := notifierOf(dir.Path)
		if n != nil {
			if err := n.listen(); err != nil {
				return err
			}
		}
		if err := c.Attach(); err != nil {
			n.withdraw()
			return err
		}
		dir.Unlock() // hooks may call this command
		if err := c.Start(ctx); err != nil {
			n.withdraw()
			return startError(err)
		}
		a.log.debugf("container %s is running", a.args[0])
		if n != nil {
			a.forward(ctx, n, c.Init(), s.Pid)
		}
		return nil
	}
}

func (a *app) kill() func(context.Context) error {
	a.stopAt = 1
	all := false
	a.on(&all, "all,a", "send the signal to all processes of the container").hidden = true
	return func(context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		name := "SIGTERM"
		if len(a.args) > 1 && a.args[1] != "" {
			name = a.args[1]
		}
		sig, err := signalOf(name)
		if err != nil {
			return err
		}
		stopped := s.Status() == specs.StateStopped
		if all || s.SharesPids && sig == syscall.SIGKILL {
			if stopped && !all && !populated(s) {
				return errNotRunning
			}
			return killAll(s, sig)
		}
		if stopped {
			return errNotRunning
		}
		err = s.Signal(sig)
		if errors.Is(err, os.ErrProcessDone) {
			err = errNotRunning
		}
		if err == nil && sig == syscall.SIGKILL && s.Status() == paused { // on cgroup v1 what is frozen does not die
			if g, gerr := cgroupOf(s); gerr == nil {
				err = g.Thaw()
			}
		}
		return err
	}
}

var errNotRunning = errors.New("container not running")

// populated reports whether there are processes in the container's cgroup: they may be more than init and what ends with it.
func populated(s oci.State) bool {
	g, err := cgroupOf(s)
	if err != nil {
		return false
	}
	pids, err := g.Procs()
	return err == nil && len(pids) > 0
}

// killAll sends a signal to every process in the container's cgroup.
func killAll(s oci.State, sig syscall.Signal) error {
	g, err := cgroupOf(s)
	if err != nil {
		return nil // it is gone, and all that was in it
	}
	if sig == syscall.SIGKILL {
		if err := g.Kill(); err != nil {
			return err
		}
		return g.Thaw()
	}
	return g.Signal(sig)
}

// signalOf reads "9", "KILL" or "SIGKILL".
func signalOf(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	names := map[string]syscall.Signal{
		"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14,
		"TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
		"WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31,
	}
	if s, ok := names[strings.TrimPrefix(strings.ToUpper(name), "SIG")]; ok {
		return s, nil
	}
	return 0, fmt.Errorf("unknown signal %q", name)
}

func (a *app) delete() func(context.Context) error {
	force := false
	a.on(&force, "force,f", "kill the container if it still runs")
	return func(ctx context.Context) error {
		id := a.args[0]
		if id == "" {
			return errEmptyID
		}
		dir, err := a.store.Lock(id)
		if errors.Is(err, store.ErrNotExist) && force {
			return nil
		}
		if err != nil {
			return err
		}
		defer dir.Unlock()
		c, s, err := a.load()
		if errors.Is(err, store.ErrNotExist) { // half made, and whoever made it is gone, or the lock were his
			if derr := oci.Discard(s); derr != nil {
				return derr
			}
			if derr := dir.Remove(); derr != nil || force {
				return derr
			}
			return err
		}
		if err != nil && force { // what cannot be read can be removed
			s.Spec = &specs.Spec{Linux: &specs.Linux{}}
			if c, err = oci.Load(s); err != nil {
				return errors.Join(oci.Discard(s), dir.Remove())
			}
		}
		if err != nil {
			return err
		}
		if st := s.Status(); st != specs.StateStopped && st != specs.StateCreated && !force {
			return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, st)
		}
		return errors.Join(c.Delete(ctx), dir.Remove())
	}
}

// change is a verb that does something to the cgroup of a container, alone.
func (a *app) change(s oci.State, do func(*cgroup.Cgroup) error) error {
	dir, err := a.store.Lock(s.ID)
	if err != nil {
		return err
	}
	defer dir.Unlock()
	g, err := cgroupOf(s)
	if err != nil {
		return err
	}
	if err := dir.DropEnd(); err != nil {
		return err
	}
	return a.hint(do(g))
}

func (a *app) pause() func(context.Context) error {
	return func(context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		if st := s.Status(); st != specs.StateRunning && st != specs.StateCreated {
			return errNotRunning
		}
		return a.change(s, (*cgroup.Cgroup).Freeze)
	}
}

func (a *app) resume() func(context.Context) error {
	return func(context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		if s.Status() != paused {
			return errors.New("container not paused")
		}
		return a.change(s, (*cgroup.Cgroup).Thaw)
	}
}
