package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/logs"
	"gantry/shim/wire"
)

// container is what a runtime made of a bundle: the built-in one, or a foreign one.
type container interface {
	Start(ctx context.Context) error
	Main() process
	Exec(ctx context.Context, r *wire.ExecRequest, stdio [3]*os.File) (process, error)
	Cgroup() *cgroup.Cgroup
	Warnings() []string
	Mounts() []string // paths on the host that it mounted and Delete unmounts
	Delete(ctx context.Context) error
}

// process is a process of a container.
type process interface {
	Pid() int
	Console() *os.File // master of its terminal, taken over by the first call; nil: none
	Wait(ctx context.Context) (code int, err error)
	Signal(sig syscall.Signal) error // os.ErrProcessDone when it has ended
	Close()
}

// unit is the container of a shim with all that belongs to it.
type unit struct {
	server     *Server
	request    wire.StartRequest
	container  container
	main       *session
	log        *logs.Writer
	listener   *os.File // for the daemons to come
	started    time.Time
	recorded   wire.Record // in recordFile
	recordFile int
	clients    sync.WaitGroup  // connections that still get output
	ctx        context.Context // ends with the container
	cancel     context.CancelFunc

	mu     sync.Mutex // guards below
	execs  map[string]*session
	paused bool
	exit   *wire.Exit
	killed bool // a kill for lack of memory was announced
	health *wire.HealthState

	execEnds  sync.WaitGroup // entries of execs
	joinsPids bool           // the pid namespace is another's: it does not end with the container

	exited   chan struct{} // closed once exit is set and written
	deleting sync.Mutex    // one deletion at a time
	deleted  bool
}

// session returns the container's own session or that of an exec.
func (u *unit) session(execID string) (*session, error) {
	if execID == "" {
		return u.main, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.execs[execID]
	if s == nil {
		return nil, errdefs.New(errdefs.NotFound, "No such exec instance: %s", execID)
	}
	return s, nil
}

func (u *unit) state() wire.State {
	u.mu.Lock()
	defer u.mu.Unlock()
	state := wire.State{
		ID: u.request.ID, Pid: u.main.process.Pid(), StartedAt: u.started, Paused: u.paused,
		Exit: u.exit, Health: u.health, Warnings: u.container.Warnings(),
	}
	for id, s := range u.execs {
		state.Execs = append(state.Execs, wire.Exec{ID: id, Pid: s.process.Pid()})
	}
	return state
}

func (u *unit) over() bool {
	select {
	case <-u.exited:
		return true
	default:
		return false
	}
}

// wait sees the container to its end: output, log, exit record, clients, daemon, in this order.
func (u *unit) wait() {
	code, err := u.main.process.Wait(context.WithoutCancel(u.ctx))
	exit := wire.Exit{Code: code, At: time.Now().UTC()}
	if err != nil {
		exit.Code, exit.Error = 255, err.Error()
	}
	if code == 128+int(syscall.SIGKILL) {
		exit.OOMKilled = u.outOfMemory()
	}
	if exit.OOMKilled {
		u.announceKill(true)
	}
	u.cancel()
	u.endExecs()
	u.main.finish(func() {})
	if lost, err := u.log.Close(); err != nil {
		u.warn(fmt.Sprintf("%d log messages are lost", lost), err)
	}
	if err := u.recordExit(&exit); err != nil {
		u.warn("record the exit", err)
	}
	u.mu.Lock()
	u.exit = &exit
	u.mu.Unlock()
	close(u.exited)
	heard := u.server.announce(wire.Event{Kind: wire.EventExit, Exit: &exit})
	if !heard { // no daemon: the next one finds exit.json
		u.server.finish(u)
		return
	}
	_ = u.delete(context.WithoutCancel(u.ctx)) // ahead of the daemon's request, which reports what goes wrong
}

// endExecs sees the exec sessions to their end before the container's. Their processes die with the pid namespace; where that is not the
// container's own, they are killed.
func (u *unit) endExecs() {
	if group := u.container.Cgroup(); u.joinsPids && group != nil {
		if err := group.Kill(); err != nil {
			u.warn("kill the container's other processes", err)
		}
	}
	u.mu.Lock()
	none := len(u.execs) == 0
	u.mu.Unlock()
	if none {
		return
	}
	ended := make(chan struct{})
	go func() {
		u.execEnds.Wait()
		close(ended)
	}()
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// delete removes what is left of the container; a further call has nothing to do.
func (u *unit) delete(ctx context.Context) error {
	u.deleting.Lock()
	defer u.deleting.Unlock()
	if u.deleted {
		return nil
	}
	if !u.over() { // wait needs the process's end and writes the record
		if err := u.main.process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		if err := u.thaw(); err != nil {
			return err
		}
		<-u.exited
	}
	if err := u.container.Delete(ctx); err != nil {
		return err
	}
	u.deleted = true
	return nil
}

// group returns the container's cgroup.
func (u *unit) group() (*cgroup.Cgroup, error) {
	group := u.container.Cgroup()
	if group == nil {
		return nil, errdefs.New(errdefs.Conflict, "the container has no cgroup of its own")
	}
	return group, nil
}

func (u *unit) pause(on bool) error {
	group, err := u.group()
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.exit != nil {
		return errdefs.New(errdefs.NotFound, "the container has ended")
	}
	if on {
		err = group.Freeze()
	} else {
		err = group.Thaw()
	}
	if err == nil {
		u.paused = on
	}
	return err
}

// thaw lets a paused container's processes go on: to die.
func (u *unit) thaw() error {
	u.mu.Lock()
	paused := u.paused
	u.mu.Unlock()
	if !paused {
		return nil
	}
	if err := u.pause(false); err != nil && !errdefs.Is(err, errdefs.NotFound) { // on cgroup v2 they die frozen, and may have
		return err
	}
	return nil
}

// exec starts one more process. It owns the client connections in files.
func (u *unit) exec(ctx context.Context, r wire.ExecRequest, files []*os.File) (_ *session, err error) {
	var ends [3]*os.File
	s := &session{id: r.ID, unit: u, stdinOnce: true}
	defer func() {
		closeAll(ends[:])
		if err != nil {
			closeAll(files)
			for _, c := range s.clients {
				c.close()
			}
			s.closeFiles()
		}
	}()
	if r.Process == nil || len(files) != len(r.Streams) {
		return nil, errdefs.New(errdefs.InvalidParameter, "exec: %d connections for %d streams", len(files), len(r.Streams))
	}
	if err := u.reserve(s); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			u.release(s)
		}
	}()
	s.terminal = r.Process.Terminal
	input := r.OpenStdin
	for _, stream := range r.Streams {
		input = input || stream.Stdin
	}
	if !s.terminal && !r.Detach {
		if ends, err = s.stdio(input, r.Process.User.UID); err != nil {
			return nil, err
		}
	}
	if s.process, err = u.container.Exec(ctx, &r, ends); err != nil {
		return nil, err
	}
	// From here on it runs: an error must not leave it behind without anybody who waits for it.
	if master := s.process.Console(); master != nil {
		if r.Rows != 0 || r.Cols != 0 {
			_ = setSize(master, r.Rows, r.Cols)
		}
		if cerr := s.console(master); cerr != nil {
			u.warn("terminal of exec "+r.ID, cerr)
		}
	}
	for i, conn := range files {
		if aerr := s.attach(conn, r.Streams[i]); aerr != nil {
			u.warn("attach to exec "+r.ID, aerr)
		}
	}
	s.run()
	return s, nil
}

