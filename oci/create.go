package oci

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/cgroup/systemd"
	"gantry/linux/clone"
	"gantry/linux/fd"
	"gantry/linux/mount"
	"gantry/linux/ns"
	"gantry/linux/pty"
	"gantry/linux/rdt"
	"gantry/oci/initproc"
)

// creation is a container in the making: what Create opens on the way, and how to take it back.
type creation struct {
	b        Bundle
	files    []*os.File // closed when Create is over, however it ends
	in       initproc.Init
	flags    uint64
	joinPid  *os.File
	late     int      // mounts that the script makes
	devpts   *os.File // mount of the container's own devpts, or nil
	console  *os.File // pty master
	cgroup   *cgroup.Cgroup
	scope    *systemd.Scope // by whom the cgroup was made, or nil
	rdt      *rdt.Group     // its group of Intel RDT, or nil
	warnings []string
}

func (c *creation) keep(f *os.File) *os.File {
	c.files = append(c.files, f)
	return f
}

func (c *creation) close() {
	c.releaseScope()
	for _, f := range c.files {
		f.Close()
	}
}

// Create sets the container up and returns when its init waits for Start. On error nothing is left.
func Create(ctx context.Context, b Bundle, io Stdio) (*Container, error) {
	c := &creation{b: b}
	defer c.close()
	p, err := c.create(ctx, io)
	if err == nil {
		ct := &Container{id: b.ID, bundle: b.Dir, spec: b.Spec, init: p, cgroup: c.cgroup, unit: c.unit(), rdt: c.rdt, warnings: c.warnings, seccomp: c.in.Seccomp, created: time.Now(), socket: b.Socket, joined: slices.Collect(maps.Keys(b.Namespaces)), noNewKeyring: b.NoNewKeyring}
		if err = ct.bringUp(ctx, c.in.HooksBefore); err == nil {
			return ct, nil
		}
		p.kill(ctx)
	} else if c.console != nil {
		c.console.Close()
	}
	if c.cgroup != nil {
		err = errors.Join(err, c.cgroup.Delete())
	}
	if c.rdt != nil {
		err = errors.Join(err, c.rdt.Delete())
	}
	return nil, fmt.Errorf("create container %s: %w", b.ID, err)
}

func (c *creation) create(ctx context.Context, io Stdio) (*Process, error) {
	spec := c.b.Spec
	if err := validate(spec); err != nil {
		return nil, err
	}
	if err := c.namespaces(); err != nil {
		return nil, err
	}
	if c.b.Intent != nil {
		s, err := planned(c.b)
		if err == nil {
			err = c.b.Intent(s)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.makeCgroup(ctx); err != nil {
		return nil, err
	}
	root, err := c.root()
	if err != nil {
		return nil, err
	}
	c.in.Root = clone.FD{Name: "root", File: root}
	c.in.ReadOnly = spec.Root != nil && spec.Root.Readonly
	if err := c.mounts(root); err != nil {
		return nil, err
	}
	if err := c.hidden(); err != nil {
		return nil, err
	}
	if err := c.stdio(io); err != nil {
		return nil, err
	}
	d, err := facts(spec.Process)
	if err != nil {
		return nil, err
	}
	c.warnings = append(c.warnings, d.fill(&c.in.Process, spec.Process)...)
	if err := c.seccomp(); err != nil {
		return nil, err
	}
	c.in.Hostname, c.in.Domainname = spec.Hostname, spec.Domainname
	c.in.Sysctl = sortedSysctl(spec.Linux.Sysctl)
	c.in.DieWithParent = c.b.DieWithParent
	c.in.NewKeyring = !c.b.NoNewKeyring
	c.in.NoPivot = c.b.NoPivot
	if c.b.Socket != "" {
		l, err := fd.ListenPacket(c.b.Socket)
		if err != nil {
			return nil, err
		}
		c.in.Listener = &clone.FD{Name: "listener", File: c.keep(l)}
	}
	c.in.Preserve = c.b.Preserve
	hooks := hookTable(spec.Hooks)
	c.in.HooksBefore = len(hooks["prestart"])+len(hooks["createRuntime"])+len(hooks["createContainer"]) > 0
	c.in.HooksStart = len(hooks["startContainer"]) > 0
	if err := c.rootPropagation(); err != nil {
		return nil, err
	}
	setHome(&c.in.Process, root)
	o := clone.Options{Namespaces: c.flags, PidNamespace: c.joinPid, Preserve: c.b.Preserve}
	if c.cgroup != nil {
		into, join, err := c.cgroup.Join()
		if err != nil {
			return nil, err
		}
		if into != nil {
			o.Cgroup = c.keep(into)
		}
		for _, f := range join {
			c.in.CgroupFiles = append(c.in.CgroupFiles, clone.FD{Name: f.Name(), File: c.keep(f)})
		}
	}
	place := c.placement()
	c.in.AwaitCgroup = place.asks()
	if place.byUnit() {
		o.Cgroup = nil
	}
	script := c.in.Script()
	child, err := clone.Start(script, o)
	if err != nil {
		return nil, err
	}
	p := newProcess(child, c.console)
	if c.in.AwaitCgroup {
		if err := place.move(ctx, child); err != nil {
			c.console = nil // kill closes it
			p.kill(ctx)
			return nil, err
		}
	}
	return p, nil
}

// bringUp follows init to where it waits for Start.
func (c *Container) bringUp(ctx context.Context, hooks bool) error {
	ready := func() error {
		m, err := c.init.await(c.spec.Process.Args[0])
		if err != nil {
			return err
		}
		if m != clone.Ready {
			st, err := c.init.Wait(context.WithoutCancel(ctx))
			return errors.Join(fmt.Errorf("init ended early, with status %d", st.Code), err)
		}
		return nil
	}
	if err := ready(); err != nil || !hooks {
		return err
	}
	for _, point := range []string{"prestart", "createRuntime", "createContainer"} {
		if err := c.hooks(ctx, point, "creating"); err != nil {
			return err
		}
	}
	if err := c.init.child.Go(); err != nil {
		return err
	}
	return ready()
}

// root returns the root file system as a detached mount that nothing propagates to.
func (c *creation) root() (*os.File, error) {
	if c.b.Root != nil {
		return c.b.Root, nil
	}
	path := c.b.Spec.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.b.Dir, path)
	}
	f, err := mount.Bind(path, true)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	return c.keep(f), mount.SetAttr(f, 0, 0, mount.Private, true)
}

