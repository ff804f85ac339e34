package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/fd"
	"gantry/linux/mount"
	"gantry/shim/wire"
)

// foreign is a container of an OCI runtime that is a command: runc, crun and their like. Its bundle, state and mounts lie in the
// sandbox directory.
type foreign struct {
	command string // path of the runtime
	id      string
	dir     string // of all its files
	mounts  []string
	group   *cgroup.Cgroup
	main    *foreignProcess

	// running is held for reading while a command runs and what it has started is not yet known.
	running sync.RWMutex
	mu      sync.Mutex
	known   map[int]bool // processes whose status somebody waits for; guarded by mu
}

// The files of a foreign container, within the sandbox directory.
const (
	foreignDir    = "bundle"
	rootDir       = "rootfs"
	stateDir      = "state"
	logFile       = "log.json"
	pidFile       = "pid"
	processFile   = "process.json"
	consoleSocket = "console.sock"
)

// commonVersion is the version of the specification that a bundle says it is written in: what a runtime does not know it passes over whatever
// that says, and some refuse a bundle by its version alone (crun before 1.9: all but 1.0).
const commonVersion = "1.0.2"

// createForeign makes the container of a request with the runtime that it names.
func createForeign(ctx context.Context, r *wire.StartRequest, b bundle, stdio [3]*os.File) (_ *foreign, err error) {
	// The runtime's commands end before the processes that they start: these become our children then.
	const prSetChildSubreaper = 36
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return nil, os.NewSyscallError("prctl", errno)
	}
	f := &foreign{command: r.Runtime, id: r.ID, dir: filepath.Join(r.Dir, foreignDir), known: map[int]bool{}}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("bundle of container %s: %w", r.ID, err)
	}
	defer func() {
		if err != nil {
			_ = f.Delete(ctx) // the start's error is the one to tell
		}
	}()
	spec := *r.Spec
	spec.Version = commonVersion
	if err := f.materialize(&spec, b); err != nil {
		return nil, fmt.Errorf("bundle of container %s: %w", r.ID, err)
	}
	if err := writeRecord(filepath.Join(f.dir, "config.json"), &spec); err != nil {
		return nil, fmt.Errorf("bundle of container %s: %w", r.ID, err)
	}
	if f.main, err = f.launch(ctx, "create", spec.Process.Terminal, stdio, "--bundle", f.dir); err != nil {
		return nil, err
	}
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		if f.group, err = cgroup.Open(spec.Linux.CgroupsPath); errdefs.Is(err, errdefs.NotFound) {
			err = nil // the runtime has its own idea of cgroups
		}
	}
	return f, err
}

// materialize gives paths to what the daemon passed as descriptors: a command takes nothing else.
func (f *foreign) materialize(spec *specs.Spec, b bundle) error {
	attach := func(m *os.File, name string) (string, error) {
		path := filepath.Join(f.dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return "", err
		}
		if err := mount.MoveTo(m, path); err != nil {
			return "", err
		}
		f.mounts = append(f.mounts, path)
		return path, nil
	}
	if b.root != nil {
		path, err := attach(b.root, rootDir)
		if err != nil {
			return err
		}
		root := specs.Root{Path: path}
		if spec.Root != nil {
			root.Readonly = spec.Root.Readonly
		}
		spec.Root = &root
	}
	spec.Mounts = slices.Clone(spec.Mounts)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if source := b.mounts[m.Destination]; source != nil {
			path, err := attach(source, "mount-"+strconv.Itoa(i))
			if err != nil {
				return err
			}
			m.Type, m.Source = "bind", path
			m.Options = append([]string{"rbind"}, m.Options...)
		}
	}
	if spec.Linux == nil || len(b.namespaces) == 0 {
		return nil
	}
	linux := *spec.Linux
	linux.Namespaces = slices.Clone(linux.Namespaces)
	for kind, file := range b.namespaces {
		path := strings.Replace(fd.Path(file), "/self/", "/"+strconv.Itoa(os.Getpid())+"/", 1)
		i := slices.IndexFunc(linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		if i < 0 {
			linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
			continue
		}
		linux.Namespaces[i].Path = path
	}
	spec.Linux = &linux
	return nil
}

// launch runs a command of the runtime that starts a process, and finds that process.
func (f *foreign) launch(ctx context.Context, verb string, terminal bool, stdio [3]*os.File, args ...string) (*foreignProcess, error) {
	pids := filepath.Join(f.dir, pidFile)
	command := append([]string{verb, "--pid-file", pids}, args...)
	var listener *os.File
	if terminal {
		var err error
		if listener, err = wire.ListenAt(f.dir, consoleSocket); err != nil {
			return nil, err
		}
		defer listener.Close()
		defer os.Remove(filepath.Join(f.dir, consoleSocket))
		dir, err := fd.Dir(f.dir)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		// By a name that is never longer than an address may be.
		socket := strings.Replace(fd.Path(dir), "/self/", "/"+strconv.Itoa(os.Getpid())+"/", 1) + "/" + consoleSocket
		command = append(command, "--console-socket", socket)
	}
	defer f.reap() // after the next
	f.running.RLock()
	defer f.running.RUnlock()
	if err := f.call(ctx, stdio, append(command, f.id)...); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		return nil, fmt.Errorf("process of runtime %s: %w", f.command, err)
	}
	os.Remove(pids)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("process of runtime %s: %w", f.command, err)
	}
	p := &foreignProcess{pid: pid}
	if p.pidfd, err = fd.Pidfd(pid); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.known[pid] = true
	f.mu.Unlock()
	p.wait = sync.OnceValues(func() (int, error) {
		code, err := p.await()
		f.mu.Lock()
		delete(f.known, pid)
		f.mu.Unlock()
		return code, err
	})
	if listener != nil {
		if p.console, err = wire.ReceiveFile(listener, time.Now().Add(runtimeTime)); err != nil {
			_ = p.Signal(syscall.SIGKILL)
			return nil, fmt.Errorf("terminal of runtime %s: %w", f.command, err)
		}
	}
	return p, nil
}

