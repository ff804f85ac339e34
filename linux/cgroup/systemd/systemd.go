// Package systemd makes containers' cgroups by way of systemd: as transient scopes, of the machine's systemd or of a user's own.
//
// A scope begins with a process. The container's own process cannot be it, because it is to be born in its cgroup; so a process that
// does nothing stands in for it until then. It ends by itself when the runtime dies, and with it the scope.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/clone"
	"gantry/linux/dbus"
	"gantry/linux/fd"
)

// patience is how long systemd may take for one job.
const patience = 30 * time.Second

const (
	service = "org.freedesktop.systemd1"
	object  = dbus.Path("/org/freedesktop/systemd1")
	manager = "org.freedesktop.systemd1.Manager"
)

// Request is what Create makes a scope of.
type Request struct {
	Path        string // linux.cgroupsPath, "slice:prefix:name" or ""
	ID          string // the container's
	Resources   *specs.LinuxResources
	Annotations map[string]string
	Rootless    bool // ask the user's own systemd
}

// Scope is a container's scope.
type Scope struct {
	Unit     Unit
	Cgroup   *cgroup.Cgroup
	Warnings []string

	standIn *clone.Child
}

// Create makes a scope with the container's limits. Release it when a process of the container is in its cgroup. On error nothing is left.
func Create(ctx context.Context, q Request) (*Scope, error) {
	s := &Scope{Unit: Unit{User: q.Rootless}}
	err := s.create(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("create systemd unit %s: %w", s.Unit.Name, err)
	}
	return s, nil
}

func (s *Scope) create(ctx context.Context, q Request) (err error) {
	name, slice, err := unitOf(q.Path, q.ID)
	if err != nil {
		return err
	}
	s.Unit.Name = name
	bus, err := connect(ctx, q.Rootless)
	if err != nil {
		return err
	}
	defer bus.Close()
	p := &properties{version: version(bus)}
	p.add("Description", "s", "gantry container "+q.ID)
	if slice == "" {
		slice = "system.slice"
		if q.Rootless {
			slice = "user.slice"
		}
	}
	p.add("Slice", "s", slice)
	p.add("Delegate", "b", true)
	// A process can be born in a cgroup, and its memory counted, only where the controllers are on.
	for _, what := range []string{"MemoryAccounting", "CPUAccounting", "TasksAccounting"} {
		p.add(what, "b", true)
	}
	if cgroup.Unified() {
		p.add("IOAccounting", "b", true)
	} else {
		p.add("BlockIOAccounting", "b", true)
	}
	p.add("DefaultDependencies", "b", false)
	if err := p.annotations(q.Annotations); err != nil {
		return err
	}
	if group := oomGroup(q.Resources); group != "" && p.version >= 253 { // it cannot be changed later
		p.add("OOMPolicy", "s", map[string]string{"0": "continue", "1": "kill"}[group])
	}
	devices := specs.LinuxResources{}
	if q.Resources != nil {
		devices = *q.Resources
	}
	devices.Devices = append(devices.Devices[:len(devices.Devices):len(devices.Devices)], cgroup.DefaultDevices()...)
	if q.Rootless {
		devices.Devices = nil // the user's systemd may not
	}
	if err := p.limits(&devices, cgroup.Unified()); err != nil {
		return err
	}
	s.Warnings = p.warnings
	if s.standIn, err = standIn(); err != nil {
		return err
	}
	p.add("PIDs", "au", []any{uint32(s.standIn.Pid)})
	if err := start(bus, name, p); err != nil {
		return errors.Join(err, s.Release())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Release(), stop(bus, name))
		}
	}()
	path, err := pathOf(s.standIn.Pid)
	if err != nil {
		return err
	}
	s.Cgroup, err = cgroup.Create(path, q.Resources, cgroup.Options{Rootless: q.Rootless, Named: true, Exists: true})
	if err != nil {
		return err
	}
	s.Cgroup.Keep(Keeper{s.Unit})
	return nil
}

func oomGroup(r *specs.LinuxResources) string {
	if r == nil {
		return ""
	}
	switch group := strings.TrimSpace(r.Unified["memory.oom.group"]); group {
	case "0", "1":
		return group
	}
	return ""
}

