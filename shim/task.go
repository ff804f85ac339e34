package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/logs"
	"gantry/shim/wire"
)

// What a shim and its clients tell each other, under the names that callers use.
type (
	Exit         = wire.Exit
	Event        = wire.Event
	EventKind    = wire.EventKind
	Health       = wire.Health
	HealthState  = wire.HealthState
	HealthStatus = wire.HealthStatus
	ProbeResult  = wire.ProbeResult
	State        = wire.State
)

// The kinds of event and the statuses of health.
const (
	EventExit     = wire.EventExit
	EventExecExit = wire.EventExecExit
	EventOOM      = wire.EventOOM
	EventHealth   = wire.EventHealth
	EventDetach   = wire.EventDetach
	EventWarning  = wire.EventWarning
	EventClosed   = wire.EventClosed

	HealthStarting  = wire.HealthStarting
	HealthHealthy   = wire.HealthHealthy
	HealthUnhealthy = wire.HealthUnhealthy
)

// StartRequest is all a shim needs to run a container. The caller keeps its descriptors (and closes them after Start), except the
// connections in Streams, which Start takes over in any case.
type StartRequest struct {
	ID, Dir    string // Dir, <exec root>/c/<id>, exists; the shim writes shim.sock, init.json and exit.json there
	Spec       *specs.Spec
	Seccomp    []byte // compiled filter; nil: Spec.Linux.Seccomp is compiled by the shim
	Root       *os.File
	Namespaces map[specs.LinuxNamespaceType]*os.File
	Mounts     map[string]*os.File // detached mounts, by the destination of the mount in Spec whose place they take
	Rows, Cols uint16              // the terminal's first size, 0 x 0 unknown
	OpenStdin  bool                // a pipe (or the terminal) on stdin, else /dev/null
	StdinOnce  bool                // stdin ends with the first client that had it attached
	Log        logs.Config
	Health     *Health // nil: no probes
	Streams    []Stream
	Runtime    string // path of a foreign OCI runtime, "" for the built-in one
}

// Stream is a client connection that the shim serves from now on.
type Stream struct {
	Conn                  *os.File // TCP or unix stream socket, handed over for good
	Stdin, Stdout, Stderr bool     // what is attached
	Mux                   bool     // Docker's 8 byte frame headers; false for a terminal
	DetachKeys            []byte   // nil: ctrl-p ctrl-q; only looked for on a terminal's stdin
	Prefix                []byte   // stdin that was read together with the request
}

// ExecRequest starts one more process in the container.
type ExecRequest struct {
	ID         string // of the session, unique within the container
	Process    *specs.Process
	Rows, Cols uint16
	Seccomp    []byte // compiled filter instead of the container's; nil: the container's, empty: none
	OpenStdin  bool   // a pipe on stdin even if no stream has it
	Streams    []Stream
	Detach     bool // no streams: stdin, stdout and stderr are /dev/null
}

// ExecError is why a container's or an exec's program could not be executed, in Docker's words.
type ExecError struct {
	Message string
	Code    int // exit code: 127 not found, 126 found but not executable
}

func (e *ExecError) Error() string { return e.Message }

// Task is a running container as the daemon sees it: a connection to its shim. Its methods may be called concurrently. When the shim
// is gone they fail with an error of kind Unavailable.
type Task struct {
	conn   *wire.Conn
	first  State
	events chan Event
	pid    int // of the shim if it is our child and must be waited for, else 0

	mu      sync.Mutex // guards below
	last    uint32     // ID of the last request
	pending map[uint32]chan wire.Frame
	ended   error // why no more answers come
	exited  bool  // the exit was announced
	left    bool  // Disconnect was called
}

// eventBacklog is how many events wait for a reader before the connection waits.
const eventBacklog = 16

func newTask(conn *wire.Conn) *Task {
	return &Task{conn: conn, events: make(chan Event, eventBacklog), pending: map[uint32]chan wire.Frame{}}
}

// Connect finds the shim of the sandbox in dir again, after a restart of the daemon. NotFound: the shim is gone; see ReadExit and Reap.
func Connect(ctx context.Context, dir string) (*Task, error) {
	conn, err := wire.Dial(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			err = errdefs.With(errdefs.NotFound, err)
		}
		return nil, err
	}
	t := newTask(conn)
	go t.receive()
	if err := t.call(ctx, wire.MethodState, wire.StateRequest{Events: true}, &t.first); err != nil {
		t.Disconnect()
		if errdefs.Is(err, errdefs.Unavailable) { // it was just ending
			err = errdefs.With(errdefs.NotFound, err)
		}
		return nil, fmt.Errorf("connect to shim in %s: %w", dir, err)
	}
	return t, nil
}

