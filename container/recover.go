package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gantry/db"
	"gantry/shim"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// recoverers is how many supervisors are asked at once when the daemon starts.
const recoverers = 8

// recover reads the records and brings them in line with what really runs. A record that is missing or cannot be read
// is made again from its copy.
func (s *Service) recover(ctx context.Context) error {
	damaged := map[string]error{}
	err := s.db.View(func(tx *db.Tx) error {
		for key, record := range records.All(tx) {
			if record.Err != nil {
				damaged[key] = record.Err
				continue
			}
			s.load(record.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.rebuild(damaged); err != nil {
		return err
	}
	if err := s.dropRemoved(ctx); err != nil {
		return err
	}
	type found struct {
		c    *Container
		task *shim.Task
		exit *shim.Exit
	}
	var mu sync.Mutex
	var all []found
	var wg sync.WaitGroup
	work := make(chan *Container)
	for range recoverers {
		wg.Go(func() {
			for c := range work {
				task, exit := s.find(ctx, c)
				mu.Lock()
				all = append(all, found{c, task, exit})
				mu.Unlock()
			}
		})
	}
	for _, c := range s.byID {
		work <- c
	}
	close(work)
	wg.Wait()

	live := map[string]int{}
	for _, f := range all {
		if f.task != nil {
			live[f.c.rec.ID] = f.task.Pid()
		}
		for i := range f.c.rec.Mounts {
			if m := &f.c.rec.Mounts[i]; m.Type == mount.TypeVolume {
				if err := s.volumes.Acquire(ctx, m.Name, f.c.rec.ID); err != nil {
					s.log.Error("a volume of a container is missing", "container", f.c.rec.ID, "volume", m.Name, "error", err)
				}
			}
		}
	}
	if err := s.networks.Restore(ctx, live); err != nil {
		return fmt.Errorf("restore networks: %w", err)
	}
	for _, f := range all {
		if f.task == nil { // an archive or a start that was under way may have left them mounted
			if err := s.unmountVolumes(ctx, &f.c.rec); err != nil {
				s.log.Warn("cannot unmount the volumes of a container that does not run", "container", f.c.rec.ID, "error", err)
			}
		}
		switch {
		case f.exit != nil:
			s.exitedMeanwhile(ctx, f.c, *f.exit)
		case f.task != nil:
			following := context.WithoutCancel(ctx)
			s.background.Go(func() { s.follow(following, f.c, f.task) })
		case f.c.rec.Host.AutoRemove && f.c.rec.State != Created && !f.c.rec.RestartAsked:
			if err := s.remove(ctx, f.c, RemoveOptions{Volumes: true, Force: true}); err != nil {
				s.log.Error("cannot remove a container that ended", "container", f.c.rec.ID, "error", err)
			}
		}
		if f.c.Record().Step { // its build has ended with the daemon
			if err := s.RemoveStep(ctx, f.c.ID()); err != nil {
				s.log.Error("cannot remove the container of a build that was cut off", "container", f.c.ID(), "error", err)
			}
		}
	}
	return s.sweep(ctx)
}

// load enters a container from its record.
func (s *Service) load(r Record) {
	c := &Container{svc: s, rec: r, changed: make(chan struct{}), removed: make(chan struct{}), execs: map[string]*Exec{}}
	s.byID[r.ID] = c
	s.names[r.Name] = r.ID
	s.enterLinks(&r)
}

// rebuild makes the records again whose containers have folders with a copy. What of them was running is found out
// later; what was not is taken to have ended.
func (s *Service) rebuild(damaged map[string]error) error {
	dirs, err := os.ReadDir(s.opts.Root)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		id := d.Name()
		if s.byID[id] != nil {
			continue
		}
		body, err := os.ReadFile(filepath.Join(s.dir(id), recordFile))
		var r Record
		if err == nil {
			err = json.Unmarshal(body, &r)
		}
		switch {
		case err == nil && r.ID == id && r.Config != nil && r.Host != nil && s.names[r.Name] == "":
			if _, err := os.Stat(s.runDir(id)); err == nil {
				r.State = Running
			}
			s.log.Warn("the record of a container was made again from its copy", "container", id, "damage", damaged[id])
			s.load(r)
			if err := s.saveState(r); err != nil {
				return err
			}
		case damaged[id] != nil:
			s.log.Error("the record of a container is damaged and its copy cannot be read", "container", id, "error", damaged[id], "copy", err)
			s.damaged[id] = true
		}
	}
	return nil
}

// dropRemoved forgets the containers that have neither folder nor snapshot: they were removed, and a database that lost
// its newest transactions still has their records.
func (s *Service) dropRemoved(ctx context.Context) error {
	keys, err := s.snapshots.List(ctx)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	snapshots := map[string]bool{}
	for _, key := range keys {
		snapshots[key] = true
	}
	for id, c := range s.byID {
		if snapshots[id] {
			continue
		}
		if _, err := os.Stat(s.dir(id)); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if _, err := os.Stat(s.runDir(id)); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		s.log.Warn("the record of a removed container came back and was dropped", "container", id)
		if err := s.db.Update(func(tx *db.Tx) error { return records.Delete(tx, id) }); err != nil {
			return err
		}
		s.forget(c, c.rec.Name)
	}
	return nil
}

// find returns the running task of a container, or how it ended if the record says that it runs and it does not.
func (s *Service) find(ctx context.Context, c *Container) (*shim.Task, *shim.Exit) {
	dir := s.runDir(c.rec.ID)
	alive := c.rec.State.alive()
	if _, err := os.Stat(dir); err != nil && !alive {
		return nil, nil
	}
	task, err := shim.Connect(ctx, dir)
	if err == nil && !alive { // a start that was never acknowledged is taken back
		if err := task.Delete(ctx); err != nil {
			s.log.Warn("cannot take back a start", "container", c.rec.ID, "error", err)
		}
		return nil, nil
	}
	if err != nil {
		exit, rerr := shim.ReadExit(dir)
		if rerr != nil {
			exit = shim.Exit{Code: 137, At: time.Now(), Error: "the container and its supervisor were gone when the daemon started; the exit code is unknown"}
		}
		if err := shim.Reap(ctx, dir); err != nil && !notFound(err) {
			s.log.Warn("cannot reap what a supervisor left", "container", c.rec.ID, "error", err)
		}
		if !alive {
			return nil, nil
		}
		return nil, &exit
	}
	st := task.Initial()
	c.task = task
	if st.Exit != nil {
		go func() { // nobody follows it any more, and events that nobody takes hold up answers
			for range task.Events() {
			}
		}()
		return task, st.Exit
	}
	c.rec.Pid, c.runs = task.Pid(), 1
	if c.rec.StartedAt.IsZero() { // the record is a copy from before the start
		c.rec.StartedAt = st.StartedAt.UTC()
	}
	c.rec.State = Running
	if st.Paused {
		c.rec.State = Paused
	}
	if st.Health != nil {
		c.rec.Health = healthRecord(st.Health)
	}
	for _, e := range st.Execs {
		session := &Exec{ID: e.ID, Container: c, Request: container.ExecCreateRequest{}, started: true, running: true, pid: e.Pid, changed: make(chan struct{})}
		c.execs[e.ID] = session
		s.mu.Lock()
		s.execs[e.ID] = session
		s.mu.Unlock()
	}
	return task, nil
}

// exitedMeanwhile records an end that happened while no daemon ran. The restart policy is left to StartByPolicy.
func (s *Service) exitedMeanwhile(ctx context.Context, c *Container, exit shim.Exit) {
	c.mu.Lock()
	c.stopping = true
	task := c.task
	c.mu.Unlock()
	s.exited(context.WithoutCancel(ctx), c, task, exit)
}

// StartByPolicy starts the containers whose restart policy wants them to run after a start of the daemon, those whose namespaces
// others join before the others, and finishes restarts that an earlier daemon began.
func (s *Service) StartByPolicy(ctx context.Context) {
	for _, c := range s.donorsFirst(s.All()) {
		if ctx.Err() != nil {
			return
		}
		rec := c.Record()
		if rec.RestartAsked && rec.State.alive() { // it was about to be stopped
			restarting := context.WithoutCancel(ctx)
			s.background.Go(func() {
				if err := s.restart(restarting, c, StopOptions{}); err != nil {
					s.log.Error("cannot finish the restart of a container", "container", rec.ID, "error", err)
				}
			})
			continue
		}
		if !rec.wantedAtBoot() {
			s.giveUpRestart(c)
			continue
		}
		err := s.start(ctx, c, func(state State) bool { return !state.alive() && state != Removing })
		if err != nil {
			s.log.Error("cannot start a container by its restart policy", "container", rec.ID, "error", err)
		}
	}
}

// wantedAtBoot reports whether the container is to be started when the daemon starts.
func (r *Record) wantedAtBoot() bool {
	p := r.Host.RestartPolicy
	switch {
	case r.State.alive() || r.State == Removing || r.State == Dead || r.StartedAt.IsZero():
		return false
	case r.RestartAsked:
		return true
	case p.IsAlways():
		return true
	case r.ManuallyStopped:
		return false
	case p.IsUnlessStopped():
		return true
	case p.IsOnFailure() && r.State == Restarting: // this retry is counted already
		return true
	default:
		return p.IsOnFailure() && r.ExitCode != 0 && (p.MaximumRetryCount == 0 || r.RestartCount < p.MaximumRetryCount)
	}
}

// giveUpRestart ends the waiting of a container for a restart that nobody will make: the daemon that was to make it is gone, and the
// policy has changed since.
func (s *Service) giveUpRestart(c *Container) {
	c.mu.Lock()
	if c.rec.State != Restarting || c.restart != nil {
		c.mu.Unlock()
		return
	}
	c.endWaiting()
	saved := c.rec
	c.mu.Unlock()
	s.saveLogged(saved)
}

// donorsFirst orders containers so that each comes after those whose namespaces it joins and those it is linked to.
func (s *Service) donorsFirst(all []*Container) []*Container {
	ordered := make([]*Container, 0, len(all))
	seen := map[*Container]bool{}
	var visit func(c *Container)
	visit = func(c *Container) {
		if seen[c] { // or in the middle of it: a circle has no first
			return
		}
		seen[c] = true
		rec := c.Record()
		for _, donor := range rec.donors() {
			if d, err := s.Get(donor); err == nil {
				visit(d)
			}
		}
		ordered = append(ordered, c)
	}
	for _, c := range all {
		visit(c)
	}
	return ordered
}

// donors returns the containers that must run for this one to start.
func (r *Record) donors() []string {
	var refs []string
	h := r.Host
	for _, mode := range []struct {
		joins bool
		ref   string
	}{
		{h.NetworkMode.IsContainer(), h.NetworkMode.ConnectedContainer()},
		{h.IpcMode.IsContainer(), h.IpcMode.Container()},
		{h.PidMode.IsContainer(), h.PidMode.Container()},
	} {
		if mode.joins {
			refs = append(refs, mode.ref)
		}
	}
	for _, id := range r.Links {
		refs = append(refs, id)
	}
	return refs
}

// sweep removes the folders, snapshots and supervisors that belong to no record: what a crash in the middle of a
// creation or a removal leaves. What belongs to a damaged record stays for a person to look at.
func (s *Service) sweep(ctx context.Context) error {
	keys, err := s.snapshots.List(ctx)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	var errs []error
	for _, key := range keys {
		if s.byIDLocked(key) == nil && !s.damaged[key] {
			errs = append(errs, s.snapshots.Remove(ctx, key))
		}
	}
	dirs, err := os.ReadDir(s.opts.Root)
	errs = append(errs, err)
	for _, d := range dirs {
		if s.byIDLocked(d.Name()) == nil && !s.damaged[d.Name()] {
			errs = append(errs, os.RemoveAll(s.dir(d.Name())))
		}
	}
	runs, err := os.ReadDir(s.opts.ExecRoot)
	errs = append(errs, err)
	for _, d := range runs {
		c := s.byIDLocked(d.Name())
		if c != nil && c.Record().State.alive() {
			continue
		}
		errs = append(errs, s.dropRun(ctx, d.Name()))
	}
	return errors.Join(errs...)
}

func (s *Service) byIDLocked(id string) *Container {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

// dropRun ends whatever still runs for a folder without a running container, and removes it.
func (s *Service) dropRun(ctx context.Context, id string) error {
	dir := s.runDir(id)
	if task, err := shim.Connect(ctx, dir); err == nil {
		if err := task.Delete(ctx); err != nil && !notFound(err) {
			s.log.Warn("cannot end a supervisor without a container", "container", id, "error", err)
		}
	}
	if err := shim.Reap(ctx, dir); err != nil && !notFound(err) {
		s.log.Warn("cannot reap what a supervisor left", "container", id, "error", err)
	}
	return os.RemoveAll(dir)
}
