// Package cgroup makes, limits, measures, freezes and removes control groups: on the unified hierarchy (v2), on the separate ones of
// v1, and on machines that have both.
//
// On v1 a cgroup has a directory only in the hierarchies that its limits and its accounting need; the others get theirs when a later
// call asks for them. Processes join by writing to "tasks", not "cgroup.procs": for a process of one thread that is the same, and
// it spares the wait for an RCU grace period, milliseconds long.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Cgroup is one control group: one directory in every hierarchy it uses.
type Cgroup struct {
	path string

	mu   sync.Mutex        // guards dirs
	dirs map[string]string // v1: controller to directory; v2: "" to directory
}

// Dir is a cgroup's directory in one hierarchy.
type Dir struct {
	Path    string
	Name    string   // the hierarchy's usual name below Root: "memory", "cpu,cpuacct"
	Aliases []string // further names, one per controller, when there are several
}

// accounting are the v1 controllers a cgroup always uses.
var accounting = [...]string{"cpuacct", "memory", "devices", "blkio", "pids"}

// Create makes the cgroup at path (as "/docker/<id>", below each hierarchy's root) and sets the limits r (nil: none). One that is
// there already is taken over. On error nothing new is left.
func Create(p string, r *specs.LinuxResources) (*Cgroup, error) {
	l, err := machine()
	if err != nil {
		return nil, err
	}
	if p = path.Clean("/" + p); p == "/" {
		return nil, errdefs.New(errdefs.InvalidParameter, "create cgroup: the root is no cgroup of a container")
	}
	c := &Cgroup{path: p, dirs: map[string]string{}}
	if l.v2 != nil {
		err = c.createV2(l.v2, r)
	} else {
		err = c.createV1(l, r)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create cgroup %s: %w", p, err), c.Delete())
	}
	return c, nil
}

// Open returns the existing cgroup at path; a NotFound error if no hierarchy has it.
func Open(p string) (*Cgroup, error) {
	l, err := machine()
	if err != nil {
		return nil, err
	}
	c := &Cgroup{path: path.Clean("/" + p), dirs: map[string]string{}}
	try := func(key string, h *hierarchy) {
		dir := filepath.Join(h.dir, c.path)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			c.dirs[key] = dir
		}
	}
	if l.v2 != nil {
		try("", l.v2)
	}
	for name, h := range l.v1 {
		try(name, h)
	}
	if len(c.dirs) == 0 {
		return nil, errdefs.New(errdefs.NotFound, "open cgroup %s: there is none", c.path)
	}
	return c, nil
}

// Path returns the path given to Create or Open.
func (c *Cgroup) Path() string { return c.path }

// Dirs returns the cgroup's directories, in a fixed order.
func (c *Cgroup) Dirs() []Dir {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := c.dirs[""]; ok {
		return []Dir{{Path: d}}
	}
	l, _ := machine() // Create or Open have had it
	var list []Dir
	for _, name := range v1Order {
		d, ok := c.dirs[name]
		if !ok || slices.ContainsFunc(list, func(e Dir) bool { return e.Path == d }) {
			continue
		}
		one := Dir{Path: d, Name: filepath.Base(l.v1[name].dir)}
		if all := l.v1[name].controllers; len(all) > 1 {
			for _, a := range all {
				if a != one.Name {
					one.Aliases = append(one.Aliases, a)
				}
			}
		}
		list = append(list, one)
	}
	return list
}

// Join returns how a new process gets into the cgroup: into, a directory for clone3's CLONE_INTO_CGROUP (v2), or files to each of
// which the process, still of one thread, writes "0" (v1). The caller closes them.
func (c *Cgroup) Join() (into *os.File, files []*os.File, err error) {
	for _, d := range c.Dirs() {
		name, flags := d.Path, unix.O_PATH|unix.O_DIRECTORY
		if !Unified() {
			name, flags = d.Path+"/tasks", unix.O_WRONLY
		}
		n, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, nil, fmt.Errorf("join cgroup %s: open %s: %w", c.path, name, err)
		}
		label := d.Name
		f := os.NewFile(uintptr(n), label)
		if Unified() {
			return f, nil, nil
		}
		files = append(files, f)
	}
	return nil, files, nil
}

// Add moves the running process pid, with all its threads, into the cgroup.
func (c *Cgroup) Add(pid int) error {
	for _, d := range c.Dirs() {
		if err := write(d.Path+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add process %d to cgroup %s: %w", pid, c.path, err)
		}
	}
	return nil
}

// main returns the directory whose process list counts.
func (c *Cgroup) main() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{"", "pids", "memory", "cpuacct"} {
		if d, ok := c.dirs[name]; ok {
			return d
		}
	}
	for _, d := range c.dirs {
		return d
	}
	return ""
}

// Procs returns the process numbers in the cgroup and those below it.
func (c *Cgroup) Procs() ([]int, error) {
	pids, err := procs(c.main())
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", c.path, err)
	}
	return pids, nil
}

func procs(dir string) ([]int, error) {
	if dir == "" {
		return nil, nil
	}
	data, err := read(dir + "/cgroup.procs")
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, line := range strings.Fields(data) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	for _, sub := range children(dir) {
		more, err := procs(sub)
		if err != nil {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

// children returns the cgroups directly below dir.
func children(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // gone
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list
}

// Kill kills every process in the cgroup and below. It does not wait for their end.
func (c *Cgroup) Kill() error {
	if Unified() {
		err := write(c.main()+"/cgroup.kill", "1") // Linux 5.14
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for range 64 { // a fork bomb may be faster once or twice, not always
		pids, err := c.Procs()
		if err != nil {
			return err
		}
		alive := 0
		for _, pid := range pids {
			if pid > 0 && unix.Kill(pid, unix.SIGKILL) == nil {
				alive++
			}
		}
		if alive == 0 {
			return nil
		}
		if again, err := c.Procs(); err != nil || slices.Equal(pids, again) {
			return err
		}
	}
	return fmt.Errorf("kill cgroup %s: processes come faster than they die", c.path)
}

// killWait is how long Delete waits for one killed process to end.
const killWait = 10_000 // milliseconds

// Delete kills what is left in the cgroup and removes it with all cgroups below; one already gone is no error.
func (c *Cgroup) Delete() error {
	c.mu.Lock()
	dirs := map[string]bool{}
	for _, d := range c.dirs {
		dirs[d] = true
	}
	frozen := c.dirs["freezer"] != ""
	c.mu.Unlock()
	var errs []error
	if frozen { // a frozen process does not run into its death
		errs = append(errs, c.Kill(), c.Thaw())
	}
	for d := range dirs {
		errs = append(errs, remove(d))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete cgroup %s: %w", c.path, err)
	}
	return nil
}

// remove removes one directory. The kernel refuses while a process in it has not ended.
func remove(dir string) error {
	for try := 0; ; try++ {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) || try == 16 {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		for _, sub := range children(dir) {
			if err := remove(sub); err != nil {
				return err
			}
		}
		pids, err := procs(dir)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := killAndWait(pid); err != nil {
				return fmt.Errorf("remove %s: %w", dir, err)
			}
		}
	}
}

// killAndWait kills a process and waits until it has ended, whoever its parent is.
func killAndWait(pid int) error {
	n, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(n)
	if unix.PidfdSendSignal(n, unix.SIGKILL, nil, 0) != nil {
		return nil
	}
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}, killWait)
		if err == unix.EINTR {
			continue
		}
		if ready == 0 {
			return fmt.Errorf("process %d does not die", pid)
		}
		return err
	}
}
