package oci

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	Pid    int    `json:"pid"`   // 0: it is being made, or its making was cut short
	Birth  uint64 `json:"birth"` // when init was started, in clock ticks since boot: tells it from a later process of that number
	Cgroup string `json:"cgroup,omitempty"`
	CgroupState
	Created int64            `json:"created"` // nanoseconds since 1970
	Socket  string           `json:"socket,omitempty"`
	Steps   []clone.StepName `json:"steps,omitempty"` // of the script from where it waits for Start
	First   int              `json:"first,omitempty"` // the number of the first of Steps
	// NoNewKeyring says that its processes keep the session keyring of who starts them.
	NoNewKeyring bool `json:"noNewKeyring,omitempty"`
	// SharesPids says that its processes do not end with init, because its pid namespace is not its own.
	SharesPids bool `json:"sharesPids,omitempty"`
	// Spec is large, and most verbs do well without it: who stores a State stores it apart.
	Spec *specs.Spec `json:"-"`
}

// State returns what Load needs.
func (c *Container) State() (State, error) {
	birth, err := birthOf(c.init.Pid)
	if err != nil {
		return State{}, fmt.Errorf("state of container %s: %w", c.id, err)
	}
	s := State{ID: c.id, Bundle: c.bundle, Pid: c.init.Pid, Birth: birth, Created: c.created.UnixNano(), Socket: c.socket, Spec: c.spec}
	if c.cgroup != nil {
		s.Cgroup = c.cgroup.Path()
		s.CgroupState = CgroupState{Places: c.cgroup.Places(), Unit: c.unit}
	}
	if c.rdt != nil {
		s.Rdt = &c.rdt.State
	}
	if c.init.child != nil && c.socket != "" {
		s.Steps, s.First = c.init.child.Rest()
	}
	s.NoNewKeyring = c.noNewKeyring
	s.SharesPids = !slices.ContainsFunc(c.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace && n.Path == "" })
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
	if s.Pid == 0 {
		return specs.StateStopped
	}
	if birth, err := birthOf(s.Pid); err != nil || birth != s.Birth {
		return specs.StateStopped
	}
	if s.Socket != "" {
		if _, err := os.Lstat(s.Socket); err == nil {
			return specs.StateCreated
		}
	}
	if c, err := s.OpenCgroup(); err == nil && c != nil {
		if frozen, err := c.Frozen(); err == nil && frozen {
			return "paused"
		}
	}
	return specs.StateRunning
}

// Signal sends sig to the container's init; os.ErrProcessDone when it has ended.
func (s State) Signal(sig syscall.Signal) error {
	pidfd, err := s.open()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	return fd.Signal(pidfd, sig)
}

// open returns a descriptor of init; os.ErrProcessDone when it has ended.
func (s State) open() (*os.File, error) {
	if s.Pid == 0 {
		return nil, os.ErrProcessDone
	}
	pidfd, err := fd.Pidfd(s.Pid)
	if err != nil {
		return nil, os.ErrProcessDone
	}
	// With the descriptor open the number cannot change hands any more.
	if birth, err := birthOf(s.Pid); err != nil || birth != s.Birth {
		pidfd.Close()
		return nil, os.ErrProcessDone
	}
	return pidfd, nil
}

// Load returns the container of state, which may have ended.
func Load(s State) (*Container, error) {
	c := &Container{id: s.ID, bundle: s.Bundle, spec: s.Spec, created: time.Unix(0, s.Created), socket: s.Socket, steps: s.Steps, first: s.First, noNewKeyring: s.NoNewKeyring}
	var err error
	c.unit = s.Unit
	c.seccomp = sync.OnceValues(func() ([]byte, error) { // most verbs do without
		if s.Spec == nil || s.Spec.Linux == nil || s.Spec.Linux.Seccomp == nil {
			return nil, nil
		}
		return seccomp.Compile(s.Spec.Linux.Seccomp)
	})
	if s.Rdt != nil {
		fs, err := rdt.Find()
		if err != nil {
			return nil, fmt.Errorf("load container %s: %w", s.ID, err)
		}
		c.rdt = fs.Open(*s.Rdt)
	}
	if c.cgroup, err = s.OpenCgroup(); err != nil && !errdefs.Is(err, errdefs.NotFound) {
		return nil, fmt.Errorf("load container %s: %w", s.ID, err)
	}
	c.init = &Process{Pid: s.Pid, ward: true, done: make(chan struct{})}
	pidfd, err := s.open()
	if err != nil {
		c.init.once.Do(func() { close(c.init.done) })
		return c, nil
	}
	c.init.Pidfd = pidfd
	return c, nil
}

