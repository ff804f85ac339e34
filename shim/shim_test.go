package shim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/logs"
	"gantry/oci"
	"gantry/shim"
)

// binary builds gantry-shim once for all tests.
var binaryPath = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gantry-shim-test-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gantry-shim")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "gantry/cmd/gantry-shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binaryPath(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	parents, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent())
	for _, parent := range append(parents, "/sys/fs/cgroup"+cgroupParent()) {
		if err := os.Remove(parent); err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// cgroupParent holds the cgroups of this run's containers.
func cgroupParent() string { return fmt.Sprintf("/gantry-shim-test-%d", os.Getpid()) }

// bench is what a test runs containers with.
type bench struct {
	testing.TB
	launcher *shim.Launcher
	root     string
	dir      string
	n        int
}

func newBench(t testing.TB, warm int) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make containers")
	}
	exe, err := binaryPath()
	if err != nil {
		t.Fatal(err)
	}
	l, err := shim.NewLauncher(shim.Options{Exe: exe, Warm: warm})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	b := &bench{TB: t, launcher: l, dir: t.TempDir()}
	b.root = filepath.Join(b.dir, "root")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(b.root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static:", err)
	}
	if err := os.WriteFile(filepath.Join(b.root, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "cat", "sleep", "echo", "kill", "dd", "yes", "head", "stty", "tty", "id", "ls", "ps", "seq", "tail"} {
		if err := os.Symlink("busybox", filepath.Join(b.root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) request(args ...string) shim.StartRequest {
	b.Helper()
	b.n++
	id := fmt.Sprintf("%s-%d-%d", strings.ToLower(filepath.Base(b.Name())), os.Getpid(), b.n)
	dir := filepath.Join(b.dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	return shim.StartRequest{
		ID: id, Dir: dir,
		Spec: &specs.Spec{
			Version: "1.2.0",
			Root:    &specs.Root{Path: b.root},
			Process: &specs.Process{Args: args, Env: []string{"PATH=/bin", "HOME=/"}, Cwd: "/"},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc"},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			},
			Linux: &specs.Linux{
				CgroupsPath: cgroupParent() + "/" + id,
				Namespaces: []specs.LinuxNamespace{
					{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
				},
				Resources: &specs.LinuxResources{},
			},
		},
		Log: logs.Config{Path: filepath.Join(dir, id+"-json.log"), ContainerID: id},
	}
}

func (b *bench) start(r shim.StartRequest) *shim.Task {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	task, err := b.launcher.Start(ctx, r)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = task.Delete(context.Background())
		task.Disconnect()
	})
	return task
}

// event waits for one kind of event.
func (b *bench) event(task *shim.Task, kind shim.EventKind) shim.Event {
	b.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case e, ok := <-task.Events():
			if !ok {
				b.Fatalf("events ended without %s", kind)
			}
			if e.Kind == kind {
				return e
			}
			b.Logf("event %+v", e)
		case <-timeout:
			b.Fatalf("no event %s", kind)
		}
	}
}

func (b *bench) exitCode(task *shim.Task) int {
	b.Helper()
	return b.event(task, shim.EventExit).Exit.Code
}

func (b *bench) log(r shim.StartRequest) string {
	b.Helper()
	var text strings.Builder
	for e, err := range logs.Read(context.Background(), r.Log, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, nil) {
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(&text, "%s:%s", e.Stream.String()[3:], e.Line)
	}
	return text.String()
}

// stream returns both ends of a client connection.
func (b *bench) stream(s shim.Stream) (*net.UnixConn, shim.Stream) {
	b.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[0]), "client")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		b.Fatal(err)
	}
	s.Conn = os.NewFile(uintptr(pair[1]), "server")
	return conn.(*net.UnixConn), s
}

// demux reads Docker's multiplexed stream to its end.
func demux(r io.Reader) (out, errs string, err error) {
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if err == io.EOF {
				err = nil
			}
			return out, errs, err
		}
		b := make([]byte, binary.BigEndian.Uint32(header[4:]))
		if _, err := io.ReadFull(r, b); err != nil {
			return out, errs, err
		}
		if header[0] == 2 {
			errs += string(b)
		} else {
			out += string(b)
		}
	}
}

