package cgroup

// Report is a cgroup's statistics in the JSON form that the callers of a runtime's events command read. The names and what is left
// out when it is zero are theirs.
type Report struct {
	CPU struct {
		Usage struct {
			Total        uint64   `json:"total,omitempty"`
			PerCPU       []uint64 `json:"percpu,omitempty"`
			PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
			PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
			Kernel       uint64   `json:"kernel"`
			User         uint64   `json:"user"`
		} `json:"usage,omitzero"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling,omitzero"`
		Burst struct {
			Periods uint64 `json:"burstsPeriods,omitempty"`
			Time    uint64 `json:"burstTime,omitempty"`
		} `json:"burst,omitzero"`
		PSI *ReportPSI `json:"psi,omitempty"`
	} `json:"cpu"`
	Cpuset struct {
		CPUs                  []uint16 `json:"cpus,omitempty"`
		CPUExclusive          uint64   `json:"cpu_exclusive"`
		Mems                  []uint16 `json:"mems,omitempty"`
		MemHardwall           uint64   `json:"mem_hardwall"`
		MemExclusive          uint64   `json:"mem_exclusive"`
		MemoryMigrate         uint64   `json:"memory_migrate"`
		MemorySpreadPage      uint64   `json:"memory_spread_page"`
		MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
		MemoryPressure        uint64   `json:"memory_pressure"`
		SchedLoadBalance      uint64   `json:"sched_load_balance"`
		SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
	} `json:"cpuset"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     ReportMemory      `json:"usage,omitzero"`
		Swap      ReportMemory      `json:"swap,omitzero"`
		Kernel    ReportMemory      `json:"kernel,omitzero"`
		KernelTCP ReportMemory      `json:"kernelTCP,omitzero"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
		PSI       *ReportPSI        `json:"psi,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		ServiceBytes []ReportBlkio `json:"ioServiceBytesRecursive,omitempty"`
		Serviced     []ReportBlkio `json:"ioServicedRecursive,omitempty"`
		Queued       []ReportBlkio `json:"ioQueueRecursive,omitempty"`
		ServiceTime  []ReportBlkio `json:"ioServiceTimeRecursive,omitempty"`
		WaitTime     []ReportBlkio `json:"ioWaitTimeRecursive,omitempty"`
		Merged       []ReportBlkio `json:"ioMergedRecursive,omitempty"`
		Time         []ReportBlkio `json:"ioTimeRecursive,omitempty"`
		Sectors      []ReportBlkio `json:"sectorsRecursive,omitempty"`
		PSI          *ReportPSI    `json:"psi,omitempty"`
	} `json:"blkio"`
	Hugetlb map[string]ReportHugetlb `json:"hugetlb"`
	RDMA    struct {
		Limit   []ReportRDMA `json:"rdmaLimit,omitempty"`
		Current []ReportRDMA `json:"rdmaCurrent,omitempty"`
	} `json:"rdma,omitzero"`
	IntelRdt any `json:"intel_rdt"` // what linux/rdt says of the container, or struct{}{}
	// Network is what the caller knows of the container's interfaces; null without.
	Network []ReportInterface `json:"network_interfaces"`
}

// ReportPSI is PSI.
type ReportPSI struct {
	Some PSIData `json:"some,omitzero"`
	Full PSIData `json:"full,omitzero"`
}

// ReportMemory is one kind of memory.
type ReportMemory struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// ReportBlkio is one counter of one block device.
type ReportBlkio struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// ReportHugetlb is one size of huge pages.
type ReportHugetlb struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// ReportRDMA is one device.
type ReportRDMA struct {
	Device     string `json:"device,omitempty"`
	HCAHandles uint32 `json:"hcaHandles,omitempty"`
	HCAObjects uint32 `json:"hcaObjects,omitempty"`
}

// ReportInterface is one network interface.
type ReportInterface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Report puts the statistics into that form.
func (s Stats) Report() Report {
	var r Report
	r.CPU.Usage.Total, r.CPU.Usage.Kernel, r.CPU.Usage.User = s.CPU.Total, s.CPU.System, s.CPU.User
	r.CPU.Usage.PerCPU, r.CPU.Usage.PerCPUKernel, r.CPU.Usage.PerCPUUser = s.CPU.PerCPU, s.CPU.PerCPUSystem, s.CPU.PerCPUUser
	r.CPU.Throttling.Periods, r.CPU.Throttling.ThrottledPeriods, r.CPU.Throttling.ThrottledTime = s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime
	r.CPU.Burst.Periods, r.CPU.Burst.Time = s.CPU.Bursts, s.CPU.BurstTime
	r.CPU.PSI = reportPSI(s.CPU.PSI)

	c, from := &r.Cpuset, s.Cpuset
	c.CPUs, c.Mems, c.CPUExclusive, c.MemExclusive, c.MemHardwall = from.CPUs, from.Mems, from.CPUExclusive, from.MemExclusive, from.MemHardwall
	c.MemoryMigrate, c.MemorySpreadPage, c.MemorySpreadSlab = from.MemoryMigrate, from.MemorySpreadPage, from.MemorySpreadSlab
	c.MemoryPressure, c.SchedLoadBalance, c.SchedRelaxDomainLevel = from.MemoryPressure, from.SchedLoadBalance, from.SchedRelaxDomainLevel

	m := s.Memory
	r.Memory.Cache = m.Stat["cache"]
	r.Memory.Usage = ReportMemory{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt}
	r.Memory.Swap = ReportMemory{Limit: m.SwapLimit, Usage: m.SwapUsage, Max: m.SwapMax, Failcnt: m.SwapFailcnt}
	if s.V2 {
		r.Memory.Cache = m.Stat["file"]
		r.Memory.Usage.Failcnt = 0                                                     // events are no counter of failures
		r.Memory.Swap = ReportMemory{Limit: m.SwapLimit, Usage: m.SwapUsage + m.Usage} // of both, as on v1
		if sum := m.SwapLimit + m.Limit; sum >= m.SwapLimit {
			r.Memory.Swap.Limit = sum
		}
	}
	r.Memory.Kernel, r.Memory.KernelTCP = reportCounter(m.Kernel), reportCounter(m.KernelTCP)
	r.Memory.Raw, r.Memory.PSI = m.Stat, reportPSI(m.PSI)
	r.Pids.Current, r.Pids.Limit = s.Pids.Current, s.Pids.Limit

	b := &r.Blkio
	b.ServiceBytes, b.Serviced, b.Queued, b.ServiceTime = s.blkio(s.Blkio.ServiceBytes), s.blkio(s.Blkio.Serviced), s.blkio(s.Blkio.Queued), s.blkio(s.Blkio.ServiceTime)
	b.WaitTime, b.Merged, b.Time, b.Sectors = s.blkio(s.Blkio.WaitTime), s.blkio(s.Blkio.Merged), s.blkio(s.Blkio.Time), s.blkio(s.Blkio.Sectors)
	b.PSI = reportPSI(s.Blkio.PSI)

	r.Hugetlb = map[string]ReportHugetlb{}
	for size, h := range s.Hugetlb {
		r.Hugetlb[size] = ReportHugetlb(h)
	}
	for _, e := range s.RDMA.Limit {
		r.RDMA.Limit = append(r.RDMA.Limit, ReportRDMA(e))
	}
	for _, e := range s.RDMA.Current {
		r.RDMA.Current = append(r.RDMA.Current, ReportRDMA(e))
	}
	r.IntelRdt = struct{}{}
	return r
}

// blkio gives the entries of v2 the names of v1.
func (s Stats) blkio(entries []BlkioEntry) []ReportBlkio {
	var list []ReportBlkio
	for _, e := range entries {
		switch e.Op {
		case "read":
			e.Op = "Read"
		case "write":
			e.Op = "Write"
		}
		list = append(list, ReportBlkio(e))
	}
	return list
}

func reportCounter(c Counter) ReportMemory {
	return ReportMemory{Limit: c.Limit, Usage: c.Usage, Max: c.Max, Failcnt: c.Failcnt}
}

func reportPSI(p *PSI) *ReportPSI {
	if p == nil {
		return nil
	}
	return &ReportPSI{p.Some, p.Full}
}
