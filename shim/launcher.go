// Package shim starts and reaches the supervisors of sandboxes: one small process each, which outlives the daemon.
package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/logs/attributes"
	"gantry/shim/wire"
)

// Options configure a Launcher.
type Options struct {
	Exe  string       // the gantry-shim binary; its content is copied once into a sealed memory file
	Warm int          // ready shims to keep
	Log  *slog.Logger // nil: nothing is logged
}

// Launcher starts containers in shims that wait ready. Its methods may be called concurrently.
type Launcher struct {
	exe  *os.File // sealed: the one program text of all shims, which no container can overwrite (CVE-2019-5736)
	warm int
	log  *slog.Logger

	fillers sync.WaitGroup // who start shims ahead of time; none is added once closed is set

	mu      sync.Mutex // guards below
	ready   []*process
	filling bool
	closed  bool
}

// process is a shim without a container.
type process struct {
	pid  int
	conn *wire.Conn
}

// NewLauncher reads the shim's binary and starts the first ready shims.
func NewLauncher(o Options) (*Launcher, error) {
	exe, err := fd.SealedCopy(o.Exe)
	if err != nil {
		return nil, fmt.Errorf("load shim: %w", err)
	}
	if err := fd.CloseOnExec(); err != nil { // a shim must not keep what the daemon's parent left open
		return nil, fmt.Errorf("start shims: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Launcher{exe: exe, warm: o.Warm, log: log}
	l.refill()
	return l, nil
}

// Close ends the shims that wait; those with a container stay.
func (l *Launcher) Close() {
	l.mu.Lock()
	ready := l.ready
	l.ready, l.closed = nil, true
	l.mu.Unlock()
	l.fillers.Wait() // they read the program
	for _, p := range ready {
		p.end()
	}
	l.exe.Close()
}

// end lets a shim without a container end: it does when its only connection does.
func (p *process) end() {
	p.conn.Close()
	reapChild(p.pid)
}

// refill starts ready shims in the background until there are enough.
func (l *Launcher) refill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.filling || l.closed || len(l.ready) >= l.warm {
		return
	}
	l.filling = true
	l.fillers.Go(func() {
		for l.addReady() {
		}
	})
}

// addReady starts one ready shim; false: there are enough.
func (l *Launcher) addReady() bool {
	p, err := l.spawn()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.log.Warn("cannot start a shim ahead of time", "error", err)
		l.filling = false
		return false
	}
	if l.closed || len(l.ready) >= l.warm {
		l.filling = false
		go p.end()
		return false
	}
	l.ready = append(l.ready, p)
	l.filling = len(l.ready) < l.warm
	return l.filling
}

// take returns a ready shim, or a new one if none is ready.
func (l *Launcher) take() (*process, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, errdefs.New(errdefs.Unavailable, "start shim: the daemon is shutting down")
	}
	if n := len(l.ready); n > 0 {
		p := l.ready[n-1]
		l.ready = slices.Delete(l.ready, n-1, n)
		l.mu.Unlock()
		return p, nil
	}
	l.mu.Unlock()
	return l.spawn()
}

// spawn starts a shim with one end of a socket pair as descriptor 3.
func (l *Launcher) spawn() (*process, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", os.NewSyscallError("socketpair", err))
	}
	defer syscall.Close(pair[1])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		syscall.Close(pair[0])
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer null.Close()
	pid, err := syscall.ForkExec(fd.Path(l.exe), []string{"gantry-shim"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment(),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(pair[1])}, // nothing of the daemon's, which it outlives
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		syscall.Close(pair[0])
		return nil, fmt.Errorf("start shim: %w", err)
	}
	conn, err := wire.NewConn(pair[0])
	if err != nil {
		syscall.Close(pair[0])
		reapChild(pid) // ends by itself: its connection has
		return nil, fmt.Errorf("start shim: %w", err)
	}
	return &process{pid: pid, conn: conn}, nil
}

// environment of a shim: it serves one container, so that one processor and a small heap do. Most shims never collect garbage: what they
// allocate in their life stays below 1 MB (a quarter of the 4 MB that GOGC=100 stands for), and a collection alone takes 150 kB for its
// workers and bitmaps.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1", "GOGC=25", "GOTRACEBACK=single",
		"GODEBUG=containermaxprocs=0,updatemaxprocs=0", // else the Go runtime reads cgroup limits for what is said already
	}
}

