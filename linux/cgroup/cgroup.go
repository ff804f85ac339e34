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
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Cgroup is one control group: one directory in every hierarchy it uses.
type Cgroup struct {
	path     string
	places   map[string]string // where it is in each hierarchy, if not at path in all: relative paths on v1
	keeper   Keeper            // who else knows of it, or nil
	denied   bool              // in some hierarchy this process has no right to make it
	taken    bool              // it was there before Create
	expected bool              // ... with a process in it, by arrangement

	mu       sync.Mutex        // guards below
	dirs     map[string]string // v1: controller to directory; v2, and the unified hierarchy beside v1: "" to directory
	made     []string          // directories that Create made
	warnings []string
}

// Keeper is a service that keeps cgroups, and must hear of what happens to them: systemd.
type Keeper interface {
	// Update tells of new limits, before they are set.
	Update(r *specs.LinuxResources) error
	// Delete tells that the cgroup's processes are to go, before they are killed and the cgroup is removed.
	Delete() error
}

// Options are the circumstances of Create.
type Options struct {
	// Rootless is for a caller without rights: where it may not make the cgroup, and no limit is asked for, there is none. In a user
	// namespace it is so without saying.
	Rootless bool
	// Named says that the path was asked for, and not made up: then it has to be had.
	Named bool
	// All makes it in every hierarchy, whatever is set there: for a container that may make cgroups in it.
	All bool
	// Exists is for a cgroup that its keeper has made just now, with a process in it that stands in for the container's.
	Exists bool
}

// rootless is asked when something is refused: it costs a look at /proc.
func (o Options) rootless() bool { return o.Rootless || nestedUser() }

// Dir is a cgroup's directory in one hierarchy.
type Dir struct {
	Path    string
	Name    string   // the hierarchy's usual name below Root: "memory", "cpu,cpuacct"
	Aliases []string // further names, one per controller, when there are several
}

// accounting are the v1 controllers a cgroup always uses.
var accounting = [...]string{"cpuacct", "memory", "devices", "blkio", "pids"}

// Create makes the cgroup at path and sets the limits r (nil: none). An absolute path is below each hierarchy's root, as
// "/docker/<id>"; a relative one below this process's own cgroup on v1, and beside it on v2, where a cgroup with processes has none
// below it. One that is there already is taken over, unless processes are in it or it is frozen. On error nothing new is left. With
// Options.Rootless the answer may be nil: the container has no cgroup of its own.
func Create(p string, r *specs.LinuxResources, o Options) (*Cgroup, error) {
	l, err := machine()
	if err != nil {
		return nil, err
	}
	c := &Cgroup{dirs: map[string]string{}}
	if c.path, c.places, err = locate(l, p); err != nil {
		return nil, err
	}
	if err = c.check(r, l.v2 != nil); err == nil {
		if o.Exists {
			c.openDirs(l)
			c.expected = true
		}
		if l.v2 != nil {
			err = c.createV2(l.v2, r, o)
		} else {
			err = c.createV1(l, r, o)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create cgroup %s: unable to apply cgroup configuration: %w", p, err), c.undo())
	}
	if c.denied && len(c.dirs) == 0 {
		return nil, nil
	}
	return c, nil
}

// undo removes the directories that Create made.
func (c *Cgroup) undo() error {
	var errs []error
	for _, dir := range slices.Backward(c.made) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) { // another has come to use it
			errs = append(errs, &os.PathError{Op: "rmdir", Path: dir, Err: err})
		}
	}
	return errors.Join(errs...)
}

// refuseUsed refuses a cgroup that was there and is in use.
func (c *Cgroup) refuseUsed() error {
	pids, err := c.Procs()
	if err != nil {
		return err
	}
	if len(pids) > 0 && !c.expected {
		return errdefs.New(errdefs.Conflict, "container's cgroup is not empty: %d process(es) found", len(pids))
	}
	l, err := machine()
	if err != nil {
		return err
	}
	if h := l.v1["freezer"]; h != nil && l.v2 == nil {
		if state, err := read(c.place("freezer", h) + "/freezer.state"); err == nil && strings.HasPrefix(state, "FR") {
			return errdefs.New(errdefs.Conflict, "container's cgroup unexpectedly frozen")
		}
		return nil
	}
	if frozen, err := c.Frozen(); err == nil && frozen {
		return errdefs.New(errdefs.Conflict, "container's cgroup unexpectedly frozen")
	}
	return nil
}

