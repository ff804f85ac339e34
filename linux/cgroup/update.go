package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Update changes limits; a nil field stays as it is.
func (c *Cgroup) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	settings := settingsV1(r)
	if Unified() {
		settings = settingsV2(r)
	}
	for _, s := range settings {
		if s.optional {
			continue
		}
		if err := c.late(s.controller); err != nil {
			return fmt.Errorf("update cgroup %s: %w", c.path, err)
		}
	}
	err := c.apply(settings)
	// Memory and memory with swap must stay in order at each step: raised, the second goes first.
	if errors.Is(err, unix.EINVAL) && r.Memory != nil && r.Memory.Swap != nil {
		var reordered []setting
		for _, s := range settings {
			if strings.HasPrefix(s.file, "memory.memsw.") {
				reordered = append([]setting{s}, reordered...)
			} else {
				reordered = append(reordered, s)
			}
		}
		err = c.apply(reordered)
	}
	if err != nil {
		return fmt.Errorf("update cgroup %s: %w", c.path, err)
	}
	return nil
}

// Freeze stops every process in the cgroup and returns when all have stopped.
func (c *Cgroup) Freeze() error {
	if err := c.freezer(true); err != nil {
		return fmt.Errorf("freeze cgroup %s: %w", c.path, err)
	}
	return nil
}

// Thaw lets the processes go on.
func (c *Cgroup) Thaw() error {
	if err := c.freezer(false); err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", c.path, err)
	}
	return nil
}

func (c *Cgroup) freezer(freeze bool) error {
	if Unified() {
		return freezeV2(c.main(), freeze)
	}
	if !freeze {
		c.mu.Lock()
		dir, ok := c.dirs["freezer"]
		c.mu.Unlock()
		if !ok {
			return nil
		}
		if err := write(dir+"/freezer.state", "THAWED"); !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	}
	if err := c.late("freezer"); err != nil {
		return err
	}
	c.mu.Lock()
	file := c.dirs["freezer"] + "/freezer.state"
	c.mu.Unlock()
	// The state is FREEZING until the last process has stopped, and tells no one when it changes; reading it moves it on.
	for range 1000 {
		if err := write(file, "FROZEN"); err != nil {
			return err
		}
		state, err := read(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(state) == "FROZEN" {
			return nil
		}
		_, _ = unix.Poll(nil, 1) // a millisecond for the processes to reach a point where they can stop
	}
	return errors.Join(errors.New("processes did not stop within a second"), write(file, "THAWED"))
}

// Frozen reports whether the cgroup is frozen.
func (c *Cgroup) Frozen() (bool, error) {
	if Unified() {
		data, err := read(c.main() + "/cgroup.freeze")
		return strings.TrimSpace(data) == "1", err
	}
	c.mu.Lock()
	dir, ok := c.dirs["freezer"]
	c.mu.Unlock()
	if !ok {
		return false, nil
	}
	data, err := read(dir + "/freezer.state")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return strings.HasPrefix(data, "FR"), err
}
