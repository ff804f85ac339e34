// Package engine composes the services of a daemon: it opens them in order over one data root, recovers what an earlier
// process left, and closes them. It has no operations of its own.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"gantry/archive"
	"gantry/build/graph"
	"gantry/container"
	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/image"
	"gantry/network"
	"gantry/registry"
	"gantry/sandbox"
	"gantry/shim"
	"gantry/snapshot"
	"gantry/volume"
)

// Options say where and how an engine lives. Fields that name the database, the event bus or the log in the services'
// own options are filled in by Open.
type Options struct {
	DataRoot      string         // images, volumes and records; 0700
	ExecRoot      string         // sockets and state of running containers, lost at boot; 0700
	ShimExe       string         // the gantry-shim binary
	WarmShims     int            // shims kept ready
	StorageDriver string         // docker's name; "": what was used before
	Limits        archive.Limits // of the layers of images, and of the contexts of builds
	Network       network.Options
	Registry      registry.Config
	Containers    container.Options
	HostGateway   netip.Addr      // what host-gateway in --add-host means; zero: the default bridge's address
	Downloads     int             // layers fetched at once per pull; 0: 3
	Uploads       int             // layers sent at once per push; 0: 5
	KeepBlobs     bool            // blobs of layers stay as they came
	ImagePolicy   string          // file that says which images may be used; empty: all
	Packing       archive.Packing // how a push compresses layers that are not compressed; zero: gzip
	Log           *slog.Logger
}

// Engine is the set of open services.
type Engine struct {
	ID       string // of this data root: a UUID, made once
	DataRoot string
	ExecRoot string

	DB         *db.DB
	Events     *event.Bus
	Snapshots  snapshot.Snapshotter
	Images     *image.Service
	Networks   *network.Service
	Volumes    *volume.Service
	Launcher   *shim.Launcher
	Containers *container.Service
	Builder    *graph.Service

	closers []func() error // undone in reverse order
}

// Open opens all services. On failure everything already opened is closed again.
func Open(ctx context.Context, o Options) (e *Engine, err error) {
	e = &Engine{DataRoot: o.DataRoot, ExecRoot: o.ExecRoot, Events: &event.Bus{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
			e = nil
		}
	}()
	for _, dir := range []string{o.DataRoot, o.ExecRoot} {
		lock, err := lockRoot(dir)
		if err != nil {
			return e, err
		}
		e.onClose(lock.Close)
	}
	for _, dir := range []string{filepath.Join(o.DataRoot, "tmp"), filepath.Join(o.ExecRoot, "c")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return e, fmt.Errorf("create root directory: %w", err)
		}
	}
	if e.DB, err = db.Open(filepath.Join(o.DataRoot, "gantry.db")); err != nil {
		return e, err
	}
	e.onClose(e.DB.Close)
	if e.ID, err = identity(e.DB); err != nil {
		return e, err
	}
	if e.Snapshots, err = openSnapshots(ctx, e.DB, o); err != nil {
		return e, err
	}
	e.onClose(e.Snapshots.Close)
	e.Images, err = image.Open(ctx, image.Options{
		Root: o.DataRoot, DB: e.DB, Events: e.Events, Snapshots: e.Snapshots, Registry: o.Registry,
		Downloads: o.Downloads, Uploads: o.Uploads, Keep: o.KeepBlobs, Policy: o.ImagePolicy, Packing: o.Packing, Log: o.Log,
	})
	if err != nil {
		return e, fmt.Errorf("open images: %w", err)
	}
	e.onClose(e.Images.Close)
	if e.Volumes, err = volume.Open(ctx, volume.Options{Root: filepath.Join(o.DataRoot, "volumes"), DB: e.DB, Events: e.Events}); err != nil {
		return e, fmt.Errorf("open volumes: %w", err)
	}
	e.onClose(e.Volumes.Close)
	o.Network.DB, o.Network.Events, o.Network.Log = e.DB, e.Events, o.Log
	if e.Networks, err = network.Open(ctx, o.Network); err != nil {
		return e, fmt.Errorf("open networks: %w", err)
	}
	e.onClose(e.Networks.Close)
	if e.Launcher, err = shim.NewLauncher(shim.Options{Exe: o.ShimExe, Warm: o.WarmShims, Log: o.Log}); err != nil {
		return e, fmt.Errorf("prepare shims: %w", err)
	}
	e.onClose(func() error { e.Launcher.Close(); return nil })
	c := o.Containers
	c.Root, c.ExecRoot = filepath.Join(o.DataRoot, "containers"), filepath.Join(o.ExecRoot, "c")
	c.DB, c.Events, c.Images, c.Snapshot, c.Volumes, c.Networks, c.Launcher, c.Log = e.DB, e.Events, e.Images, e.Snapshots, e.Volumes, e.Networks, e.Launcher, o.Log
	c.Sandbox = sandbox.New(e.Networks, func(ctx context.Context) netip.Addr { return hostGateway(ctx, e.Networks, o.HostGateway) })
	if e.Containers, err = container.Open(ctx, c); err != nil {
		return e, fmt.Errorf("open containers: %w", err)
	}
	e.onClose(e.Containers.Close)
	e.Builder = graph.New(graph.Options{Root: o.DataRoot, Images: e.Images, Containers: e.Containers, Limits: o.Limits, Log: o.Log})
	return e, nil
}

// hostGateway returns the address by which containers reach the host.
func hostGateway(ctx context.Context, networks *network.Service, configured netip.Addr) netip.Addr {
	if configured.IsValid() {
		return configured
	}
	nw, err := networks.Get(ctx, network.Bridge)
	if err != nil || len(nw.IPAM.Config) == 0 {
		return netip.Addr{}
	}
	return nw.IPAM.Config[0].Gateway
}

func (e *Engine) onClose(f func() error) { e.closers = append(e.closers, f) }

// Close closes the services, newest first. Containers keep running.
func (e *Engine) Close() error {
	var errs []error
	for i := len(e.closers) - 1; i >= 0; i-- {
		errs = append(errs, e.closers[i]())
	}
	e.closers = nil
	return errors.Join(errs...)
}

// setting is the bucket of the engine's own records.
const setting db.Bucket[string] = "engine"

// identity returns the ID of the data root, made at its first use.
func identity(d *db.DB) (id string, err error) {
	err = d.Update(func(tx *db.Tx) error {
		if id, err = setting.Get(tx, "id"); !errdefs.Is(err, errdefs.NotFound) {
			return err
		}
		var u [16]byte
		_, _ = rand.Read(u[:]) // never fails
		u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
		id = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		return setting.Put(tx, "id", id)
	})
	if err != nil {
		return "", fmt.Errorf("find the engine's ID: %w", err)
	}
	return id, nil
}
