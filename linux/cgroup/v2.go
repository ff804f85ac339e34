package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

func (c *Cgroup) createV2(h *hierarchy, r *specs.LinuxResources, o Options) error {
	settings, err := settingsV2(r)
	if err != nil {
		return err
	}
	dir := c.place("", h)
	rest, err := filepath.Rel(h.dir, dir)
	if err != nil {
		return err
	}
	parent := h.dir
	for part := range strings.SplitSeq(rest, "/") {
		enableControllers(parent)
		parent = filepath.Join(parent, part)
		if err := c.mkdir(parent, parent == dir); err != nil {
			if o.Named || !permission(err) || !o.rootless() {
				return err
			}
			if len(settings) == 0 {
				c.denied = true
				return nil
			}
			return errdefs.New(errdefs.Forbidden, "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: linux.resources.%s: %w", settings[0].field, err)
		}
	}
	c.dirs[""] = dir
	if c.taken {
		if err := c.refuseUsed(); err != nil {
			return err
		}
	}
	if err := domain(dir, settings); err != nil {
		return err
	}
	if err := c.apply(settings); err != nil {
		return err
	}
	return c.devicesV2(rulesOf(r), o.Rootless)
}

// domain sees to it that processes may be in the cgroup at dir. One below a cgroup that has processes of its own, or below a threaded
// one, cannot have the controllers that go by whole processes.
func domain(dir string, settings list) error {
	kind, err := read(dir + "/cgroup.type")
	if err != nil {
		return nil // before Linux 4.14
	}
	kind = strings.TrimSpace(kind)
	if kind == "domain" {
		return nil
	}
	for _, s := range settings {
		switch s.controller {
		case "memory", "io", "hugetlb":
			return errdefs.New(errdefs.Conflict, "linux.resources.%s: cgroup %s cannot have controller %s: it is %q, because of processes in a cgroup above", s.field, dir, s.controller, kind)
		}
	}
	if kind == "domain invalid" {
		return write(dir+"/cgroup.type", "threaded")
	}
	return nil
}

// Chown gives the cgroup to a user, with the files that the kernel says belong to it, so that he can make cgroups below. On v1, where
// that is not safe, it does nothing.
func (c *Cgroup) Chown(uid int) error {
	if !Unified() {
		return nil
	}
	list, err := read("/sys/kernel/cgroup/delegate")
	if err != nil { // before Linux 4.15
		list = "cgroup.procs cgroup.subtree_control cgroup.threads"
	}
	dir := c.dir("")
	for _, name := range append([]string{"."}, strings.Fields(list)...) {
		if err := os.Chown(filepath.Join(dir, name), uid, -1); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("give cgroup %s to user %d: %w", c.path, uid, err)
		}
	}
	return nil
}

// enableControllers makes dir's controllers available to the cgroups in it, as far as possible: in a cgroup with processes of its own
// (EBUSY), of another owner (EACCES), or where some process forbids a controller (EINVAL), limits that need it fail later, by name.
func enableControllers(dir string) {
	have, err := read(dir + "/cgroup.controllers")
	if err != nil {
		return
	}
	enabled, err := read(dir + "/cgroup.subtree_control")
	if err != nil {
		return
	}
	on := strings.Fields(enabled)
	var missing []string
	for _, name := range strings.Fields(have) {
		if !slices.Contains(on, name) {
			missing = append(missing, "+"+name)
		}
	}
	if len(missing) == 0 || write(dir+"/cgroup.subtree_control", strings.Join(missing, " ")) == nil {
		return
	}
	for _, one := range missing { // all or nothing, the kernel says
		_ = write(dir+"/cgroup.subtree_control", one) // as above
	}
}

// settingsV2 translates limits to the files of v2. It is pure.
func settingsV2(r *specs.LinuxResources) (list, error) {
	if r == nil {
		return nil, nil
	}
	var l list
	l.pids(r.Pids)
	if err := l.memoryV2(r.Memory); err != nil {
		return nil, err
	}
	l.ioV2(r.BlockIO)
	if p := r.CPU; p != nil {
		if p.Idle != nil {
			l.add("cpu.idle", "cpu.idle", num(*p.Idle)) // Linux 5.15
		}
		if p.Shares != nil && *p.Shares != 0 {
			l.add("cpu.shares", "cpu.weight", num(Weight(*p.Shares)))
		}
		limited := value(p.Quota) != 0 || value(p.Period) != 0
		if p.Burst != nil {
			l.add("cpu.burst", "cpu.max.burst", num(*p.Burst)).late = limited // Linux 5.14; not above the quota
		}
		if limited {
			quota, period := "max", uint64(100000)
			if *ptr0(p.Quota) > 0 {
				quota = num(*p.Quota)
			}
			if value(p.Period) != 0 {
				period = *p.Period
			}
			field := "cpu.quota"
			if value(p.Quota) == 0 {
				field = "cpu.period"
			}
			l.add(field, "cpu.max", fmt.Sprintf("%s %d", quota, period))
		}
		if p.Cpus != "" {
			l.add("cpu.cpus", "cpuset.cpus", p.Cpus)
		}
		if p.Mems != "" {
			l.add("cpu.mems", "cpuset.mems", p.Mems)
		}
	}
	l.hugetlb(r.HugepageLimits, ".max")
	l.rdma(r.Rdma)
	for _, name := range sorted(r.Unified) {
		for line := range strings.SplitSeq(strings.TrimRight(r.Unified[name], "\n"), "\n") { // the kernel takes one device a write
			l.add("unified."+name, name, line)
		}
	}
	return l, nil
}

