package cgroup

import (
	"fmt"
	"math"
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
		for _, f := range strings.Fields(data) {
			n, _ := strconv.ParseUint(f, 10, 64) // the kernel writes numbers
			s.CPU.PerCPU = append(s.CPU.PerCPU, n)
		}
	}
	if d := c.dir("cpu"); d != "" {
		m := pairsOf(d + "/cpu.stat")
		s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
	}
	if d := c.dir("memory"); d != "" {
		s.Memory = MemoryStats{
			Usage: number(d+"/memory.usage_in_bytes", 0), MaxUsage: number(d+"/memory.max_usage_in_bytes", 0),
			Limit: number(d+"/memory.limit_in_bytes", math.MaxUint64), Failcnt: number(d+"/memory.failcnt", 0),
			SwapUsage: number(d+"/memory.memsw.usage_in_bytes", 0), SwapLimit: number(d+"/memory.memsw.limit_in_bytes", 0),
			OOMKills: pairsOf(d + "/memory.oom_control")["oom_kill"], Stat: pairsOf(d + "/memory.stat"),
		}
	}
	if d := c.dir("pids"); d != "" {
		s.Pids = PidsStats{Current: number(d+"/pids.current", 0), Limit: number(d+"/pids.max", 0)}
	}
	if d := c.dir("blkio"); d != "" {
		if data, err := read(d + "/blkio.throttle.io_service_bytes_recursive"); err == nil {
			s.Blkio.ServiceBytes = blkioV1(data)
		}
		if data, err := read(d + "/blkio.throttle.io_serviced_recursive"); err == nil {
			s.Blkio.Serviced = blkioV1(data)
		}
	}
	return s, nil
}

// blkioV1 parses "8:0 Read 4096" lines.
func blkioV1(data string) []BlkioEntry {
	var list []BlkioEntry
	for line := range strings.Lines(data) {
		var e BlkioEntry
		if n, _ := fmt.Sscanf(line, "%d:%d %s %d", &e.Major, &e.Minor, &e.Op, &e.Value); n == 4 {
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
	}
	events := pairsOf(d + "/memory.events")
	s.Memory = MemoryStats{
		Usage: number(d+"/memory.current", 0), MaxUsage: number(d+"/memory.peak", 0), Limit: number(d+"/memory.max", math.MaxUint64),
		Failcnt: events["max"], OOMKills: events["oom_kill"], Stat: pairsOf(d + "/memory.stat"),
		SwapUsage: number(d+"/memory.swap.current", 0), SwapLimit: number(d+"/memory.swap.max", math.MaxUint64),
	}
	s.Pids = PidsStats{Current: number(d+"/pids.current", 0), Limit: number(d+"/pids.max", 0)}
	if data, err := read(d + "/io.stat"); err == nil {
		s.Blkio = blkioV2(data)
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
