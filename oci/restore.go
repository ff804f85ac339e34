package oci

import (
	"context"
	"fmt"
	"time"

	"gantry/errdefs"
	"gantry/linux/cgroup"
)

// CgroupFor makes the cgroup that Create would, for processes that are not cloned here but restored. Until release, a process of ours may stand in it for them, because systemd's go
// with their last process. An error leaves nothing.
func CgroupFor(ctx context.Context, b Bundle) (group *cgroup.Cgroup, s State, release func() error, err error) {
	s, err = planned(b)
	if err == nil {
		err = b.Intent(s)
	}
	if err != nil {
		return nil, s, nil, err
	}
	c := &creation{b: b}
	defer c.close()
	if err := c.makeCgroup(ctx); err != nil {
		return nil, s, nil, err
	}
	if c.cgroup != nil {
		s.Cgroup, s.CgroupState = c.cgroup.Path(), CgroupState{Places: c.cgroup.Places(), Unit: c.unit()}
	}
	release = func() error { return nil }
	if c.scope != nil {
		release, c.scope = c.scope.Release, nil
	}
	return c.cgroup, s, release, nil
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
