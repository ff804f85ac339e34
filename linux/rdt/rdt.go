// Package rdt puts containers into groups of Intel's Resource Director Technology: shares of cache and of memory bandwidth, and their
// measurement. The kernel shows them as a file system, resctrl (Documentation/filesystems/resctrl.rst), which the administrator mounts.
package rdt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// FS is a resctrl file system.
type FS struct {
	root string
}

// Find finds the machine's; a NotImplemented error where the processor, the kernel or the administrator has none.
func Find() (*FS, error) {
	const usual = "/sys/fs/resctrl"
	var st unix.Statfs_t
	if err := unix.Statfs(usual, &st); err == nil && st.Type == unix.RDTGROUP_SUPER_MAGIC {
		return &FS{usual}, nil
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(table)) {
		mount, fs, _ := strings.Cut(line, " - ")
		if f := strings.Fields(mount); strings.HasPrefix(fs, "resctrl ") && len(f) > 4 {
			return &FS{f[4]}, nil
		}
	}
	return nil, errdefs.New(errdefs.NotImplemented, "linux.intelRdt: Intel RDT is not available: resctrl is not mounted, or not in the processor")
}

// At returns the one at root, whatever it is: for tests, which have a folder of the same form.
func At(root string) *FS { return &FS{root} }

// Group is a container's group.
type Group struct {
	fs *FS
	// Closid is the group's name: the one that was asked for, or the container's ID. Made says that Create made it, and Monitor, if not
	// empty, is the name of the container's own group of measurement in it. They are what Open takes.
	State
}

// State is what is to be known of a group.
type State struct {
	Closid  string `json:"closid"`
	Made    bool   `json:"made,omitempty"`
	Named   bool   `json:"named,omitempty"`
	Monitor string `json:"monitor,omitempty"`
}

func (f *FS) exists(name string) bool {
	_, err := os.Stat(filepath.Join(f.root, name))
	return err == nil
}

// name checks a name of a group.
func name(field, s string) error {
	if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00\n") || slices.Contains([]string{"info", "mon_data", "mon_groups"}, s) {
		return errdefs.New(errdefs.InvalidParameter, "%s: %q is no name of a group", field, s)
	}
	return nil
}

// validate checks what can be checked before anything is made.
func (f *FS) validate(r *specs.LinuxIntelRdt) error {
	if r.ClosID != "" {
		if err := name("linux.intelRdt.closID", r.ClosID); err != nil {
			return err
		}
	}
	for _, one := range []struct{ field, value, info, prefix string }{{"l3CacheSchema", r.L3CacheSchema, "info/L3", "L3"}, {"memBwSchema", r.MemBwSchema, "info/MB", "MB"}} {
		if one.value == "" {
			continue
		}
		if !f.exists(one.info) && !(one.prefix == "L3" && f.exists("info/L3CODE")) {
			return errdefs.New(errdefs.NotImplemented, "linux.intelRdt.%s: this machine cannot: there is no %s", one.field, filepath.Join(f.root, one.info))
		}
		for line := range strings.SplitSeq(one.value, "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), one.prefix) || !strings.Contains(line, ":") {
				return errdefs.New(errdefs.InvalidParameter, "linux.intelRdt.%s: %q is no schema of %s", one.field, line, one.prefix)
			}
		}
	}
	for i, s := range r.Schemata {
		if strings.ContainsAny(s, "\n\x00") || !strings.Contains(s, ":") {
			return errdefs.New(errdefs.InvalidParameter, "linux.intelRdt.schemata[%d]: %q is no schema", i, s)
		}
	}
	if r.EnableMonitoring && !f.exists("mon_groups") {
		return errdefs.New(errdefs.NotImplemented, "linux.intelRdt.enableMonitoring: this machine cannot measure: there is no %s", filepath.Join(f.root, "mon_groups"))
	}
	return nil
}