// Attach connects to the init that another process left waiting. Only one caller gets it, whoever else tries.
func (c *Container) Attach() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.attach(); err != nil {
		return fmt.Errorf("start container %s: %w", c.id, err)
	}
	return nil
}

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
	c.init.child = clone.Attach(c.init.Pid, c.init.Pidfd, sync, c.steps, c.first)
	return os.Remove(c.socket)
}

// StartsPlainly reports whether the start of a container is nothing but the go-ahead for its init: there is nobody to be asked, and no hook to run.
func StartsPlainly(s *specs.Spec) bool {
	asks := s.Linux != nil && s.Linux.Seccomp != nil && s.Linux.Seccomp.ListenerPath != ""
	return !asks && (s.Hooks == nil || len(s.Hooks.StartContainer) == 0 && len(s.Hooks.Poststart) == 0)
}

// End is what is left of a container when init has ended, and goes with it.
type End struct {
	Pid    int
	Birth  uint64 // of init, as in State
	Cgroup []string
}

// EndsPlainly returns what the end of a container of that state consists of; false if there is more to it: a hook to be run, processes that outlive init, a group or unit that somebody else keeps.
func (c *Container) EndsPlainly(s State) (End, bool) {
	more := s.SharesPids || s.Unit != nil || s.Rdt != nil || c.spec.Hooks != nil && len(c.spec.Hooks.Poststop) > 0
	if more || c.cgroup == nil {
		return End{}, false
	}
	return End{s.Pid, s.Birth, c.cgroup.Directories()}, true
}

// Begun takes over the connection to an init that has had its go-ahead: Start does the rest.
func (c *Container) Begun(sync *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init.child = clone.Attach(c.init.Pid, c.init.Pidfd, sync, c.steps, c.first)
	c.begun = true
}

// Discard takes back what the creation of the container of state left that was cut short: its cgroup with all processes in it, and an init
// that waits for a start that is never to come.
func Discard(s State) error {
	var errs []error
	if s.Socket != "" { // a connection that closes without a word ends who waits for it
		if f, err := fd.DialPacket(s.Socket); err == nil {
			errs = append(errs, f.Close())
		}
	}
	c, err := s.OpenCgroup()
	if c != nil && (err == nil || errdefs.Is(err, errdefs.NotFound)) {
		err = c.Delete()
	}
	if !errdefs.Is(err, errdefs.NotFound) {
		errs = append(errs, err)
	}
	if s.Rdt != nil {
		fs, err := rdt.Find()
		if err == nil {
			err = fs.Open(*s.Rdt).Delete()
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("discard container %s: %w", s.ID, err)
	}
	return nil
}

// Vacant refuses a cgroup that another container's processes are in: the two would share limits, and the end.
func (s State) Vacant() error {
	c, err := s.OpenCgroup()
	if c == nil || errdefs.Is(err, errdefs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	pids, err := c.Procs()
	if err == nil && len(pids) > 0 {
		err = errdefs.New(errdefs.Conflict, "container's cgroup is not empty: %d process(es) found", len(pids))
	}
	if err != nil {
		return err
	}
	if frozen, err := c.Frozen(); err != nil || frozen {
		return errors.Join(err, errdefs.New(errdefs.Conflict, "container's cgroup unexpectedly frozen"))
	}
	return nil
}
