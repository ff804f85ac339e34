package oci

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

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
	c.in.Seccomp = filter
	if s == nil {
		return nil
	}
	flags, err := seccompFlags(s)
	c.in.SeccompFlags = flags
	return err
}

func seccompFlags(s *specs.LinuxSeccomp) (uint64, error) {
	if s.ListenerPath != "" {
		return 0, errdefs.New(errdefs.NotImplemented, "seccomp: a listener is not supported")
	}
	var flags uint64
	for _, f := range s.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= 1 << 1
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= 1 << 2
		case "SECCOMP_FILTER_FLAG_TSYNC": // of one thread there is nothing to synchronize
		default:
			return 0, errdefs.With(errdefs.InvalidParameter, fmt.Errorf("seccomp: flag %q is unknown", f))
		}
	}
	return flags, nil
}
