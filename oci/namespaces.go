package oci

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/clone"
	"gantry/linux/fd"
	"gantry/linux/ns"
	"gantry/oci/initproc"
)

// namespaces sorts the namespaces into those to be born in, to make later and to join.
//
// A new user namespace is made together with all others that are new, which then belong to it; what is joined belongs mostly to another
// and must have been joined before. A joined user namespace gives the rights over what belongs to it: that comes after. What takes two
// processes for that is Init.Forks.
func (c *creation) namespaces() error {
	join := map[specs.LinuxNamespaceType]*os.File{}
	l := c.b.Spec.Linux
	for _, n := range l.Namespaces {
		flag := ns.Flag(n.Type)
		switch {
		case c.b.Namespaces[n.Type] != nil:
		case n.Path != "":
			f, err := os.Open(n.Path)
			if err != nil {
				return fmt.Errorf("linux.namespaces: open %s namespace: %w", n.Type, err)
			}
			join[n.Type] = c.keep(f)
			if err := ns.Check(f, n.Type); err != nil {
				return fmt.Errorf("linux.namespaces: %w", err)
			}
		case n.Type == specs.CgroupNamespace:
			c.in.NewCgroup = true
		case n.Type == specs.TimeNamespace:
			c.in.NewTime, c.in.Time = true, timeOffsets(l.TimeOffsets)
		default:
			c.newUser = c.newUser || n.Type == specs.UserNamespace
			c.flags |= flag
			c.in.Loopback = c.in.Loopback || n.Type == specs.NetworkNamespace
		}
	}
	for t, f := range c.b.Namespaces {
		join[t] = f
	}
	c.in.HostMounts = c.flags&ns.Flag(specs.MountNamespace) == 0 && join[specs.MountNamespace] == nil
	user := join[specs.UserNamespace]
	c.in.Mapped, c.in.InUser, c.in.Open = c.newUser, c.newUser || user != nil, c.inside
	if c.newUser {
		c.maps = idMaps{on: true, uids: l.UIDMappings, gids: l.GIDMappings}
	}
	if user != nil {
		var err error
		if c.maps, err = mapsOf(user); err != nil {
			return fmt.Errorf("linux.namespaces: %w", err)
		}
	}
	return c.order(join)
}

// order puts the namespaces to join into the order that works.
func (c *creation) order(join map[specs.LinuxNamespaceType]*os.File) error {
	user := join[specs.UserNamespace]
	var before, after []initproc.Namespace
	for _, t := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace, specs.CgroupNamespace, specs.TimeNamespace, specs.MountNamespace,
	} {
		f := join[t]
		if f == nil {
			continue
		}
		n := initproc.Namespace{Kind: ns.Flag(t), Name: string(t), FD: clone.FD{Name: string(t) + " namespace", File: f}}
		if t == specs.PIDNamespace && user == nil && !c.inside && (!c.newUser || len(join) == 1) {
			c.joinPid = f // the child is born in it
			continue
		}
		c.in.Forks = c.in.Forks || t == specs.PIDNamespace
		if user == nil {
			before = append(before, n)
			continue
		}
		owned, err := ns.OwnedBy(f, user)
		if err != nil {
			return fmt.Errorf("linux.namespaces: %w", err)
		}
		if owned {
			after = append(after, n)
		} else {
			before = append(before, n)
		}
	}
	c.in.Join = before
	if user != nil {
		c.in.Join = append(c.in.Join, initproc.Namespace{Kind: ns.Flag(specs.UserNamespace), Name: "user", FD: clone.FD{Name: "user namespace", File: user}})
		c.in.Join = append(c.in.Join, after...)
	}
	c.in.Forks = c.in.Forks || user != nil && c.flags != 0 || c.newUser && len(before) > 0
	if c.in.Forks {
		c.in.Fork, c.flags = c.flags, 0
		var names []string
		for _, t := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace} {
			if c.in.Fork&ns.Flag(t) != 0 {
				names = append(names, "|NEW"+strings.ToUpper(string(t)))
			}
		}
		c.in.ForkNames = strings.Join(names, "")
	}
	return nil
}

// timeOffsets returns the offsets as /proc/PID/timens_offsets takes them.
func timeOffsets(m map[string]specs.LinuxTimeOffset) string {
	var lines []string
	for clock, o := range m {
		lines = append(lines, fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// idMaps are the mappings of a user namespace.
type idMaps struct {
	on         bool // there is a user namespace
	uids, gids []specs.LinuxIDMapping
}

// ids returns what user and group of the namespace are outside.
func (m idMaps) ids(uid, gid uint32) (outsideUID, outsideGID uint32, err error) {
	if !m.on {
		return uid, gid, nil
	}
	u, ok := ns.HostID(m.uids, uid)
	if !ok {
		return 0, 0, errdefs.New(errdefs.InvalidParameter, "user %d is not in linux.uidMappings", uid)
	}
	g, ok := ns.HostID(m.gids, gid)
	if !ok {
		return 0, 0, errdefs.New(errdefs.InvalidParameter, "group %d is not in linux.gidMappings", gid)
	}
	return u, g, nil
}

// outside returns the user as it is outside the namespace.
func (m idMaps) outside(u specs.User) (specs.User, error) {
	var err error
	u.UID, u.GID, err = m.ids(u.UID, u.GID)
	if err != nil {
		return u, fmt.Errorf("process.user: %w", err)
	}
	return u, nil
}

// mapsOf reads the mappings of a user namespace that is known by a descriptor only: procfs shows those of processes.
func mapsOf(user *os.File) (m idMaps, err error) {
	var s clone.Script
	s.For("join user namespace")
	s.Setns(clone.File(clone.FD{Name: "user namespace", File: user}), ns.Flag(specs.UserNamespace), "NEWUSER")
	s.Ready()
	return m, withChild(&s, 0, func(c *clone.Child) error {
		m.on = true
		if m.uids, err = ns.ReadMap(c.Pid, "uid_map"); err == nil {
			m.gids, err = ns.ReadMap(c.Pid, "gid_map")
		}
		return err
	})
}

// mapped returns a user namespace with the mappings of m.
func (m idMaps) mapped() (*os.File, error) {
	var s clone.Script
	s.Ready()
	var f *os.File
	err := withChild(&s, ns.Flag(specs.UserNamespace), func(c *clone.Child) error {
		_, err := ns.WriteMaps(c.Pid, m.uids, m.gids)
		if err == nil {
			f, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Pid))
		}
		return err
	})
	return f, err
}

// withChild does something while a child waits at its first Ready step, and ends it.
func withChild(s *clone.Script, namespaces uint64, do func(*clone.Child) error) error {
	c, err := clone.Start(s, clone.Options{Namespaces: namespaces})
	if err != nil {
		return err
	}
	m, err := c.Next()
	if err == nil && m != clone.Ready {
		err = errors.New("the helping process ended early")
	}
	if err == nil {
		err = do(c)
	}
	err = errors.Join(err, c.Sync.Close()) // which ends it
	_, werr := fd.Wait(c.Pidfd)
	return errors.Join(err, werr, c.Pidfd.Close())
}

// inUser makes h what a process in a new user namespace has: every capability there.
func (h *host) inUser() {
	all := uint64(1)<<(h.own.Last+1) - 1
	h.own.Bounding, h.own.Permitted = all, all
}
