package main

import (
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"gantry/event"
)

// reload reads daemon.json again and takes over the keys that may change while the daemon runs. Keys that the file does
// not have keep their value, as with docker. A file that is wrong changes nothing.
func (d *daemon) reload() {
	next, err := load(d.program, os.Args[1:], os.Getenv, io.Discard)
	if err != nil {
		d.log.Error("Error reloading configuration", "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := *d.config // readers of the old one keep it
	takes := c.reloads(next)
	var later []string
	for key := range next.fromFile {
		if take := takes[key]; take != nil {
			take()
		} else if !d.config.fromFile[key] {
			later = append(later, key)
		}
	}
	if len(later) > 0 {
		slices.Sort(later)
		d.log.Warn("these changes take effect at the next start only", "keys", strings.Join(later, ", "))
	}
	if err := d.engine.Images.Configure(c.registries(d.log), int(c.maxDownloads), int(c.maxUploads)); err != nil {
		d.log.Error("Error reloading configuration", "error", err)
		return
	}
	d.engine.Snapshots.SetLimits(c.layerLimits)
	d.engine.Builder.SetLimits(c.layerLimits)
	d.engine.Containers.Configure(c.defaultRuntime, c.runtimePaths())
	d.config = &c
	d.level.Set(slogLevel(c.logLevel, c.debug))
	attributes := c.attributes()
	d.engine.Events.Publish(event.Event{Type: event.Daemon, Action: "reload", ID: d.engine.ID, Attributes: attributes})
	args := make([]any, 0, 2*len(attributes))
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		args = append(args, key, attributes[key])
	}
	d.log.Info("Reloaded configuration", args...)
}

// reloads returns, by key, what takes a reloadable option over from next.
func (c *config) reloads(next *config) map[string]func() {
	return map[string]func(){
		"debug":                    func() { c.debug = next.debug },
		"log-level":                func() { c.logLevel = next.logLevel },
		"labels":                   func() { c.labels = next.labels },
		"live-restore":             func() { c.liveRestore = next.liveRestore },
		"shutdown-timeout":         func() { c.shutdownTimeout = next.shutdownTimeout },
		"insecure-registries":      func() { c.insecure = next.insecure },
		"registry-mirrors":         func() { c.mirrors = next.mirrors },
		"max-concurrent-downloads": func() { c.maxDownloads = next.maxDownloads },
		"max-concurrent-uploads":   func() { c.maxUploads = next.maxUploads },
		"max-download-attempts":    func() { c.maxAttempts = next.maxAttempts },
		"runtimes":                 func() { c.runtimes = next.runtimes },
		"default-runtime":          func() { c.defaultRuntime = next.defaultRuntime },
		"features":                 func() { c.features = next.features },
		"max-layer-entries":        func() { c.layerLimits.Entries = next.layerLimits.Entries },
		"max-layer-size":           func() { c.layerLimits.Size = next.layerLimits.Size },
		"max-layer-ratio":          func() { c.layerLimits.Ratio = next.layerLimits.Ratio },
		"max-layer-memory":         func() { c.layerLimits.Memory = next.layerLimits.Memory },
	}
}

// attributes are the reloadable options, as the reload event shows them.
func (c *config) attributes() map[string]string {
	return map[string]string{
		"debug":                    strconv.FormatBool(c.debug),
		"labels":                   "[" + strings.Join(c.labels, ",") + "]",
		"live-restore":             strconv.FormatBool(c.liveRestore),
		"shutdown-timeout":         strconv.FormatInt(c.shutdownTimeout, 10),
		"insecure-registries":      "[" + strings.Join(c.insecure, ",") + "]",
		"registry-mirrors":         "[" + strings.Join(c.mirrors, ",") + "]",
		"max-concurrent-downloads": strconv.FormatInt(c.maxDownloads, 10),
		"max-concurrent-uploads":   strconv.FormatInt(c.maxUploads, 10),
		"max-download-attempts":    strconv.FormatInt(c.maxAttempts, 10),
		"default-runtime":          c.defaultRuntime,
	}
}
