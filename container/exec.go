package container

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/safepath"
	"gantry/shim"
	"gantry/shim/wire"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec is one more process in a container: made by one call, started by another.
type Exec struct {
	ID        string // 64 hexadecimal digits
	Container *Container
	Request   container.ExecCreateRequest

	made time.Time

	mu       sync.Mutex // guards all below
	started  bool
	running  bool
	pid      int
	exitCode *int
	changed  chan struct{}
}

// ExecState is what is known of an exec session.
type ExecState struct {
	Running  bool
	Pid      int
	ExitCode *int // nil before the end
}

// State returns the session's present state.
func (e *Exec) State() ExecState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return ExecState{e.running, e.pid, e.exitCode}
}

// endDelay bounds how long ExecState waits for the word that a session has ended.
const endDelay = time.Second

// ExecState returns a session's state. It asks the supervisor about a session that runs: a client that has seen the end of the
// output must find the exit code, though the word of it may still be on its way.
func (s *Service) ExecState(ctx context.Context, e *Exec) ExecState {
	st := e.State()
	if !st.Running {
		return st
	}
	task, err := e.Container.runningTask()
	if err != nil {
		return st
	}
	now, err := task.State(ctx)
	if err != nil || slices.ContainsFunc(now.Execs, func(x wire.Exec) bool { return x.ID == e.ID }) {
		return e.State()
	}
	timer := time.NewTimer(endDelay) // one that the supervisor has not got yet is not listed either
	defer timer.Stop()
	select {
	case <-e.changed:
	case <-timer.C:
	case <-ctx.Done():
	}
	return e.State()
}

// maxExecs bounds the sessions that a container remembers after their end.
const maxExecs = 128

// CreateExec prepares a process in a running container.
func (s *Service) CreateExec(ref string, req container.ExecCreateRequest) (string, error) {
	c, err := s.Get(ref)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", errdefs.New(errdefs.InvalidParameter, "No exec command specified")
	}
	for _, text := range append(append([]string{}, req.Cmd...), req.Env...) {
		if strings.ContainsRune(text, 0) {
			return "", errdefs.New(errdefs.InvalidParameter, "exec: %q contains a zero byte", text)
		}
	}
	rec := c.Record()
	if rec.State == Paused {
		return "", errdefs.New(errdefs.Conflict, "Container %s is paused, unpause the container before exec", rec.Name)
	}
	if !rec.State.alive() {
		return "", errdefs.New(errdefs.Conflict, "container %s is not running", rec.ID)
	}
	e := &Exec{ID: hexID(), Container: c, Request: req, made: time.Now(), changed: make(chan struct{})}
	c.mu.Lock()
	for len(c.execs) >= maxExecs {
		if !c.forgetExec() {
			break
		}
	}
	c.execs[e.ID] = e
	c.mu.Unlock()
	s.mu.Lock()
	s.execs[e.ID] = e
	s.mu.Unlock()
	s.publish(&rec, "exec_create: "+strings.Join(req.Cmd, " "), map[string]string{"execID": e.ID})
	return e.ID, nil
}

// forgetExec drops the oldest session that has ended and reports whether there was one; the caller holds mu.
func (c *Container) forgetExec() bool {
	var oldest *Exec
	for _, e := range c.execs {
		if e.State().ExitCode != nil && (oldest == nil || e.made.Before(oldest.made)) {
			oldest = e
		}
	}
	if oldest == nil {
		return false
	}
	delete(c.execs, oldest.ID)
	c.svc.mu.Lock()
	delete(c.svc.execs, oldest.ID)
	c.svc.mu.Unlock()
	return true
}

// GetExec finds a session by its ID.
func (s *Service) GetExec(id string) (*Exec, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.execs[id]; e != nil {
		return e, nil
	}
	return nil, errdefs.New(errdefs.NotFound, "No such exec instance: %s", id)
}

// StartOptions shape StartExec.
type StartOptions struct {
	Detach     bool
	Tty        bool
	Rows, Cols uint16
	Conn       *os.File // the client's connection, taken over; nil when detached
	Prefix     []byte
	DetachKeys []byte
}

// CheckExecStart tells before the connection is taken over why a session cannot start.
func (s *Service) CheckExecStart(id string) error {
	e, err := s.GetExec(id)
	if err != nil {
		return err
	}
	e.mu.Lock()
	started := e.started
	e.mu.Unlock()
	if started {
		return errdefs.New(errdefs.Conflict, "exec session %s has already run", id)
	}
	rec := e.Container.Record()
	if rec.State == Paused {
		return errdefs.New(errdefs.Conflict, "Container %s is paused, unpause the container before exec", rec.Name)
	}
	if !rec.State.alive() {
		return errdefs.New(errdefs.Conflict, "container %s is not running", rec.ID)
	}
	return nil
}

