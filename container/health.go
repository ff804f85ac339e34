package container

import (
	"gantry/shim"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// health returns the probes that the shim makes, nil for none.
func health(r *Record, process *specs.Process) *shim.Health {
	h := r.Config.Healthcheck
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" || h.Test[0] == "" {
		return nil
	}
	p := *process
	p.Terminal, p.ConsoleSize = false, nil
	return &shim.Health{Test: h.Test, Shell: r.Config.Shell, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
		StartInterval: h.StartInterval, Retries: h.Retries, Process: &p}
}
