package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gantry/api/docker"
	"gantry/engine"
)

// drain is how long requests under way may go on once the daemon was told to stop.
const drain = 5 * time.Second

// daemon is the process: its configuration, log, engine and API.
type daemon struct {
	program string
	level   slog.LevelVar
	log     *slog.Logger
	engine  *engine.Engine
	started time.Time

	mu     sync.Mutex // guards config, whose reloadable parts SIGHUP replaces
	config *config
}

// run serves until a signal ends the daemon.
func (d *daemon) run(ctx context.Context) (err error) {
	d.started = time.Now()
	c := d.config
	d.level.Set(slogLevel(c.logLevel, c.debug))
	d.log = newLog(os.Stderr, c.logFormat, &d.level)
	d.log.Info("Starting up", "version", version)
	for _, note := range c.notes {
		d.log.Info("option accepted without effect", "option", note)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs to be started with root privileges", d.program)
	}
	syscall.Umask(0o022)
	if err := setOOMScore(c); err != nil {
		d.log.Warn("cannot set the daemon's OOM score", "error", err)
	}
	for key, value := range map[string]string{"HTTP_PROXY": c.httpProxy, "HTTPS_PROXY": c.httpsProxy, "NO_PROXY": c.noProxy} {
		if value != "" {
			if err := os.Setenv(key, value); err != nil {
				return err
			}
		}
	}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE)

	if c.pidfile != "" {
		if err := writePidfile(c.pidfile); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(c.pidfile)) }()
	}
	listeners, err := c.listen(ctx, d.log)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			err = errors.Join(err, l.close())
		}
	}()

	shim, err := findShim()
	if err != nil {
		return err
	}
	if d.engine, err = engine.Open(ctx, c.engineOptions(shim, d.log)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.engine.Close()) }()

	working, cutOff := context.WithCancel(ctx)
	defer cutOff()
	draining, drainNow := context.WithCancel(ctx)
	defer drainNow()
	server := &http.Server{
		Handler: docker.New(d.engine, docker.Options{
			ServerVersion: version, GitCommit: gitCommit, BuildTime: buildTime,
			MinVersion: c.minVersion(), Settings: d.settings, Draining: draining, Log: d.log,
		}),
		ReadHeaderTimeout: 30 * time.Second, // a client that drips its request does not hold a connection for ever
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    1 << 20,
		BaseContext:       func(net.Listener) context.Context { return working },
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		d.log.Info("API listen on "+l.Addr().String(), "host", l.host)
		go func() { failed <- server.Serve(l) }()
	}
	d.log.Info("Daemon has completed initialization", "ms", time.Since(d.started).Milliseconds())
	notify("READY=1")
	var restarts sync.WaitGroup
	restarts.Go(func() { d.engine.Containers.StartByPolicy(draining) })
	defer restarts.Wait()

	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serve the API: %w", err)
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				notify("RELOADING=1")
				d.reload()
				notify("READY=1")
			case syscall.SIGUSR1:
				d.dump()
			default:
				d.log.Info("Processing signal '" + s.String() + "'")
				notify("STOPPING=1")
				drainNow()
				d.stop(ctx, server, signals)
				return nil
			}
		}
	}
}

// stop ends the API and, without live restore, the containers. A third signal gives up waiting.
func (d *daemon) stop(ctx context.Context, server *http.Server, signals <-chan os.Signal) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		for n := 1; ; {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				if n++; s != syscall.SIGHUP && s != syscall.SIGUSR1 && n == 3 {
					giveUp()
					return
				}
			}
		}
	}()
	drained, done := context.WithTimeout(ctx, drain)
	if err := server.Shutdown(drained); err != nil {
		d.log.Warn("requests were cut off", "error", err)
		_ = server.Close()
	}
	done()

	d.mu.Lock()
	keep, timeout := d.config.liveRestore, d.config.shutdownTimeout
	d.mu.Unlock()
	if keep {
		return
	}
	if timeout >= 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
		defer done()
	}
	if err := d.engine.StopContainers(ctx); err != nil {
		d.log.Error("stop containers", "error", err)
	}
}

// dump writes the stacks of all goroutines to a file in the exec root.
func (d *daemon) dump() {
	buf := make([]byte, 1<<16)
	for {
		if n := runtime.Stack(buf, true); n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	path := filepath.Join(d.config.execRoot, "goroutine-stacks-"+time.Now().UTC().Format("2006-01-02T150405Z")+".log")
	if err := os.WriteFile(path, buf, 0o600); err != nil {
		d.log.Error("write goroutine stacks", "error", err)
		return
	}
	d.log.Info("goroutine stacks written to " + path)
}

// setOOMScore tells the kernel how readily to kill the daemon when memory runs out.
func setOOMScore(c *config) error {
	if c.oomScoreAdj == 0 && !c.fromFlag["oom-score-adjust"] && !c.fromFile["oom-score-adjust"] {
		return nil
	}
	return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.FormatInt(c.oomScoreAdj, 10)), 0)
}