// runtimeTime is how long a runtime may take to hand over a terminal that it made.
const runtimeTime = 10 * time.Second

// reap takes the status of processes that commands left behind: crun leaves one, in the container's pid namespace, of each exec that fails,
// and as long as one is there the container's first process cannot end.
func (f *foreign) reap() {
	if !f.running.TryLock() { // who runs a command does it afterwards
		return
	}
	defer f.running.Unlock()
	lists, _ := filepath.Glob("/proc/self/task/*/children") // only a malformed pattern fails
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread that has ended has none
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			f.mu.Lock()
			if err == nil && !f.known[pid] {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may run still
			}
			f.mu.Unlock()
		}
	}
}

// run runs the runtime with the given arguments.
func (f *foreign) run(ctx context.Context, stdio [3]*os.File, args ...string) error {
	defer f.reap() // after the next
	f.running.RLock()
	defer f.running.RUnlock()
	return f.call(ctx, stdio, args...)
}

// call runs the runtime and returns what went wrong in its own words.
func (f *foreign) call(ctx context.Context, stdio [3]*os.File, args ...string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	files := make([]*os.File, len(stdio))
	for i := range stdio {
		if files[i] = stdio[i]; files[i] == nil {
			files[i] = null
		}
	}
	log := filepath.Join(f.dir, logFile)
	os.Remove(log)
	command := append([]string{f.command, "--root", filepath.Join(f.dir, stateDir), "--log", log, "--log-format", "json"}, args...)
	p, err := os.StartProcess(f.command, command, &os.ProcAttr{Dir: f.dir, Env: runtimeEnv(os.Environ()), Files: files})
	if err != nil {
		return fmt.Errorf("run runtime: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	state, err := p.Wait()
	if err != nil {
		return fmt.Errorf("run runtime %s: %w", f.command, err)
	}
	if state.Success() {
		return nil
	}
	message := lastError(log)
	if message == "" {
		message = state.String()
	}
	failed := &wire.Error{Kind: errdefs.Internal, Message: fmt.Sprintf("OCI runtime %s failed: %s", args[0], message)}
	has := func(words ...string) bool {
		lower := strings.ToLower(message)
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(lower, w) })
	}
	switch { // as Docker tells from the words
	case has("executable file", "not found"), has("exec", "no such file or directory"):
		failed.Kind, failed.ExitCode = errdefs.InvalidParameter, 127
	case has("exec", "permission denied"), has("is a directory"):
		failed.Kind, failed.ExitCode = errdefs.InvalidParameter, 126
	}
	return errdefs.With(failed.Kind, failed)
}

// runtimeEnv is the environment of a runtime: without what a service manager tells the daemon, which a runtime would take for itself and have
// a container be ready before it says that it has started.
func runtimeEnv(env []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool {
		return strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "LISTEN_")
	})
}

// lastError returns the last error in a runtime's log.
func lastError(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	found := ""
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			found = entry.Msg
		}
	}
	return found
}

func (f *foreign) Start(ctx context.Context) error { return f.run(ctx, [3]*os.File{}, "start", f.id) }

func (f *foreign) Main() process { return f.main }

func (f *foreign) Cgroup() *cgroup.Cgroup { return f.group }

func (f *foreign) Warnings() []string { return nil }

func (f *foreign) Mounts() []string { return f.mounts }

func (f *foreign) Exec(ctx context.Context, r *wire.ExecRequest, stdio [3]*os.File) (process, error) {
	path := filepath.Join(f.dir, processFile+"-"+filepath.Base(r.ID))
	if err := writeRecord(path, r.Process); err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", f.id, err)
	}
	defer os.Remove(path)
	p, err := f.launch(ctx, "exec", r.Process.Terminal, stdio, "--detach", "--process", path)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Delete implements container. It also undoes a create that failed half way.
func (f *foreign) Delete(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if f.main != nil {
		_ = f.main.Signal(syscall.SIGKILL) // it may have ended
		_, err := f.main.Wait(ctx)
		errs = append(errs, err)
		defer f.main.Close()
	}
	errs = append(errs, f.run(ctx, [3]*os.File{}, "delete", "--force", f.id))
	for _, path := range f.mounts {
		errs = append(errs, mount.Unmount(path))
	}
	if f.group != nil {
		errs = append(errs, f.group.Delete())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(f.dir)
}

// foreignProcess is a process that a runtime's command started; it became our child when that ended.
type foreignProcess struct {
	pid     int
	pidfd   *os.File
	console *os.File
	wait    func() (int, error)
}

func (p *foreignProcess) Pid() int { return p.pid }

func (p *foreignProcess) Console() *os.File { return p.console }

func (p *foreignProcess) Signal(sig syscall.Signal) error { return fd.Signal(p.pidfd, sig) }

func (p *foreignProcess) Close() { p.pidfd.Close() }

// Wait implements process.
func (p *foreignProcess) Wait(ctx context.Context) (int, error) {
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		code, err := p.wait()
		done <- result{code, err}
	}()
	select {
	case r := <-done:
		return r.code, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (p *foreignProcess) await() (int, error) {
	if err := fd.WaitGone(p.pidfd); err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(p.pid, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for process %d: %w", p.pid, err)
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}
