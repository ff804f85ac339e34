package oci

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
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
	b             Bundle
	files         []*os.File // closed when Create is over, however it ends
	in            initproc.Init
	flags         uint64
	joinPid       *os.File
	newUser       bool
	inside        bool     // mounts are made by the child: this process has no right to
	maps          idMaps   // of the container's user namespace
	plainNewlines bool     // of a terminal that the child makes
	devpts        *os.File // mount of the container's own devpts, or nil
	console       *os.File // pty master
	cgroup        *cgroup.Cgroup
	scope         *systemd.Scope // by whom the cgroup was made, or nil
	rdt           *rdt.Group     // its group of Intel RDT, or nil
	warnings      []string
	// handed are to be done with mounts that the child passes, in their order.
	handed []func(*os.File) error
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
	c := &creation{b: b, inside: !ns.Privileged()}
	defer c.close()
	p, err := c.create(ctx, io)
	if err == nil {
		filter := c.in.Seccomp
		ct := &Container{id: b.ID, bundle: b.Dir, spec: b.Spec, init: p, cgroup: c.cgroup, unit: c.unit(), rdt: c.rdt, warnings: c.warnings, seccomp: func() ([]byte, error) { return filter, nil }, created: time.Now(), socket: b.Socket, joined: slices.Collect(maps.Keys(b.Namespaces)), noNewKeyring: b.NoNewKeyring, environment: c.in.Env}
		if b.Born != nil {
			err = b.Born(ct)
		}
		if err == nil {
			err = ct.bringUp(ctx, c)
		}
		if err == nil {
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
	if c.in.HostMounts && c.in.Root.File != nil {
		err = errors.Join(err, mount.Withdraw(c.in.Root.File, c.top()))
	}
	return nil, fmt.Errorf("create container %s: %w", b.ID, err)
}

func (c *creation) create(ctx context.Context, io Stdio) (*Process, error) {
	spec := c.b.Spec
	if err := validate(spec); err != nil {
		return nil, err
	}
	if err := validateLinux(spec, c.b.Namespaces); err != nil {
		return nil, err
	}
	if spec.Root == nil && c.b.Root == nil {
		return nil, bad("root: missing")
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
	c.in.InOrder = c.b.InOrder
	c.in.ReadOnly = spec.Root != nil && spec.Root.Readonly
	if err := c.mounts(root); err != nil {
		return nil, err
	}
	if err := c.hidden(); err != nil {
		return nil, err
	}
	c.plainNewlines = io.PlainNewlines
	if err := c.stdio(io); err != nil {
		return nil, err
	}
	d, err := facts(spec.Process)
	if err != nil {
		return nil, err
	}
	if c.in.InUser {
		d.inUser()
	}
	c.warnings = append(c.warnings, d.fill(&c.in.Process, spec.Process)...)
	if err := attributes(&c.in.Process, spec.Process, spec.Linux); err != nil {
		return nil, err
	}
	if err := labels(&c.in.Process, spec.Process); err != nil {
		return nil, err
	}
	warnings, err := landlockOf(&c.in.Process, spec)
	if err != nil {
		return nil, err
	}
	c.warnings = append(c.warnings, warnings...)
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
	if err := c.rootPropagation(); err != nil {
		return nil, err
	}
	setEnvironment(&c.in.Process, root)
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
func (c *Container) bringUp(ctx context.Context, made *creation) error {
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
	if made.newUser {
		if err := ready(); err != nil {
			return err
		}
		denied, err := ns.WriteMaps(c.init.Pid, made.maps.uids, made.maps.gids)
		if err != nil {
			return err
		}
		if denied && len(c.spec.Process.User.AdditionalGids) > 0 {
			return errdefs.New(errdefs.InvalidParameter, "process.user.additionalGids: a user namespace made without newgidmap has no supplementary groups")
		}
		if err := c.init.child.Go(); err != nil {
			return err
		}
	}
	if err := made.takeHanded(c.init.child); err != nil {
		return err
	}
	if t := made.in.Console; t != nil && t.Made {
		f, err := c.init.child.NextFile("terminal")
		if err != nil {
			return err
		}
		c.init.Console = f
		if made.plainNewlines {
			if err := pty.KeepNewlines(f); err != nil {
				return err
			}
		}
	}
	if err := ready(); err != nil || !made.in.HooksBefore {
		return err
	}
	if len(c.spec.Linux.NetDevices) > 0 {
		if err := c.moveDevices(); err != nil {
			return err
		}
	}
	c.rootPlace = made.in.RootPlace
	for _, point := range []string{"prestart", "createRuntime", "createContainer"} {
		if err := c.hooks(ctx, point, "creating"); err != nil {
			// The life cycle of one that failed ends as that of any other.
			return errors.Join(err, c.hooks(ctx, "poststop", specs.StateStopped))
		}
	}
	if err := c.init.child.Go(); err != nil {
		return err
	}
	return ready()
}

// top returns the path of the root file system on the host.
func (c *creation) top() string {
	top := ""
	if c.b.Spec.Root != nil {
		top = c.b.Spec.Root.Path
	}
	if !filepath.IsAbs(top) {
		top = filepath.Join(c.b.Dir, top)
	}
	return filepath.Clean(top)
}

// root gives the script the root file system, as a detached mount if this process may make one, and returns it for looking into.
func (c *creation) root() (*os.File, error) {
	l := c.b.Spec.Linux
	top := c.top()
	hooks := hookTable(c.b.Spec.Hooks)
	c.in.HooksBefore = len(hooks["prestart"])+len(hooks["createRuntime"])+len(hooks["createContainer"]) > 0
	c.in.HooksBefore = c.in.HooksBefore || len(l.NetDevices) > 0 // settings of the devices come after that stop
	c.in.HooksStart = len(hooks["startContainer"]) > 0
	if c.in.HostMounts {
		c.in.RootPlace = top
	} else if c.in.HooksBefore { // what they mount there is to be in the container
		for _, dir := range []string{top, c.b.Dir} {
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				c.in.RootPlace = dir
				break
			}
		}
	}
	c.in.NoPivot = c.b.NoPivot
	if top != "/" {
		c.in.Aside = top
	}
	if c.b.Root != nil {
		c.in.Root = clone.FD{Name: "root", File: c.b.Root}
		return c.b.Root, nil
	}
	changes := rootChanges(l.RootfsPropagation)
	if c.inside {
		f, err := os.OpenFile(top, oPath|syscall.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("open root file system: %w", err)
		}
		c.in.RootPath, c.in.RootChanges = top, changes
		return c.keep(f), nil
	}
	f, err := mount.Bind(top, true)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	c.in.Root = clone.FD{Name: "root", File: c.keep(f)}
	return f, apply(f, changes)
}

// rootChanges is what a root file system's propagation makes of the mounts in it. The root itself must not be shared while it becomes
// the root.
func rootChanges(propagation string) []initproc.Change {
	switch base := basePropagation(propagation); base {
	case 0:
		return []initproc.Change{{Propagation: uint64(mount.Private)}}
	default:
		return []initproc.Change{{Propagation: uint64(base), Recursive: true}}
	}
}

// basePropagation is what becomes of mounts of the host's in the container that do not say themselves how they spread: with a shared root
// they stay as they are (0), otherwise nothing that is mounted in the container appears on the host.
func basePropagation(root string) mount.Propagation {
	switch root {
	case "shared", "rshared":
		return 0
	case "private", "rprivate", "unbindable", "runbindable":
		return mount.Private
	}
	return mount.Slave
}

// stdio opens the terminal, or what stands for missing streams.
func (c *creation) stdio(io Stdio) error {
	p := c.b.Spec.Process
	if p.Terminal && c.inside {
		if !slices.ContainsFunc(c.in.Mounts, func(m initproc.Mount) bool { return m.FSType == "devpts" && m.Destination == "/dev/pts" }) {
			return errdefs.New(errdefs.NotImplemented, "process.terminal: without root's rights a terminal needs a devpts at /dev/pts among the mounts")
		}
		c.in.Process.Terminal = true
		c.in.Console = &initproc.Console{Made: true, Size: p.ConsoleSize}
		return nil
	}
	user, err := c.maps.outside(p.User)
	if err != nil {
		return err
	}
	if p.Terminal {
		if c.devpts == nil {
			f, err := mount.Bind("/dev/pts", false) // the host's: the container has no terminals of its own
			if err != nil {
				return err
			}
			c.devpts = c.keep(f)
		}
		for i := range c.in.Mounts { // what is opened on it has its name from it
			m := &c.in.Mounts[i]
			m.Once = m.Once || m.FD.File == c.devpts
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
		return prepareTerminal(master, slave, p.ConsoleSize, user.UID, io.PlainNewlines)
	}
	files, opened, err := standardFiles(io, user)
	c.files = append(c.files, opened...)
	c.in.Stdio, c.in.NullStdio = files, nulls(files)
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