// Pid returns the process ID of the container's init.
func (t *Task) Pid() int { return t.first.Pid }

// Initial returns the shim's word about the container at the time of Start or Connect.
func (t *Task) Initial() State { return t.first }

// State asks the shim how the container is now.
func (t *Task) State(ctx context.Context) (State, error) {
	var s State
	err := t.call(ctx, wire.MethodState, wire.StateRequest{}, &s)
	return s, err
}

// Events returns what happens in the sandbox, in order. The last event is EventExit, or EventClosed when the shim died without a word
// about the end (then call Reap), or neither after Disconnect; the channel is closed when the shim is gone. The caller must keep
// reading. After Connect an exit that the shim could tell nobody comes again.
func (t *Task) Events() <-chan Event { return t.events }

// Attach hands a client connection to the container.
func (t *Task) Attach(ctx context.Context, s Stream) error {
	defer s.Conn.Close()
	return t.call(ctx, wire.MethodAttach, wire.AttachRequest{Stream: s.message()}, nil, s.Conn)
}

// Resize sets the size of the terminal of the container ("") or of an exec session.
func (t *Task) Resize(ctx context.Context, execID string, rows, cols uint16) error {
	return t.call(ctx, wire.MethodResize, wire.ResizeRequest{ExecID: execID, Rows: rows, Cols: cols}, nil)
}

// Signal sends a signal to the container's init ("") or to the process of an exec session. NotFound: it has ended.
func (t *Task) Signal(ctx context.Context, execID string, sig syscall.Signal) error {
	return t.call(ctx, wire.MethodSignal, wire.SignalRequest{ExecID: execID, Signal: int(sig)}, nil)
}

// Pause freezes all processes of the container, Resume thaws them.
func (t *Task) Pause(ctx context.Context) error { return t.call(ctx, wire.MethodPause, nil, nil) }

// Resume undoes Pause.
func (t *Task) Resume(ctx context.Context) error { return t.call(ctx, wire.MethodResume, nil, nil) }

// Update changes the container's limits; nil fields stay as they are.
func (t *Task) Update(ctx context.Context, r *specs.LinuxResources) error {
	return t.call(ctx, wire.MethodUpdate, r, nil)
}

// Stats reads the counters of the container's cgroup.
func (t *Task) Stats(ctx context.Context) (cgroup.Stats, error) {
	var s cgroup.Stats
	err := t.call(ctx, wire.MethodStats, nil, &s)
	return s, err
}

// Pids returns the processes of the container, in the shim's pid namespace.
func (t *Task) Pids(ctx context.Context) ([]int, error) {
	var pids []int
	err := t.call(ctx, wire.MethodPids, nil, &pids)
	return pids, err
}

// Exec starts a process in the container and returns its process ID. It takes the streams' connections over in any case. An
// *ExecError says that the program could not be executed.
func (t *Task) Exec(ctx context.Context, r ExecRequest) (pid int, err error) {
	m := wire.ExecRequest{
		ID: r.ID, Process: r.Process, Seccomp: r.Seccomp, NoSeccomp: r.Seccomp != nil && len(r.Seccomp) == 0,
		Rows: r.Rows, Cols: r.Cols, OpenStdin: r.OpenStdin, Detach: r.Detach,
	}
	files := make([]*os.File, 0, len(r.Streams))
	for _, s := range r.Streams {
		defer s.Conn.Close()
		m.Streams = append(m.Streams, s.message())
		files = append(files, s.Conn)
	}
	var started wire.Exec
	err = t.call(ctx, wire.MethodExec, m, &started, files...)
	return started.Pid, err
}

// CloseStdin closes the stdin of the container ("") or of an exec session.
func (t *Task) CloseStdin(ctx context.Context, execID string) error {
	return t.call(ctx, wire.MethodCloseStdin, wire.CloseStdinRequest{ExecID: execID}, nil)
}

// Delete kills what is left of the container, removes its cgroup and ends the shim; output that clients have not read yet is still
// delivered. It is no error if the shim ends meanwhile.
func (t *Task) Delete(ctx context.Context) error {
	err := t.call(ctx, wire.MethodDelete, nil, nil)
	if errdefs.Is(err, errdefs.Unavailable) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.exited { // a shim that was alone cleans up by itself and ends
			return nil
		}
	}
	return err
}

// Disconnect leaves the shim alone and closes the connection.
func (t *Task) Disconnect() {
	t.mu.Lock()
	t.left = true
	t.mu.Unlock()
	t.conn.Close()
}

func (s *Stream) message() wire.Stream {
	return wire.Stream{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Mux: s.Mux, DetachKeys: s.DetachKeys, Prefix: s.Prefix}
}