// reserve enters an exec session, if its ID is free and the container runs.
func (u *unit) reserve(s *session) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.exit != nil || u.ctx.Err() != nil:
		return errdefs.New(errdefs.Conflict, "the container is not running")
	case u.paused:
		return errdefs.New(errdefs.Conflict, "the container is paused")
	case s.id == "" || u.execs[s.id] != nil:
		return errdefs.New(errdefs.Conflict, "exec session %q exists already", s.id)
	}
	s.process = starting{}
	u.execs[s.id] = s
	u.execEnds.Add(1)
	return nil
}

func (u *unit) release(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.execs, s.id)
	u.execEnds.Done()
}

// waitExec sees an exec session to its end.
func (u *unit) waitExec(s *session) {
	code, err := s.process.Wait(context.WithoutCancel(u.ctx))
	exit := wire.Exit{Code: code, At: time.Now().UTC()}
	if err != nil {
		exit.Code, exit.Error = 255, err.Error()
	}
	s.finish(func() {
		u.release(s)
		u.server.announce(wire.Event{Kind: wire.EventExecExit, ExecID: s.id, Exit: &exit})
	})
}

// starting stands for the process of an exec session that is about to be started.
type starting struct{}

func (starting) Pid() int                              { return 0 }
func (starting) Console() *os.File                     { return nil }
func (starting) Wait(ctx context.Context) (int, error) { return 0, nil }
func (starting) Signal(sig syscall.Signal) error {
	return errdefs.New(errdefs.Conflict, "the process is being started")
}
func (starting) Close() {}

// outOfMemory reports whether the kernel killed a process of the container for lack of memory.
func (u *unit) outOfMemory() bool {
	group := u.container.Cgroup()
	if group == nil {
		return false
	}
	stats, err := group.Stats()
	return err == nil && stats.Memory.OOMKills > 0
}

// watchMemory announces such kills from the settled container's first on.
func (u *unit) watchMemory() {
	group := u.container.Cgroup()
	if group == nil {
		return
	}
	notifier, err := group.NotifyOOM()
	if err != nil {
		return // a kernel without it: the exit still tells
	}
	stop := context.AfterFunc(u.ctx, func() { notifier.Close() })
	defer stop()
	if u.outOfMemory() {
		u.announceKill(false)
	}
	for {
		kills, err := notifier.Wait()
		if err != nil {
			return
		}
		if kills > 0 {
			u.announceKill(false)
		}
	}
}

// announceKill announces a kill for lack of memory; once: not if one was announced.
func (u *unit) announceKill(once bool) {
	u.mu.Lock()
	known := u.killed
	u.killed = true
	u.mu.Unlock()
	if !once || !known {
		u.server.announce(wire.Event{Kind: wire.EventOOM})
	}
}
