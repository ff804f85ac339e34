package cgroup

// Stats is what the kernel accounts to a cgroup. Times are in nanoseconds, sizes in bytes. A controller that is not there leaves its
// part zero.
type Stats struct {
	V2      bool // taken from the unified hierarchy: Memory.Stat has its names
	CPU     CPUStats
	Cpuset  CpusetStats // v1 only
	Memory  MemoryStats
	Pids    PidsStats
	Blkio   BlkioStats
	Hugetlb map[string]HugetlbStats // by the size of the page: "2MB"
	RDMA    RDMAStats
	Misc    map[string]MiscStats // v2 only, by resource
}

// CPUStats is processor time.
type CPUStats struct {
	Total, User, System      uint64
	PerCPU                   []uint64 // v1 only, as the next two
	PerCPUSystem, PerCPUUser []uint64
	Periods                  uint64 // periods with a quota in force
	ThrottledPeriods         uint64
	ThrottledTime            uint64
	Bursts, BurstTime        uint64 // periods in which the quota was exceeded by what was left of earlier ones, and by how much
	PSI                      *PSI
}

// CpusetStats is what the cpuset controller of v1 says.
type CpusetStats struct {
	CPUs, Mems                                         []uint16
	CPUExclusive, MemExclusive, MemHardwall            uint64
	MemoryMigrate, MemorySpreadPage                    uint64
	MemorySpreadSlab, MemoryPressure, SchedLoadBalance uint64
	SchedRelaxDomainLevel                              int64
}

// MemoryStats is memory. Limit is the machine's size or more when there is none.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64
	Failcnt                uint64
	OOMKills               uint64
	SwapUsage, SwapLimit   uint64            // v1: of memory and swap together; v2: of swap
	SwapMax, SwapFailcnt   uint64            // likewise
	Kernel, KernelTCP      Counter           // v1 only
	Stat                   map[string]uint64 // memory.stat
	PSI                    *PSI
}

// Counter is one of v1's resource counters.
type Counter struct{ Usage, Max, Limit, Failcnt uint64 }

// PidsStats counts tasks. Limit is 0 when there is none.
type PidsStats struct{ Current, Limit uint64 }

// BlkioEntry is one counter of one block device.
type BlkioEntry struct {
	Major, Minor uint64
	Op           string // "Read", "Write", "Sync", "Async", "Total" (v1); "read", "write" (v2)
	Value        uint64
}

// BlkioStats is block input and output. All but the first two are the BFQ scheduler's, on v1, where the kernel counts them.
type BlkioStats struct {
	ServiceBytes []BlkioEntry
	Serviced     []BlkioEntry

	Queued, ServiceTime, WaitTime, Merged, Time, Sectors []BlkioEntry

	PSI *PSI
}

// HugetlbStats is one size of huge pages.
type HugetlbStats struct{ Usage, Max, Failcnt uint64 }

// RDMAEntry is one device's use or limit; no limit is math.MaxUint32.
type RDMAEntry struct {
	Device                 string
	HCAHandles, HCAObjects uint32
}

// RDMAStats is remote direct memory access.
type RDMAStats struct{ Limit, Current []RDMAEntry }

// MiscStats is one resource of the misc controller.
type MiscStats struct{ Usage, Events uint64 }

// PSI is pressure stall information: how much time some, or all, processes lost waiting for the resource. (v2 only.)
type PSI struct {
	Some, Full PSIData
}

// PSIData are shares of time in percent over the last 10, 60 and 300 seconds, and the time lost in all, in microseconds.
type PSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}
