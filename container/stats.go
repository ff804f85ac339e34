package container

import (
	"bufio"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"gantry/linux/cgroup"

	"github.com/moby/moby/api/types/container"
)

// Stats returns what a container uses now. One that does not run uses nothing.
func (s *Service) Stats(ctx context.Context, ref string) (*container.StatsResponse, error) {
	c, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	out := &container.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux", Read: time.Now().UTC()}
	if !rec.State.alive() {
		out.Read = time.Time{}
		return out, nil
	}
	parent := rec.Host.CgroupParent
	if parent == "" {
		parent = s.opts.CgroupParent
	}
	group, err := cgroup.Open(cgroupPath(parent, rec.ID))
	if err != nil {
		return nil, err
	}
	st, err := group.Stats()
	if err != nil {
		return nil, err
	}
	fillStats(out, &st)
	if out.CPUStats.SystemUsage, err = systemCPU(); err != nil {
		return nil, err
	}
	if total := memoryTotal(); out.MemoryStats.Limit == 0 || total > 0 && out.MemoryStats.Limit > total {
		out.MemoryStats.Limit = total
	}
	if !rec.Host.NetworkMode.IsHost() {
		if f, err := os.Open("/proc/" + strconv.Itoa(rec.Pid) + "/net/dev"); err == nil {
			out.Networks = parseNetDev(f)
			_ = f.Close() // read only
		}
	}
	return out, nil
}

func fillStats(out *container.StatsResponse, st *cgroup.Stats) {
	out.CPUStats.CPUUsage = container.CPUUsage{TotalUsage: st.CPU.Total, UsageInKernelmode: st.CPU.System, UsageInUsermode: st.CPU.User, PercpuUsage: st.CPU.PerCPU}
	out.CPUStats.ThrottlingData = container.ThrottlingData{Periods: st.CPU.Periods, ThrottledPeriods: st.CPU.ThrottledPeriods, ThrottledTime: st.CPU.ThrottledTime}
	out.CPUStats.OnlineCPUs = uint32(hostCPUs())
	out.MemoryStats = container.MemoryStats{Usage: st.Memory.Usage, MaxUsage: st.Memory.MaxUsage, Limit: st.Memory.Limit, Failcnt: st.Memory.Failcnt, Stats: st.Memory.Stat}
	out.PidsStats = container.PidsStats{Current: st.Pids.Current, Limit: st.Pids.Limit}
	out.BlkioStats.IoServiceBytesRecursive = blkioEntries(st.Blkio.ServiceBytes)
	out.BlkioStats.IoServicedRecursive = blkioEntries(st.Blkio.Serviced)
}

func blkioEntries(in []cgroup.BlkioEntry) []container.BlkioStatEntry {
	out := make([]container.BlkioStatEntry, 0, len(in))
	for _, e := range in {
		out = append(out, container.BlkioStatEntry(e))
	}
	return out
}

// systemCPU returns the CPU time of the host since its boot, in nanoseconds (proc_stat(5)).
func systemCPU() (uint64, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // read only
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return 0, err
	}
	const perTick = 1e9 / 100 // USER_HZ
	var total uint64
	for i, field := range strings.Fields(line) {
		if i == 0 || i > 8 { // the name, and guest time, which user time has already
			continue
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total * perTick, nil
}

// parseNetDev reads /proc/<pid>/net/dev, without the loopback interface.
func parseNetDev(r io.Reader) map[string]container.NetworkStats {
	out := map[string]container.NetworkStats{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || name == "lo" || len(f) < 16 {
			continue
		}
		n := make([]uint64, len(f))
		for i := range f {
			n[i], _ = strconv.ParseUint(f[i], 10, 64) // the header's words are no numbers and its line has no such name
		}
		out[name] = container.NetworkStats{RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11]}
	}
	return out
}
