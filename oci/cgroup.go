package oci

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/cgroup/systemd"
	"gantry/linux/clone"
	"gantry/linux/rdt"
)

// CgroupState is what is to be known, beside its path, of a cgroup that is not at the same path in every hierarchy, or is systemd's.
type CgroupState struct {
	Places map[string]string `json:"cgroupPlaces,omitempty"`
	Unit   *systemd.Unit     `json:"systemdUnit,omitempty"`
	Rdt    *rdt.State        `json:"intelRdt,omitempty"` // its group of Intel RDT
}

// PlanCgroup says where Create is going to make the container's cgroup, for who records it before it is made: what the fields Cgroup and
// CgroupState of State will be. Of one by systemd only the unit is known.
func PlanCgroup(b Bundle) (path string, s CgroupState, err error) {
	c := creation{b: b}
	if b.SystemdCgroup {
		u, err := systemd.UnitOf(c.scopeRequest())
		return "", CgroupState{Unit: &u}, err
	}
	path, _ = c.cgroupPath()
	path, s.Places, err = cgroup.Locate(path)
	return path, s, err
}

// planned is the state of a container that is about to be made.
func planned(b Bundle) (State, error) {
	s := State{ID: b.ID, Bundle: b.Dir, Created: time.Now().UnixNano(), Socket: b.Socket}
	var err error
	s.Cgroup, s.CgroupState, err = PlanCgroup(b)
	return s, err
}

// cgroupPath returns the path to make the cgroup at, and whether the specification names it. One that it does not name is called after
// the container, below or beside this process's own.
func (c *creation) cgroupPath() (path string, named bool) {
	if path = c.b.Spec.Linux.CgroupsPath; path != "" {
		return path, true
	}
	return c.b.ID, false
}

func (c *creation) rootlessCgroups() bool { return c.b.RootlessCgroups || os.Geteuid() != 0 }

func (c *creation) scopeRequest() systemd.Request {
	l := c.b.Spec.Linux
	return systemd.Request{Path: l.CgroupsPath, ID: c.b.ID, Resources: l.Resources, Annotations: c.b.Spec.Annotations, Rootless: c.rootlessCgroups()}
}

// makeCgroup makes the container's cgroup.
func (c *creation) makeCgroup(ctx context.Context) error {
	if c.b.SystemdCgroup {
		s, err := systemd.Create(ctx, c.scopeRequest())
		if err != nil {
			return err
		}
		c.scope, c.cgroup = s, s.Cgroup
		c.warnings = append(c.warnings, s.Warnings...)
	} else {
		path, named := c.cgroupPath()
		var err error
		if c.cgroup, err = cgroup.Create(path, c.b.Spec.Linux.Resources, cgroup.Options{Rootless: c.rootlessCgroups(), Named: named, All: writesCgroups(c.b.Spec)}); err != nil {
			return err
		}
	}
	if c.cgroup != nil {
		c.warnings = append(c.warnings, c.cgroup.Warnings()...)
		if uid, ok := cgroupOwner(c.b.Spec); ok {
			if err := c.cgroup.Chown(uid); err != nil {
				return err
			}
		}
	}
	return c.makeRdt()
}

// cgroupOwner returns the user on the host who is to own the container's cgroup: its root, if it has a user namespace and a cgroup
// namespace of its own, and may write to its cgroups.
func cgroupOwner(s *specs.Spec) (uid int, ok bool) {
	own := map[specs.LinuxNamespaceType]bool{}
	for _, n := range s.Linux.Namespaces {
		own[n.Type] = n.Path == ""
	}
	if !own[specs.UserNamespace] || !own[specs.CgroupNamespace] {
		return 0, false
	}
	writable := writesCgroups(s)
	for _, m := range s.Linux.UIDMappings {
		if writable && m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID), true
		}
	}
	return 0, false
}

// writesCgroups reports whether a container may write to its cgroups.
func writesCgroups(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return (m.Type == "cgroup" || m.Type == "cgroup2") && !slices.Contains(m.Options, "ro")
	})
}

