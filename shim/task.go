package shim

import (
	"context"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
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
	Rows, Cols uint16 // the terminal's first size, 0 x 0 unknown
	OpenStdin  bool   // a pipe (or the terminal) on stdin, else /dev/null
	StdinOnce  bool   // stdin ends with the first client that had it attached
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
	OpenStdin  bool // a pipe on stdin even if no stream has it
	Streams    []Stream
	Detach     bool // no streams: stdin, stdout and stderr are /dev/null
}

// ExecError is why a container's or an exec's program could not be executed, in Docker's words.
type ExecError struct {
	Message string
	Code    int // exit code: 127 not found, 126 found but not executable
}

func (e *ExecError) Error() string { return e.Message }

// Task is a running container as the daemon sees it: a connection to its shim. Its methods may be called concurrently.
type Task struct {
	state  State
	events chan Event
}

// Connect finds the shim of the sandbox in dir again, after a restart of the daemon. NotFound: the shim is gone; see ReadExit and Reap.
func Connect(ctx context.Context, dir string) (*Task, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "connect to shim in %s", dir)
}

// ReadExit returns how a container ended whose shim is gone. NotFound: it left no word, it was killed.
func ReadExit(dir string) (Exit, error) {
	return Exit{}, errdefs.New(errdefs.NotImplemented, "read exit in %s", dir)
}

// Reap kills what a dead shim left behind in the sandbox of dir: init, the cgroup's processes, the cgroup.
func Reap(ctx context.Context, dir string) error {
	return errdefs.New(errdefs.NotImplemented, "reap %s", dir)
}

// Pid returns the process ID of the container's init.
func (t *Task) Pid() int { return t.state.Pid }

// Initial returns the shim's word about the container at the time of Start or Connect.
func (t *Task) Initial() State { return t.state }

// State asks the shim how the container is now.
func (t *Task) State(ctx context.Context) (State, error) { return State{}, t.missing() }

// Events returns what happens in the sandbox, in order. The channel is closed after EventExit and Delete, after EventClosed, or after
// Disconnect. The caller must keep reading.
func (t *Task) Events() <-chan Event { return t.events }

// Attach hands a client connection to the container.
func (t *Task) Attach(ctx context.Context, s Stream) error { return t.missing() }

// Resize sets the size of the terminal of the container ("") or of an exec session.
func (t *Task) Resize(ctx context.Context, execID string, rows, cols uint16) error { return t.missing() }

// Signal sends a signal to the container's init ("") or to the process of an exec session. NotFound: it has ended.
func (t *Task) Signal(ctx context.Context, execID string, sig syscall.Signal) error {
	return t.missing()
}

// Pause freezes all processes of the container, Resume thaws them.
func (t *Task) Pause(ctx context.Context) error { return t.missing() }

// Resume undoes Pause.
func (t *Task) Resume(ctx context.Context) error { return t.missing() }

// Update changes the container's limits.
func (t *Task) Update(ctx context.Context, r *specs.LinuxResources) error { return t.missing() }

// Pids returns the processes of the container, in the shim's pid namespace.
func (t *Task) Pids(ctx context.Context) ([]int, error) { return nil, t.missing() }

// Exec starts a process in the container and returns its process ID. An *ExecError says that the program could not be executed.
func (t *Task) Exec(ctx context.Context, r ExecRequest) (pid int, err error) { return 0, t.missing() }

// CloseStdin closes the stdin of the container ("") or of an exec session.
func (t *Task) CloseStdin(ctx context.Context, execID string) error { return t.missing() }

// Delete removes the container's cgroup, killing what is left in it, and ends the shim.
func (t *Task) Delete(ctx context.Context) error { return t.missing() }

// Disconnect leaves the shim alone and closes the connection.
func (t *Task) Disconnect() {}

func (t *Task) missing() error { return errdefs.New(errdefs.NotImplemented, "shim protocol") }
