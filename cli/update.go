package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

func updateCommand() *command {
	return &command{
		name: "update", aliases: "container update, update", use: "[OPTIONS] CONTAINER [CONTAINER...]",
		short: "Update configuration of one or more containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var u container.UpdateConfig
			var restart string
			var pids, kernelMemory int64
			fs.Uint16Var(&u.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
			fs.Int64Var(&u.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
			fs.Int64Var(&u.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
			fs.Int64Var(&u.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
			fs.Int64Var(&u.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
			fs.Int64VarP(&u.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
			fs.Var(&cpusValue{&u.NanoCPUs}, "cpus", "Number of CPUs")
			fs.StringVar(&u.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
			fs.StringVar(&u.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
			fs.Var(&bytesValue{n: &kernelMemory}, "kernel-memory", "Kernel memory limit (deprecated)")
			_ = fs.MarkHidden("kernel-memory")
			fs.VarP(&bytesValue{n: &u.Memory}, "memory", "m", "Memory limit")
			fs.Var(&bytesValue{n: &u.MemoryReservation}, "memory-reservation", "Memory soft limit")
			fs.Var(&bytesValue{n: &u.MemorySwap, unlimited: true}, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
			fs.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
			fs.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
			return func(ctx context.Context, args []string) error {
				if fs.NFlag() == 0 {
					return errors.New("you must provide one or more flags when using this command")
				}
				var err error
				if u.RestartPolicy, err = parseRestartPolicy(restart); err != nil {
					return err
				}
				if fs.Changed("pids-limit") {
					u.PidsLimit = &pids
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				var warnings []string
				err = a.eachPrint(args, func(id string) error {
					r, err := c.ContainerUpdate(ctx, id, u)
					warnings = append(warnings, r.Warnings...)
					return err
				})
				for _, w := range warnings {
					fmt.Fprintln(a.err, w)
				}
				return err
			}
		},
	}
}