// placement is where processes go that cannot go there by themselves. They wait meanwhile.
type placement struct {
	unit *systemd.Unit // nil: not systemd's
	rdt  *rdt.Group    // nil: none
}

// asks reports whether processes have to be moved. A user's own systemd may do what the user may not: take a process out of the cgroup of
// a login session.
func (p placement) asks() bool { return p.rdt != nil || p.byUnit() }

func (p placement) byUnit() bool { return p.unit != nil && p.unit.User }

// move moves a process that waits for it.
func (p placement) move(ctx context.Context, child *clone.Child) error {
	m, err := child.Next()
	if err == nil && m != clone.Ready {
		err = errors.New("the process ended early")
	}
	if err == nil && p.byUnit() {
		err = p.unit.Attach(ctx, child.Pid)
	}
	if err == nil && p.rdt != nil {
		err = p.rdt.Add(child.Pid)
	}
	if err == nil {
		err = child.Go()
	}
	return err
}

func (c *creation) placement() placement { return placement{c.unit(), c.rdt} }

func (c *Container) placement() placement { return placement{c.unit, c.rdt} }

// makeRdt makes the container's group of Intel RDT, if it is to have one.
func (c *creation) makeRdt() error {
	r := c.b.Spec.Linux.IntelRdt
	if r == nil {
		return nil
	}
	fs, err := rdt.Find()
	if err == nil {
		c.rdt, err = fs.Create(c.b.ID, r)
	}
	return err
}

// Report returns what the container of state uses, in the form of a runtime's events command; c is its cgroup.
func (s State) Report(c *cgroup.Cgroup) (cgroup.Report, error) {
	stats, err := c.Stats()
	if err != nil {
		return cgroup.Report{}, err
	}
	r := stats.Report()
	if s.Rdt == nil {
		return r, nil
	}
	fs, err := rdt.Find()
	if err == nil {
		r.IntelRdt, err = fs.Open(*s.Rdt).Stats()
	}
	return r, err
}

// UpdateRdt changes the schemata of the container's group of Intel RDT.
func (s State) UpdateRdt(r *specs.LinuxIntelRdt) error {
	fs, err := rdt.Find()
	if err != nil {
		return err
	}
	if s.Rdt == nil {
		return errdefs.New(errdefs.InvalidParameter, "updating a non-existent Intel RDT configuration is not supported: container %s has none", s.ID)
	}
	return fs.Open(*s.Rdt).Update(r)
}

// unit returns the systemd unit of the container's cgroup, or nil.
func (c *creation) unit() *systemd.Unit {
	if c.scope == nil {
		return nil
	}
	return &c.scope.Unit
}

// releaseScope ends the process that stood in the scope for the container's, which is there by now or never will be.
func (c *creation) releaseScope() {
	if c.scope == nil {
		return
	}
	if err := c.scope.Release(); err != nil {
		c.warnings = append(c.warnings, err.Error())
	}
}

// OpenCgroup opens the container's cgroup; nil if it has none of its own. One that is gone comes with a NotFound error, if systemd may
// know of it still.
func (s State) OpenCgroup() (*cgroup.Cgroup, error) {
	if s.Cgroup == "" && s.Unit == nil {
		return nil, nil
	}
	g, err := cgroup.Reopen(s.Cgroup, s.Places)
	if err != nil && (s.Unit == nil || g == nil) {
		return nil, err
	}
	if s.Unit != nil {
		g.Keep(systemd.Keeper{Unit: *s.Unit})
	}
	return g, err
}

// startIn clones a process into the container's cgroup. One that has cgroups of its own with limits takes no process any more: then it
// goes where init is.
func (c *Container) startIn(script *clone.Script, o clone.Options, below map[string]string) (*clone.Child, error) {
	if c.placement().byUnit() {
		o.Cgroup = nil
	}
	child, err := clone.Start(script, o)
	if o.Cgroup == nil || len(below) > 0 || !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENODEV) {
		return child, err
	}
	with, werr := cgroup.JoinWith(c.init.Pid)
	if werr != nil {
		return nil, errors.Join(err, werr)
	}
	defer with.Close()
	o.Cgroup = with
	return clone.Start(script, o)
}
