// Package oci is the life cycle of a container as the OCI runtime specification has it, seen from the parent: create, start, exec,
// delete. The child's side is package initproc.
package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/cgroup"
	"gantry/linux/cgroup/systemd"
	"gantry/linux/clone"
	"gantry/linux/rdt"
)

// Bundle is what a container is made of.
type Bundle struct {
	ID         string
	Dir        string // the bundle directory: base of a relative Spec.Root.Path
	Spec       *specs.Spec
	Root       *os.File                              // detached mount of the root file system, or nil: Spec.Root.Path. The caller closes it
	Namespaces map[specs.LinuxNamespaceType]*os.File // namespaces to join, by descriptor; they override paths in Spec
	// Mounts are detached mounts, by the destination of the mount in Spec whose place they take. The caller closes them.
	Mounts  map[string]*os.File
	Seccomp []byte // compiled filter, or nil: Create compiles Spec.Linux.Seccomp
	// Compile is used for that; nil: seccomp.Compile.
	Compile func(*specs.LinuxSeccomp) ([]byte, error)
	// DieWithParent kills the container's init when the calling process ends, however it ends.
	DieWithParent bool
	// Socket, a path, lets a later process start the container when this one has ended (Load): init listens there.
	Socket string
	// Preserve is how many descriptors after the standard three the program inherits.
	Preserve int
	// SystemdCgroup has systemd make the cgroup: Spec.Linux.CgroupsPath is "slice:prefix:name" then.
	SystemdCgroup bool
	// RootlessCgroups lets a container without limits go without a cgroup of its own, where this process may make none, and makes
	// SystemdCgroup speak to the user's own systemd. It is so for every caller but root.
	RootlessCgroups bool
	// NoPivot leaves the host's root mounted below the container's, for hosts that run from an initial ramdisk.
	NoPivot bool
	// InOrder has the kernel list new file systems in the specification's order: it lists mounts as they were made, which here some are
	// before others. They are put in place in the specification's order in any case.
	InOrder bool
	// NoNewKeyring keeps the session keyring of the calling process.
	NoNewKeyring bool
	// Intent, if there is one, is told what is about to be made before anything is: what a later process needs to take it back when
	// this one is killed in between. An error ends the creation.
	Intent func(State) error
	// Born, if there is one, is called when init has been cloned and still sets itself up. An error ends the creation.
	Born func(*Container) error
}

// Stdio is the child's end of standard input, output and error; nil is /dev/null. With a terminal the files are ignored.
type Stdio struct {
	Stdin, Stdout, Stderr *os.File
	// PlainNewlines has a terminal pass newlines on as they are written, for who reads it with a terminal of his own.
	PlainNewlines bool
}

// Container is a created container. Its methods are safe for concurrent use.
type Container struct {
	id      string
	bundle  string
	spec    *specs.Spec
	init    *Process
	cgroup  *cgroup.Cgroup
	unit    *systemd.Unit          // systemd's unit of the cgroup, if it has one
	rdt     *rdt.Group             // its group of Intel RDT, if it has one
	seccomp func() ([]byte, error) // the filter; none is empty

	joined  []specs.LinuxNamespaceType // namespaces given by descriptor
	created time.Time
	socket  string // where init waits for a start by another process
	steps   []clone.StepName
	first   int // the number of the first of steps

	rootPlace    string // where the root file system is attached while createContainer hooks run in it
	noNewKeyring bool
	environment  []string // of init, as far as this process has made it

	mu       sync.Mutex // guards all below
	started  bool
	begun    bool // init has had its go-ahead
	warnings []string
}

// Init returns the container's first process.
func (c *Container) Init() *Process { return c.init }

// Cgroup returns the container's cgroup, or nil if it has none of its own.
func (c *Container) Cgroup() *cgroup.Cgroup { return c.cgroup }

// Warnings tells what of the specification could not be had on this machine and was replaced by the nearest possible.
func (c *Container) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warnings)
}

// Start lets init execute the container's program; *ExecError when that fails. If a seccomp agent is asked about the execution, it does not
// wait for that.
func (c *Container) Start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return fmt.Errorf("start container %s: it has been started", c.id)
	}
	c.started = true
	if c.init.child == nil {
		if err := c.attach(); err != nil {
			return fmt.Errorf("start container %s: %w", c.id, err)
		}
	}
	if s := c.spec.Linux.Seccomp; s != nil && s.ListenerPath != "" { // else nobody is asked
		filter, err := c.seccomp()
		if err != nil {
			return fmt.Errorf("start container %s: %w", c.id, err)
		}
		c.init.pass = c.listenerOf(ctx, c.init, filter, specs.StateCreated)
	}
	if !c.begun {
		if err := c.init.child.Go(); err != nil {
			return fmt.Errorf("start container %s: %w", c.id, err)
		}
	}
	m, err := c.init.await(c.spec.Process.Args[0])
	if err == nil && m == clone.Ready { // it has come to the startContainer hooks
		if err = c.hooks(ctx, "startContainer", specs.StateCreated); err == nil {
			if err = c.init.child.Go(); err == nil {
				_, err = c.init.await(c.spec.Process.Args[0])
			}
		}
		if err != nil {
			_ = c.init.Signal(9) // a container whose hooks fail is stopped; it may have ended by itself
		}
	}
	if err != nil {
		if f := (*ExecError)(nil); errors.As(err, &f) { // init tells of it and ends; who deletes the container next is to find it stopped
			_, _ = c.init.Wait(context.WithoutCancel(ctx))
		}
		return fmt.Errorf("start container %s: %w", c.id, err)
	}
	if err := c.init.closeSync(); err != nil {
		return fmt.Errorf("start container %s: %w", c.id, err)
	}
	if err := c.hooks(ctx, "poststart", specs.StateRunning); err != nil { // the container runs all the same
		c.warnings = append(c.warnings, err.Error())
	}
	return nil
}

// Delete kills what is left in the container, removes its cgroup and runs its poststop hooks.
func (c *Container) Delete(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	_ = c.init.Signal(9) // it may have ended
	if c.cgroup != nil && !cgroup.Unified() {
		_ = c.cgroup.Thaw() // on v1 what is frozen does not run into its death; an error shows when the cgroup is removed
	}
	var errs []error
	if _, err := c.init.Wait(ctx); err != nil {
		errs = append(errs, err)
	}
	if c.cgroup != nil {
		errs = append(errs, c.cgroup.Delete())
	}
	if c.rdt != nil {
		errs = append(errs, c.rdt.Delete())
	}
	if err := c.hooks(ctx, "poststop", specs.StateStopped); err != nil { // the container is gone all the same
		c.mu.Lock()
		c.warnings = append(c.warnings, err.Error())
		c.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete container %s: %w", c.id, err)
	}
	return c.init.Close()
}
