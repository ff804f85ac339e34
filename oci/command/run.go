package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/fd"
	"gantry/oci"
	"gantry/oci/store"
)

// session is the circumstances of a process: what create, run, exec and restore have in common.
type session struct {
	console, pidFile, pidfdSocket string
	detach                        bool
	preserve                      int
}

// creation is what create, run and restore have in common.
type creation struct {
	session
	bundle                                   string
	keep, noPivot, noNewKeyring, noSubreaper bool
}

func (s *session) declare(a *app) {
	a.text(&s.console, "console-socket", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal")
	a.text(&s.pidfdSocket, "pidfd-socket", "path to an AF_UNIX socket which will receive a file descriptor referencing the process")
	a.text(&s.pidFile, "pid-file", "file that gets the process id")
}

func (c *creation) declare(a *app) {
	a.text(&c.bundle, "bundle,b", "path to the root of the bundle directory, defaults to the current directory")
	c.session.declare(a)
	a.on(&c.noPivot, "no-pivot", "do not use pivot_root, for hosts that run from a ramdisk")
}

func (s *session) preserveFlag(a *app) {
	a.number(&s.preserve, "preserve-fds", "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)")
}

func (a *app) create() func(context.Context) error {
	var c creation
	c.declare(a)
	c.preserveFlag(a)
	a.on(&c.noNewKeyring, "no-new-keyring", "do not create a new session keyring for the container")
	return func(ctx context.Context) error {
		c.detach = true
		if err := a.createContainer(ctx, c); err != nil {
			return fmt.Errorf("create failed: %w", err)
		}
		return nil
	}
}

func (a *app) createContainer(ctx context.Context, c creation) error {
	m, err := a.make(ctx, c, true)
	if err != nil {
		return err
	}
	m.dir.Unlock()
	return nil
}

func (a *app) runContainer() func(context.Context) error {
	var c creation
	c.declare(a)
	c.preserveFlag(a)
	a.on(&c.detach, "detach,d", "detach from the container's process")
	a.on(&c.keep, "keep", "do not delete the container after it exits")
	a.on(&c.noSubreaper, "no-subreaper", "disable the use of the subreaper used to reap reparented processes")
	a.on(&c.noNewKeyring, "no-new-keyring", "do not create a new session keyring for the container")
	return func(ctx context.Context) error {
		code, err := a.runOne(ctx, c)
		if e := (*oci.ExecError)(nil); errors.As(err, &e) && e.Found && !c.detach {
			// That far it has come: it is the container that says so, and ends.
			fmt.Fprintln(os.Stderr, e)
			return exitError(execFailed)
		}
		if err != nil {
			return fmt.Errorf("run failed: %w", err)
		}
		if code != 0 {
			return exitError(code)
		}
		return nil
	}
}

func (a *app) runOne(ctx context.Context, c creation) (code int, err error) {
	m, err := a.make(ctx, c, false)
	if err != nil {
		return 0, err
	}
	defer m.dir.Unlock()
	var f *foreground
	if !c.detach {
		if f, err = watch(m.c.Init(), !c.noSubreaper && !m.ownPids()); err != nil {
			return 0, errors.Join(err, m.undo(ctx))
		}
	}
	if err := m.c.Start(ctx); err != nil {
		return 0, errors.Join(startError(err), m.undo(ctx))
	}
	a.log.debugf("container %s is running", m.id)
	m.dir.Unlock()
	if c.detach {
		if m.notifier != nil {
			a.forward(ctx, m.notifier, m.c.Init(), m.c.Init().Pid)
		}
		return 0, nil
	}
	if m.notifier != nil {
		told := make(chan struct{})
		go func() {
			defer close(told)
			a.forward(ctx, m.notifier, m.c.Init(), os.Getpid())
		}()
		defer func() { <-told }()
	}
	code, err = f.wait(ctx)
	a.log.debugf("container %s has ended with exit code %d", m.id, code)
	if c.keep {
		return code, err
	}
	dir, lerr := a.store.Lock(m.id)
	if errors.Is(lerr, store.ErrNotExist) { // another call has deleted it
		return code, err
	}
	if lerr != nil {
		return code, errors.Join(err, lerr)
	}
	// A container that has ended has ended, whatever its removal comes to.
	if derr := errors.Join(m.c.Delete(ctx), dir.Remove()); derr != nil {
		a.log.warn(oneLine(derr))
	}
	return code, err
}

// made is a container that has been created and recorded, its directory locked.
type made struct {
	id   string
	c    *oci.Container
	dir  *store.Dir
	spec *specs.Spec
	// notifier tells the service manager of the container's readiness; nil: nobody asks.
	notifier *notifier
}

// forward has a notifier tell of a container that has been started. It runs whatever comes of that.
func (a *app) forward(ctx context.Context, n *notifier, p *oci.Process, mainPid int) {
	defer n.close()
	if err := n.forward(ctx, p, mainPid); err != nil {
		a.log.warn(oneLine(err))
	}
}

// ownPids reports whether processes that lose their parent go to the container's init.
func (m *made) ownPids() bool {
	for _, n := range m.spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path == ""
		}
	}
	return false
}

