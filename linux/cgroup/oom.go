package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// OOMNotifier tells when the kernel ran out of the cgroup's memory.
type OOMNotifier struct {
	c    *Cgroup
	f    *os.File // an eventfd (v1) or an inotify of memory.events (v2)
	seen uint64   // kills before those that are to be told
}

// NotifyOOM returns a notifier of what happens from now on; NotFound when memory is not accounted.
func (c *Cgroup) NotifyOOM() (*OOMNotifier, error) {
	wrap := func(err error) error { return fmt.Errorf("watch out-of-memory of cgroup %s: %w", c.path, err) }
	if Unified() {
		if !exists(c.main() + "/memory.events") {
			return nil, wrap(errdefs.New(errdefs.NotFound, "there is no memory controller"))
		}
		n, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, wrap(err)
		}
		f := os.NewFile(uintptr(n), "memory.events")
		// Of a cgroup's removal inotify tells nothing; of its last process's end it does.
		for _, file := range []string{"/memory.events", "/cgroup.events"} {
			if _, err := unix.InotifyAddWatch(n, c.main()+file, unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
				f.Close()
				return nil, wrap(err)
			}
		}
		seen, _ := c.OOMKills() // if it is gone, Wait says so
		return &OOMNotifier{c, f, seen}, nil
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
	return &OOMNotifier{c: c, f: f}, nil
}

// Wait blocks, in Go's poller, until the next event and returns how many processes have been killed in all; at the moment of the
// event the kernel may not have counted the newest yet. io.EOF means that the cgroup is gone or, on v2, has no process any more;
// os.ErrClosed that Close was called.
func (n *OOMNotifier) Wait() (kills uint64, err error) {
	for {
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
		if !Unified() || now > n.seen { // memory.events changes for other reasons too
			n.seen = now
			return now, nil
		}
		if events, err := read(n.c.main() + "/cgroup.events"); err == nil && !strings.Contains(events, "populated 0") {
			continue
		}
		if now, err = n.c.OOMKills(); err != nil || now == n.seen { // the last process may have been killed between the two looks
			return 0, io.EOF
		}
		n.seen = now
		return now, nil
	}
}

// Close ends Wait.
func (n *OOMNotifier) Close() error { return n.f.Close() }