// Open returns the existing cgroup at path, from each hierarchy's root on; a NotFound error if no hierarchy has it.
func Open(p string) (*Cgroup, error) {
	c, err := Reopen(p, nil)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Reopen is Open of a cgroup by what Path and Places returned for it. With the NotFound error comes a cgroup without directories: to
// delete it is right, because a keeper may know of it still.
func Reopen(p string, places map[string]string) (*Cgroup, error) {
	l, err := machine()
	if err != nil {
		return nil, err
	}
	c := &Cgroup{path: path.Clean("/" + p), places: places, dirs: map[string]string{}, taken: true}
	if c.path != "/" || len(places) > 0 { // the root is no cgroup of a container: whoever has no path yet is to find, and to end, nothing
		c.openDirs(l)
	}
	if len(c.dirs) == 0 {
		return c, errdefs.New(errdefs.NotFound, "open cgroup %s: there is none", c.path)
	}
	return c, nil
}

// openDirs finds the directories that are there.
func (c *Cgroup) openDirs(l layout) {
	try := func(key string, h *hierarchy) {
		dir := c.place(key, h)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			c.dirs[key] = dir
		}
	}
	if l.v2 != nil {
		try("", l.v2)
		return
	}
	if l.hybrid != nil {
		try("", l.hybrid)
	}
	for name, h := range l.v1 {
		try(name, h)
	}
}

// Keep makes k hear of updates and of the end.
func (c *Cgroup) Keep(k Keeper) { c.keeper = k }

// Places returns where the cgroup is in each hierarchy, for Reopen; nil when Path says it.
func (c *Cgroup) Places() map[string]string { return c.places }

// place returns where the cgroup is, or would be, in a hierarchy.
func (c *Cgroup) place(key string, h *hierarchy) string {
	if dir := c.places[key]; dir != "" {
		return dir
	}
	return filepath.Join(h.dir, c.path)
}

// home returns the directory that has a controller's files, or "".
func (c *Cgroup) home(controller string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dir := c.dirs[controller]; dir != "" {
		return dir
	}
	l, _ := machine() // Create or Open have had it
	if l.v1[controller] == nil {
		return c.dirs[""]
	}
	return ""
}

// Path returns the path below each hierarchy's root; for a relative one on v1, see Places, the path given to Create.
func (c *Cgroup) Path() string { return c.path }

// Dirs returns the cgroup's directories, in a fixed order.
func (c *Cgroup) Dirs() []Dir {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, _ := machine() // Create or Open have had it
	if l.v2 != nil {
		return []Dir{{Path: c.dirs[""]}}
	}
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

// Directories returns where the cgroup is in all hierarchies that it has a place in, each directory once.
func (c *Cgroup) Directories() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Compact(slices.Sorted(maps.Values(c.dirs)))
}

// Join returns how a new process gets into the cgroup: into, a directory for clone3's CLONE_INTO_CGROUP (v2, and the unified hierarchy
// beside v1), and files to each of which the process, still of one thread, writes "0" (v1). The caller closes them.
func (c *Cgroup) Join() (into *os.File, files []*os.File, err error) {
	open := func(name string, flags int, label string) (*os.File, error) {
		n, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("join cgroup %s: %w", c.path, &os.PathError{Op: "open", Path: name, Err: err})
		}
		return os.NewFile(uintptr(n), label), nil
	}
	if dir := c.dir(""); dir != "" {
		if into, err = open(dir, unix.O_PATH|unix.O_DIRECTORY, "unified"); err != nil || Unified() {
			return into, nil, err
		}
	}
	for _, d := range c.Dirs() {
		f, err := open(d.Path+"/tasks", unix.O_WRONLY, d.Name)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			if into != nil {
				into.Close()
			}
			return nil, nil, err
		}
		files = append(files, f)
	}
	return into, files, nil
}

