package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gantry/db"
	"gantry/errdefs"

	"github.com/moby/moby/api/types/mount"
)

// RemoveOptions shape Remove.
type RemoveOptions struct {
	Force   bool // kill it first
	Volumes bool // remove its anonymous volumes too
	Link    bool // remove the link, not the container
}

// Remove deletes a container.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return s.removeLink(ctx, ref)
	}
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	return s.remove(ctx, c, o)
}

// remove ends and deletes a container. The copy of the record goes first, then the record itself, in one transaction;
// folders that a crash leaves after it belong to nobody and are removed at the next start of the daemon.
func (s *Service) remove(ctx context.Context, c *Container, o RemoveOptions) error {
	ctx = context.WithoutCancel(ctx)
	for {
		if err := s.endForRemoval(ctx, c, o.Force); err != nil {
			return err
		}
		c.op.Lock()
		if !o.Force || !c.Record().State.alive() { // else a start came in between
			break
		}
		c.op.Unlock()
	}
	defer c.op.Unlock()
	rec := c.Record()
	select {
	case <-c.removed: // by another, or by its own --rm
		if o.Force {
			return nil
		}
		return errdefs.New(errdefs.NotFound, "No such container: %s", rec.ID)
	default:
	}
	c.mu.Lock()
	next, err := c.rec.State.on(onRemove, c.rec.ID)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.rec.State = next
	c.cancelRestart()
	rec = c.rec
	streams := c.waiting
	c.waiting = nil
	c.wake()
	c.mu.Unlock()
	closeStreams(streams)

	err = os.Remove(filepath.Join(s.dir(rec.ID), recordFile))
	if err == nil || notFound(err) {
		err = s.db.Update(func(tx *db.Tx) error { return records.Delete(tx, rec.ID) })
	}
	if err != nil {
		c.update(func(r *Record) { r.State = Dead })
		return err
	}
	err = errors.Join(
		s.snapshots.Remove(ctx, rec.ID),
		os.RemoveAll(s.dir(rec.ID)),
		os.RemoveAll(s.runDir(rec.ID)),
		s.releaseVolumes(ctx, rec.ID, rec.Mounts, o.Volumes),
	)
	s.forget(c, rec.Name)
	s.forgetExecs(c)
	s.publish(&rec, "destroy", nil)
	c.mu.Lock()
	close(c.removed)
	c.wake()
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("remove container %s: %w", rec.ID, err)
	}
	return nil
}

// endForRemoval kills a container that runs, if told so, and forgets its pending restart.
func (s *Service) endForRemoval(ctx context.Context, c *Container, force bool) error {
	rec := c.Record()
	if rec.State.alive() || rec.State == Restarting {
		if !force {
			return errdefs.New(errdefs.Conflict, "cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+rec.Name, rec.State)
		}
		c.mu.Lock()
		c.cancelRestart()
		c.rec.ManuallyStopped = true
		c.mu.Unlock()
		if rec.State.alive() {
			if err := s.killAndWait(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// releaseVolumes lets go of the container's volumes and, if told so, removes those that were made for it alone.
func (s *Service) releaseVolumes(ctx context.Context, id string, mounts []Mount, anonymous bool) error {
	var errs []error
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeVolume || m.Name == "" {
			continue
		}
		errs = append(errs, s.volumes.Release(ctx, m.Name, id))
		if !anonymous || !m.Anonymous || len(s.volumes.Users(m.Name)) > 0 {
			continue
		}
		if err := s.volumes.Remove(ctx, m.Name, true); err != nil && !notFound(err) && !errdefs.Is(err, errdefs.Conflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Service) prunable(match func(*Record) bool) []*Container {
	return slices.DeleteFunc(s.All(), func(c *Container) bool {
		rec := c.Record()
		return rec.Step || rec.State.alive() || rec.State == Restarting || rec.State == Removing || !match(&rec)
	})
}

// RehearsePrune returns what Prune would: IDs, and the bytes that would be freed. It removes nothing.
func (s *Service) RehearsePrune(ctx context.Context, match func(*Record) bool) (ids []string, freed int64) {
	for _, c := range s.prunable(match) {
		id := c.Record().ID
		if size, _, err := s.snapshots.Usage(ctx, id); err == nil {
			freed += size
		}
		ids = append(ids, id)
	}
	return ids, freed
}

// Prune removes all containers that do not run and for which match holds; it returns their IDs and the bytes freed.
func (s *Service) Prune(ctx context.Context, match func(*Record) bool) ([]string, int64, error) {
	var removed []string
	var freed int64
	for _, c := range s.prunable(match) {
		rec := c.Record()
		if err := ctx.Err(); err != nil {
			return removed, freed, err
		}
		size, _, err := s.snapshots.Usage(ctx, rec.ID)
		if err != nil {
			size = 0 // what cannot be measured can still be removed
		}
		if err := s.remove(ctx, c, RemoveOptions{}); err != nil {
			if errdefs.Is(err, errdefs.Conflict) || notFound(err) {
				continue
			}
			return removed, freed, err
		}
		removed = append(removed, rec.ID)
		freed += size
	}
	return removed, freed, nil
}

// WaitCondition says what Wait waits for; the words are Docker's.
type WaitCondition string

// The conditions.
const (
	WaitNotRunning WaitCondition = "not-running"
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// Wait returns the exit code of the container. A start that fails is no end: whoever asked for it is told. ready is called once the waiting has begun: what happens afterwards is not missed.
func (s *Service) Wait(ctx context.Context, ref string, condition WaitCondition, ready func()) (code int, err error) {
	c, err := s.Get(ref)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	runs, ends, alive := c.runs, c.ends, c.rec.State.alive()
	c.mu.Unlock()
	ready()
	for {
		c.mu.Lock()
		rec, changed, nowRuns, nowEnds, code := c.rec, c.changed, c.runs, c.ends, c.code
		c.mu.Unlock()
		gone := false
		select {
		case <-c.removed:
			gone = true
		default:
		}
		ended := !rec.State.alive() || nowEnds > ends // it may run again already
		if condition == WaitNextExit && !alive {      // it must run first
			ended = nowEnds > ends || ended && nowRuns > runs
		}
		if condition == WaitRemoved {
			ended = gone
		}
		switch {
		case (ended || gone) && nowEnds > ends: // the record may be that of the next run
			return code, nil
		case ended || gone:
			return rec.ExitCode, nil
		}
		select {
		case <-changed:
		case <-c.removed:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.closing:
			return 0, errdefs.New(errdefs.Unavailable, "the daemon is going away")
		}
	}
}

// waitDone returns a channel that is closed when the container does not run (any more), for readers of its log.
func (s *Service) waitDone(ctx context.Context, c *Container) <-chan struct{} {
	done := make(chan struct{})
	c.mu.Lock()
	ends := c.ends
	c.mu.Unlock()
	go func() {
		defer close(done)
		_ = c.waitEnd(ctx, ends) // the reader's own context ends it
	}()
	return done
}
