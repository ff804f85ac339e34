package cgroup

// Stats is what the kernel accounts to a cgroup. Times are in nanoseconds, sizes in bytes. A controller that is not there leaves its
// part zero.
type Stats struct {
	V2     bool // taken from the unified hierarchy: Memory.Stat has its names
	CPU    CPUStats
	Memory MemoryStats
	Pids   PidsStats
	Blkio  BlkioStats
}

// CPUStats is processor time.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods             uint64   // periods with a quota in force
	ThrottledPeriods    uint64
	ThrottledTime       uint64
}

// MemoryStats is memory. Limit is the machine's size or more when there is none.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64
	Failcnt                uint64
	OOMKills               uint64
	SwapUsage, SwapLimit   uint64
	Stat                   map[string]uint64 // memory.stat
}

// PidsStats counts tasks. Limit is 0 when there is none.
type PidsStats struct{ Current, Limit uint64 }

// BlkioEntry is one counter of one block device.
type BlkioEntry struct {
	Major, Minor uint64
	Op           string // "Read", "Write", "Sync", "Async", "Total" (v1); "read", "write" (v2)
	Value        uint64
}

// BlkioStats is block input and output.
type BlkioStats struct {
	ServiceBytes []BlkioEntry
	Serviced     []BlkioEntry
}
