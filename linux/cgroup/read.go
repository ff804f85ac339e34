package cgroup

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// Stats reads the counters. Those whose controller or file is not there stay zero.
func (c *Cgroup) Stats() (Stats, error) {
	if Unified() {
		return c.statsV2()
	}
	return c.statsV1()
}

// OOMKills returns how many processes of the cgroup the kernel has killed for want of memory.
func (c *Cgroup) OOMKills() (uint64, error) {
	file, key := "/memory.oom_control", "oom_kill"
	dir := c.dir("memory")
	if Unified() {
		dir, file = c.main(), "/memory.events"
	}
	if dir == "" {
		return 0, nil
	}
	data, err := read(dir + file)
	if err != nil {
		return 0, fmt.Errorf("read out-of-memory kills: %w", err)
	}
	return pairs(data)[key], nil
}

func (c *Cgroup) dir(controller string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dirs[controller]
}

// number reads a file with one number; "max" and what is not there are fallback.
func number(path string, fallback uint64) uint64 {
	data, err := read(path)
	if err != nil {
		return fallback
	}
	n, err := strconv.ParseUint(strings.TrimSpace(data), 10, 64)
	if err != nil {
		return fallback
	}
	return n
}

// pairs parses "name value" lines.
func pairs(data string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(data) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			m[name] = n
		}
	}
	return m
}

// pairsOf reads a file of pairs; one that is not there has none.
func pairsOf(path string) map[string]uint64 {
	data, err := read(path)
	if err != nil {
		return map[string]uint64{}
	}
	return pairs(data)
}

func (c *Cgroup) statsV1() (Stats, error) {
	var s Stats
	if d := c.dir("cpuacct"); d != "" {
		s.CPU.Total = number(d+"/cpuacct.usage", 0)
		s.CPU.User = number(d+"/cpuacct.usage_user", 0)
		s.CPU.System = number(d+"/cpuacct.usage_sys", 0)
		data, err := read(d + "/cpuacct.usage_percpu")
		if err != nil {
			return Stats{}, fmt.Errorf("read statistics of cgroup %s: %w", c.path, err)
		}
		s.CPU.PerCPU = numbers(data)
		if all, err := read(d + "/cpuacct.usage_all"); err == nil {
			s.CPU.PerCPUUser, s.CPU.PerCPUSystem = usageAll(all)
		}
	}
	if d := c.dir("cpu"); d != "" {
		m := pairsOf(d + "/cpu.stat")
		s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
		s.CPU.Bursts, s.CPU.BurstTime = m["nr_bursts"], m["burst_time"]
	}
	if d := c.dir("cpuset"); d != "" {
		s.Cpuset = readCpuset(d)
	}
	if d := c.dir("memory"); d != "" {
		s.Memory = MemoryStats{
			Usage: number(d+"/memory.usage_in_bytes", 0), MaxUsage: number(d+"/memory.max_usage_in_bytes", 0),
			Limit: number(d+"/memory.limit_in_bytes", math.MaxUint64), Failcnt: number(d+"/memory.failcnt", 0),
			SwapUsage: number(d+"/memory.memsw.usage_in_bytes", 0), SwapLimit: number(d+"/memory.memsw.limit_in_bytes", 0),
			SwapMax: number(d+"/memory.memsw.max_usage_in_bytes", 0), SwapFailcnt: number(d+"/memory.memsw.failcnt", 0),
			Kernel: counter(d + "/memory.kmem."), KernelTCP: counter(d + "/memory.kmem.tcp."),
			OOMKills: pairsOf(d + "/memory.oom_control")["oom_kill"], Stat: pairsOf(d + "/memory.stat"),
		}
	}
	if d := c.dir("pids"); d != "" {
		s.Pids = PidsStats{Current: number(d+"/pids.current", 0), Limit: number(d+"/pids.max", 0)}
	}
	if d := c.dir("blkio"); d != "" {
		s.Blkio = blkioV1Of(d)
	}
	if d := c.home("hugetlb"); d != "" {
		s.Hugetlb = hugetlb(d, d == c.dir(""))
	}
	if d := c.home("rdma"); d != "" {
		s.RDMA = RDMAStats{Limit: rdma(d + "/rdma.max"), Current: rdma(d + "/rdma.current")}
	}
	return s, nil
}

// counter reads one of the resource counters of v1's memory controller.
func counter(prefix string) Counter {
	return Counter{Usage: number(prefix+"usage_in_bytes", 0), Max: number(prefix+"max_usage_in_bytes", 0), Limit: number(prefix+"limit_in_bytes", 0), Failcnt: number(prefix+"failcnt", 0)}
}

func numbers(data string) []uint64 {
	var list []uint64
	for f := range strings.FieldsSeq(data) {
		n, _ := strconv.ParseUint(f, 10, 64) // the kernel writes numbers
		list = append(list, n)
	}
	return list
}

