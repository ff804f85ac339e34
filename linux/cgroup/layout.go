package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Root is where the hierarchies are mounted.
const Root = "/sys/fs/cgroup"

// hierarchy is one tree of cgroups.
type hierarchy struct {
	dir         string   // where it is mounted
	controllers []string // v1: those bound to it; v2: none, they are found at each cgroup
}

// layout is how this machine mounts cgroups. It never changes while the machine runs.
type layout struct {
	v2 *hierarchy            // the unified hierarchy, if it carries the resource controllers
	v1 map[string]*hierarchy // by controller
}

// machine reads the layout once.
var machine = sync.OnceValues(func() (layout, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return layout{}, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	return parseLayout(string(data), hasMemory)
})

// hasMemory reports whether the unified hierarchy at dir has a resource controller of its own, and is more than a place for systemd.
func hasMemory(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(data))+" ", " memory ")
}

// parseLayout finds the hierarchies in mountinfo.
func parseLayout(mountinfo string, resources func(dir string) bool) (layout, error) {
	l := layout{v1: map[string]*hierarchy{}}
	known := map[string]bool{"cpu": true, "cpuacct": true, "cpuset": true, "memory": true, "devices": true, "freezer": true, "blkio": true, "pids": true, "hugetlb": true, "net_cls": true, "net_prio": true, "rdma": true}
	for line := range strings.Lines(mountinfo) {
		mount, fs, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(mount), strings.Fields(fs)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		dir := f[4]
		switch g[0] {
		case "cgroup2":
			if l.v2 == nil && resources(dir) {
				l.v2 = &hierarchy{dir: dir}
			}
		case "cgroup":
			h := &hierarchy{dir: dir}
			for _, o := range strings.Split(g[2], ",") {
				if known[o] && l.v1[o] == nil {
					h.controllers = append(h.controllers, o)
					l.v1[o] = h
				}
			}
		}
	}
	if l.v2 == nil && len(l.v1) == 0 {
		return layout{}, errdefs.New(errdefs.NotImplemented, "no cgroup hierarchy is mounted")
	}
	if len(l.v1) > 0 { // hybrid: the resource controllers are where v1 says
		l.v2 = nil
	}
	return l, nil
}

// Unified reports whether this machine's controllers are on the unified hierarchy (v2).
func Unified() bool {
	l, err := machine()
	return err == nil && l.v2 != nil
}

// Controllers returns the names of the controllers this machine has.
func Controllers() ([]string, error) {
	l, err := machine()
	if err != nil {
		return nil, err
	}
	var list []string
	if l.v2 != nil {
		data, err := os.ReadFile(filepath.Join(l.v2.dir, "cgroup.controllers"))
		return strings.Fields(string(data)), err
	}
	for _, c := range v1Order {
		if l.v1[c] != nil {
			list = append(list, c)
		}
	}
	return list, nil
}

// v1Order is the order in which controllers are set up; cpuset before any process may join.
var v1Order = [...]string{"cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "rdma"}

// write writes value to the file at path in one call.
func write(path, value string) error {
	n, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(n)
	for {
		_, err = unix.Write(n, []byte(value))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", value, path, err)
	}
	return nil
}

// read reads a small kernel file without the poller's bookkeeping.
func read(path string) (string, error) {
	n, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(n)
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, len(buf))...)[:len(buf)]
		}
		m, err := unix.Read(n, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			return string(buf), nil
		}
		buf = buf[:len(buf)+m]
	}
}
