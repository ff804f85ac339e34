package container

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"gantry/errdefs"
	"gantry/shim"

	"github.com/moby/moby/api/types/container"
)

// The delays between restarts by policy, and how long a container must have run for them to start over.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	calmAfter    = 10 * time.Second
)

// follow handles what happens in a running container until it has ended, or the daemon lets go of it.
func (s *Service) follow(ctx context.Context, c *Container, task *shim.Task) {
	for e := range task.Events() {
		switch e.Kind {
		case shim.EventExit:
			s.exited(ctx, c, task, *e.Exit)
			return
		case shim.EventClosed:
			s.shimDied(ctx, c, task)
			return
		case shim.EventExecExit:
			s.execExited(c, e.ExecID, e.Exit)
		case shim.EventWarning:
			s.log.Warn("a supervisor had a problem", "container", c.ID(), "problem", e.Message)
		case shim.EventOOM:
			r := c.update(func(r *Record) { r.OOMKilled = true })
			s.publish(&r, "oom", nil)
		case shim.EventHealth:
			s.healthChanged(c, e.Health)
		case shim.EventDetach:
			r := c.Record()
			if e.ExecID == "" {
				s.publish(&r, "detach", nil)
			} else {
				s.publish(&r, "exec_detach", map[string]string{"execID": e.ExecID})
			}
		}
	}
}

// shimDied handles a supervisor that ended without a word: whatever it left is killed and the container is dead, with
// the reason on record.
func (s *Service) shimDied(ctx context.Context, c *Container, task *shim.Task) {
	select {
	case <-s.closing:
		return
	default:
	}
	exit, err := shim.ReadExit(s.runDir(c.ID()))
	if err != nil {
		exit = shim.Exit{Code: 137, At: time.Now(), Error: "the supervisor of the container was killed; its exit code is unknown"}
	}
	s.log.Warn("the supervisor of a container died", "container", c.ID())
	s.exited(ctx, c, task, exit)
}

// exited brings the record and the kernel in line with the end of the container's process, and does what its restart
// policy says. ctx must not end with whoever happened to see the end.
func (s *Service) exited(ctx context.Context, c *Container, task *shim.Task, exit shim.Exit) {
	c.op.Lock()
	c.mu.Lock()
	if c.task != task && task != nil { // handled already
		c.mu.Unlock()
		c.op.Unlock()
		return
	}
	c.task = nil
	rec := c.rec
	stopping := c.stopping
	c.mu.Unlock()

	s.endExecs(c)
	s.tearDown(ctx, c, &rec, task)

	ran := exit.At.Sub(rec.StartedAt)
	c.mu.Lock()
	c.rec.ExitCode, c.rec.Error, c.rec.FinishedAt = exit.Code, exit.Error, exit.At.UTC()
	c.rec.OOMKilled = c.rec.OOMKilled || exit.OOMKilled
	c.ends++
	c.code = exit.Code
	c.rec.Pid = 0
	c.rec.Ports = nil
	c.rec.Networks = settings(c.rec.Networks, nil)
	for name, e := range c.rec.Networks {
		notOperational(e, c.rec.StaticMACs[name])
	}
	delay, again := c.restartDelay(stopping, exit.Code, ran)
	select {
	case <-s.closing:
		again = false
	default:
	}
	verb := onExit
	if again || c.rec.RestartAsked {
		verb = onRestart
	}
	if next, err := c.rec.State.on(verb, c.rec.ID); err == nil {
		c.rec.State = next
	}
	if c.rec.Health != nil {
		h := *c.rec.Health
		h.Status = container.Unhealthy
		c.rec.Health = &h
	}
	if again {
		c.rec.RestartCount++
		c.restart = time.AfterFunc(delay, func() { s.restartByPolicy(ctx, c) })
	}
	saved := c.rec
	autoRemove := saved.Host.AutoRemove && !again && !saved.RestartAsked
	if autoRemove {
		c.rec.State = Removing // so that nothing can start it any more
	}
	c.mu.Unlock()
	if !autoRemove { // else record and run folder go away at once; if they do not, recovery finds a dead container with AutoRemove
		if err := s.saveState(saved); err != nil { // the run folder keeps the fact for the next start of the daemon
			s.log.Error("cannot save the end of a container", "container", saved.ID, "error", err)
		} else if err := os.RemoveAll(s.runDir(saved.ID)); err != nil {
			s.log.Warn("cannot remove the run folder", "container", saved.ID, "error", err)
		}
	}
	s.publish(&saved, "die", map[string]string{"exitCode": strconv.Itoa(exit.Code), "execDuration": strconv.Itoa(int(ran.Seconds()))})
	c.mu.Lock()
	c.wake() // now that the end is on record and told
	c.mu.Unlock()
	c.op.Unlock()
	if autoRemove {
		if err := s.remove(ctx, c, RemoveOptions{Volumes: true, Force: true}); err != nil && !errdefs.Is(err, errdefs.NotFound) {
			s.log.Error("cannot remove a container that ended", "container", saved.ID, "error", err)
		}
	}
}

