package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// setting is one value for one file of one controller.
type setting struct {
	controller, file, value string
	field                   string   // of the specification, for errors: "memory.limit"
	instead                 *setting // what a kernel without the file gets
	optional                bool     // a kernel without the file does without, with a warning
	silent                  bool     // ... and without a word: the value says what is so anyway
	late                    bool     // when the kernel finds it at odds with another (EINVAL), it is tried again after the others
	check                   bool     // the kernel may clamp the value: read it back
}

// list collects settings.
type list []setting

// limits starts a list with what is in the order of fields of the specification.
func (l *list) add(field, file, value string) *setting {
	controller, _, _ := strings.Cut(file, ".")
	*l = append(*l, setting{controller: controller, file: file, value: value, field: field})
	return &(*l)[len(*l)-1]
}

// each adds one value per device.
func (l *list) throttle(field, file, key string, devices []specs.LinuxThrottleDevice) {
	for _, d := range devices {
		if key == "" {
			l.add(field, file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
			continue
		}
		rate := "max" // v1's 0 removes a limit
		if d.Rate != 0 {
			rate = num(d.Rate)
		}
		l.add(field, file, fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, key, rate))
	}
}

// hugetlb adds limits of huge pages: of those in use, and of those reserved where the kernel counts them.
func (l *list) hugetlb(limits []specs.LinuxHugepageLimit, suffix string) {
	for _, h := range limits {
		l.add("hugepageLimits", "hugetlb."+h.Pagesize+suffix, num(h.Limit))
		rsvd := l.add("hugepageLimits", "hugetlb."+h.Pagesize+".rsvd"+suffix, num(h.Limit)) // Linux 5.7
		rsvd.optional, rsvd.silent = true, true
	}
}

func (l *list) rdma(limits map[string]specs.LinuxRdma) {
	for _, device := range sorted(limits) {
		r, value := limits[device], device
		if r.HcaHandles != nil {
			value += " hca_handle=" + num(*r.HcaHandles)
		}
		if r.HcaObjects != nil {
			value += " hca_object=" + num(*r.HcaObjects)
		}
		l.add("rdma", "rdma.max", value)
	}
}

func (l *list) pids(p *specs.LinuxPids) {
	if p == nil || p.Limit == nil {
		return
	}
	value := "max"
	switch {
	case *p.Limit > 0:
		value = num(*p.Limit)
	case *p.Limit == 0:
		value = "1" // systemd knows no 0, and a task that may not fork is what is meant
	}
	l.add("pids.limit", "pids.max", value)
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func num[T int64 | uint64 | uint16 | uint32](v T) string { return fmt.Sprint(v) }

// apply writes settings in order.
func (c *Cgroup) apply(settings list) error {
	var again list
	for _, s := range settings {
		err := c.set(s)
		if s.late && errors.Is(err, unix.EINVAL) {
			again = append(again, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, s := range again {
		if err := c.set(s); err != nil {
			return err
		}
	}
	return nil
}

// set writes one setting.
func (c *Cgroup) set(s setting) error {
	dir := c.home(s.controller)
	wrap := func(err error) error { return fmt.Errorf("linux.resources.%s: %w", s.field, err) }
	if dir == "" {
		if s.optional && s.silent {
			return nil
		}
		return wrap(c.missing(s))
	}
	err := write(dir+"/"+s.file, s.value)
	switch {
	case err == nil:
	case !errors.Is(err, unix.ENOENT) && !(errors.Is(err, unix.EACCES) && !exists(dir+"/"+s.file)):
		if errors.Is(err, unix.EBUSY) && s.controller == "memory" {
			err = fmt.Errorf("%w (current usage %d, peak usage %d)", err, number(dir+"/memory.usage_in_bytes", 0), number(dir+"/memory.max_usage_in_bytes", 0))
		}
		return wrap(err)
	case s.instead != nil:
		return c.set(*s.instead)
	case s.optional:
		if !s.silent {
			c.warn(fmt.Sprintf("linux.resources.%s: this kernel has no %s: without effect", s.field, s.file))
		}
		return nil
	case !exists(dir + "/" + s.file):
		return wrap(c.missing(s))
	default:
		return wrap(err)
	}
	if !s.check {
		return nil
	}
	want, err := strconv.ParseUint(s.value, 10, 64)
	if err != nil {
		return wrap(err)
	}
	have := number(dir+"/"+s.file, want)
	switch {
	case want > have:
		return wrap(errdefs.New(errdefs.InvalidParameter, "the maximum allowed cpu-shares is %d", have))
	case want < have:
		return wrap(errdefs.New(errdefs.InvalidParameter, "the minimum allowed cpu-shares is %d", have))
	}
	return nil
}

// missing says why there is no file for a setting.
func (c *Cgroup) missing(s setting) error {
	if c.denied {
		return errdefs.New(errdefs.Forbidden, "cannot set %s limit: container could not join or create cgroup", s.controller)
	}
	dir := c.home("")
	if key, ok := strings.CutPrefix(s.field, "unified."); ok {
		available, _ := read(dir + "/cgroup.controllers")
		if s.controller != "cgroup" && !slices.Contains(strings.Fields(available), s.controller) {
			return errdefs.New(errdefs.NotImplemented, "unified resource %q can't be set: controller %q not available", key, s.controller)
		}
		return errdefs.New(errdefs.InvalidParameter, "unable to set unified resource %q: there is no such file in %s", key, dir)
	}
	if home := c.home(s.controller); home != "" {
		if available, err := read(home + "/cgroup.controllers"); err != nil || slices.Contains(strings.Fields(available), s.controller) {
			return errdefs.New(errdefs.NotImplemented, "this kernel has no %s (in %s)", s.file, home)
		}
		return errdefs.New(errdefs.NotImplemented, "controller %s is not available in %s (for %s)", s.controller, home, s.file)
	}
	return errdefs.New(errdefs.NotImplemented, "controller %s is not there (for %s)", s.controller, s.file)
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil
}

// permission reports whether err says that this process has no rights.
func permission(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS)
}

// Warnings tells what of the limits this kernel cannot do, and went without.
func (c *Cgroup) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warnings)
}

func (c *Cgroup) warn(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.warnings, text) {
		c.warnings = append(c.warnings, text)
	}
}

