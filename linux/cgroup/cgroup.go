// Package cgroup makes, limits, measures, freezes and removes control groups: on the unified hierarchy (v2), on the separate ones of
// v1, and on machines that have both.
package cgroup

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

// Cgroup is one control group: one directory in every hierarchy it uses.
type Cgroup struct {
	path string
}

var errNot = errdefs.New(errdefs.NotImplemented, "cgroup: not there yet")

// Create makes the cgroup at path (as "/docker/<id>", below each hierarchy's root) and sets the limits r (nil: none).
func Create(path string, r *specs.LinuxResources) (*Cgroup, error) { return nil, errNot }

// Open returns the existing cgroup at path; a NotFound error if no hierarchy has it.
func Open(path string) (*Cgroup, error) { return nil, errNot }

// Path returns the path given to Create or Open.
func (c *Cgroup) Path() string { return c.path }

// Procs returns the process numbers in the cgroup and those below it.
func (c *Cgroup) Procs() ([]int, error) { return nil, errNot }

// Kill kills every process in the cgroup and below.
func (c *Cgroup) Kill() error { return errNot }

// Freeze stops every process in the cgroup and returns when all have stopped.
func (c *Cgroup) Freeze() error { return errNot }

// Thaw lets the processes go on.
func (c *Cgroup) Thaw() error { return errNot }

// Update changes limits; a nil field stays as it is.
func (c *Cgroup) Update(r *specs.LinuxResources) error { return errNot }

// Stats reads the counters.
func (c *Cgroup) Stats() (Stats, error) { return Stats{}, errNot }

// OOMNotifier tells when the kernel killed a process of the cgroup for want of memory.
type OOMNotifier struct {
	f *os.File
}

// NotifyOOM returns a notifier.
func (c *Cgroup) NotifyOOM() (*OOMNotifier, error) { return nil, errNot }

// Wait blocks until the next out-of-memory event and returns how many kills the cgroup has had in all; it returns an error after
// Close and io.EOF when the cgroup is gone.
func (n *OOMNotifier) Wait() (kills uint64, err error) { return 0, errNot }

// Close ends Wait.
func (n *OOMNotifier) Close() error { return n.f.Close() }

// Delete removes the cgroup, which must have no process any more; one already gone is no error.
func (c *Cgroup) Delete() error { return errNot }
