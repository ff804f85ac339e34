package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one file of one controller.
type setting struct {
	controller, file, value string
	optional                bool // a kernel without the file does without
}

func (c *Cgroup) createV1(l layout, r *specs.LinuxResources) error {
	settings := settingsV1(r)
	need := map[string]bool{}
	for _, name := range accounting {
		need[name] = true
	}
	if r == nil || allowsAll(r.Devices) {
		need["devices"] = false
	}
	for _, s := range settings {
		need[s.controller] = true
	}
	for _, name := range v1Order {
		if !need[name] {
			continue
		}
		if l.v1[name] == nil {
			continue // settings for it fail below, unless they are optional
		}
		if err := c.ensureV1(l, name); err != nil {
			return err
		}
	}
	return c.apply(settings)
}

// ensureV1 makes the cgroup's directory in the hierarchy of a controller.
func (c *Cgroup) ensureV1(l layout, name string) error {
	h := l.v1[name]
	if h == nil {
		return fmt.Errorf("controller %s is not there", name)
	}
	dir := filepath.Join(h.dir, c.path)
	err := unix.Mkdir(dir, 0o755)
	if errors.Is(err, unix.ENOENT) {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	c.mu.Lock()
	c.dirs[name] = dir
	c.mu.Unlock()
	for _, controller := range h.controllers {
		if controller == "cpuset" {
			return fillCpuset(h.dir, dir)
		}
	}
	return nil
}

// fillCpuset gives dir and those above it their parent's processors and memory nodes where they have none: no process may join
// before.
func fillCpuset(root, dir string) error {
	if dir == root {
		return nil
	}
	parent := filepath.Dir(dir)
	for _, file := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		have, err := read(dir + file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(have) != "" {
			continue
		}
		if err := fillCpuset(root, parent); err != nil {
			return err
		}
		value, err := read(parent + file)
		if err != nil {
			return err
		}
		if err := write(dir+file, strings.TrimSpace(value)); err != nil {
			return err
		}
	}
	return nil
}

// late makes the directory of a controller that the cgroup has done without, and moves its processes there.
func (c *Cgroup) late(name string) error {
	c.mu.Lock()
	_, have := c.dirs[name]
	c.mu.Unlock()
	if have || Unified() {
		return nil
	}
	l, err := machine()
	if err != nil {
		return err
	}
	if err := c.ensureV1(l, name); err != nil {
		return err
	}
	c.mu.Lock()
	dir := c.dirs[name]
	c.mu.Unlock()
	moved := map[int]bool{}
	for range 64 {
		pids, err := c.Procs()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			fresh, moved[pid] = true, true
			if err := write(dir+"/cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if !fresh {
			return nil
		}
	}
	return fmt.Errorf("move processes of cgroup %s: they come faster than they can be moved", c.path)
}

// apply writes settings in order.
func (c *Cgroup) apply(settings []setting) error {
	for _, s := range settings {
		c.mu.Lock()
		dir, ok := c.dirs[s.controller]
		if Unified() {
			dir, ok = c.dirs[""]
		}
		c.mu.Unlock()
		if !ok {
			if s.optional {
				continue
			}
			return fmt.Errorf("set %s: controller %s is not there", s.file, s.controller)
		}
		err := write(dir+"/"+s.file, s.value)
		if err != nil && !(s.optional && errors.Is(err, unix.ENOENT)) {
			return err
		}
	}
	return nil
}

func num[T int64 | uint64 | uint16 | uint32](v T) string { return fmt.Sprint(v) }

// settingsV1 translates limits to the files of v1. It is pure.
func settingsV1(r *specs.LinuxResources) []setting {
	if r == nil {
		return nil
	}
	var list []setting
	add := func(controller, file, value string) {
		list = append(list, setting{controller: controller, file: file, value: value})
	}
	opt := func(controller, file, value string) {
		list = append(list, setting{controller: controller, file: file, value: value, optional: true})
	}
	if p := r.CPU; p != nil {
		if p.Cpus != "" {
			add("cpuset", "cpuset.cpus", p.Cpus)
		}
		if p.Mems != "" {
			add("cpuset", "cpuset.mems", p.Mems)
		}
		if p.Shares != nil && *p.Shares != 0 {
			add("cpu", "cpu.shares", num(*p.Shares))
		}
		if p.Period != nil && *p.Period != 0 {
			add("cpu", "cpu.cfs_period_us", num(*p.Period))
		}
		if p.Quota != nil && *p.Quota != 0 {
			add("cpu", "cpu.cfs_quota_us", num(*p.Quota))
		}
		if p.Burst != nil {
			opt("cpu", "cpu.cfs_burst_us", num(*p.Burst))
		}
		if p.RealtimePeriod != nil && *p.RealtimePeriod != 0 {
			add("cpu", "cpu.rt_period_us", num(*p.RealtimePeriod))
		}
		if p.RealtimeRuntime != nil && *p.RealtimeRuntime != 0 {
			add("cpu", "cpu.rt_runtime_us", num(*p.RealtimeRuntime))
		}
		if p.Idle != nil {
			opt("cpu", "cpu.idle", num(*p.Idle))
		}
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != 0 {
			add("memory", "memory.limit_in_bytes", num(*m.Limit))
		}
		if m.Swap != nil && *m.Swap != 0 {
			opt("memory", "memory.memsw.limit_in_bytes", num(*m.Swap))
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			add("memory", "memory.soft_limit_in_bytes", num(*m.Reservation))
		}
		if m.Swappiness != nil && *m.Swappiness <= 100 {
			add("memory", "memory.swappiness", num(*m.Swappiness))
		}
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			add("memory", "memory.oom_control", "1")
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		value := "max"
		if *r.Pids.Limit > 0 {
			value = num(*r.Pids.Limit)
		}
		add("pids", "pids.max", value)
	}
	if b := r.BlockIO; b != nil {
		if b.Weight != nil && *b.Weight != 0 {
			opt("blkio", "blkio.bfq.weight", num(*b.Weight))
			opt("blkio", "blkio.weight", num(*b.Weight))
		}
		for _, d := range b.WeightDevice {
			if d.Weight != nil {
				opt("blkio", "blkio.weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
			}
		}
		for _, t := range []struct {
			file string
			list []specs.LinuxThrottleDevice
		}{
			{"blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice}, {"blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice},
			{"blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice}, {"blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice},
		} {
			for _, d := range t.list {
				add("blkio", t.file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
			}
		}
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", num(h.Limit))
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			add("net_cls", "net_cls.classid", num(*n.ClassID))
		}
		for _, p := range n.Priorities {
			add("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	if len(r.Devices) > 0 && !allowsAll(r.Devices) {
		for _, d := range r.Devices {
			file := "devices.deny"
			if d.Allow {
				file = "devices.allow"
			}
			add("devices", file, deviceRule(d))
		}
	}
	return list
}

// allowsAll reports whether rules let every access to every device pass, as a new cgroup does.
func allowsAll(rules []specs.LinuxDeviceCgroup) bool {
	for _, d := range rules {
		if !d.Allow {
			all := false
			for _, e := range rules {
				all = e.Allow && (e.Type == "a" || e.Type == "") && e.Major == nil && e.Minor == nil && (e.Access == "" || e.Access == "rwm")
			}
			return all // the last rule, if it allows all, undoes those before it
		}
	}
	return true
}

// deviceRule writes a rule as the devices controller takes it: "c 1:3 rwm", "a".
func deviceRule(d specs.LinuxDeviceCgroup) string {
	kind := d.Type
	if kind == "" {
		kind = "a"
	}
	access := d.Access
	if access == "" {
		access = "rwm"
	}
	if kind == "a" && d.Major == nil && d.Minor == nil {
		return "a"
	}
	number := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return num(*n)
	}
	return fmt.Sprintf("%s %s:%s %s", kind, number(d.Major), number(d.Minor), access)
}