// usageAll parses "cpu user system" lines below a headline.
func usageAll(data string) (user, system []uint64) {
	for line := range strings.Lines(data) {
		if f := numbers(line); len(f) == 3 && !strings.HasPrefix(line, "cpu") {
			user, system = append(user, f[1]), append(system, f[2])
		}
	}
	return user, system
}

func readCpuset(d string) CpusetStats {
	n := func(name string) uint64 { return number(d+"/cpuset."+name, 0) }
	set := func(name string) []uint16 {
		data, _ := read(d + "/cpuset." + name)
		return ranges(data)
	}
	s := CpusetStats{
		CPUs: set("cpus"), Mems: set("mems"), CPUExclusive: n("cpu_exclusive"), MemExclusive: n("mem_exclusive"), MemHardwall: n("mem_hardwall"),
		MemoryMigrate: n("memory_migrate"), MemorySpreadPage: n("memory_spread_page"), MemorySpreadSlab: n("memory_spread_slab"),
		MemoryPressure: n("memory_pressure"), SchedLoadBalance: n("sched_load_balance"),
	}
	if data, err := read(d + "/cpuset.sched_relax_domain_level"); err == nil {
		s.SchedRelaxDomainLevel, _ = strconv.ParseInt(strings.TrimSpace(data), 10, 64) // -1, mostly
	}
	return s
}

// ranges parses "0-3,7".
func ranges(data string) []uint16 {
	var list []uint16
	for part := range strings.SplitSeq(strings.TrimSpace(data), ",") {
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil {
			continue
		}
		for n := from; n <= to; n++ {
			list = append(list, uint16(n))
		}
	}
	return list
}

// hugetlb reads the counters of every size of page the cgroup at d has files for.
func hugetlb(d string, v2 bool) map[string]HugetlbStats {
	entries, err := os.ReadDir(d)
	if err != nil {
		return nil // gone
	}
	all := map[string]HugetlbStats{}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), "hugetlb.")
		size, file, _ := strings.Cut(rest, ".")
		if !ok || file != "limit_in_bytes" && file != "max" {
			continue
		}
		prefix := d + "/hugetlb." + size
		rsvd := ""
		if exists(prefix+".rsvd.current") || exists(prefix+".rsvd.usage_in_bytes") { // Linux 5.7: what counts, where it is counted
			rsvd = ".rsvd"
		}
		if v2 {
			all[size] = HugetlbStats{Usage: number(prefix+rsvd+".current", 0), Failcnt: pairsOf(prefix + ".events")["max"]}
			continue
		}
		prefix += rsvd
		all[size] = HugetlbStats{Usage: number(prefix+".usage_in_bytes", 0), Max: number(prefix+".max_usage_in_bytes", 0), Failcnt: number(prefix+".failcnt", 0)}
	}
	return all
}

// rdma parses "mlx4_0 hca_handle=2 hca_object=max" lines.
func rdma(path string) []RDMAEntry {
	data, _ := read(path)
	var list []RDMAEntry
	for line := range strings.Lines(data) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		e := RDMAEntry{Device: f[0]}
		for _, kv := range f[1:] {
			key, text, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseUint(text, 10, 32)
			if text == "max" {
				n, err = math.MaxUint32, nil
			}
			if err != nil {
				continue
			}
			switch key {
			case "hca_handle":
				e.HCAHandles = uint32(n)
			case "hca_object":
				e.HCAObjects = uint32(n)
			}
		}
		list = append(list, e)
	}
	return list
}

// blkioV1Of reads what the BFQ scheduler counts, where it does, or else what throttling counts.
func blkioV1Of(d string) BlkioStats {
	get := func(name string) []BlkioEntry {
		data, err := read(d + "/blkio." + name + "_recursive")
		if err != nil {
			return nil
		}
		return blkioV1(data)
	}
	s := BlkioStats{ServiceBytes: get("bfq.io_service_bytes"), Serviced: get("bfq.io_serviced")}
	if s.ServiceBytes == nil {
		return BlkioStats{ServiceBytes: get("throttle.io_service_bytes"), Serviced: get("throttle.io_serviced")}
	}
	s.Sectors, s.ServiceTime, s.WaitTime = get("bfq.sectors"), get("bfq.io_service_time"), get("bfq.io_wait_time")
	s.Merged, s.Queued, s.Time = get("bfq.io_merged"), get("bfq.io_queued"), get("bfq.time")
	return s
}

