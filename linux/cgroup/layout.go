package cgroup

import (
	"fmt"
	"os"
	"path"
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
	mounted     string   // which cgroup is: "/", mostly
	controllers []string // those bound to it
}

// layout is how this machine mounts cgroups. It never changes while the machine runs.
type layout struct {
	v2     *hierarchy            // the unified hierarchy, if it carries the resource controllers
	v1     map[string]*hierarchy // by controller
	hybrid *hierarchy            // the unified hierarchy beside those of v1, if it has controllers of its own
}

// systemd is the key of the hierarchy in which systemd keeps its units on v1. It has no controller.
const systemd = "name=systemd"

// Booted reports whether systemd runs this machine.
func Booted() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// machine reads the layout once.
var machine = sync.OnceValues(func() (layout, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return layout{}, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	return parseLayout(string(data), controllersAt)
})

// controllersAt returns the controllers of the unified hierarchy at dir.
func controllersAt(dir string) []string {
	data, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(data))
}

// parseLayout finds the hierarchies in mountinfo.
func parseLayout(mountinfo string, resources func(dir string) []string) (layout, error) {
	l := layout{v1: map[string]*hierarchy{}}
	known := map[string]bool{"cpu": true, "cpuacct": true, "cpuset": true, "memory": true, "devices": true, "freezer": true, "blkio": true, "pids": true, "hugetlb": true, "net_cls": true, "net_prio": true, "rdma": true, systemd: true}
	for line := range strings.Lines(mountinfo) {
		mount, fs, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(mount), strings.Fields(fs)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		dir := f[4]
		switch g[0] {
		case "cgroup2":
			if l.v2 == nil {
				l.v2 = &hierarchy{dir: dir, mounted: f[3], controllers: resources(dir)}
			}
		case "cgroup":
			h := &hierarchy{dir: dir, mounted: f[3]}
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
	limits := len(l.v1)
	if l.v1[systemd] != nil {
		limits--
	}
	switch {
	case limits > 0: // hybrid: the resource controllers are where v1 says, but those that are not
		if l.v2 != nil && len(l.v2.controllers) > 0 {
			l.hybrid = l.v2
		}
		l.v2 = nil
	case l.v2 == nil: // nothing but a hierarchy for systemd
		return layout{}, errdefs.New(errdefs.NotImplemented, "no cgroup hierarchy with controllers is mounted")
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
		if l.v1[c] != nil && c != systemd {
			list = append(list, c)
		}
	}
	return list, nil
}

// v1Order is the order in which controllers are set up; cpuset before any process may join.
var v1Order = [...]string{"cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "rdma", systemd}

// Locate returns what Path and Places will be of a cgroup that Create makes at p.
func Locate(p string) (string, map[string]string, error) {
	l, err := machine()
	if err != nil {
		return "", nil, err
	}
	return locate(l, p)
}

// locate says where path means: a path below the root of each hierarchy, or, relative ones on v1, a directory in each.
func locate(l layout, p string) (string, map[string]string, error) {
	depth := 0
	for part := range strings.SplitSeq(p, "/") {
		switch part {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return "", nil, errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: %q leaves its parent", p)
		}
	}
	if depth == 0 {
		return "", nil, errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: %q is the root, which is no cgroup of a container", p)
	}
	if path.IsAbs(p) {
		return path.Clean(p), nil, nil
	}
	text, err := read("/proc/self/cgroup")
	if err != nil {
		return "", nil, err
	}
	own := parseOwn(text)
	if l.v2 != nil { // a cgroup with processes has none below it that could be limited: beside it
		return path.Join(path.Dir(below(l.v2, own[""])), p), nil, nil
	}
	places := map[string]string{}
	for name, h := range l.v1 {
		places[name] = filepath.Join(h.dir, below(h, own[name]), p)
	}
	if l.hybrid != nil {
		places[""] = filepath.Join(l.hybrid.dir, below(l.hybrid, own[""]), p)
	}
	return path.Join("/", p), places, nil
}

// below makes a path from /proc/PID/cgroup one below the place where the hierarchy is mounted.
func below(h *hierarchy, p string) string {
	if h.mounted == "/" {
		return path.Clean("/" + p)
	}
	if rest, ok := strings.CutPrefix(p, h.mounted); ok && (rest == "" || rest[0] == '/') {
		return path.Clean("/" + rest)
	}
	return path.Clean("/" + p) // a cgroup namespace: the mount shows what the namespace calls its root
}

// parseOwn reads /proc/PID/cgroup: the path in each hierarchy, by controller.
func parseOwn(text string) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			own[name] = f[2]
		}
	}
	return own
}

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