// JoinWith returns the directory, for CLONE_INTO_CGROUP, of the v2 cgroup that process pid is in. A container that has made cgroups of
// its own, and limits them, can have no process in the one it was given.
func JoinWith(pid int) (*os.File, error) {
	wrap := func(err error) error { return fmt.Errorf("join cgroup of process %d: %w", pid, err) }
	l, err := machine()
	if err != nil || l.v2 == nil {
		return nil, wrap(errors.Join(err, errdefs.New(errdefs.NotImplemented, "not on cgroup v1")))
	}
	text, err := read(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, wrap(err)
	}
	for line := range strings.Lines(text) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			dir := filepath.Join(l.v2.dir, path.Clean("/"+p))
			n, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, wrap(&os.PathError{Op: "open", Path: dir, Err: err})
			}
			return os.NewFile(uintptr(n), "cgroup"), nil
		}
	}
	return nil, wrap(errdefs.New(errdefs.NotFound, "it is in none of v2"))
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
	for _, name := range []string{"pids", "memory", "cpuacct", ""} {
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
	if c.main() == "" {
		return nil
	}
	if Unified() {
		err := write(c.main()+"/cgroup.kill", "1") // Linux 5.14
		switch {
		case errors.Is(err, unix.ENODEV): // it went while it was written to: systemd removes a scope that is empty
			return nil
		case !errors.Is(err, unix.ENOENT):
			return err
		case !exists(c.main()):
			return nil
		}
	}
	var frozen, wasFrozen bool
	defer func() {
		if frozen && !wasFrozen { // they run into their death
			_ = c.Thaw() // the error, if any, is that it is gone
		}
	}()
	for round := range 64 { // a fork bomb may be faster once or twice, not always
		pids, err := c.Procs()
		if err != nil {
			return err
		}
		if round == 8 { // one that is: not when it is frozen
			if wasFrozen, err = c.Frozen(); err == nil {
				err = c.Freeze()
			}
			frozen = err == nil
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

// Signal sends sig to every process in the cgroup and below. They are frozen meanwhile, so that none that is being made is missed.
func (c *Cgroup) Signal(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return c.Kill()
	}
	if frozen, err := c.Frozen(); err == nil && !frozen && c.Freeze() == nil {
		defer func() { _ = c.Thaw() }() // it may be gone by now
	}
	pids, err := c.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid <= 0 {
			continue // of another pid namespace
		}
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d of cgroup %s: %w", pid, c.path, err)
		}
	}
	return nil
}

// killWait is how long Delete waits for one killed process to end.
const killWait = 10_000 // milliseconds

// Delete kills what is left in the cgroup and removes it with all cgroups below; one already gone is no error.
func (c *Cgroup) Delete() error {
	dirs := c.Directories()
	c.mu.Lock()
	frozen := c.dirs["freezer"] != ""
	c.mu.Unlock()
	var errs []error
	if c.keeper != nil { // without processes it has nothing to wait for
		errs = append(errs, c.Kill(), c.keeper.Delete())
	}
	if frozen { // a frozen process does not run into its death
		errs = append(errs, c.Kill(), c.Thaw())
	}
	for _, d := range dirs {
		errs = append(errs, remove(d))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete cgroup %s: %w", c.path, err)
	}
	return nil
}

// removeWait is how long a cgroup without processes may take to be one: the kernel takes a dead process out after it has told its end.
const removeWait = 2 * time.Second

// remove removes one directory. The kernel refuses while a process in it has not ended.
func remove(dir string) error {
	pause := 1 // milliseconds
	for deadline := time.Now().Add(removeWait); ; {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		late := time.Now().After(deadline)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) || late {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		below := children(dir)
		for _, sub := range below {
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
		if len(below) == 0 && len(pids) == 0 {
			_, _ = unix.Poll(nil, pause) // nothing tells when the kernel is done
			pause = min(2*pause, 50)
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
