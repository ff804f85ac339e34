package command

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/cgroup"
	"gantry/oci"
)

// limits are the flags of update; an empty one leaves its limit as it is.
type limits struct {
	file                                                                        string
	weight, period, quota, burst, shares, rtPeriod, rtRuntime, cpus, mems, idle string
	memory, reservation, swap, pids, kernel, kernelTCP                          string
	l3, mb                                                                      string
}

func (a *app) update() func(context.Context) error {
	var l limits
	a.text(&l.file, "resources,r", "file with the limits as JSON, as in config.json; '-' for standard input. All other flags are ignored then")
	a.text(&l.weight, "blkio-weight", "weight of block I/O, from 10 to 1000")
	a.text(&l.period, "cpu-period", "CFS period (in usecs). 0 to use system default")
	a.text(&l.quota, "cpu-quota", "CPU time allowed in a period (in usecs)")
	a.text(&l.burst, "cpu-burst", "CPU time that may be saved up for later periods (in usecs)")
	a.text(&l.shares, "cpu-share", "CPU shares (relative weight vs. other containers)")
	a.text(&l.rtPeriod, "cpu-rt-period", "realtime period (in usecs). 0 to use system default")
	a.text(&l.rtRuntime, "cpu-rt-runtime", "realtime CPU time allowed in a period (in usecs)")
	a.text(&l.cpus, "cpuset-cpus", "CPU(s) to use")
	a.text(&l.mems, "cpuset-mems", "memory node(s) to use")
	a.text(&l.kernel, "kernel-memory", "(obsolete)").hidden = true
	a.text(&l.kernelTCP, "kernel-memory-tcp", "(obsolete)").hidden = true
	a.text(&l.memory, "memory", "memory limit (in bytes)")
	a.text(&l.idle, "cpu-idle", "1: run only when nothing else wants to (SCHED_IDLE); 0: as usual")
	a.text(&l.reservation, "memory-reservation", "memory reservation or soft limit (in bytes)")
	a.text(&l.swap, "memory-swap", "limit of memory and swap together; '-1' for no limit of swap")
	a.text(&l.pids, "pids-limit", "number of processes allowed in the container")
	a.text(&l.l3, "l3-cache-schema", "Intel RDT/CAT L3 cache schema")
	a.text(&l.mb, "mem-bw-schema", "Intel RDT/MBA memory bandwidth schema")
	return func(context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		r, err := l.resources()
		if err != nil {
			return err
		}
		if l.kernel != "" || l.kernelTCP != "" {
			a.log.warn("Kernel memory settings are ignored and will be removed")
		}
		if s.Status() == specs.StateStopped {
			return errNotRunning
		}
		if l.l3 != "" || l.mb != "" {
			if err := s.UpdateRdt(&specs.LinuxIntelRdt{L3CacheSchema: l.l3, MemBwSchema: l.mb}); err != nil {
				return err
			}
		}
		return a.change(s, func(g *cgroup.Cgroup) error { return g.Update(r) })
	}
}

// resources turns flags, or the file, into limits.
func (l *limits) resources() (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{}
	switch l.file {
	case "":
		return l.flags()
	case "-":
		if err := oci.DecodeJSON(os.Stdin, r); err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
	default:
		if err := oci.ReadJSON(l.file, r); err != nil {
			return nil, err
		}
	}
	order(r)
	return r, nil
}

func (l *limits) flags() (*specs.LinuxResources, error) {
	cpu, memory := &specs.LinuxCPU{Cpus: l.cpus, Mems: l.mems}, &specs.LinuxMemory{}
	r := &specs.LinuxResources{CPU: cpu, Memory: memory}
	for _, f := range []struct {
		name, value string
		to          **uint64
	}{{"cpu-burst", l.burst, &cpu.Burst}, {"cpu-period", l.period, &cpu.Period}, {"cpu-rt-period", l.rtPeriod, &cpu.RealtimePeriod}, {"cpu-share", l.shares, &cpu.Shares}} {
		if f.value == "" {
			continue
		}
		n, err := strconv.ParseUint(f.value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("invalid value for %s: %w", f.name, err)
		}
		*f.to = &n
	}
	for _, f := range []struct {
		name, value string
		to          **int64
		parse       func(string) (int64, error)
	}{
		{"cpu-quota", l.quota, &cpu.Quota, integer}, {"cpu-rt-runtime", l.rtRuntime, &cpu.RealtimeRuntime, integer}, {"cpu-idle", l.idle, &cpu.Idle, integer},
		{"memory", l.memory, &memory.Limit, size}, {"memory-swap", l.swap, &memory.Swap, size}, {"memory-reservation", l.reservation, &memory.Reservation, size},
	} {
		if f.value == "" {
			continue
		}
		n, err := f.parse(f.value)
		if err != nil {
			return nil, fmt.Errorf("invalid value for %s: %w", f.name, err)
		}
		*f.to = &n
	}
	if l.pids != "" {
		n, err := integer(l.pids)
		if err != nil {
			return nil, fmt.Errorf("invalid value for pids-limit: %w", err)
		}
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	if l.weight != "" {
		n, err := strconv.ParseUint(l.weight, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("invalid value for blkio-weight: %w", err)
		}
		if w := uint16(n); w != 0 {
			r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		}
	}
	order(r)
	return r, nil
}

// order fills in what has to come with other limits: without a limit of memory there is none of memory and swap either.
func order(r *specs.LinuxResources) {
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		none := int64(-1)
		m.Swap = &none
	}
}

func integer(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// size reads a number of bytes with a unit, each 1024 times the one before: "100M", "1.5GiB", "64kb". "-1" is no limit.
func size(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	digits := len(s)
	for digits > 0 && !(s[digits-1] >= '0' && s[digits-1] <= '9') {
		digits--
	}
	unit := strings.ToLower(strings.TrimSpace(s[digits:]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	shift := 0
	if unit != "" {
		i := strings.Index("kmgtp", unit)
		if len(unit) != 1 || i < 0 {
			return 0, fmt.Errorf("invalid size: '%s'", s)
		}
		shift = 10 * (i + 1)
	}
	n, err := strconv.ParseFloat(s[:digits], 64)
	if err != nil || n < 0 || n*float64(int64(1)<<shift) >= 1<<63 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	return int64(n * float64(int64(1)<<shift)), nil
}
