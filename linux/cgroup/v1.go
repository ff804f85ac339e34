package cgroup

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

// settingsOf returns the settings for this machine: those of v1, and on a machine that has both those of v2 for controllers that are
// only there.
func settingsOf(l layout, r *specs.LinuxResources) (list, error) {
	if l.v2 != nil {
		return settingsV2(r)
	}
	settings := settingsV1(r)
	if l.hybrid == nil {
		return settings, nil
	}
	second := func(controller string) bool {
		name := controller
		if controller == "blkio" {
			name = "io"
		}
		return l.v1[controller] == nil && slices.Contains(l.hybrid.controllers, name)
	}
	if !slices.ContainsFunc(settings, func(s setting) bool { return second(s.controller) }) {
		return settings, nil
	}
	settings = slices.DeleteFunc(settings, func(s setting) bool { return second(s.controller) })
	others, err := settingsV2(r)
	if err != nil {
		return nil, err
	}
	for _, s := range others {
		name := s.controller
		if name == "io" {
			name = "blkio"
		}
		if second(name) {
			settings = append(settings, s)
		}
	}
	return settings, nil
}

func (c *Cgroup) createV1(l layout, r *specs.LinuxResources, o Options) error {
	settings, err := settingsOf(l, r)
	if err != nil {
		return err
	}
	target := targetOf(rulesOf(r))
	need := map[string]bool{}
	for _, name := range accounting {
		need[name] = true
	}
	need["devices"] = !target.everything()
	for _, s := range settings {
		need[s.controller] = true
	}
	need[systemd] = l.v1[systemd] != nil && Booted()
	for _, name := range v1Order {
		if !need[name] && !o.All || l.v1[name] == nil {
			continue // settings for it fail below, unless they are optional
		}
		if err := c.ensureV1(l, name); err != nil {
			if !o.Named && permission(err) && o.rootless() {
				c.denied = true
				continue
			}
			return err
		}
	}
	if l.hybrid != nil && o.All {
		if err := c.ensureHybrid(l.hybrid); err != nil && !permission(err) {
			return err
		}
	} else if l.hybrid != nil {
		for _, s := range settings {
			if l.v1[s.controller] == nil && slices.Contains(l.hybrid.controllers, s.controller) {
				if err := c.ensureHybrid(l.hybrid); err != nil {
					return err
				}
				break
			}
		}
	}
	if c.taken {
		if err := c.refuseUsed(); err != nil {
			return err
		}
	}
	if err := c.apply(settings); err != nil {
		return err
	}
	if need["devices"] {
		return c.devicesV1(target, o.Rootless)
	}
	return nil
}