func TestRun(t *testing.T) {
	b := newBench(t, 2)
	r := b.request("sh", "-c", "echo hello; echo oops >&2; exit 7")
	conn, s := b.stream(shim.Stream{Stdout: true, Stderr: true, Mux: true})
	r.Streams = []shim.Stream{s}
	task := b.start(r)
	if task.Pid() == 0 {
		t.Error("no pid")
	}
	out, errs, err := demux(conn)
	if out != "hello\n" || errs != "oops\n" || err != nil {
		t.Errorf("%q %q %v", out, errs, err)
	}
	if e := b.event(task, shim.EventExit).Exit; e.Code != 7 || e.OOMKilled || time.Since(e.At) > time.Minute {
		t.Errorf("%+v", e)
	}
	if e, err := shim.ReadExit(r.Dir); err != nil || e.Code != 7 {
		t.Error(e, err)
	}
	if got := b.log(r); got != "out:hello\nerr:oops\n" && got != "err:oops\nout:hello\n" {
		t.Errorf("log %q", got)
	}
	if err := task.Delete(context.Background()); err != nil {
		t.Error(err)
	}
	for range task.Events() {
	}
	for _, name := range []string{"shim.sock", "init.json"} {
		if _, err := os.Stat(filepath.Join(r.Dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent() + "/" + r.ID); len(dirs) != 0 {
		t.Error(dirs)
	}
}

func TestExecErrors(t *testing.T) {
	b := newBench(t, 1)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"nosuch"}, 127, `exec: "nosuch": executable file not found in $PATH`},
		{[]string{"/nosuch"}, 127, `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{[]string{"/etc"}, 126, `exec: "/etc": `},
	} {
		r := b.request(test.args...)
		_, err := b.launcher.Start(context.Background(), r)
		var e *shim.ExecError
		if !errors.As(err, &e) || e.Code != test.code || !strings.Contains(e.Message, test.want) {
			t.Errorf("%v: %v", test.args, err)
		}
	}
	task := b.start(b.request("sleep", "100"))
	_, err := task.Exec(context.Background(), shim.ExecRequest{ID: "e", Process: &specs.Process{Args: []string{"nosuch"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
	var e *shim.ExecError
	if !errors.As(err, &e) || e.Code != 127 {
		t.Error(err)
	}
}

func TestStdin(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("cat")
	r.OpenStdin, r.StdinOnce = true, true
	conn, s := b.stream(shim.Stream{Stdin: true, Stdout: true, Stderr: true, Mux: true, Prefix: []byte("first ")})
	r.Streams = []shim.Stream{s}
	task := b.start(r)
	if _, err := conn.Write([]byte("second\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _, err := demux(conn); out != "first second\n" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
}

func TestStdinStaysOpen(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("cat")
	r.OpenStdin = true
	task := b.start(r)
	for range 2 {
		conn, s := b.stream(shim.Stream{Stdin: true, Stdout: true, Mux: true})
		if err := task.Attach(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hi\n")); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 8+3)
		if _, err := io.ReadFull(conn, frame); err != nil || string(frame[8:]) != "hi\n" {
			t.Fatal(string(frame), err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(frame); n != 0 || err != io.EOF {
			t.Fatal(n, err)
		}
	}
	if err := task.CloseStdin(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
}

func TestTerminal(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sh", "-c", "stty size; tty; cat")
	r.Spec.Process.Terminal = true
	r.OpenStdin, r.Rows, r.Cols = true, 33, 99
	conn, s := b.stream(shim.Stream{Stdin: true, Stdout: true, Stderr: true, DetachKeys: []byte("xyz")})
	r.Streams = []shim.Stream{s}
	task := b.start(r)
	read := func(want string) {
		t.Helper()
		buf := make([]byte, len(want))
		if n, err := io.ReadFull(conn, buf); string(buf) != want {
			t.Fatalf("%q %v, want %q", buf[:n], err, want)
		}
	}
	read("33 99\r\n/dev/pts/0\r\n")
	if _, err := conn.Write([]byte("axyxq")); err != nil {
		t.Fatal(err)
	}
	read("axyxq")
	if err := task.Resize(context.Background(), "", 10, 20); err != nil {
		t.Error(err)
	}
	if _, err := conn.Write([]byte("xy")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("z")); err != nil {
		t.Fatal(err)
	}
	b.event(task, shim.EventDetach)
	if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
		t.Error(rest, err)
	}
	conn, s = b.stream(shim.Stream{Stdin: true, Stdout: true})
	if err := task.Attach(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("\x04\x04")); err != nil { // ctrl-d twice: the first ends the line
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
	if got := b.log(r); !strings.HasPrefix(got, "out:33 99\r\nout:/dev/pts/0\r\nout:axyxq") {
		t.Errorf("%q", got)
	}
}

func TestExec(t *testing.T) {
	b := newBench(t, 1)
	task := b.start(b.request("sleep", "100"))
	conn, s := b.stream(shim.Stream{Stdin: true, Stdout: true, Stderr: true, Mux: true})
	pid, err := task.Exec(context.Background(), shim.ExecRequest{
		ID: "e1", Streams: []shim.Stream{s},
		Process: &specs.Process{Args: []string{"sh", "-c", "cat; echo done >&2; exit 3"}, Cwd: "/", Env: []string{"PATH=/bin"}},
	})
	if err != nil || pid == 0 {
		t.Fatal(pid, err)
	}
	if state, err := task.State(context.Background()); err != nil || len(state.Execs) != 1 || state.Execs[0].Pid != pid {
		t.Error(state, err)
	}
	if pids, err := task.Pids(context.Background()); err != nil || len(pids) < 2 {
		t.Error(pids, err)
	}
	if _, err := conn.Write([]byte("in\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, errs, err := demux(conn); out != "in\n" || errs != "done\n" || err != nil {
		t.Errorf("%q %q %v", out, errs, err)
	}
	if e := b.event(task, shim.EventExecExit); e.ExecID != "e1" || e.Exit.Code != 3 {
		t.Errorf("%+v", e)
	}
	if err := task.Signal(context.Background(), "e1", syscall.SIGTERM); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
	if err := task.Signal(context.Background(), "", syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if code := b.exitCode(task); code != 137 {
		t.Error(code)
	}
}

func TestPause(t *testing.T) {
	b := newBench(t, 1)
	task := b.start(b.request("sleep", "100"))
	ctx := context.Background()
	if err := task.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if state, err := task.State(ctx); err != nil || !state.Paused {
		t.Error(state, err)
	}
	if _, err := task.Exec(ctx, shim.ExecRequest{ID: "e", Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}}); !errdefs.Is(err, errdefs.Conflict) {
		t.Error(err)
	}
	if err := task.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if stats, err := task.Stats(ctx); err != nil || stats.Memory.Usage == 0 {
		t.Error(stats, err)
	}
}

func TestDaemonRestart(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sh", "-c", "sleep 0.5; exit 5")
	task := b.start(r)
	task.Disconnect()
	again, err := shim.Connect(context.Background(), r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Pid() != task.Pid() {
		t.Error(again.Pid(), task.Pid())
	}
	if code := b.exitCode(again); code != 5 {
		t.Error(code)
	}
	if err := again.Delete(context.Background()); err != nil {
		t.Error(err)
	}

	r = b.request("sh", "-c", "sleep 0.2; exit 6")
	task = b.start(r)
	task.Disconnect()
	deadline := time.Now().Add(10 * time.Second)
	for {
		e, err := shim.ReadExit(r.Dir)
		if err == nil {
			if e.Code != 6 {
				t.Error(e)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for {
		if _, err := shim.Connect(context.Background(), r.Dir); errdefs.Is(err, errdefs.NotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the shim did not end")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for time.Now().Before(deadline) {
		if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent() + "/" + r.ID); len(dirs) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the cgroup is still there")
}

func TestShimKilled(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sleep", "1000")
	task := b.start(r)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", task.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	var parent int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "PPid:\t%d", &parent)
	}
	if err := syscall.Kill(parent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.event(task, shim.EventClosed)
	if err := shim.Reap(context.Background(), r.Dir); err != nil {
		t.Fatal(err)
	}
	if err := shim.Reap(context.Background(), r.Dir); err != nil {
		t.Fatal("second time:", err)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", task.Pid())); err == nil && !bytes.Contains(status, []byte("State:\tZ")) {
		t.Errorf("init lives: %s", status) // a zombie is for its new parent to bury
	}
	if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent() + "/" + r.ID); len(dirs) != 0 {
		t.Error(dirs)
	}
	if _, err := shim.ReadExit(r.Dir); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
	if _, err := shim.Connect(context.Background(), r.Dir); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sleep", "100")
	r.Health = &shim.Health{
		Test: []string{"CMD-SHELL", "echo probing; test -e /tmp/well"}, Interval: 50 * time.Millisecond, Retries: 2, Timeout: time.Second,
		Process: &specs.Process{Cwd: "/", Env: []string{"PATH=/bin"}},
	}
	task := b.start(r)
	var h *shim.HealthState
	for h == nil || h.Status == shim.HealthStarting {
		h = b.event(task, shim.EventHealth).Health
	}
	if h.Status != shim.HealthUnhealthy || h.FailingStreak != 2 || len(h.Log) != 2 || h.Log[1].Output != "probing\n" || h.Log[1].ExitCode != 1 {
		t.Errorf("%+v", h)
	}
	if err := os.WriteFile(filepath.Join(b.root, "tmp/well"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for h.Status == shim.HealthUnhealthy {
		h = b.event(task, shim.EventHealth).Health
	}
	if h.Status != shim.HealthHealthy || h.FailingStreak != 0 || len(h.Log) > 5 {
		t.Errorf("%+v", h)
	}
	if state, err := task.State(context.Background()); err != nil || state.Health.Status != shim.HealthHealthy {
		t.Error(state, err)
	}
}

func TestSlowReader(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sh", "-c", "seq 1 300000")
	conn, s := b.stream(shim.Stream{Stdout: true, Mux: true})
	r.Streams = []shim.Stream{s}
	task := b.start(r)
	time.Sleep(200 * time.Millisecond)
	out, _, err := demux(conn)
	if err != nil || strings.Count(out, "\n") != 300000 || !strings.HasSuffix(out, "\n300000\n") {
		t.Error(len(out), err)
	}
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
	// A client that goes away unblocks the container.
	r = b.request("sh", "-c", "seq 1 1000000")
	conn, s = b.stream(shim.Stream{Stdout: true, Mux: true})
	r.Streams = []shim.Stream{s}
	task = b.start(r)
	time.Sleep(100 * time.Millisecond)
	conn.Close()
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
}

func TestGrandchildHoldsOutput(t *testing.T) {
	b := newBench(t, 1)
	task := b.start(b.request("sleep", "100"))
	conn, s := b.stream(shim.Stream{Stdout: true, Mux: true})
	begin := time.Now()
	if _, err := task.Exec(context.Background(), shim.ExecRequest{ID: "e", Streams: []shim.Stream{s},
		Process: &specs.Process{Args: []string{"sh", "-c", "sleep 50 & echo started"}, Cwd: "/", Env: []string{"PATH=/bin"}}}); err != nil {
		t.Fatal(err)
	}
	if out, _, err := demux(conn); out != "started\n" || err != nil {
		t.Error(out, err)
	}
	b.event(task, shim.EventExecExit)
	if d := time.Since(begin); d > 4*time.Second {
		t.Error(d)
	}
}

func TestLateAttachGetsEnd(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("true")
	task := b.start(r)
	b.exitCode(task)
	conn, s := b.stream(shim.Stream{Stdout: true})
	err := task.Attach(context.Background(), s)
	if rest, rerr := io.ReadAll(conn); err == nil && (len(rest) != 0 || rerr != nil) {
		t.Error(rest, rerr)
	}
}

// medians reports the middle of each of several series of times.
func medians(b *testing.B, series map[string][]time.Duration) {
	for name, all := range series {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-us")
	}
}

func BenchmarkStart(b *testing.B) {
	bench := newBench(b, 2)
	times := map[string][]time.Duration{}
	for b.Loop() {
		r := bench.request("true")
		begin := time.Now()
		lap := func(name string) {
			times[name] = append(times[name], time.Since(begin))
			begin = time.Now()
		}
		task, err := bench.launcher.Start(context.Background(), r)
		if err != nil {
			b.Fatal(err)
		}
		lap("start")
		bench.exitCode(task)
		lap("exit")
		if err := task.Delete(context.Background()); err != nil {
			b.Fatal(err)
		}
		lap("delete")
		task.Disconnect()
		b.StopTimer()
		time.Sleep(10 * time.Millisecond) // the next shim gets ready
		b.StartTimer()
	}
	medians(b, times)
}

// BenchmarkRuntime is BenchmarkStart without a shim: what the runtime alone takes.
func BenchmarkRuntime(b *testing.B) {
	bench := newBench(b, 0)
	times := map[string][]time.Duration{}
	ctx := context.Background()
	for b.Loop() {
		r := bench.request("true")
		begin := time.Now()
		lap := func(name string) {
			times[name] = append(times[name], time.Since(begin))
			begin = time.Now()
		}
		c, err := oci.Create(ctx, oci.Bundle{ID: r.ID, Dir: r.Dir, Spec: r.Spec}, oci.Stdio{})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(ctx); err != nil {
			b.Fatal(err)
		}
		lap("start")
		if _, err := c.Init().Wait(ctx); err != nil {
			b.Fatal(err)
		}
		lap("exit")
		if err := c.Delete(ctx); err != nil {
			b.Fatal(err)
		}
		lap("delete")
	}
	medians(b, times)
}

func BenchmarkExec(b *testing.B) {
	bench := newBench(b, 1)
	task := bench.start(bench.request("sleep", "1000"))
	n := 0
	for b.Loop() {
		n++
		_, err := task.Exec(context.Background(), shim.ExecRequest{ID: fmt.Sprint(n), Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
		if err != nil {
			b.Fatal(err)
		}
		bench.event(task, shim.EventExecExit)
	}
}