// tearDown takes back everything a run took from the kernel. It is idempotent. The run folder stays: until the end is in
// the record, a daemon that starts anew finds it there.
func (s *Service) tearDown(ctx context.Context, c *Container, rec *Record, task *shim.Task) {
	report := func(what string, err error) {
		if err != nil && !notFound(err) {
			s.log.Warn("cannot "+what, "container", rec.ID, "error", err)
		}
	}
	left := make(chan error, 1)
	go func() { // the supervisor ends meanwhile
		if rec.Host.NetworkMode.IsContainer() {
			left <- nil
		} else {
			left <- s.sandboxes.Leave(ctx, rec.ID)
		}
	}()
	if task != nil {
		if err := task.Delete(ctx); err != nil && !notFound(err) {
			report("end the supervisor", err)
			report("reap what the supervisor left", shim.Reap(ctx, s.runDir(rec.ID)))
		}
	} else if _, err := os.Stat(s.runDir(rec.ID)); err == nil {
		report("reap what the supervisor left", shim.Reap(ctx, s.runDir(rec.ID)))
	}
	report("leave the networks", <-left)
	report("unmount the volumes", s.unmountVolumes(ctx, rec))
}

// restartDelay says whether and when the policy starts the container again; the caller holds mu.
func (c *Container) restartDelay(stopping bool, code int, ran time.Duration) (time.Duration, bool) {
	p := c.rec.Host.RestartPolicy
	switch {
	case stopping || c.rec.ManuallyStopped || c.rec.RestartAsked || c.rec.State == Removing:
		return 0, false
	case p.IsAlways() || p.IsUnlessStopped():
	case p.IsOnFailure() && code != 0 && (p.MaximumRetryCount == 0 || c.rec.RestartCount < p.MaximumRetryCount):
	default:
		return 0, false
	}
	if ran >= calmAfter {
		c.backoff = 0
	}
	if c.backoff == 0 {
		c.backoff = firstBackoff
	} else {
		c.backoff = min(2*c.backoff, maxBackoff)
	}
	return c.backoff, true
}

// restartByPolicy starts a container that waits for it.
func (s *Service) restartByPolicy(ctx context.Context, c *Container) {
	select {
	case <-s.closing:
		return
	default:
	}
	err := s.start(ctx, c, func(state State) bool { return state == Restarting }) // else stopped or removed meanwhile
	if err == nil || errdefs.Is(err, errdefs.NotModified) {
		return
	}
	s.log.Error("cannot restart a container", "container", c.ID(), "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	code := c.rec.ExitCode
	if delay, again := c.restartDelay(false, code, 0); again && c.rec.State == Exited {
		if next, err := c.rec.State.on(onRestart, c.rec.ID); err == nil {
			c.rec.State = next
			c.rec.RestartCount++
			c.restart = time.AfterFunc(delay, func() { s.restartByPolicy(ctx, c) })
			c.wake()
		}
	}
}

// cancelRestart forgets a pending restart; the caller holds mu.
func (c *Container) cancelRestart() {
	if c.restart != nil {
		c.restart.Stop()
		c.restart = nil
	}
	c.backoff = 0
}

// endWaiting makes a container that waits for its restart one that has ended; the caller holds mu.
func (c *Container) endWaiting() {
	c.cancelRestart()
	if next, err := c.rec.State.on(onExit, c.rec.ID); err == nil {
		c.rec.State = next
	}
	c.wake()
}

// healthChanged takes over what the shim found out.
func (s *Service) healthChanged(c *Container, h *shim.HealthState) {
	if h == nil {
		return
	}
	c.mu.Lock()
	var before container.HealthStatus
	if c.rec.Health != nil {
		before = c.rec.Health.Status
	}
	c.rec.Health = healthRecord(h)
	now := c.rec.Health.Status
	saved := c.rec
	c.wake()
	c.mu.Unlock()
	if now != before {
		s.saveLogged(saved)
		s.publish(&saved, "health_status: "+string(now), nil)
	}
}

func healthRecord(h *shim.HealthState) *container.Health {
	out := &container.Health{Status: container.HealthStatus(h.Status), FailingStreak: h.FailingStreak}
	for _, r := range h.Log {
		out.Log = append(out.Log, &container.HealthcheckResult{Start: r.Start, End: r.End, ExitCode: r.ExitCode, Output: r.Output})
	}
	return out
}

// unmountVolumes ends the use of the container's volumes by this run.
func (s *Service) unmountVolumes(ctx context.Context, rec *Record) error {
	var errs []error
	for i := range rec.Mounts {
		if m := &rec.Mounts[i]; m.Type == "volume" {
			errs = append(errs, s.volumes.Unmount(ctx, m.Name, rec.ID))
		}
	}
	return errors.Join(errs...)
}