// ensureHybrid makes the cgroup's directory in the unified hierarchy that is mounted beside those of v1.
func (c *Cgroup) ensureHybrid(h *hierarchy) error {
	dir := c.place("", h)
	parent := h.dir
	rest, err := filepath.Rel(h.dir, dir)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(rest, "/") {
		enableControllers(parent)
		parent = filepath.Join(parent, part)
		if err := c.mkdir(parent, parent == dir); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.dirs[""] = dir
	c.mu.Unlock()
	return nil
}

// ensureV1 makes the cgroup's directory in the hierarchy of a controller.
func (c *Cgroup) ensureV1(l layout, name string) error {
	h := l.v1[name]
	if h == nil {
		return errdefs.New(errdefs.NotImplemented, "controller %s is not there", name)
	}
	dir := c.place(name, h)
	if err := c.mkdirAll(dir); err != nil {
		return err
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
	if c.home(name) != "" {
		return nil
	}
	l, err := machine()
	if err != nil {
		return err
	}
	if l.v2 != nil {
		return nil
	}
	key := name
	if l.v1[name] == nil && l.hybrid != nil && slices.Contains(l.hybrid.controllers, name) {
		key = ""
		err = c.ensureHybrid(l.hybrid)
	} else {
		err = c.ensureV1(l, name)
	}
	if err != nil {
		return err
	}
	dir := c.dir(key)
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

// settingsV1 translates limits to the files of v1. It is pure.
func settingsV1(r *specs.LinuxResources) list {
	if r == nil {
		return nil
	}
	var l list
	if p := r.CPU; p != nil {
		if p.Cpus != "" {
			l.add("cpu.cpus", "cpuset.cpus", p.Cpus)
		}
		if p.Mems != "" {
			l.add("cpu.mems", "cpuset.mems", p.Mems)
		}
		if p.RealtimePeriod != nil && *p.RealtimePeriod != 0 {
			l.add("cpu.realtimePeriod", "cpu.rt_period_us", num(*p.RealtimePeriod)).late = p.RealtimeRuntime != nil && *p.RealtimeRuntime != 0
		}
		if p.RealtimeRuntime != nil && *p.RealtimeRuntime != 0 {
			l.add("cpu.realtimeRuntime", "cpu.rt_runtime_us", num(*p.RealtimeRuntime))
		}
		if p.Shares != nil && *p.Shares != 0 {
			l.add("cpu.shares", "cpu.shares", num(*p.Shares)).check = true
		}
		quota := p.Quota != nil && *p.Quota != 0
		if p.Period != nil && *p.Period != 0 { // a shorter one may exceed the parent's quota until the new quota is set
			l.add("cpu.period", "cpu.cfs_period_us", num(*p.Period)).late = quota
		}
		if p.Burst != nil {
			s := l.add("cpu.burst", "cpu.cfs_burst_us", num(*p.Burst)) // Linux 5.14
			s.late, s.optional = quota, true
		}
		if quota {
			l.add("cpu.quota", "cpu.cfs_quota_us", num(*p.Quota))
		}
		if p.Idle != nil {
			l.add("cpu.idle", "cpu.idle", num(*p.Idle)) // Linux 5.15
		}
	}
	l.memoryV1(r.Memory)
	l.pids(r.Pids)
	l.blkioV1(r.BlockIO)
	l.hugetlb(r.HugepageLimits, ".limit_in_bytes")
	l.rdma(r.Rdma)
	if n := r.Network; n != nil {
		if n.ClassID != nil && *n.ClassID != 0 {
			l.add("network.classID", "net_cls.classid", num(*n.ClassID))
		}
		for _, p := range n.Priorities {
			l.add("network.priorities", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	return l
}

func (l *list) memoryV1(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	limit, swap := value(m.Limit), value(m.Swap)
	unlimited := limit == -1 && swap == 0 // no limit of memory leaves none of memory and swap
	if limit != 0 {
		l.add("memory.limit", "memory.limit_in_bytes", num(limit)).late = true // not above memory and swap, whichever grows first
	}
	if swap != 0 || unlimited {
		if unlimited {
			swap = -1
		}
		s := l.add("memory.swap", "memory.memsw.limit_in_bytes", num(swap))
		s.late = true
		s.optional, s.silent = swap < 0, true // without accounting of swap there is no limit
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory.reservation", "memory.soft_limit_in_bytes", num(*m.Reservation))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.add("memory.disableOOMKiller", "memory.oom_control", "1")
	}
	if m.Swappiness != nil && *m.Swappiness <= 100 {
		l.add("memory.swappiness", "memory.swappiness", num(*m.Swappiness))
	}
}

func (l *list) blkioV1(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	// The weights' files have the name of the scheduler that heeds them; where none is built in there are none.
	weight := func(field, file, value string) {
		s := l.add(field, "blkio."+file, value)
		s.instead = &setting{controller: "blkio", file: "blkio.bfq." + file, value: value, field: field, optional: true}
	}
	if w := value(b.Weight); w != 0 {
		weight("blockIO.weight", "weight", num(w))
	}
	if w := value(b.LeafWeight); w != 0 { // of the CFQ scheduler, until Linux 5.0
		l.add("blockIO.leafWeight", "blkio.leaf_weight", num(w)).optional = true
	}
	for _, d := range b.WeightDevice {
		if w := value(d.Weight); w != 0 {
			weight("blockIO.weightDevice", "weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w))
		}
		if w := value(d.LeafWeight); w != 0 {
			l.add("blockIO.weightDevice", "blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w)).optional = true
		}
	}
	l.throttle("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", "", b.ThrottleReadBpsDevice)
	l.throttle("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "", b.ThrottleWriteBpsDevice)
	l.throttle("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "", b.ThrottleReadIOPSDevice)
	l.throttle("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "", b.ThrottleWriteIOPSDevice)
}

// value is what p points to, or zero.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// mkdir makes one directory and remembers what to take back.
func (c *Cgroup) mkdir(dir string, leaf bool) error {
	err := unix.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		c.mu.Lock()
		c.made = append(c.made, dir)
		c.mu.Unlock()
		return nil
	case errors.Is(err, unix.EEXIST):
		if leaf {
			c.taken = true
		}
		return nil
	}
	return &os.PathError{Op: "mkdir", Path: dir, Err: err}
}

// mkdirAll is mkdir of dir and of those above that are missing.
func (c *Cgroup) mkdirAll(dir string) error {
	err := c.mkdir(dir, true)
	if !errors.Is(err, unix.ENOENT) || filepath.Dir(dir) == dir {
		return err
	}
	above := filepath.Dir(dir)
	if err := c.mkdirAll(above); err != nil {
		return err
	}
	c.taken = false // that was one above
	return c.mkdir(dir, true)
}
