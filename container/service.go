package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/image"
	"gantry/network"
	"gantry/sandbox"
	"gantry/shim"
	"gantry/snapshot"
	"gantry/volume"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
)

// records is where containers are kept, by ID.
const records db.Bucket[Record] = "container"

// Options are what a Service is made of, and the daemon's defaults for containers.
type Options struct {
	Root     string // <data root>/containers
	ExecRoot string // <exec root>/c
	DB       *db.DB
	Events   *event.Bus
	Images   *image.Service
	Snapshot snapshot.Snapshotter
	Volumes  *volume.Service
	Networks *network.Service
	Sandbox  *sandbox.Service
	Launcher *shim.Launcher
	Log      *slog.Logger
	InitPath string // the binary that --init mounts as /sbin/docker-init: gantry-shim

	// The daemon's defaults; zero values mean Docker's.
	LogDriver      string
	LogOptions     map[string]string
	ShmSize        int64 // bytes
	IPCMode        string
	CgroupnsMode   string
	CgroupParent   string // default "/gantry"
	SeccompProfile string // path, "unconfined" or "builtin"
	NoNewPrivs     bool
	Init           bool
	DefaultRuntime string
	Runtimes       map[string]string // name to path of a foreign OCI runtime
	Ulimits        []*container.Ulimit
	StopTimeout    int // seconds; 0 means 10
	DNS            []netip.Addr
	DNSSearch      []string
	DNSOptions     []string
}

// Service owns all containers of a daemon.
type Service struct {
	opts       Options
	db         *db.DB
	events     *event.Bus
	images     *image.Service
	snapshots  snapshot.Snapshotter
	volumes    *volume.Service
	networks   *network.Service
	sandboxes  *sandbox.Service
	launcher   *shim.Launcher
	log        *slog.Logger
	unified    bool
	filters    filterCache
	configured atomic.Pointer[runtimes] // by Configure; nil: as in opts

	mu      sync.RWMutex // guards the index
	byID    map[string]*Container
	damaged map[string]bool   // IDs of records that could not be read; only Open changes it
	names   map[string]string // ID of the container that has, or is about to get, a name
	execs   map[string]*Exec
	parents map[string]map[string]bool // IDs of containers to those linked to them

	background sync.WaitGroup // exit handlers
	closing    chan struct{}
	closeOnce  sync.Once
}

// runtimes are the foreign OCI runtimes that containers may ask for.
type runtimes struct {
	byDefault string
	paths     map[string]string
}

// Configure replaces the default runtime and the paths of foreign ones, for containers created and started afterwards.
func (s *Service) Configure(byDefault string, paths map[string]string) {
	s.configured.Store(&runtimes{byDefault, maps.Clone(paths)})
}

func (s *Service) runtimes() *runtimes {
	if r := s.configured.Load(); r != nil {
		return r
	}
	return &runtimes{s.opts.DefaultRuntime, s.opts.Runtimes}
}

// Open reads the records, finds the containers that run, and repairs what an earlier process left half done.
// Restart policies take effect at the call of StartByPolicy.
func Open(ctx context.Context, o Options) (*Service, error) {
	s := &Service{
		opts: o, db: o.DB, events: o.Events, images: o.Images, snapshots: o.Snapshot, volumes: o.Volumes, networks: o.Networks,
		sandboxes: o.Sandbox, launcher: o.Launcher, log: o.Log, unified: unifiedHierarchy(),
		byID: map[string]*Container{}, names: map[string]string{}, damaged: map[string]bool{}, execs: map[string]*Exec{}, parents: map[string]map[string]bool{}, closing: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.opts.CgroupParent == "" {
		s.opts.CgroupParent = "/gantry"
	}
	for _, dir := range []string{o.Root, o.ExecRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create %s: %w", dir, err)
		}
	}
	if err := s.recover(ctx); err != nil {
		return nil, fmt.Errorf("recover containers: %w", err)
	}
	return s, nil
}

// Close stops following the containers; they keep running.
func (s *Service) Close() error {
	s.closeOnce.Do(func() { close(s.closing) })
	for _, c := range s.All() {
		c.mu.Lock()
		if c.restart != nil {
			c.restart.Stop()
		}
		task := c.task
		c.mu.Unlock()
		if task != nil {
			task.Disconnect()
		}
	}
	s.background.Wait()
	return nil
}

// Shutdown stops all containers, all at once, each with its own time-out.
func (s *Service) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, c := range s.All() {
		if !c.Record().State.alive() {
			continue
		}
		wg.Go(func() {
			if err := s.stop(ctx, c, StopOptions{}, false); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// dir returns the container's folder under the data root.
func (s *Service) dir(id string) string { return filepath.Join(s.opts.Root, id) }

// runDir returns the folder of the container's supervisor.
func (s *Service) runDir(id string) string { return filepath.Join(s.opts.ExecRoot, id) }

// recordFile is the copy of a container's record beside its files, from which a lost database is rebuilt. It follows
// what the user decides, not the container's state.
const recordFile = "record.json"

// save writes the record and its copy.
func (s *Service) save(r Record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("save container %s: %w", r.ID, err)
	}
	name := filepath.Join(s.dir(r.ID), recordFile)
	if err := os.WriteFile(name+".new", body, 0o600); err != nil {
		return fmt.Errorf("save container %s: %w", r.ID, err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("save container %s: %w", r.ID, err)
	}
	return s.saveState(r)
}

// saveState writes the record.
func (s *Service) saveState(r Record) error {
	return s.db.Update(func(tx *db.Tx) error { return records.Put(tx, r.ID, r) })
}

// saveLogged writes a record whose new state is already a fact: an error is only logged, the next start finds the fact
// again.
func (s *Service) saveLogged(r Record) {
	if err := s.saveState(r); err != nil {
		s.log.Error("cannot save the record of a container", "container", r.ID, "error", err)
	}
}

// publish tells what happened to a container; attributes are added to Docker's usual ones.
func (s *Service) publish(r *Record, action string, attributes map[string]string) {
	all := map[string]string{}
	maps.Copy(all, r.Config.Labels)
	all["image"], all["name"] = r.Config.Image, r.Name
	maps.Copy(all, attributes)
	s.events.Publish(event.Event{Type: event.Container, Action: action, ID: r.ID, Attributes: all})
}

// Users returns the containers that use the image with that ID, running or not.
func (s *Service) Users(imageID digest.Digest) []image.ContainerUse {
	var users []image.ContainerUse
	for _, c := range s.All() {
		r := c.Record()
		if r.ImageID == imageID {
			users = append(users, image.ContainerUse{ID: r.ID, Running: r.State.alive()})
		}
	}
	return users
}

// gone reports whether the error of a supervisor says that the container's process, or the supervisor itself, has ended.
func gone(err error) bool { return notFound(err) || errdefs.Is(err, errdefs.Unavailable) }

// notFound reports whether err says that something is already gone.
func notFound(err error) bool {
	return errdefs.Is(err, errdefs.NotFound) || errors.Is(err, os.ErrNotExist)
}