// Create makes the group of a container, or takes the one that it asks for, and sets its schemata. On error nothing new is left.
func (f *FS) Create(id string, r *specs.LinuxIntelRdt) (*Group, error) {
	if err := f.validate(r); err != nil {
		return nil, err
	}
	g := &Group{fs: f, State: State{Closid: r.ClosID, Named: r.ClosID != ""}}
	if g.Closid == "" {
		if g.Closid = id; name("container ID", id) != nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "linux.intelRdt: container ID %q is no name of a group", id)
		}
	}
	schemata := schemataOf(r)
	err := os.Mkdir(g.dir(), 0o755)
	switch {
	case err == nil:
		g.Made = true
	case !errors.Is(err, os.ErrExist):
		return nil, f.explain("linux.intelRdt: make group "+g.Closid, err)
	}
	if g.Made && g.Named && len(schemata) == 0 {
		err = errdefs.New(errdefs.NotFound, "linux.intelRdt.closID: group %s must be there already when no schema is given", g.Closid)
	} else {
		err = g.create(id, r.EnableMonitoring, schemata)
	}
	if err != nil {
		return nil, errors.Join(err, g.undo())
	}
	return g, nil
}

func (g *Group) create(id string, monitor bool, schemata []string) error {
	if err := g.set(schemata); err != nil {
		return err
	}
	if !monitor {
		return nil
	}
	if err := name("container ID", id); err != nil {
		return err
	}
	g.Monitor = id
	if err := os.Mkdir(g.monitor(), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		g.Monitor = ""
		return g.fs.explain("linux.intelRdt.enableMonitoring: make group "+id, err)
	}
	return nil
}

// undo takes back what Create made.
func (g *Group) undo() error {
	var errs []error
	if g.Monitor != "" {
		errs = append(errs, rmdir(g.monitor()))
	}
	if g.Made {
		errs = append(errs, rmdir(g.dir()))
	}
	return errors.Join(errs...)
}

// Open returns the group that Create made with that state.
func (f *FS) Open(s State) *Group { return &Group{f, s} }

func (g *Group) dir() string     { return filepath.Join(g.fs.root, g.Closid) }
func (g *Group) monitor() string { return filepath.Join(g.dir(), "mon_groups", g.Monitor) }

func schemataOf(r *specs.LinuxIntelRdt) []string {
	var list []string
	for _, s := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if s != "" {
			list = append(list, s)
		}
	}
	return list
}

// Update sets new schemata; what r does not say stays as it is.
func (g *Group) Update(r *specs.LinuxIntelRdt) error {
	if err := g.fs.validate(r); err != nil {
		return err
	}
	return g.set(schemataOf(r))
}

// set writes schemata, all in one write, as the kernel takes them: all or none.
func (g *Group) set(schemata []string) error {
	if len(schemata) == 0 {
		return nil
	}
	text := strings.Join(schemata, "\n") + "\n"
	if err := write(filepath.Join(g.dir(), "schemata"), text); err != nil {
		return g.fs.explain(fmt.Sprintf("linux.intelRdt: set %q", text), err)
	}
	return nil
}

// write writes a file of the kernel's, which is there or not to be had.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// explain adds the kernel's own words to its error.
func (f *FS) explain(what string, err error) error {
	status, rerr := os.ReadFile(filepath.Join(f.root, "info/last_cmd_status"))
	if text := strings.TrimSpace(string(status)); rerr == nil && text != "" && text != "ok" {
		return fmt.Errorf("%s: %w (%s)", what, err, text)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Add puts a process into the group, and with it all that it makes from then on.
func (g *Group) Add(pid int) error {
	dirs := []string{g.dir()}
	if g.Monitor != "" { // after its parent
		dirs = append(dirs, g.monitor())
	}
	for _, dir := range dirs {
		if err := write(filepath.Join(dir, "tasks"), strconv.Itoa(pid)); err != nil {
			return g.fs.explain(fmt.Sprintf("add process %d to %s", pid, dir), err)
		}
	}
	return nil
}

// Delete removes the container's group of measurement, and its group, if Create made it for the container alone: one with a name is for
// others to use as well.
func (g *Group) Delete() error {
	var err error
	switch {
	case g.Made && !g.Named:
		err = rmdir(g.dir()) // the group of measurement goes with it
	case g.Monitor != "":
		err = rmdir(g.monitor())
	}
	if err != nil {
		return fmt.Errorf("delete group %s of Intel RDT: %w", g.Closid, err)
	}
	return nil
}

func rmdir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
