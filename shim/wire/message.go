// Package wire is the protocol between the daemon and a shim: frames on a unix stream socket, file descriptors beside them.
package wire

import (
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/logs"
)

// EventKind says what an Event reports.
type EventKind string

// The kinds of event. Closed is made by the client itself: the shim died without having announced an exit.
const (
	EventExit     EventKind = "exit"      // the container's init ended, its log is flushed, its streams are closed
	EventExecExit EventKind = "exec-exit" // the process of one exec session ended
	EventOOM      EventKind = "oom"       // the kernel killed a process of the container for lack of memory
	EventHealth   EventKind = "health"    // a health probe ended
	EventDetach   EventKind = "detach"    // a client typed its detach keys
	EventWarning  EventKind = "warning"   // something went wrong that the container survives; it is in LogName too
	EventClosed   EventKind = "closed"
)

// Event is something that happened in the sandbox.
type Event struct {
	Kind   EventKind
	ExecID string       `json:",omitempty"` // exec-exit and detach: the session, "" for the container's own
	Exit   *Exit        `json:",omitempty"` // exit and exec-exit
	Health *HealthState `json:",omitempty"` // health

	Message string `json:",omitempty"` // warning
}

// Exit is how a process ended.
type Exit struct {
	Code      int // 128+n when killed by signal n
	At        time.Time
	OOMKilled bool   `json:",omitempty"`
	Error     string `json:",omitempty"` // why the code is not the process's own
}

// HealthStatus is Docker's word for the health of a container.
type HealthStatus string

// The health statuses.
const (
	HealthStarting  HealthStatus = "starting"
	HealthHealthy   HealthStatus = "healthy"
	HealthUnhealthy HealthStatus = "unhealthy"
)

// Health configures the probes of a container.
type Health struct {
	Test          []string       // as Docker's: {"CMD", args...}, {"CMD-SHELL", command}; {"NONE"} switches probes off
	Shell         []string       `json:",omitempty"` // for CMD-SHELL; {"/bin/sh", "-c"} when empty
	Interval      time.Duration  // between two probes; 0: 30 s
	Timeout       time.Duration  // of one probe; 0: 30 s
	StartPeriod   time.Duration  // in which failures do not count
	StartInterval time.Duration  // between two probes in the start period; 0: 5 s
	Retries       int            // failures in a row that make a container unhealthy; 0: 3
	Process       *specs.Process // user, environment, working directory, capabilities of a probe; its Args are not used
}

// ProbeResult is the outcome of one probe.
type ProbeResult struct {
	Start, End time.Time
	ExitCode   int    // 0 healthy, 1 unhealthy, -1 the probe could not run or took too long
	Output     string // at most 4096 bytes
}

// HealthState is the health of a container after a probe.
type HealthState struct {
	Status        HealthStatus
	FailingStreak int
	Log           []ProbeResult // the last five, oldest first
}

// State is what a shim says about its container to a daemon that connects.
type State struct {
	ID        string
	Pid       int       // of the container's init in the shim's pid namespace
	StartedAt time.Time // when init's program was started
	Paused    bool
	Exit      *Exit        `json:",omitempty"` // set once init ended
	Health    *HealthState `json:",omitempty"`
	Execs     []Exec       `json:",omitempty"` // sessions that still run
	Warnings  []string     `json:",omitempty"` // limits that this host did not allow
}

// Exec is one running exec session.
type Exec struct {
	ID  string
	Pid int
}

// Stream describes an attached client connection; the descriptor travels beside the message.
type Stream struct {
	Stdin, Stdout, Stderr bool
	Mux                   bool   `json:",omitempty"`
	DetachKeys            []byte `json:",omitempty"`
	Prefix                []byte `json:",omitempty"`
}

// StartRequest is the message behind shim.StartRequest. Descriptors, in this order: Root if HasRoot, one for each of Namespaces,
// one for each of Mounts, one for each of Streams.
type StartRequest struct {
	ID, Dir    string
	Spec       *specs.Spec
	Seccomp    []byte `json:",omitempty"`
	HasRoot    bool   `json:",omitempty"`
	Namespaces []specs.LinuxNamespaceType
	Mounts     []string `json:",omitempty"` // destinations
	Rows, Cols uint16
	OpenStdin  bool `json:",omitempty"`
	StdinOnce  bool `json:",omitempty"`
	Log        logs.Config
	Health     *Health  `json:",omitempty"`
	Streams    []Stream `json:",omitempty"`
	Runtime    string   `json:",omitempty"`
}

// StateRequest asks for the State, and for the events from then on.
type StateRequest struct{ Events bool }

// AttachRequest hands over one client connection.
type AttachRequest struct{ Stream Stream }

// ResizeRequest sets the size of a terminal.
type ResizeRequest struct {
	ExecID     string `json:",omitempty"`
	Rows, Cols uint16
}

// SignalRequest sends a signal to a process.
type SignalRequest struct {
	ExecID string `json:",omitempty"`
	Signal int
}

// CloseStdinRequest closes the stdin of a process.
type CloseStdinRequest struct {
	ExecID string `json:",omitempty"`
}

// ExecRequest starts one more process; one file for each of Streams.
type ExecRequest struct {
	ID         string
	Process    *specs.Process
	Seccomp    []byte `json:",omitempty"` // filter instead of the container's
	NoSeccomp  bool   `json:",omitempty"` // no filter at all
	Rows, Cols uint16
	OpenStdin  bool
	Streams    []Stream
	Detach     bool
}

// The files of a sandbox directory.
const (
	SocketName = "shim.sock" // where the shim listens
	InitName   = "init.json" // a Record, while the container runs
	ExitName   = "exit.json" // the same file with its Exit, once the container ended
	LogName    = "shim.log"  // what went wrong in the shim itself, if anything did
)

// Record is what a shim leaves for the case that it dies: what it takes to kill its container, and how that ended.
type Record struct {
	Pid       int
	StartTime uint64   // of Pid, in clock ticks since boot, as in /proc/<pid>/stat
	Cgroup    string   // its path
	Mounts    []string `json:",omitempty"` // paths to unmount
	Exit      *Exit    `json:",omitempty"`
}
