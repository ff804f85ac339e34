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
	s := State{ID: b.ID, Bundle: b.Dir, Cgroup: cgroupPath(b.ID, b.Spec.Linux.CgroupsPath), Created: time.Now().UTC()}
	if err := b.Intent(s); err != nil {
		return nil, s, err
	}
	if s.Cgroup == "" {
		return nil, s, nil
	}
	g, err := cgroup.Create(s.Cgroup, b.Spec.Linux.Resources)
	return g, s, err
}

// Restored returns the container of state whose init, pid, has been restored as a child of this process.
func Restored(s State, pid int) (*Container, State, error) {
	birth, err := birthOf(pid)
	if err != nil {
		return nil, s, fmt.Errorf("restore container %s: %w", s.ID, err)
	}
	s.Pid, s.Birth, s.Created = pid, birth, time.Now().UTC()
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
