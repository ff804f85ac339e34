package oci

import (
	"context"
	"fmt"
	"time"

	"gantry/errdefs"
	"gantry/linux/cgroup"
)

// CgroupFor makes the cgroup that Create would, for processes that are not cloned here but restored. An error leaves nothing.
func CgroupFor(ctx context.Context, b Bundle) (*cgroup.Cgroup, State, error) {
	if b.SystemdCgroup {
		return nil, State{}, errdefs.New(errdefs.NotImplemented, "restore container %s: cgroups of systemd are not supported here; use the cgroupfs driver", b.ID)
	}
	s, err := planned(b)
	if err == nil {
		err = b.Intent(s)
	}
	if err != nil {
		return nil, s, err
	}
	c := &creation{b: b}
	defer c.close()
	if err := c.makeCgroup(ctx); err != nil {
		return nil, s, err
	}
	if c.cgroup != nil {
		s.Cgroup, s.CgroupState = c.cgroup.Path(), CgroupState{Places: c.cgroup.Places()}
	}
	return c.cgroup, s, nil
}

// Restored returns the container of state whose init, pid, has been restored as a child of this process.
func Restored(s State, pid int) (*Container, State, error) {
	birth, err := birthOf(pid)
	if err != nil {
		return nil, s, fmt.Errorf("restore container %s: %w", s.ID, err)
	}
	s.Pid, s.Birth, s.Created = pid, birth, time.Now().UnixNano()
	c, err := Load(s)
	if err != nil {
		return nil, s, err
	}
	if c.init.Pidfd == nil {
		return nil, s, errdefs.New(errdefs.Conflict, "restore container %s: it has ended", s.ID)
	}
	c.init.ward = false // its status is ours
	return c, s, nil
}

// RunHooks runs the hooks of the points named, which Create would have run.
func (c *Container) RunHooks(ctx context.Context, points ...string) error {
	for _, p := range points {
		if err := c.hooks(ctx, p, "creating"); err != nil {
			return err
		}
	}
	return nil
}