// namespaces sorts the namespaces into those to be born in, to make later and to join.
func (c *creation) namespaces() error {
	have := map[specs.LinuxNamespaceType]bool{}
	join := map[specs.LinuxNamespaceType]*os.File{}
	for _, n := range c.b.Spec.Linux.Namespaces {
		if have[n.Type] {
			return errdefs.New(errdefs.InvalidParameter, "namespace %s is named twice", n.Type)
		}
		have[n.Type] = true
		flag := ns.Flag(n.Type)
		if flag == 0 {
			return errdefs.New(errdefs.InvalidParameter, "namespace type %q is unknown", n.Type)
		}
		switch {
		case c.b.Namespaces[n.Type] != nil:
		case n.Path != "":
			f, err := os.Open(n.Path)
			if err != nil {
				return fmt.Errorf("open %s namespace: %w", n.Type, err)
			}
			join[n.Type] = c.keep(f)
		case n.Type == specs.CgroupNamespace:
			c.in.NewCgroup = true
		case n.Type == specs.UserNamespace, n.Type == specs.TimeNamespace:
			return errdefs.New(errdefs.NotImplemented, "a new %s namespace is not supported yet", n.Type)
		default:
			c.flags |= flag
			c.in.Loopback = c.in.Loopback || n.Type == specs.NetworkNamespace
		}
	}
	for t, f := range c.b.Namespaces {
		join[t] = f
	}
	if c.flags&ns.Flag(specs.MountNamespace) == 0 {
		return errdefs.New(errdefs.NotImplemented, "a container needs a mount namespace of its own")
	}
	for _, t := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace, specs.CgroupNamespace} {
		f := join[t]
		if f == nil {
			continue
		}
		if t == specs.PIDNamespace {
			c.joinPid = f
			continue
		}
		c.in.Join = append(c.in.Join, initproc.Namespace{Kind: ns.Flag(t), Name: string(t), FD: clone.FD{Name: string(t) + " namespace", File: f}})
	}
	return nil
}

// stdio opens the terminal, or what stands for missing streams.
func (c *creation) stdio(io Stdio) error {
	p := c.b.Spec.Process
	if p.Terminal {
		if c.devpts == nil {
			f, err := mount.Bind("/dev/pts", false) // the host's: the container has no terminals of its own
			if err != nil {
				return err
			}
			c.devpts = c.keep(f)
		}
		master, slave, number, err := pty.Open(c.devpts)
		if err != nil {
			return err
		}
		c.console = master
		c.keep(slave)
		c.in.Process.Terminal = true
		for i := range c.in.Stdio {
			c.in.Stdio[i] = clone.FD{Name: "terminal", File: slave}
		}
		c.in.Console = &initproc.Console{At: clone.FD{Name: "mount /dev/pts", File: c.devpts}, Name: fmt.Sprint(number)}
		return prepareTerminal(master, slave, p)
	}
	files, opened, err := standardFiles(io, p.User)
	c.files = append(c.files, opened...)
	c.in.Stdio = files
	return err
}

// rootPropagation says how mounts in the container's root spread.
func (c *creation) rootPropagation() error {
	name := c.b.Spec.Linux.RootfsPropagation
	if name == "" {
		return nil
	}
	o, err := mount.Parse([]string{name})
	if err != nil || o.Propagation == 0 {
		return errdefs.New(errdefs.InvalidParameter, "root propagation %q is unknown", name)
	}
	c.in.Propagation, c.in.PropagationName = uint64(o.Propagation), name // of the root itself: mounts below have their own
	return nil
}
