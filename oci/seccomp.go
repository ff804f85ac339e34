package oci

import (
	"gantry/errdefs"
	"gantry/linux/seccomp"
)

// seccomp gives the process its filter: the one in the bundle, or one compiled from the specification.
func (c *creation) seccomp() error {
	s := c.b.Spec.Linux.Seccomp
	filter := c.b.Seccomp
	if filter == nil && s != nil {
		var err error
		if filter, err = seccomp.Compile(s); err != nil {
			return err
		}
	}
	if len(filter) == 0 {
		return nil
	}
	if seccomp.Notifies(filter) {
		return errdefs.New(errdefs.NotImplemented, "linux.seccomp: a listener is not supported")
	}
	var err error
	c.in.Seccomp = filter
	c.in.SeccompFlags, err = seccomp.Flags(s, filter)
	return err
}
