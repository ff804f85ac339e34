package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// OOMNotifier tells when the kernel ran out of the cgroup's memory.
type OOMNotifier struct {
	c *Cgroup
	f *os.File // an eventfd (v1) or an inotify of memory.events (v2)
}

// NotifyOOM returns a notifier; NotFound when memory is not accounted.
func (c *Cgroup) NotifyOOM() (*OOMNotifier, error) {
	wrap := func(err error) error { return fmt.Errorf("watch out-of-memory of cgroup %s: %w", c.path, err) }
	if Unified() {
		n, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, wrap(err)
		}
		f := os.NewFile(uintptr(n), "memory.events")
		if _, err := unix.InotifyAddWatch(n, c.main()+"/memory.events", unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
			f.Close()
			return nil, wrap(err)
		}
		return &OOMNotifier{c, f}, nil
	}
	dir := c.dir("memory")
	if dir == "" {
		return nil, wrap(errdefs.New(errdefs.NotFound, "there is no memory controller"))
	}
	control, err := os.Open(dir + "/memory.oom_control")
	if err != nil {
		return nil, wrap(err)
	}
	defer control.Close()
	n, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, wrap(err)
	}
	f := os.NewFile(uintptr(n), "memory.oom_control")
	if err := write(dir+"/cgroup.event_control", fmt.Sprintf("%d %d", n, control.Fd())); err != nil {
		f.Close()
		return nil, wrap(err)
	}
	return &OOMNotifier{c, f}, nil
}

// Wait blocks, in Go's poller, until the next event and returns how many processes have been killed in all; at the moment of the
// event the kernel may not have counted the newest yet. io.EOF means that the cgroup is gone, os.ErrClosed that Close was called.
func (n *OOMNotifier) Wait() (kills uint64, err error) {
	for before, err := n.c.OOMKills(); ; {
		if err != nil {
			return 0, io.EOF
		}
		var buf [512]byte
		if _, err := n.f.Read(buf[:]); err != nil {
			return 0, fmt.Errorf("wait for out-of-memory of cgroup %s: %w", n.c.path, err)
		}
		now, err := n.c.OOMKills()
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, err
		}
		if !Unified() || now > before { // memory.events changes for other reasons too
			return now, nil
		}
	}
}

// Close ends Wait.
func (n *OOMNotifier) Close() error { return n.f.Close() }
