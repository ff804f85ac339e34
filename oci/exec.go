package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/clone"
	"gantry/linux/ns"
	"gantry/linux/pty"
	"gantry/linux/safepath"
	"gantry/linux/seccomp"
	"gantry/oci/initproc"
)

// ExecOptions are the circumstances of Exec.
type ExecOptions struct {
	Stdio   Stdio
	Seccomp []byte // compiled filter instead of the container's; empty and not nil: none
	// Preserve is how many descriptors after the standard three the program inherits.
	Preserve int
	// Cgroups are the parts of the container's cgroup to be in, as cgroup.Cgroup.Sub takes them; nil: its own.
	Cgroups map[string]string
}

// Exec runs a further process in the container and returns when it has been executed; *ExecError when that fails.
func (c *Container) Exec(ctx context.Context, p *specs.Process, o ExecOptions) (*Process, error) {
	proc, err := c.exec(ctx, p, o)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	return proc, nil
}

func (c *Container) exec(ctx context.Context, p *specs.Process, o ExecOptions) (_ *Process, err error) {
	if err := validateProcess(p, nil); err != nil {
		return nil, err
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var in initproc.Exec
	looking, err := c.lookInto()
	if err != nil {
		return nil, err
	}
	if looking != nil {
		in.AwaitJoin = true
		files = append(files, looking) // for errors: it is closed before the program runs
	}
	maps, err := c.idMaps()
	if err != nil {
		return nil, err
	}
	user, err := maps.outside(p.User)
	if err != nil {
		return nil, err
	}
	in.InUser = maps.on
	if maps.on && len(p.User.AdditionalGids) > 0 && ns.GroupsDenied(c.init.Pid) {
		return nil, errdefs.New(errdefs.InvalidParameter, "additionalGids: processes in the container's user namespace have no supplementary groups")
	}
	// The root by its own name: what the container mounts or links there makes no difference to where openat2 stays.
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", c.init.Pid), syscall.O_DIRECTORY|oPath, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	files = append(files, root)
	if !c.has(specs.MountNamespace) {
		in.Root = &clone.FD{Name: "root", File: root}
	}
	var console *os.File
	defer func() {
		if err != nil && console != nil {
			console.Close()
		}
	}()
	if p.Terminal {
		devpts, err := safepath.Open(root, "/dev/pts", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, devpts)
		master, slave, _, err := pty.Open(devpts)
		if err != nil {
			return nil, err
		}
		console = master
		files = append(files, slave)
		if err := prepareTerminal(master, slave, p.ConsoleSize, user.UID, o.Stdio.PlainNewlines); err != nil {
			return nil, err
		}
		in.Terminal = true
		for i := range in.Stdio {
			in.Stdio[i] = clone.FD{Name: "terminal", File: slave}
		}
	} else {
		var opened []*os.File
		in.Stdio, opened, err = standardFiles(o.Stdio, user)
		files = append(files, opened...)
		if err != nil {
			return nil, err
		}
		in.NullStdio = nulls(in.Stdio)
	}
	h, err := facts(p)
	if err != nil {
		return nil, err
	}
	if maps.on {
		h.inUser()
	}
	warnings := h.fill(&in.Process, p)
	if err := attributes(&in.Process, p, c.spec.Linux); err != nil {
		return nil, err
	}
	var usual *specs.CPUAffinity
	if c.spec.Process != nil {
		usual = c.spec.Process.ExecCPUAffinity
	}
	if err := affinity(&in.Process, p.ExecCPUAffinity, usual); err != nil {
		return nil, err
	}
	if err := labels(&in.Process, p); err != nil {
		return nil, err
	}
	if _, err := landlockOf(&in.Process, c.spec); err != nil { // what it cannot do was said when the container was created
		return nil, err
	}
	if in.Seccomp = o.Seccomp; in.Seccomp == nil {
		if in.Seccomp, err = c.seccomp(); err != nil {
			return nil, err
		}
	}
	if len(in.Seccomp) == 0 {
		in.Seccomp = nil
	} else if in.SeccompFlags, err = seccomp.Flags(c.spec.Linux.Seccomp, in.Seccomp); err != nil {
		return nil, err
	}
	in.AsksExec = asksExec(c.spec.Linux.Seccomp, in.Seccomp)
	setEnvironment(&in.Process, root)
	in.SendListener = !ns.Privileged()
	in.NewKeyring = !c.noNewKeyring
	in.Target = clone.FD{Name: "init", File: c.init.Pidfd}
	in.Preserve = o.Preserve
	so := clone.Options{Preserve: o.Preserve}
	in.Join, in.JoinNames, in.Fork = c.joins()
	if !in.Fork && c.has(specs.PIDNamespace) {
		so.PidNamespace = c.init.Pidfd
	}
	if c.cgroup == nil && len(o.Cgroups) > 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "it has no cgroup")
	}
	if c.cgroup != nil {
		cg, err := c.cgroup.Sub(o.Cgroups)
		if err != nil {
			return nil, err
		}
		into, join, err := cg.Join()
		if err != nil {
			return nil, notJoined(err, o.Cgroups)
		}
		if into != nil {
			files = append(files, into)
			so.Cgroup = into
		}
		for _, f := range join {
			files = append(files, f)
			in.CgroupFiles = append(in.CgroupFiles, clone.FD{Name: f.Name(), File: f})
		}
	}
	in.AwaitCgroup = c.placement().asks()
	child, err := c.startIn(in.Script(), so, o.Cgroups)
	if err != nil {
		return nil, notJoined(err, o.Cgroups)
	}
	proc := newProcess(child, console)
	proc.pass = c.listenerOf(ctx, proc, in.Seccomp, specs.StateRunning)
	if looking != nil {
		err = joined(child, looking)
	}
	if err == nil && in.AwaitCgroup {
		err = c.placement().move(ctx, child)
	}
	if err != nil {
		console = nil // kill closes it
		proc.kill(ctx)
		return nil, err
	}
	if _, err := proc.await(p.Args[0]); err != nil {
		console = nil // kill closes it
		proc.kill(ctx)
		return nil, err
	}
	proc.Warnings = warnings
	return proc, proc.closeSync()
}

