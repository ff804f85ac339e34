package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (c *Cgroup) createV2(h *hierarchy, r *specs.LinuxResources) error {
	dir := filepath.Join(h.dir, c.path)
	parent := h.dir
	for _, part := range strings.Split(strings.Trim(c.path, "/"), "/") {
		if err := enableControllers(parent); err != nil {
			return err
		}
		parent = filepath.Join(parent, part)
		if err := unix.Mkdir(parent, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: parent, Err: err}
		}
	}
	c.dirs[""] = dir
	if err := c.apply(settingsV2(r)); err != nil {
		return err
	}
	if r == nil || allowsAll(r.Devices) {
		return nil
	}
	return attachDevices(dir, r.Devices)
}

// enableControllers makes dir's controllers available to the cgroups in it.
func enableControllers(dir string) error {
	have, err := read(dir + "/cgroup.controllers")
	if err != nil {
		return err
	}
	enabled, err := read(dir + "/cgroup.subtree_control")
	if err != nil {
		return err
	}
	on := strings.Fields(enabled)
	for _, name := range strings.Fields(have) {
		if slices.Contains(on, name) {
			continue
		}
		err := write(dir+"/cgroup.subtree_control", "+"+name)
		// A cgroup with processes of its own (EBUSY), or a controller that some process forbids (EINVAL): limits that need it
		// fail later, by name.
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// settingsV2 translates limits to the files of v2. It is pure.
func settingsV2(r *specs.LinuxResources) []setting {
	if r == nil {
		return nil
	}
	var list []setting
	add := func(file, value string) {
		controller, _, _ := strings.Cut(file, ".")
		list = append(list, setting{controller: controller, file: file, value: value})
	}
	opt := func(file, value string) {
		add(file, value)
		list[len(list)-1].optional = true
	}
	limit := func(n int64) string {
		if n < 0 {
			return "max"
		}
		return num(n)
	}
	if p := r.CPU; p != nil {
		if p.Cpus != "" {
			add("cpuset.cpus", p.Cpus)
		}
		if p.Mems != "" {
			add("cpuset.mems", p.Mems)
		}
		if p.Shares != nil && *p.Shares != 0 {
			add("cpu.weight", num(weight(*p.Shares)))
		}
		if p.Quota != nil && *p.Quota != 0 || p.Period != nil && *p.Period != 0 {
			quota, period := "max", uint64(100000)
			if p.Quota != nil && *p.Quota > 0 {
				quota = num(*p.Quota)
			}
			if p.Period != nil && *p.Period != 0 {
				period = *p.Period
			}
			add("cpu.max", fmt.Sprintf("%s %d", quota, period))
		}
		if p.Burst != nil {
			opt("cpu.max.burst", num(*p.Burst))
		}
		if p.Idle != nil {
			opt("cpu.idle", num(*p.Idle))
		}
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != 0 {
			add("memory.max", limit(*m.Limit))
		}
		if m.Swap != nil && *m.Swap != 0 { // the specification counts memory in, the kernel does not
			value := "max"
			if *m.Swap > 0 && m.Limit != nil && *m.Limit > 0 {
				value = num(max(*m.Swap-*m.Limit, 0))
			}
			opt("memory.swap.max", value)
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			add("memory.low", limit(*m.Reservation))
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		value := "max"
		if *r.Pids.Limit > 0 {
			value = num(*r.Pids.Limit)
		}
		add("pids.max", value)
	}
	if b := r.BlockIO; b != nil {
		if b.Weight != nil && *b.Weight != 0 {
			opt("io.bfq.weight", num(*b.Weight))
			opt("io.weight", num(1+(uint64(*b.Weight)-10)*9999/990))
		}
		for _, t := range []struct {
			key  string
			list []specs.LinuxThrottleDevice
		}{{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice}, {"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice}} {
			for _, d := range t.list {
				add("io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.key, d.Rate))
			}
		}
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb."+h.Pagesize+".max", num(h.Limit))
	}
	names := make([]string, 0, len(r.Unified))
	for name := range r.Unified {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.ContainsAny(name, "/\x00") {
			add(name, r.Unified[name])
		}
	}
	return list
}

// weight converts v1's CPU shares (2 to 262144, 1024 for one) to v2's weight (1 to 10000, 100 for one): the curve through those
// three points that newer runtimes agreed on would need logarithms; the older straight line keeps ratios between containers.
func weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

// freezeV2 sets the state and waits until the kernel says it is reached.
func freezeV2(dir string, freeze bool) error {
	value := "0"
	if freeze {
		value = "1"
	}
	events, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		return err
	}
	defer events.Close()
	if err := write(dir+"/cgroup.freeze", value); err != nil {
		return err
	}
	deadline := time.Now().Add(time.Second)
	for {
		buf := make([]byte, 256)
		n, err := events.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return err
		}
		if strings.Contains(string(buf[:n]), "frozen "+value) {
			return nil
		}
		left := time.Until(deadline).Milliseconds()
		if left <= 0 {
			return errors.Join(errors.New("processes did not stop within a second"), write(dir+"/cgroup.freeze", "0"))
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(left))
	}
}
