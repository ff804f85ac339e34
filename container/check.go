package container

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"gantry/db"
	"gantry/fsck"
)

// Check lists where the records and what is really there disagree: processes, supervisors, folders, snapshots, cgroups.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) {
	var out []fsck.Difference
	add := func(object, problem string, repair func(context.Context) error) {
		out = append(out, fsck.Difference{Area: "container", Object: object, Problem: problem, Repair: repair})
	}
	known := map[string]bool{}
	err := s.db.View(func(tx *db.Tx) error {
		for key, record := range records.All(tx) {
			known[key] = true
			if record.Err != nil {
				add(key, "its record is damaged: "+record.Err.Error(), func(context.Context) error {
					return s.db.Update(func(tx *db.Tx) error { return records.Delete(tx, key) })
				})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	snapshots := map[string]bool{}
	keys, err := s.snapshots.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		snapshots[key] = true
		if !known[key] && !s.underWay(key) && !s.images.UsesSnapshot(key) {
			add(key, "a snapshot without a container", func(ctx context.Context) error { return s.snapshots.Remove(ctx, key) })
		}
	}
	for _, c := range s.All() {
		s.checkOne(c, known, snapshots, add)
	}
	for _, dir := range []string{s.opts.Root, s.opts.ExecRoot} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			c := s.byIDLocked(e.Name())
			switch {
			case c == nil && !known[e.Name()] && !s.underWay(e.Name()):
				add(path, "a folder without a container", func(ctx context.Context) error {
					if dir == s.opts.ExecRoot {
						return s.dropRun(ctx, e.Name())
					}
					return os.RemoveAll(path)
				})
			case c != nil && dir == s.opts.ExecRoot && !c.busy() && !c.Record().State.alive():
				add(path, "the run folder of a container that does not run", func(ctx context.Context) error { return s.dropRun(ctx, e.Name()) })
			}
		}
	}
	return append(out, s.checkCgroups()...), nil
}

// busy reports whether a verb is changing the container right now: what is half done then is no difference.
func (c *Container) busy() bool {
	if c.op.TryLock() {
		c.op.Unlock()
		return false
	}
	return true
}

func (s *Service) checkOne(c *Container, known, snapshots map[string]bool, add func(string, string, func(context.Context) error)) {
	rec := c.Record()
	if c.busy() || rec.State == Removing {
		return
	}
	if !known[rec.ID] {
		add(rec.ID, "no record in the database", func(context.Context) error { return s.save(c.Record()) })
	}
	if !snapshots[rec.ID] {
		add(rec.ID, "its snapshot is missing", nil)
	}
	if _, err := os.Stat(s.dir(rec.ID)); err != nil {
		add(rec.ID, "its folder is missing", func(context.Context) error { return os.MkdirAll(s.dir(rec.ID), 0o710) })
	}
	if rec.State.alive() {
		if _, err := os.Stat("/proc/" + strconv.Itoa(rec.Pid)); err != nil && c.Record().State.alive() {
			add(rec.ID, "on record as running, but process "+strconv.Itoa(rec.Pid)+" is gone", nil)
		}
	}
}

// checkCgroups lists cgroups below the parent that belong to no running container.
func (s *Service) checkCgroups() []fsck.Difference {
	var out []fsck.Difference
	hierarchies := []string{"/sys/fs/cgroup"}
	if !s.unified {
		hierarchies, _ = filepath.Glob("/sys/fs/cgroup/*") // only a malformed pattern fails
	}
	for _, h := range hierarchies {
		entries, err := os.ReadDir(filepath.Join(h, s.opts.CgroupParent))
		if err != nil {
			continue // none was ever made there
		}
		for _, e := range entries {
			c := s.byIDLocked(e.Name())
			if !e.IsDir() || len(e.Name()) != 64 || c == nil || c.busy() || c.Record().State.alive() {
				continue // those of another daemon are its own affair
			}
			path := filepath.Join(h, s.opts.CgroupParent, e.Name())
			out = append(out, fsck.Difference{Area: "cgroup", Object: path, Problem: "a cgroup of a container that does not run",
				Repair: func(context.Context) error { return os.Remove(path) }})
		}
	}
	return out
}