// StartExec runs the session's process. It returns when the process runs, not when it ends.
func (s *Service) StartExec(ctx context.Context, id string, o StartOptions) (err error) {
	var streams []shim.Stream
	handed := false
	defer func() {
		if o.Conn != nil && !handed {
			err = errors.Join(err, o.Conn.Close())
		}
	}()
	e, err := s.GetExec(id)
	if err != nil {
		return err
	}
	task, err := e.Container.runningTask()
	if err != nil {
		return err
	}
	e.mu.Lock()
	if e.started {
		e.mu.Unlock()
		return errdefs.New(errdefs.Conflict, "exec session %s has already run", id)
	}
	e.started, e.running = true, true
	e.mu.Unlock()
	rec := e.Container.Record()
	s.publish(&rec, "exec_start: "+strings.Join(e.Request.Cmd, " "), map[string]string{"execID": id})
	process, err := s.execProcess(ctx, &rec, &e.Request)
	if err == nil {
		if o.Conn != nil {
			r := &e.Request
			streams = []shim.Stream{{Conn: o.Conn, Stdin: r.AttachStdin, Stdout: r.AttachStdout, Stderr: r.AttachStderr, Mux: !r.Tty, DetachKeys: o.DetachKeys, Prefix: o.Prefix}}
			handed = true
		}
		var pid int
		pid, err = task.Exec(context.WithoutCancel(ctx), shim.ExecRequest{ID: id, Process: process, Rows: o.Rows, Cols: o.Cols, OpenStdin: e.Request.AttachStdin, Streams: streams, Detach: o.Conn == nil})
		if err == nil {
			e.mu.Lock()
			e.pid = pid
			e.mu.Unlock()
			return nil
		}
	}
	code := 126
	var failed *shim.ExecError
	if errors.As(err, &failed) {
		code = failed.Code
	}
	e.end(code)
	s.publish(&rec, "exec_die", map[string]string{"execID": id, "exitCode": strconv.Itoa(code)})
	return err
}

func (e *Exec) end(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exitCode == nil {
		e.running, e.exitCode = false, &code
		close(e.changed)
	}
}

// execProcess returns the process of a session.
func (s *Service) execProcess(ctx context.Context, r *Record, req *container.ExecCreateRequest) (*specs.Process, error) {
	root, err := safepath.ProcessRoot(r.Pid)
	if err != nil {
		return nil, errdefs.New(errdefs.Conflict, "container %s is not running: %w", r.ID, err)
	}
	defer func() { _ = root.Close() }() // a handle
	name := req.User
	if name == "" {
		name = r.Config.User
	}
	user, err := lookupUser(root, name, r.Host.GroupAdd)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(r.Host.CapAdd, r.Host.CapDrop, r.Host.Privileged || req.Privileged)
	if err != nil {
		return nil, err
	}
	sec, err := parseSecurity(r.Host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	profile, err := sec.onThisHost(r.Host.Privileged).profile(ctx)
	if err != nil {
		return nil, err
	}
	env := environment(r, req.Tty, s.linkEnvironment(r))
	p := &specs.Process{Terminal: req.Tty, User: user.Spec(), Args: req.Cmd, Env: mergeEnv(env, req.Env), Cwd: req.WorkingDir,
		Capabilities: capabilitySets(caps, user.UID), NoNewPrivileges: sec.noNewPrivs || s.opts.NoNewPrivs, ApparmorProfile: profile}
	p.User.Umask = r.Host.Umask
	if p.Cwd == "" {
		p.Cwd = r.Config.WorkingDir
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if req.ConsoleSize != nil {
		p.ConsoleSize = &specs.Box{Height: req.ConsoleSize[0], Width: req.ConsoleSize[1]}
	}
	for _, u := range r.Host.Ulimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: limit(u.Soft), Hard: limit(u.Hard)})
	}
	return p, nil
}

// execExited takes over the end of a session's process.
func (s *Service) execExited(c *Container, id string, exit *shim.Exit) {
	c.mu.Lock()
	e := c.execs[id]
	c.mu.Unlock()
	if e == nil || exit == nil {
		return
	}
	e.end(exit.Code)
	rec := c.Record()
	s.publish(&rec, "exec_die", map[string]string{"execID": id, "exitCode": strconv.Itoa(exit.Code)})
}

// endExecs marks the sessions of a container that ended. How they ended can be asked for as long as the container exists.
func (s *Service) endExecs(c *Container) {
	c.mu.Lock()
	all := maps.Clone(c.execs)
	c.mu.Unlock()
	for _, e := range all {
		if e.State().Running {
			e.end(128 + int(syscall.SIGKILL))
		}
	}
}

// forgetExecs drops the sessions of a container that is removed.
func (s *Service) forgetExecs(c *Container) {
	c.mu.Lock()
	all := c.execs
	c.execs = map[string]*Exec{}
	c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range all {
		delete(s.execs, id)
	}
}

// ResizeExec sets the size of a session's terminal, in characters.
func (s *Service) ResizeExec(ctx context.Context, id string, rows, cols uint16) error {
	e, err := s.GetExec(id)
	if err != nil {
		return err
	}
	task, err := e.Container.runningTask()
	if err != nil {
		return err
	}
	return task.Resize(ctx, id, rows, cols)
}
