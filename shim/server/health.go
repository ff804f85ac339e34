package server

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/shim/wire"
)

// What Docker takes when a health check does not say.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	maxProbeOutput       = 4096 // bytes
	maxProbeLog          = 5    // results that are kept
)

// probe runs the health check of the container until it ends.
func (u *unit) probe(h *wire.Health) {
	args := probeArgs(h)
	if args == nil {
		return
	}
	or := func(d, otherwise time.Duration) time.Duration {
		if d <= 0 {
			return otherwise
		}
		return d
	}
	retries := h.Retries
	if retries <= 0 {
		retries = defaultRetries
	}
	state := wire.HealthState{Status: wire.HealthStarting}
	u.setHealth(state)
	for n := 0; ; n++ {
		pause := or(h.Interval, defaultInterval)
		starting := state.Status == wire.HealthStarting && time.Since(u.started) < h.StartPeriod
		if starting {
			pause = min(pause, or(h.StartInterval, defaultStartInterval))
		}
		timer := time.NewTimer(pause)
		select {
		case <-u.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		u.mu.Lock()
		paused := u.paused
		u.mu.Unlock()
		if paused {
			continue
		}
		result := u.runProbe(h, args, n, or(h.Timeout, defaultTimeout))
		if u.ctx.Err() != nil {
			return // it failed because the container ended
		}
		state = judge(state, result, retries, result.Start.Sub(u.started) < h.StartPeriod)
		u.setHealth(state)
		u.server.announce(wire.Event{Kind: wire.EventHealth, Health: &state})
	}
}

// probeArgs returns the command of the probes, nil for none.
func probeArgs(h *wire.Health) []string {
	if len(h.Test) < 2 || h.Process == nil {
		return nil
	}
	switch h.Test[0] {
	case "CMD":
		return h.Test[1:]
	case "CMD-SHELL":
		shell := h.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(shell[:len(shell):len(shell)], h.Test[1])
	}
	return nil
}

// judge returns the health after a probe. In the start period failures do not count, but success does.
func judge(before wire.HealthState, r wire.ProbeResult, retries int, starting bool) wire.HealthState {
	after := wire.HealthState{Status: before.Status, FailingStreak: before.FailingStreak}
	after.Log = append(after.Log, before.Log[max(0, len(before.Log)-maxProbeLog+1):]...)
	after.Log = append(after.Log, r)
	switch {
	case r.ExitCode == 0:
		after.Status, after.FailingStreak = wire.HealthHealthy, 0
	case before.Status == wire.HealthStarting && starting:
	default:
		if after.FailingStreak++; after.FailingStreak >= retries {
			after.Status = wire.HealthUnhealthy
		}
	}
	return after
}

func (u *unit) setHealth(state wire.HealthState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.health = &state
}

// runProbe runs the probe's command once.
func (u *unit) runProbe(h *wire.Health, args []string, n int, timeout time.Duration) wire.ProbeResult {
	result := wire.ProbeResult{Start: time.Now(), ExitCode: -1}
	output, code, err := u.capture(h, args, "health-"+strconv.Itoa(n), timeout)
	result.End, result.Output = time.Now(), output
	switch {
	case errdefs.Is(err, errdefs.Canceled):
		result.Output = fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
		if output != "" {
			result.Output += ": " + output
		}
	case err != nil:
		result.Output = err.Error()
	default:
		result.ExitCode = code
	}
	return result
}

// capture runs a command in the container and returns the beginning of its output. Canceled: it took longer than timeout.
func (u *unit) capture(h *wire.Health, args []string, id string, timeout time.Duration) (string, int, error) {
	command := *h.Process
	command.Args, command.Terminal, command.ConsoleSize = args, false, nil
	r, w, err := pipe(false)
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	if command.User.UID != 0 {
		err = w.Chown(int(command.User.UID), -1)
	}
	var p process
	if err == nil {
		p, err = u.container.Exec(u.ctx, &wire.ExecRequest{ID: id, Process: &command}, [3]*os.File{nil, w, w})
	}
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer p.Close()

	late := false
	timer := time.AfterFunc(timeout, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer timer.Stop()
	var output []byte
	buf := make([]byte, maxProbeOutput)
	for {
		n, err := r.Read(buf)
		output = append(output, buf[:min(n, maxProbeOutput-len(output))]...)
		if err != nil {
			late = os.IsTimeout(err)
			break
		}
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(u.ctx), time.Now().Add(timeout))
	defer cancel()
	code := 0
	if !late {
		code, err = p.Wait(ctx)
		late = err != nil && ctx.Err() != nil
	}
	if late {
		_ = p.Signal(syscall.SIGKILL) // it may just have ended
		_, _ = p.Wait(context.WithoutCancel(u.ctx))
		return string(output), 0, errdefs.New(errdefs.Canceled, "the probe took too long")
	}
	return string(output), code, err
}