func (m *made) undo(ctx context.Context) error { return errors.Join(m.c.Delete(ctx), m.dir.Remove()) }

// loadBundle reads the bundle's specification and returns its directory.
func loadBundle(dir string) (string, *specs.Spec, []byte, error) {
	bundle, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, nil, err
	}
	if dir != "" {
		// Errors as a change of directory has them.
		st, err := os.Stat(bundle)
		if err == nil && !st.IsDir() {
			_, err = os.Open(bundle + "/")
		}
		if err != nil {
			var p *os.PathError
			if errors.As(err, &p) {
				err = p.Err
			}
			return "", nil, nil, fmt.Errorf("chdir %s: %w", dir, err)
		}
	}
	spec, text, err := oci.ReadSpec(filepath.Join(bundle, "config.json"))
	return bundle, spec, text, err
}

// make creates the container of the bundle and records it. wait makes it one that another call starts.
func (a *app) make(ctx context.Context, c creation, wait bool) (_ *made, err error) {
	id := a.args[0]
	if id == "" {
		return nil, errEmptyID
	}
	if err := store.CheckID(id); err != nil {
		return nil, err
	}
	bundle, spec, text, err := loadBundle(c.bundle)
	if err != nil {
		return nil, err
	}
	if err := c.checkTerminal(spec.Process); err != nil {
		return nil, err
	}
	if c.preserve, err = a.inherit(c.preserve, spec.Process); err != nil {
		return nil, err
	}
	p, err := c.pidfdConn()
	if err != nil {
		return nil, err
	}
	defer p.close()
	dir, err := a.store.Make(id)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Remove())
		}
	}()
	a.log.debugf("creating container %s of bundle %s", id, bundle)
	n := notifierOf(dir.Path)
	if n != nil {
		if err := n.prepare(spec); err != nil {
			return nil, err
		}
		if !wait {
			if err := n.listen(); err != nil {
				return nil, err
			}
		}
	}
	b := oci.Bundle{ID: id, Dir: bundle, Spec: spec, Preserve: c.preserve, NoPivot: c.noPivot, NoNewKeyring: c.noNewKeyring,
		Compile: a.store.Filters().Compile, InOrder: true, SystemdCgroup: a.systemd, RootlessCgroups: a.rootless}
	b.Intent = func(s oci.State) error {
		if err := s.Vacant(); err != nil {
			return err
		}
		return errors.Join(dir.WriteConfig(text), dir.Write(s))
	}
	b.Born = func(ct *oci.Container) error {
		state, err := ct.State()
		if errors.Is(err, os.ErrProcessDone) {
			return nil // what init reports says more
		}
		if err != nil {
			return err
		}
		if err := dir.Write(state); err != nil || n != nil {
			return err
		}
		if e, ok := ct.EndsPlainly(state); ok && (wait || c.detach) {
			err = dir.WriteEnd(e)
		}
		if wait && oci.StartsPlainly(spec) {
			err = errors.Join(err, dir.Plain())
		}
		return err
	}
	if wait {
		b.Socket = dir.Socket()
	}
	ct, err := oci.Create(ctx, b, oci.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, PlainNewlines: !c.detach})
	if err != nil {
		return nil, startError(err)
	}
	a.log.debugf("the init of container %s is process %d", id, ct.Init().Pid)
	if flags, ok := ct.SeccompFlags(); ok {
		a.log.debugf("seccomp filter flags: %d", flags)
	}
	m := &made{id: id, c: ct, dir: dir, spec: spec, notifier: n}
	a.warnings(ct.Warnings())
	if err := c.handOver(ct.Init(), p); err != nil {
		return nil, errors.Join(err, ct.Delete(ctx))
	}
	return m, nil
}

