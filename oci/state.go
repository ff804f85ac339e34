package oci

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/clone"
	"gantry/linux/fd"
	"gantry/linux/rdt"
	"gantry/linux/seccomp"
)

// State is what another process needs to know to go on with a container.
type State struct {
	ID     string `json:"id"`
	Bundle string `json:"bundle"`
	Pid    int    `json:"pid"`
	Birth  uint64 `json:"birth"` // when init was started, in clock ticks since boot: tells it from a later process of that number
	Cgroup string `json:"cgroup"`
	CgroupState
	Created time.Time        `json:"created"`
	Socket  string           `json:"socket"`
	Steps   []clone.StepName `json:"steps"`
	Spec    *specs.Spec      `json:"spec"`
}

// State returns what Load needs.
func (c *Container) State() (State, error) {
	birth, err := birthOf(c.init.Pid)
	if err != nil {
		return State{}, fmt.Errorf("state of container %s: %w", c.id, err)
	}
	s := State{ID: c.id, Bundle: c.bundle, Pid: c.init.Pid, Birth: birth, Created: c.created, Socket: c.socket, Spec: c.spec}
	if c.cgroup != nil {
		s.Cgroup = c.cgroup.Path()
		s.CgroupState = CgroupState{Places: c.cgroup.Places(), Unit: c.unit}
	}
	if c.rdt != nil {
		s.Rdt = &c.rdt.State
	}
	if c.init.child != nil {
		s.Steps = c.init.child.Steps()
	}
	return s, nil
}

// birthOf reads when a process was started from /proc/PID/stat.
func birthOf(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	f := strings.Fields(rest) // from field 3 on; the one wanted is 22
	if len(f) < 20 {
		return 0, errors.New("unreadable process status")
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// Status returns the specification's word for the state: "created", "running", "paused" or "stopped".
func (s State) Status() specs.ContainerState {
	if birth, err := birthOf(s.Pid); err != nil || birth != s.Birth {
		return specs.StateStopped
	}
	if s.Socket != "" {
		if _, err := os.Lstat(s.Socket); err == nil {
			return specs.StateCreated
		}
	}
	if c, err := s.openCgroup(); err == nil && c != nil {
		if frozen, err := c.Frozen(); err == nil && frozen {
			return "paused"
		}
	}
	return specs.StateRunning
}

// Load returns the container of state, which may have ended.
func Load(s State) (*Container, error) {
	c := &Container{id: s.ID, bundle: s.Bundle, spec: s.Spec, created: s.Created, socket: s.Socket, steps: s.Steps}
	var err error
	c.unit = s.Unit
	if s.Rdt != nil {
		fs, err := rdt.Find()
		if err != nil {
			return nil, fmt.Errorf("load container %s: %w", s.ID, err)
		}
		c.rdt = fs.Open(*s.Rdt)
	}
	if c.cgroup, err = s.openCgroup(); err != nil && !errdefs.Is(err, errdefs.NotFound) {
		return nil, fmt.Errorf("load container %s: %w", s.ID, err)
	}
	c.init = &Process{Pid: s.Pid, ward: true, done: make(chan struct{})}
	pidfd, err := fd.Pidfd(s.Pid)
	if err == nil { // with the descriptor open the number cannot change hands any more
		if birth, berr := birthOf(s.Pid); berr != nil || birth != s.Birth {
			pidfd.Close()
			err = os.ErrProcessDone
		}
	}
	if err != nil {
		c.init.once.Do(func() { close(c.init.done) })
		return c, nil
	}
	c.init.Pidfd = pidfd
	if p := s.Spec.Linux.Seccomp; p != nil {
		if c.seccomp, err = seccomp.Compile(p); err != nil {
			pidfd.Close()
			return nil, fmt.Errorf("load container %s: %w", s.ID, err)
		}
	}
	return c, nil
}

// attach connects to the init that another process left waiting.
func (c *Container) attach() error {
	if c.init.Pidfd == nil {
		return errdefs.New(errdefs.Conflict, "it has ended")
	}
	sync, err := fd.DialPacket(c.socket)
	if errors.Is(err, os.ErrNotExist) {
		return errdefs.New(errdefs.Conflict, "it has been started")
	}
	if err != nil {
		return err
	}
	c.init.child = clone.Attach(c.init.Pid, c.init.Pidfd, sync, c.steps)
	return os.Remove(c.socket)
}