// blkioV1 parses "8:0 Read 4096" lines, and "8:0 4096".
func blkioV1(data string) []BlkioEntry {
	var list []BlkioEntry
	for line := range strings.Lines(data) {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ':' || r == '\n' })
		var e BlkioEntry
		switch len(f) {
		case 4:
			e.Op = f[2]
		case 3:
		default: // the sum of all devices
			continue
		}
		var errs [3]error
		e.Major, errs[0] = strconv.ParseUint(f[0], 10, 64)
		e.Minor, errs[1] = strconv.ParseUint(f[1], 10, 64)
		e.Value, errs[2] = strconv.ParseUint(f[len(f)-1], 10, 64)
		if errs == [3]error{} {
			list = append(list, e)
		}
	}
	return list
}

func (c *Cgroup) statsV2() (Stats, error) {
	d := c.main()
	s := Stats{V2: true}
	data, err := read(d + "/cpu.stat")
	if err != nil {
		return Stats{}, fmt.Errorf("read statistics of cgroup %s: %w", c.path, err)
	}
	m := pairs(data)
	const us = 1000
	s.CPU = CPUStats{
		Total: m["usage_usec"] * us, User: m["user_usec"] * us, System: m["system_usec"] * us,
		Periods: m["nr_periods"], ThrottledPeriods: m["nr_throttled"], ThrottledTime: m["throttled_usec"] * us,
		Bursts: m["nr_bursts"], BurstTime: m["burst_usec"] * us, PSI: pressure(d + "/cpu.pressure"),
	}
	events := pairsOf(d + "/memory.events")
	s.Memory = MemoryStats{
		Usage: number(d+"/memory.current", 0), MaxUsage: number(d+"/memory.peak", 0), Limit: number(d+"/memory.max", math.MaxUint64),
		Failcnt: events["max"], OOMKills: events["oom_kill"], Stat: pairsOf(d + "/memory.stat"),
		SwapUsage: number(d+"/memory.swap.current", 0), SwapLimit: number(d+"/memory.swap.max", math.MaxUint64),
		PSI: pressure(d + "/memory.pressure"),
	}
	s.Pids = PidsStats{Current: number(d+"/pids.current", 0), Limit: number(d+"/pids.max", 0)}
	if !exists(d + "/pids.current") { // no controller: what there is to count
		pids, _ := procs(d)
		s.Pids.Current = uint64(len(pids))
	}
	if data, err := read(d + "/io.stat"); err == nil {
		s.Blkio = blkioV2(data)
	}
	s.Blkio.PSI = pressure(d + "/io.pressure")
	s.Hugetlb = hugetlb(d, true)
	s.RDMA = RDMAStats{Limit: rdma(d + "/rdma.max"), Current: rdma(d + "/rdma.current")}
	for name, n := range pairsOf(d + "/misc.current") {
		if s.Misc == nil {
			s.Misc = map[string]MiscStats{}
		}
		s.Misc[name] = MiscStats{Usage: n}
	}
	for name, n := range pairsOf(d + "/misc.events") {
		if one, ok := s.Misc[strings.TrimSuffix(name, ".max")]; ok {
			one.Events = n
			s.Misc[strings.TrimSuffix(name, ".max")] = one
		}
	}
	return s, nil
}

// blkioV2 parses "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ..." lines.
func blkioV2(data string) BlkioStats {
	var s BlkioStats
	for line := range strings.Lines(data) {
		f := strings.Fields(line)
		var major, minor uint64
		if len(f) == 0 {
			continue
		}
		if n, _ := fmt.Sscanf(f[0], "%d:%d", &major, &minor); n != 2 {
			continue
		}
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				s.ServiceBytes = append(s.ServiceBytes, BlkioEntry{major, minor, "read", n})
			case "wbytes":
				s.ServiceBytes = append(s.ServiceBytes, BlkioEntry{major, minor, "write", n})
			case "rios":
				s.Serviced = append(s.Serviced, BlkioEntry{major, minor, "read", n})
			case "wios":
				s.Serviced = append(s.Serviced, BlkioEntry{major, minor, "write", n})
			}
		}
	}
	return s
}

// pressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" lines; nil where the kernel does not keep them.
func pressure(path string) *PSI {
	data, err := read(path)
	if err != nil || data == "" {
		return nil
	}
	return parsePressure(data)
}

func parsePressure(data string) *PSI {
	var p PSI
	for line := range strings.Lines(data) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		to := &p.Some
		switch f[0] {
		case "some":
		case "full":
			to = &p.Full
		default:
			continue
		}
		for _, kv := range f[1:] {
			key, text, _ := strings.Cut(kv, "=")
			share, err := strconv.ParseFloat(text, 64)
			if err != nil {
				continue
			}
			switch key {
			case "avg10":
				to.Avg10 = share
			case "avg60":
				to.Avg60 = share
			case "avg300":
				to.Avg300 = share
			case "total":
				to.Total, _ = strconv.ParseUint(text, 10, 64) // a number, by now
			}
		}
	}
	return &p
}
