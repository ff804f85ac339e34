package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Update changes limits; a nil field stays as it is. Of devices all rules are given, or none.
func (c *Cgroup) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := c.update(r); err != nil {
		return fmt.Errorf("update cgroup %s: %w", c.path, err)
	}
	return nil
}

func (c *Cgroup) update(r *specs.LinuxResources) error {
	l, err := machine()
	if err != nil {
		return err
	}
	if err := c.check(r, l.v2 != nil); err != nil {
		return err
	}
	if err := c.checkUsage(r.Memory); err != nil {
		return err
	}
	r = c.complete(r)
	settings, err := settingsOf(l, r)
	if err != nil {
		return err
	}
	if c.keeper != nil {
		if err := c.keeper.Update(r); err != nil {
			return err
		}
	}
	for _, s := range settings {
		if s.optional {
			continue
		}
		if err := c.late(s.controller); err != nil {
			return fmt.Errorf("linux.resources.%s: %w", s.field, err)
		}
	}
	if err := c.apply(settings); err != nil {
		return err
	}
	if r.Devices == nil {
		return nil
	}
	c.taken = true // it has rules, which are replaced
	if l.v2 != nil {
		return c.devicesV2(rulesOf(r), false)
	}
	if err := c.late("devices"); err != nil {
		return fmt.Errorf("linux.resources.devices: %w", err)
	}
	return c.devicesV1(targetOf(rulesOf(r)), false)
}

// complete adds to new limits the present ones that they are to be seen with: a quota and its period, and memory to memory and swap.
func (c *Cgroup) complete(r *specs.LinuxResources) *specs.LinuxResources {
	all := *r
	if p := r.CPU; p != nil && (value(p.Quota) != 0) != (value(p.Period) != 0) {
		quota, period := c.quota()
		cpu := *p
		if value(p.Quota) == 0 && quota > 0 {
			cpu.Quota = &quota
		}
		if value(p.Period) == 0 && period != 0 {
			cpu.Period = &period
		}
		all.CPU = &cpu
	}
	if m := r.Memory; m != nil && Unified() && value(m.Swap) > 0 && value(m.Limit) == 0 {
		memory, limit := *m, int64(-1)
		if n := number(c.main()+"/memory.max", math.MaxUint64); n <= math.MaxInt64 {
			limit = int64(n)
		}
		memory.Limit = &limit
		all.Memory = &memory
	}
	return &all
}

// quota returns the present quota, -1 for none, and period of processor time; zeroes where they are not known.
func (c *Cgroup) quota() (quota int64, period uint64) {
	dir := c.home("cpu")
	text := ""
	if Unified() {
		text, _ = read(dir + "/cpu.max")
	} else {
		q, _ := read(dir + "/cpu.cfs_quota_us")
		p, _ := read(dir + "/cpu.cfs_period_us")
		text = q + " " + p
	}
	f := strings.Fields(text)
	if len(f) != 2 {
		return 0, 0
	}
	quota, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil { // "max"
		quota = -1
	}
	period, _ = strconv.ParseUint(f[1], 10, 64) // 0 is not known
	return quota, period
}

// checkUsage refuses limits below what is used now, where that is asked for: on v2 such a limit kills.
func (c *Cgroup) checkUsage(m *specs.LinuxMemory) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate {
		return nil
	}
	file := "/memory.usage_in_bytes"
	if Unified() {
		file = "/memory.current"
	}
	usage := number(c.home("memory")+file, 0)
	if swap := value(m.Swap); swap > 0 && uint64(swap) <= usage {
		return errdefs.New(errdefs.Conflict, "linux.resources.memory.swap: rejecting memory+swap limit %d <= usage %d", swap, usage)
	}
	if limit := value(m.Limit); limit > 0 && uint64(limit) <= usage {
		return errdefs.New(errdefs.Conflict, "linux.resources.memory.limit: rejecting memory limit %d <= usage %d", limit, usage)
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
	// The state is FREEZING until the last process has stopped, and tells no one when it changes; reading it moves it on. While new
	// processes keep coming the kernel may never get there: letting them run for a moment helps.
	for deadline, try := time.Now().Add(freezeWait), 1; time.Now().Before(deadline); try++ {
		if try%50 == 0 {
			if err := write(file, "THAWED"); err != nil {
				return err
			}
			_, _ = unix.Poll(nil, 10)
		}
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
	return errors.Join(fmt.Errorf("processes did not stop within %v", freezeWait), write(file, "THAWED"))
}

// Frozen reports whether the cgroup is frozen.
func (c *Cgroup) Frozen() (bool, error) {
	if Unified() {
		data, err := read(c.main() + "/cgroup.freeze")
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
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
