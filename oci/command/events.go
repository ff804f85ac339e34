package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/cgroup"
)

// event is one line of events.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func (a *app) events() func(context.Context) error {
	interval, once := 5*time.Second, false
	a.duration(&interval, "interval", "set the stats collection interval")
	a.on(&once, "stats", "display the container's stats then exit")
	return func(ctx context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		if interval <= 0 {
			return errors.New("duration interval must be greater than 0")
		}
		if s.Status() == specs.StateStopped {
			return fmt.Errorf("container with id %s is not running", s.ID)
		}
		g, err := cgroupOf(s)
		if err != nil {
			return err
		}
		out := json.NewEncoder(os.Stdout)
		stats := func() error {
			now, err := g.Stats()
			if err != nil {
				return err
			}
			return out.Encode(event{"stats", s.ID, report(now)})
		}
		if once {
			return stats()
		}
		return follow(ctx, g, interval, stats, func() error { return out.Encode(event{Type: "oom", ID: s.ID}) })
	}
}

// follow prints events until the cgroup is gone.
func follow(ctx context.Context, g *cgroup.Cgroup, interval time.Duration, stats, oom func() error) error {
	n, err := g.NotifyOOM()
	if err != nil {
		return err
	}
	defer n.Close()
	type notice struct{ err error }
	notices := make(chan notice)
	go func() {
		for {
			_, err := n.Wait()
			select {
			case notices <- notice{err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case m := <-notices:
			if errors.Is(m.err, io.EOF) {
				return nil
			}
			if m.err != nil {
				return m.err
			}
			if err := oom(); err != nil {
				return err
			}
		case <-tick.C:
			if pids, err := g.Procs(); err != nil || len(pids) == 0 {
				return err // v1 tells nobody of a cgroup's end that is empty but still there
			}
			if err := stats(); err != nil {
				return err
			}
		}
	}
}

// counter is how runc prints a limited amount.
type counter struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// statistics is the data of an event of statistics.
type statistics struct {
	CPU struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			PerCPU []uint64 `json:"percpu,omitempty"`
			Kernel uint64   `json:"kernel"`
			User   uint64   `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
	} `json:"cpu"`
	CPUSet struct{} `json:"cpuset"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     counter           `json:"usage"`
		Swap      counter           `json:"swap"`
		Kernel    counter           `json:"kernel"`
		KernelTCP counter           `json:"kernelTCP"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		ServiceBytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Serviced     []blkioEntry `json:"ioServicedRecursive,omitempty"`
	} `json:"blkio"`
	Hugetlb           map[string]counter `json:"hugetlb"`
	IntelRdt          struct{}           `json:"intel_rdt"`
	NetworkInterfaces []struct{}         `json:"network_interfaces"`
}

// report puts the kernel's figures into runc's form.
func report(s cgroup.Stats) statistics {
	var v statistics
	v.CPU.Usage.Total, v.CPU.Usage.PerCPU, v.CPU.Usage.Kernel, v.CPU.Usage.User = s.CPU.Total, s.CPU.PerCPU, s.CPU.System, s.CPU.User
	v.CPU.Throttling.Periods, v.CPU.Throttling.ThrottledPeriods, v.CPU.Throttling.ThrottledTime = s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime
	v.Memory.Cache, v.Memory.Raw = s.Memory.Stat["cache"], s.Memory.Stat
	if s.V2 {
		v.Memory.Cache = s.Memory.Stat["file"]
	}
	v.Memory.Usage = counter{Limit: s.Memory.Limit, Usage: s.Memory.Usage, Max: s.Memory.MaxUsage, Failcnt: s.Memory.Failcnt}
	v.Memory.Swap = counter{Limit: s.Memory.SwapLimit, Usage: s.Memory.SwapUsage}
	v.Pids.Current, v.Pids.Limit = s.Pids.Current, s.Pids.Limit
	v.Blkio.ServiceBytes, v.Blkio.Serviced = entries(s.Blkio.ServiceBytes), entries(s.Blkio.Serviced)
	v.Hugetlb = map[string]counter{}
	return v
}

func entries(list []cgroup.BlkioEntry) []blkioEntry {
	var out []blkioEntry
	for _, e := range list {
		out = append(out, blkioEntry(e))
	}
	return out
}
