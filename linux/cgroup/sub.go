package cgroup

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"gantry/errdefs"
)

// Sub returns the cgroup below c that a process is to be in when paths says where, relative to c: by controller on v1, where controllers
// that are not named stay at c; under "" for all of them, which is the only key on v2. The cgroup itself is not made. A path that
// leaves c is refused.
func (c *Cgroup) Sub(paths map[string]string) (*Cgroup, error) {
	if len(paths) == 0 {
		return c, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sub := &Cgroup{path: c.path, dirs: maps.Clone(c.dirs)}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		p := paths[name]
		for _, part := range strings.Split(p, "/") {
			if part == ".." {
				return nil, errdefs.New(errdefs.InvalidParameter, "bad sub cgroup path: %s", p)
			}
		}
		if name == "" {
			for key, dir := range c.dirs {
				sub.dirs[key] = filepath.Join(dir, p)
			}
			continue
		}
		dir, ok := c.dirs[name]
		if !ok {
			return nil, errdefs.New(errdefs.InvalidParameter, "unknown controller %s: the container has no cgroup there", name)
		}
		// Controllers on one hierarchy have one directory, whatever name they go by.
		for key, d := range c.dirs {
			if d == dir {
				sub.dirs[key] = filepath.Join(dir, p)
			}
		}
	}
	return sub, nil
}