// warnings writes what of a specification was replaced, if there is a log: standard error is the container's.
func (a *app) warnings(list []string) {
	if a.log.path == "" {
		return
	}
	for _, w := range list {
		a.log.warn(w)
	}
}

var errEmptyID = errors.New("container id cannot be empty")

// startError gives an error of a container's or process's start the words that runc's callers look for.
func startError(err error) error {
	var e *oci.ExecError
	if errors.As(err, &e) {
		return fmt.Errorf("unable to start container process: %w", e)
	}
	return err
}

// checkTerminal holds the command line against the process.
func (s *session) checkTerminal(p *specs.Process) error {
	switch {
	case s.detach && p.Terminal && s.console == "":
		return errors.New("cannot allocate tty if gantry-oci will detach without setting console socket")
	case (!s.detach || !p.Terminal) && s.console != "":
		return errors.New("cannot use console socket if gantry-oci will not detach or allocate tty")
	}
	return nil
}

// inherit returns how many descriptors after the standard three the process gets: those that a service manager passed to this process
// ($LISTEN_FDS), of which it tells the process, and preserve more, each of which must be open.
func (a *app) inherit(preserve int, p *specs.Process) (int, error) {
	listen := 0
	if a.verb.name != "exec" {
		var env []string
		listen, env = oci.Activation(os.Getenv)
		p.Env = append(p.Env, env...)
	}
	if preserve < 0 {
		return 0, fmt.Errorf("invalid --preserve-fds %d", preserve)
	}
	for i := range preserve {
		if n := 3 + listen + i; !fd.IsOpen(n) {
			return 0, fmt.Errorf("unable to stat preserved-fd %d (of %d): descriptor %d is not open", i, preserve, n)
		}
	}
	return listen + preserve, nil
}

// pidfdTo is a connection that gets a process's descriptor.
type pidfdTo struct{ f *os.File }

// pidfdConn connects before anything is made, so that a wrong path leaves nothing.
func (s *session) pidfdConn() (pidfdTo, error) {
	if s.pidfdSocket == "" {
		return pidfdTo{}, nil
	}
	f, err := fd.DialStream(s.pidfdSocket)
	return pidfdTo{f}, err
}

func (p pidfdTo) close() {
	if p.f != nil {
		p.f.Close()
	}
}

// handOver gives others what they asked for of a process: its terminal, its descriptor, its number.
func (s *session) handOver(p *oci.Process, to pidfdTo) error {
	if p.Console != nil && s.console != "" {
		conn, err := fd.DialStream(s.console)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := fd.SendFile(conn, []byte("/dev/ptmx"), p.Console); err != nil {
			return err
		}
	}
	if to.f != nil {
		if err := fd.SendFile(to.f, []byte("pidfd"), p.Pidfd); err != nil {
			return err
		}
	}
	if s.pidFile == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(s.pidFile), "."+filepath.Base(s.pidFile))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(p.Pid)), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.pidFile)
}