// standIn starts a process that waits to be told to end, or for the end of this one.
func standIn() (*clone.Child, error) { return standInAt(nil) }

// standInAt is standIn of a process that is born in a v2 cgroup.
func standInAt(into *os.File) (*clone.Child, error) {
	var script clone.Script
	script.For("stand in for the container's process")
	script.Ready() // and waits for the word to go on, which never comes, or for the end of who could say it
	return clone.Start(&script, clone.Options{Cgroup: into})
}

// Release ends the process that stood in.
func (s *Scope) Release() error {
	if s.standIn == nil {
		return nil
	}
	c := s.standIn
	s.standIn = nil
	err := fd.Signal(c.Pidfd, 9)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_, werr := fd.Wait(c.Pidfd)
	return errors.Join(err, werr, c.Sync.Close(), c.Pidfd.Close())
}

// pathOf returns where systemd has put a process.
func pathOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "name=systemd" || f[0] == "0" && f[1] == "" && cgroup.Unified()) {
			return f[2], nil
		}
	}
	return "", errdefs.New(errdefs.NotFound, "systemd put its process in no cgroup")
}

// connect connects to the machine's systemd, by its bus or directly, or to the user's.
func connect(ctx context.Context, user bool) (*dbus.Conn, error) {
	if !cgroup.Booted() {
		return nil, errdefs.New(errdefs.Unavailable, "systemd not running on this host, cannot use systemd cgroups manager")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var addresses []struct {
		address string
		direct  bool
	}
	add := func(address string, direct bool) {
		if address != "" {
			addresses = append(addresses, struct {
				address string
				direct  bool
			}{address, direct})
		}
	}
	if user {
		runtime := os.Getenv("XDG_RUNTIME_DIR")
		if runtime == "" {
			runtime = "/run/user/" + strconv.Itoa(os.Getuid())
		}
		add(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), false)
		add("unix:path="+runtime+"/bus", false)
		add("unix:path="+runtime+"/systemd/private", true)
	} else {
		add(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), false)
		add("unix:path=/run/dbus/system_bus_socket", false)
		if os.Geteuid() == 0 {
			add("unix:path=/run/systemd/private", true)
		}
	}
	var errs []error
	for _, a := range addresses {
		c, err := dbus.Dial(ctx, a.address, a.direct)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	hint := "is the package dbus installed?"
	if user {
		hint = "for rootless containers a user session with its own systemd is needed: the package dbus-user-session, and a login"
	}
	return nil, errdefs.New(errdefs.Unavailable, "failed to connect to dbus (%s): %w", hint, errors.Join(errs...))
}

// call calls a method of systemd's manager.
func call(bus *dbus.Conn, member string, sig dbus.Signature, args ...any) ([]any, error) {
	if err := bus.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	to := service
	if bus.Direct() {
		to = ""
	}
	return bus.Call(to, object, manager, member, sig, args...)
}

// version asks which systemd it is; 0 when it does not tell.
func version(bus *dbus.Conn) int {
	to := service
	if bus.Direct() {
		to = ""
	}
	got, err := bus.Call(to, object, "org.freedesktop.DBus.Properties", "Get", "ss", manager, "Version")
	if err != nil || len(got) != 1 {
		return 0
	}
	v, _ := got[0].(dbus.Variant)
	text, _ := v.Value.(string)
	return parseVersion(text)
}

// parseVersion reads "v245.4-1.fc32", "252.39-1~deb12u1".
func parseVersion(text string) int {
	text = strings.TrimLeft(text, `"v`)
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(text)
	}
	n, _ := strconv.Atoi(text[:end]) // 0 is none
	return n
}

// subscribe makes systemd tell what becomes of jobs.
func subscribe(bus *dbus.Conn) error {
	if !bus.Direct() {
		const self = "org.freedesktop.DBus"
		if _, err := bus.Call(self, "/org/freedesktop/DBus", self, "AddMatch", "s", "type='signal',sender='"+service+"',interface='"+manager+"',member='JobRemoved'"); err != nil {
			return err
		}
	}
	_, err := call(bus, "Subscribe", "")
	if is(err, "org.freedesktop.systemd1.AlreadySubscribed") {
		err = nil
	}
	return err
}