// Start runs a container. It takes the streams' connections over in any case. An *ExecError says that the program could not be executed.
func (l *Launcher) Start(ctx context.Context, r StartRequest) (*Task, error) {
	for _, s := range r.Streams {
		defer s.Conn.Close()
	}
	m, files, err := r.message()
	if err != nil {
		return nil, err
	}
	defer l.refill() // not before: processors are scarce while a container starts
	for {
		t, err := l.startIn(ctx, &r, &m, files)
		var unsent *unsentError
		if !errors.As(err, &unsent) {
			return t, err
		}
		// It died while it waited, for lack of memory on the machine perhaps. Those that wait are few; a new one must do.
		if ctx.Err() != nil || !l.anyReady() {
			return l.startIn(ctx, &r, &m, files)
		}
	}
}

// anyReady reports whether a shim waits.
func (l *Launcher) anyReady() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ready) > 0
}

// startIn runs a container in a shim that waits, or else in a new one.
func (l *Launcher) startIn(ctx context.Context, r *StartRequest, m *wire.StartRequest, files []*os.File) (*Task, error) {
	p, err := l.take()
	if err != nil {
		return nil, err
	}
	t := newTask(p.conn)
	t.pid = p.pid
	go t.receive()
	if err := t.call(ctx, wire.MethodStart, m, &t.first, files...); err != nil {
		if errdefs.Is(err, errdefs.Canceled) { // it may just have started: the shim answers one request after the other
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTime)
			_ = t.Delete(end) // of one that has not started, an error
			cancel()
		}
		if errdefs.Is(err, errdefs.Unavailable) {
			err = errors.Join(err, clearAway(ctx, r))
		}
		t.Disconnect()                                                         // a shim without a container ends
		return nil, fmt.Errorf("failed to create task for container: %w", err) // docker's words
	}
	return t, nil
}

// clearAway removes what a shim left that died while it started a container.
func clearAway(ctx context.Context, r *StartRequest) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTime)
	defer cancel()
	err := Reap(ctx, r.Dir)
	if r.Runtime == "" && r.Spec.Linux != nil && r.Spec.Linux.CgroupsPath != "" { // made before there was anything on record
		err = errors.Join(err, removeCgroup(ctx, r.Spec.Linux.CgroupsPath))
	}
	return err
}

// clearTime is enough for the kernel to end killed processes.
const clearTime = 5 * time.Second

// message returns what travels to the shim.
func (r *StartRequest) message() (wire.StartRequest, []*os.File, error) {
	m := wire.StartRequest{
		ID: r.ID, Dir: r.Dir, Spec: r.Spec, Seccomp: r.Seccomp, Rows: r.Rows, Cols: r.Cols,
		OpenStdin: r.OpenStdin, StdinOnce: r.StdinOnce, Log: r.Log, Health: r.Health, Runtime: r.Runtime,
	}
	var err error
	if m.Log, err = attributes.Resolve(r.Log); err != nil {
		return m, nil, err
	}
	if r.Runtime == "" && len(r.Seccomp) > 0 && r.Spec.Linux != nil && r.Spec.Linux.Seccomp != nil && r.Spec.Linux.Seccomp.Flags == nil && r.Spec.Linux.Seccomp.ListenerPath == "" {
		// It is compiled, and there is nothing that the filter does not say: the source need not travel.
		spec, linux := *r.Spec, *r.Spec.Linux
		linux.Seccomp = nil
		spec.Linux = &linux
		m.Spec = &spec
	}
	var files []*os.File
	if r.Root != nil {
		m.HasRoot = true
		files = append(files, r.Root)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Namespaces)) {
		m.Namespaces = append(m.Namespaces, specs.LinuxNamespaceType(kind))
		files = append(files, r.Namespaces[kind])
	}
	for _, destination := range slices.Sorted(maps.Keys(r.Mounts)) {
		m.Mounts = append(m.Mounts, destination)
		files = append(files, r.Mounts[destination])
	}
	for _, s := range r.Streams {
		m.Streams = append(m.Streams, s.message())
		files = append(files, s.Conn)
	}
	return m, files, nil
}