// lookInto has an init that waits for its start let this process look into it, which it needs root's rights for otherwise, until the file is
// closed; nil where that is not called for.
func (c *Container) lookInto() (*os.File, error) {
	if ns.Privileged() || c.socket == "" {
		return nil, nil
	}
	f, err := clone.LookInto(c.socket)
	if errors.Is(err, os.ErrNotExist) { // it has been started
		return nil, nil
	}
	return f, err
}

// joined lets a child go on that has joined the namespaces of an init that looking lets it look into, when that has come to an end.
func joined(child *clone.Child, looking *os.File) error {
	m, err := child.Next()
	if err == nil && m != clone.Ready {
		err = errors.New("the process ended early")
	}
	if err == nil {
		err = clone.LookAway(looking)
	}
	if err == nil {
		err = child.Go()
	}
	return err
}

// notJoined gives an error of a process that was to be in a part of the container's cgroup the words that runc's callers look for.
func notJoined(err error, below map[string]string) error {
	if len(below) == 0 {
		return err
	}
	return fmt.Errorf("error adding pid of the process to cgroups: %w", err)
}

// joins returns the namespaces that a process joins to be in the container. Where this process has no right to give a child its pid
// namespace, or the child is something else before it is seen there, that is among them, and the child must fork.
func (c *Container) joins() (flags uint64, text string, fork bool) {
	var names []string
	for _, t := range c.kinds() {
		if t == specs.PIDNamespace {
			if ns.Privileged() && !clone.Disguised() {
				continue
			}
			fork = true
		}
		flags |= ns.Flag(t)
		names = append(names, "NEW"+strings.ToUpper(string(t)))
	}
	return flags, strings.Join(names, "|"), fork
}

func (c *Container) has(t specs.LinuxNamespaceType) bool { return slices.Contains(c.kinds(), t) }

// idMaps returns the mappings of the container's user namespace.
func (c *Container) idMaps() (m idMaps, err error) {
	if !c.has(specs.UserNamespace) {
		return m, nil
	}
	m.on = true
	if m.uids, err = ns.ReadMap(c.init.Pid, "uid_map"); err == nil {
		m.gids, err = ns.ReadMap(c.init.Pid, "gid_map")
	}
	return m, err
}

// kinds returns the namespaces in which the container is apart from the host.
func (c *Container) kinds() []specs.LinuxNamespaceType {
	list := slices.Clone(c.joined)
	for _, n := range c.spec.Linux.Namespaces {
		if !slices.Contains(list, n.Type) {
			list = append(list, n.Type)
		}
	}
	slices.Sort(list)
	return list
}