func ptr0[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

func (l *list) memoryV2(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	limit := func(n int64) string {
		if n < 0 {
			return "max"
		}
		return num(n)
	}
	swap, set, err := Swap(value(m.Swap), value(m.Limit))
	if err != nil {
		return err
	}
	if set {
		s := l.add("memory.swap", "memory.swap.max", limit(swap))
		s.optional, s.silent = swap <= 0, true // a kernel that does not account for swap has none to limit
	}
	if v := value(m.Limit); v != 0 {
		l.add("memory.limit", "memory.max", limit(v))
	}
	if v := value(m.Reservation); v != 0 {
		l.add("memory.reservation", "memory.low", limit(v))
	}
	return nil
}

// Swap converts v1's limit of memory and swap together (0: none given, -1: none) to v2's of swap alone, which is -1 for none; set is
// false when nothing is said about it.
func Swap(both, memory int64) (swap int64, set bool, err error) {
	bad := func(format string, args ...any) error {
		return errdefs.New(errdefs.InvalidParameter, "linux.resources.memory.swap: "+format, args...)
	}
	switch {
	case memory == -1 && both == 0, both == -1: // no limit of memory is none of swap
		return -1, true, nil
	case both == 0:
		return 0, false, nil
	case memory == -1: // as it is
		return both, true, nil
	case memory == 0:
		return 0, false, bad("unable to set swap limit without memory limit")
	case memory < 0:
		return 0, false, bad("invalid memory value: %d", memory)
	case both < memory:
		return 0, false, bad("memory+swap limit should be >= memory limit")
	}
	return both - memory, true, nil
}

func (l *list) ioV2(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	const field = "blockIO.weight"
	if w := value(b.Weight); w != 0 {
		s := l.add(field, "io.bfq.weight", num(w))
		s.instead = &setting{controller: "io", file: "io.weight", value: num(ioWeight(w)), field: field, optional: true}
	}
	for _, d := range b.WeightDevice {
		if w := value(d.Weight); w != 0 {
			at := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
			s := l.add("blockIO.weightDevice", "io.bfq.weight", at+num(w)) // Linux 5.4
			s.instead = &setting{controller: "io", file: "io.weight", value: at + num(ioWeight(w)), field: s.field, optional: true}
		}
	}
	l.throttle("blockIO.throttleReadBpsDevice", "io.max", "rbps", b.ThrottleReadBpsDevice)
	l.throttle("blockIO.throttleWriteBpsDevice", "io.max", "wbps", b.ThrottleWriteBpsDevice)
	l.throttle("blockIO.throttleReadIOPSDevice", "io.max", "riops", b.ThrottleReadIOPSDevice)
	l.throttle("blockIO.throttleWriteIOPSDevice", "io.max", "wiops", b.ThrottleWriteIOPSDevice)
}

// ioWeight converts v1's weight of block input and output (10 to 1000) to v2's (1 to 10000), by a straight line.
func ioWeight(w uint16) uint64 { return 1 + (uint64(max(w, 10))-10)*9999/990 }

// Weight converts v1's CPU shares (2 to 262144, 1024 for one) to v2's weight (1 to 10000, 100 for one), by the curve through these
// three points that the runtimes have agreed on: the logarithm of the weight is a parabola over that of the shares.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// freezeWait is how long processes have to stop.
const freezeWait = 10 * time.Second

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
	deadline := time.Now().Add(freezeWait)
	for {
		buf := make([]byte, 256)
		n, err := events.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return err
		}
		if !freeze || strings.Contains(string(buf[:n]), "frozen 1") { // one above may still hold them frozen
			return nil
		}
		left := time.Until(deadline).Milliseconds()
		if left <= 0 {
			return errors.Join(fmt.Errorf("processes did not stop within %v", freezeWait), write(dir+"/cgroup.freeze", "0"))
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(left))
	}
}