// await waits for a job that a call has begun.
func await(bus *dbus.Conn, got []any) error {
	if len(got) == 0 {
		return errdefs.New(errdefs.Internal, "systemd names no job")
	}
	if err := bus.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	m, err := bus.Signal(func(m dbus.Message) bool {
		return m.Interface == manager && m.Member == "JobRemoved" && len(m.Body) == 4 && m.Body[1] == got[0]
	})
	if err != nil {
		return err
	}
	if m.Body[3] != "done" {
		return errdefs.New(errdefs.Internal, "the job's result is %v", m.Body[3])
	}
	return nil
}

// is reports whether err is an answer of that name.
func is(err error, name string) bool {
	var e *dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// start starts the transient unit and waits until it is there.
func start(bus *dbus.Conn, name string, p *properties) error {
	if err := subscribe(bus); err != nil {
		return err
	}
	for try := 0; ; try++ {
		got, err := call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "replace", p.args(), []any{})
		if is(err, "org.freedesktop.systemd1.UnitExists") {
			if try == 0 { // it may have failed long ago
				_, _ = call(bus, "ResetFailedUnit", "s", name) // the next try says what is wrong
				continue
			}
			return errdefs.With(errdefs.Conflict, err)
		}
		if err == nil {
			err = await(bus, got)
		}
		return err
	}
}

// stop ends the unit, which may be gone.
func stop(bus *dbus.Conn, name string) error {
	err := subscribe(bus)
	if err == nil {
		var got []any
		if got, err = call(bus, "StopUnit", "ss", name, "replace"); err == nil {
			err = await(bus, got)
		}
	}
	if is(err, "org.freedesktop.systemd1.NoSuchUnit") {
		return nil
	}
	_, reset := call(bus, "ResetFailedUnit", "s", name) // or it stays, as one that failed
	if is(reset, "org.freedesktop.systemd1.NoSuchUnit") {
		reset = nil
	}
	return errors.Join(err, reset)
}

// Attach has systemd move a process to the unit's cgroup.
func (u Unit) Attach(ctx context.Context, pid int) error {
	bus, err := connect(ctx, u.User)
	if err == nil {
		defer bus.Close()
		_, err = call(bus, "AttachProcessesToUnit", "ssau", u.Name, "", []any{uint32(pid)})
	}
	if err != nil {
		return fmt.Errorf("move process %d to systemd unit %s: %w", pid, u.Name, err)
	}
	return nil
}

// Keeper tells systemd of what happens to the cgroup of a unit. It connects each time: containers live long.
type Keeper struct{ Unit Unit }

// Update sets new limits.
func (k Keeper) Update(r *specs.LinuxResources) error {
	err := k.with(func(bus *dbus.Conn) error {
		p := &properties{version: version(bus), update: true}
		all := *r
		if k.Unit.User {
			all.Devices = nil
		} else if all.Devices != nil {
			all.Devices = append(all.Devices[:len(all.Devices):len(all.Devices)], cgroup.DefaultDevices()...)
		}
		if err := p.limits(&all, cgroup.Unified()); err != nil || len(p.list) == 0 {
			return err
		}
		_, err := call(bus, "SetUnitProperties", "sba(sv)", k.Unit.Name, true, p.args())
		return err
	})
	if err != nil {
		return fmt.Errorf("set properties of systemd unit %s: %w", k.Unit.Name, err)
	}
	return nil
}

// Delete ends the unit.
func (k Keeper) Delete() error {
	if err := k.with(func(bus *dbus.Conn) error { return stop(bus, k.Unit.Name) }); err != nil {
		return fmt.Errorf("stop systemd unit %s: %w", k.Unit.Name, err)
	}
	return nil
}

func (k Keeper) with(do func(*dbus.Conn) error) error {
	bus, err := connect(context.Background(), k.Unit.User)
	if err != nil {
		return err
	}
	defer bus.Close()
	return do(bus)
}
