package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/logs"
	"gantry/shim/wire"
)

// newUnit starts a container. It owns the files from now on.
func newUnit(ctx context.Context, s *Server, r wire.StartRequest, files []*os.File) (_ *unit, err error) {
	u := &unit{server: s, request: r, recordFile: -1, execs: map[string]*session{}, exited: make(chan struct{})}
	u.ctx, u.cancel = context.WithCancel(ctx)
	var ends [3]*os.File
	var streams []*os.File
	defer func() {
		closeAll(ends[:])
		closeAll(files)
		if err != nil {
			closeAll(streams)
			u.undo(ctx)
		}
	}()
	b, streams, err := takeFiles(&r, files)
	files = append(b.joined(), b.root)
	if err != nil {
		return nil, err
	}
	if r.Spec == nil || r.Spec.Process == nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "the specification has no process")
	}
	// What needs no process is done while the kernel works on the process: the runtime mostly waits for its child.
	opened := concurrently(u.open)
	defer func() {
		if opened != nil {
			<-opened // before undo
		}
	}()
	u.joinsPids = joinsPids(r.Spec, b)
	u.main = &session{unit: u, terminal: r.Spec.Process.Terminal, stdinOnce: r.StdinOnce}
	if !u.main.terminal {
		if ends, err = u.main.stdio(r.OpenStdin, r.Spec.Process.User.UID); err != nil {
			return nil, err
		}
	}
	if u.container, err = create(ctx, &r, b, ends); err != nil {
		return nil, err
	}
	u.main.process = u.container.Main()
	if u.main.terminal {
		if err = u.openConsole(&r); err != nil {
			return nil, err
		}
	}
	for i, conn := range streams {
		streams[i] = nil
		if err = u.main.attach(conn, r.Streams[i]); err != nil {
			return nil, err
		}
	}
	err = <-opened
	opened = nil
	if err != nil {
		return nil, err
	}
	recorded := concurrently(u.record)
	u.started = time.Now().UTC()
	err = u.container.Start(ctx)
	if rerr := <-recorded; err == nil {
		err = rerr
	}
	if err != nil {
		return nil, err
	}
	u.main.logTo(u.log)
	u.main.run()
	u.request.Spec = nil // not needed any more, and large
	u.request.Seccomp, u.request.Streams = nil, nil
	return u, nil
}

// concurrently runs f in a goroutine of its own.
func concurrently(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// open opens the log, and the socket for daemons to come.
func (u *unit) open() error {
	driver, err := logs.Open(u.request.Log)
	if err != nil {
		return err
	}
	u.log = logs.NewWriter(driver)
	u.listener, err = wire.Listen(u.request.Dir)
	return err
}

func (u *unit) openConsole(r *wire.StartRequest) error {
	master := u.main.process.Console()
	if master == nil {
		return errdefs.New(errdefs.Internal, "the runtime gave no terminal")
	}
	if r.Rows != 0 || r.Cols != 0 {
		if err := setSize(master, r.Rows, r.Cols); err != nil {
			return err
		}
	}
	return u.main.console(master)
}

// record writes down what it takes to kill the container without us.
func (u *unit) record() error {
	pid := u.main.process.Pid()
	started, err := wire.StartTime(pid)
	if err != nil {
		return fmt.Errorf("start time of init: %w", err)
	}
	u.recorded = wire.Record{Pid: pid, StartTime: started, Mounts: u.container.Mounts()}
	if group := u.container.Cgroup(); group != nil {
		u.recorded.Cgroup = group.Path()
	}
	u.recordFile, err = createRecord(filepath.Join(u.request.Dir, wire.InitName), &u.recorded)
	return err
}

// recordExit adds to that how the container ended. The file gets its new name once it says so.
func (u *unit) recordExit(exit *wire.Exit) error {
	defer syscall.Close(u.recordFile)
	u.recorded.Exit = exit
	if err := overwriteRecord(u.recordFile, &u.recorded); err != nil {
		return err
	}
	return syscall.Rename(filepath.Join(u.request.Dir, wire.InitName), filepath.Join(u.request.Dir, wire.ExitName))
}

// undo takes back a start that failed.
func (u *unit) undo(ctx context.Context) {
	u.cancel()
	if u.container != nil {
		_ = u.container.Delete(ctx) // the start's error is the one to tell
		os.Remove(filepath.Join(u.request.Dir, wire.InitName))
		if u.recordFile >= 0 {
			syscall.Close(u.recordFile)
		}
	}
	if u.main != nil {
		for _, c := range u.main.clients {
			c.close()
		}
		u.main.closeFiles()
	}
	if u.log != nil {
		_, _ = u.log.Close()
	}
	u.unlisten()
}

// bundle is what the daemon opened for the container.
type bundle struct {
	root       *os.File
	namespaces map[specs.LinuxNamespaceType]*os.File
	mounts     map[string]*os.File
}

// joined returns the descriptors of namespaces and mounts.
func (b *bundle) joined() []*os.File {
	var files []*os.File
	for _, f := range b.namespaces {
		files = append(files, f)
	}
	for _, f := range b.mounts {
		files = append(files, f)
	}
	return files
}

// joinsPids reports whether the container shares a pid namespace, the host's or another container's.
func joinsPids(spec *specs.Spec, b bundle) bool {
	if spec.Linux == nil || b.namespaces[specs.PIDNamespace] != nil {
		return true
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path != ""
		}
	}
	return true
}

// takeFiles sorts the files of a StartRequest.
func takeFiles(r *wire.StartRequest, files []*os.File) (b bundle, streams []*os.File, err error) {
	want := len(r.Namespaces) + len(r.Mounts) + len(r.Streams)
	if r.HasRoot {
		want++
	}
	if len(files) != want {
		return bundle{root: nil}, files, errdefs.New(errdefs.InvalidParameter, "start: %d files came, %d are needed", len(files), want)
	}
	if r.HasRoot {
		b.root, files = files[0], files[1:]
	}
	b.namespaces = map[specs.LinuxNamespaceType]*os.File{}
	for i, kind := range r.Namespaces {
		b.namespaces[kind] = files[i]
	}
	files = files[len(r.Namespaces):]
	b.mounts = map[string]*os.File{}
	for i, destination := range r.Mounts {
		b.mounts[destination] = files[i]
	}
	return b, files[len(r.Mounts):], nil
}

// unlisten removes the shim's socket. The next shim of the same container binds the same path.
func (u *unit) unlisten() {
	if u.listener != nil {
		u.listener.Close()
		os.Remove(filepath.Join(u.request.Dir, wire.SocketName))
	}
}