// check refuses limits that no kernel takes, and warns of those that none has any more.
func (c *Cgroup) check(r *specs.LinuxResources, unified bool) error {
	if r == nil {
		return nil
	}
	bad := func(field, format string, args ...any) error {
		return errdefs.New(errdefs.InvalidParameter, "linux.resources."+field+": "+format, args...)
	}
	if m := r.Memory; m != nil {
		//lint:ignore SA1019 it is deprecated, and therefore named
		if m.Kernel != nil || m.KernelTCP != nil {
			c.warn("linux.resources.memory.kernel and kernelTCP: kernel memory has no limit of its own any more: ignored")
		}
		if m.Swappiness != nil && *m.Swappiness > 100 && int64(*m.Swappiness) != -1 {
			return bad("memory.swappiness", "invalid memory swappiness value: %d (valid range is 0-100)", *m.Swappiness)
		}
		if unified && m.Swappiness != nil && int64(*m.Swappiness) != -1 {
			c.warn("linux.resources.memory.swappiness: cgroup v2 has none: ignored")
		}
		if unified && m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			c.warn("linux.resources.memory.disableOOMKiller: cgroup v2 cannot: ignored")
		}
		if m.UseHierarchy != nil && !*m.UseHierarchy {
			c.warn("linux.resources.memory.useHierarchy: memory is always accounted for hierarchically: ignored")
		}
	}
	if !unified && len(r.Unified) > 0 {
		return bad("unified", "invalid configuration: cannot use unified on cgroup v1 (%s)", strings.Join(sorted(r.Unified), ", "))
	}
	if unified && r.CPU != nil && (r.CPU.RealtimePeriod != nil || r.CPU.RealtimeRuntime != nil) {
		c.warn("linux.resources.cpu.realtimeRuntime and realtimePeriod: cgroup v2 has none: ignored")
	}
	if unified && r.Network != nil && (r.Network.ClassID != nil || len(r.Network.Priorities) > 0) {
		c.warn("linux.resources.network: cgroup v2 has neither net_cls nor net_prio: ignored")
	}
	for _, name := range sorted(r.Unified) {
		if strings.ContainsAny(name, "/\x00") {
			return bad("unified", "unified resource %q must be a file name (no slashes)", name)
		}
		if controller, _, ok := strings.Cut(name, "."); !ok || controller == "" {
			return bad("unified", "unified resource %q must be in the form CONTROLLER.PARAMETER", name)
		}
	}
	for i, n := range r.HugepageLimits {
		if n.Pagesize == "" || strings.ContainsAny(n.Pagesize, "/\x00") {
			return bad(fmt.Sprintf("hugepageLimits[%d].pageSize", i), "%q is no size of a page", n.Pagesize)
		}
	}
	return nil
}
