// Package container is the domain of the engine: what a container is, and every verb that applies to it.
//
// A Container is owned by one Service. Its record is what the database keeps; everything else about it is found again
// from the kernel and the supervisor when the daemon starts.
package container

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"gantry/errdefs"
	"gantry/image"
	"gantry/logs"
	"gantry/shim"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

// Config is a request for a container: what the image does not say, in the words of the Docker Engine API. Every API
// translates to it.
type Config struct {
	Name     string // without slash; empty for a made-up one
	Platform string // os/arch[/variant]; empty for the host's
	Config   *container.Config
	Host     *container.HostConfig
	Network  *network.NetworkingConfig
	Step     *image.Image // of a build: the image, which the build has held to the policy, whatever Config.Image says; nil for a container of its own
}

// Record is what the database keeps of a container.
type Record struct {
	ID      string // 64 hexadecimal digits
	Name    string
	Created time.Time
	ImageID digest.Digest   // empty for none
	Layers  []digest.Digest // diffIDs of the image's layers, bottom first
	Path    string          // what is executed
	Args    []string
	Config  *container.Config     // merged with the image's
	Host    *container.HostConfig // with the daemon's defaults filled in
	Mounts  []Mount
	// Networks has an entry for each network the container is, or at the next start will be, attached to, by name.
	// The operational fields are zero while it does not run.
	Networks map[string]*network.EndpointSettings
	Links    map[string]string // alias to the ID of a container, on the default network
	Ports    network.PortMap   // published ports while running
	// StaticMACs holds the names of the networks whose MAC address the user chose.
	StaticMACs map[string]bool
	Hostname   string

	State           State
	Pid             int // in the host's pid namespace; 0 when not running
	ExitCode        int
	Error           string // why the last start failed, or why it died without an exit code
	OOMKilled       bool
	StartedAt       time.Time
	FinishedAt      time.Time
	RestartCount    int
	ManuallyStopped bool // by stop or kill: restart policies other than always leave it alone
	Step            bool // of a build: it goes with the daemon
	RestartAsked    bool // a restart by the user is under way: the end of the run in between is not the end
	Health          *container.Health
	LogConfig       logs.Config
}

// Mount is one bind, volume or tmpfs of a container, resolved.
type Mount struct {
	container.MountPoint
	Options    string   // of a tmpfs, comma separated as for mount(8)
	Subpath    string   // within a volume
	NoCopy     bool     // do not fill an empty volume from the image
	Anonymous  bool     // a volume nobody named: removed with the container by rm -v and --rm
	Create     bool     // make a missing bind source
	Flags      []string // further mount options: rbind, bind, rro, ro
	FromLegacy bool     // from Binds, not Mounts
}

// Container is a container known to the service.
type Container struct {
	svc *Service

	op sync.Mutex // serializes start, exit handling, removal, network changes: the verbs that change the kernel's side

	mu       sync.Mutex // guards all below
	rec      Record
	task     *shim.Task
	changed  chan struct{} // closed and replaced at every change of state
	removed  chan struct{} // closed when the container is gone
	waiting  []shim.Stream // attached before the start
	arriving int           // connections on their way into waiting
	execs    map[string]*Exec
	restart  *time.Timer   // pending restart by policy
	backoff  time.Duration // before the next restart by policy
	runs     int           // how many times it ran since the daemon started: "next exit" waits for a change
	ends     int           // how many of the runs have ended
	code     int           // exit code of the last end
	stopping bool          // stop or kill asked for this exit
}

// ID returns the full ID.
func (c *Container) ID() string { return c.rec.ID } // never changes

// Name returns the present name, without slash.
func (c *Container) Name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.Name
}

// Record returns a copy of the record as it is now; what its pointers lead to must not be changed.
func (c *Container) Record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rec
	if r.Health != nil {
		h := *r.Health
		r.Health = &h
	}
	return r
}

// runningTask returns the task and pid, or a Conflict error that says that the container does not run.
func (c *Container) runningTask() (*shim.Task, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.task == nil || !c.rec.State.alive() {
		return nil, errdefs.New(errdefs.Conflict, "container %s is not running", c.rec.ID)
	}
	return c.task, nil
}

// update changes the record under the lock and wakes everybody who waits for a change.
func (c *Container) update(f func(*Record)) Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.rec)
	c.wake()
	return c.rec
}

// wake tells the waiters to look again; the caller holds mu.
func (c *Container) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// mountAt returns the mount whose destination is path.
func (r *Record) mountAt(path string) *Mount {
	i := slices.IndexFunc(r.Mounts, func(m Mount) bool { return m.Destination == path })
	if i < 0 {
		return nil
	}
	return &r.Mounts[i]
}

// networkNames returns the names of the record's networks: the one of NetworkMode first, the others by priority of
// their gateway and name, which is the order in which interfaces are made.
func (r *Record) networkNames() []string {
	names := make([]string, 0, len(r.Networks))
	for name := range r.Networks {
		names = append(names, name)
	}
	primary := primaryNetwork(r.Host)
	slices.SortFunc(names, func(a, b string) int {
		if (a == primary) != (b == primary) {
			if a == primary {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(r.Networks[b].GwPriority, r.Networks[a].GwPriority), cmp.Compare(a, b))
	})
	return names
}

// primaryNetwork returns the name of the network that NetworkMode names: "bridge" for the default.
func primaryNetwork(h *container.HostConfig) string {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		return network.NetworkBridge
	}
	return string(h.NetworkMode)
}
