package shim_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/shim"
)

func TestOutOfMemory(t *testing.T) {
	b := newBench(t, 1)
	for _, pause := range []string{"", "sleep 0.4; "} { // before and after the shim watches
		r := b.request("sh", "-c", pause+"exec tail /dev/zero")
		limit := int64(16 << 20)
		r.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		r.Spec.Linux.Devices = nil
		task := b.start(r)
		b.event(task, shim.EventOOM)
		if e := b.event(task, shim.EventExit).Exit; e.Code != 137 || !e.OOMKilled {
			t.Errorf("%+v", e)
		}
	}
}

func (b *bench) addInit() {
	b.Helper()
	path, err := binaryPath()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.root, "docker-init"), program, 0o755)
	}
	if err != nil {
		b.Fatal(err)
	}
}

func TestInit(t *testing.T) {
	b := newBench(t, 1)
	b.addInit()
	for _, test := range []struct {
		command string
		code    int
	}{
		{"exit 9", 9},
		{"kill -9 $$", 137},
		{"(sleep 0.1 &) ; (sleep 0.2 &); sleep 0.3; for s in /proc/[0-9]*/status; do while read k v rest; do [ $k$v = State:Z ] && exit 1; done < $s; done; exit 0", 0}, // orphans are buried
	} {
		task := b.start(b.request("/docker-init", "--", "sh", "-c", test.command))
		if code := b.exitCode(task); code != test.code {
			t.Errorf("%s: %d", test.command, code)
		}
	}
	if code := b.exitCode(b.start(b.request("/docker-init", "--", "nosuch"))); code != 127 {
		t.Error(code)
	}
	// A signal reaches the program, which as process 1 would not even see it.
	r := b.request("/docker-init", "--", "sleep", "100")
	conn, s := b.stream(shim.Stream{Stdout: true})
	r.Streams = []shim.Stream{s}
	task := b.start(r)
	time.Sleep(300 * time.Millisecond)
	if err := task.Signal(context.Background(), "", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 143 {
		t.Error(code)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Error(err)
	}
	// With a terminal the program is in the foreground: ctrl-c is for it.
	r = b.request("/docker-init", "--", "sh", "-c", "echo ready; cat")
	r.Spec.Process.Terminal, r.OpenStdin = true, true
	conn, s = b.stream(shim.Stream{Stdin: true, Stdout: true})
	r.Streams = []shim.Stream{s}
	task = b.start(r)
	buf := make([]byte, 7)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "ready\r\n" {
		t.Fatal(string(buf), err)
	}
	if _, err := conn.Write([]byte("\x03")); err != nil {
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 130 {
		t.Error(code)
	}
}

func TestUserOpensStdout(t *testing.T) {
	b := newBench(t, 1)
	if err := os.Symlink("/proc/self/fd", filepath.Join(b.root, "fd")); err != nil {
		t.Fatal(err)
	}
	r := b.request("sh", "-c", "echo hi > /fd/1; echo ho > /fd/2; id -u")
	r.Spec.Process.User = specs.User{UID: 1234, GID: 1234}
	task := b.start(r)
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
	if got := b.log(r); !strings.Contains(got, "out:hi\n") || !strings.Contains(got, "err:ho\n") || !strings.Contains(got, "out:1234\n") {
		t.Errorf("%q", got)
	}
}

// TestNetworkClient attaches a TCP connection that still has unread input when the container ends: nothing may get lost.
func TestNetworkClient(t *testing.T) {
	b := newBench(t, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	file, err := accepted.(*net.TCPConn).File()
	accepted.Close()
	if err != nil {
		t.Fatal(err)
	}
	r := b.request("sh", "-c", "sleep 0.2; seq 1 100000")
	r.OpenStdin = true
	r.Streams = []shim.Stream{{Conn: file, Stdin: true, Stdout: true, Stderr: true, Mux: true}}
	task := b.start(r)
	if _, err := client.Write([]byte(strings.Repeat("never read\n", 10000))); err != nil {
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
	time.Sleep(100 * time.Millisecond)
	out, _, err := demux(client)
	if err != nil || strings.Count(out, "\n") != 100000 {
		t.Error(len(out), err)
	}
}

func TestUpdate(t *testing.T) {
	b := newBench(t, 1)
	task := b.start(b.request("sleep", "100"))
	limit := int64(64 << 20)
	if err := task.Update(context.Background(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if stats, err := task.Stats(context.Background()); err != nil || stats.Memory.Limit != uint64(limit) {
		t.Error(stats.Memory.Limit, err)
	}
}

// TestForeignRuntimes runs containers with the runtimes that this machine has.
func TestForeignRuntimes(t *testing.T) {
	found := false
	for _, runtime := range []string{"/usr/sbin/runc", "/usr/bin/crun"} {
		if _, err := os.Stat(runtime); err != nil {
			continue
		}
		found = true
		t.Run(filepath.Base(runtime), func(t *testing.T) {
			b := newBench(t, 1)
			r := b.request("sh", "-c", "echo hello; echo oops >&2; read line; echo $line; exit 7")
			r.Runtime, r.OpenStdin = runtime, true
			r.Spec.Version = "1.0.2"
			conn, s := b.stream(shim.Stream{Stdin: true, Stdout: true, Stderr: true, Mux: true})
			r.Streams = []shim.Stream{s}
			task, err := b.launcher.Start(context.Background(), r)
			if err != nil && strings.Contains(err.Error(), "hybrid mode not supported") {
				t.Skip("the runtime does not work on this machine:", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			process := &specs.Process{Args: []string{"sh", "-c", "exit 3"}, Cwd: "/", Env: []string{"PATH=/bin"}}
			if pid, err := task.Exec(context.Background(), shim.ExecRequest{ID: "e", Process: process}); err != nil || pid == 0 {
				t.Error(pid, err)
			}
			if e := b.event(task, shim.EventExecExit); e.Exit.Code != 3 {
				t.Error(e)
			}
			if _, err := conn.Write([]byte("in\n")); err != nil {
				t.Fatal(err)
			}
			if out, errs, err := demux(conn); out != "hello\nin\n" || errs != "oops\n" || err != nil {
				t.Errorf("%q %q %v", out, errs, err)
			}
			if code := b.exitCode(task); code != 7 {
				t.Error(code)
			}
			if err := task.Delete(context.Background()); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(r.Dir, "bundle")); err == nil {
				t.Error("the bundle is still there")
			}

			r = b.request("sh", "-c", "tty; stty size; exit 2")
			r.Runtime, r.Spec.Process.Terminal, r.Rows, r.Cols = runtime, true, 11, 22
			r.Spec.Version = "1.0.2"
			task = b.start(r)
			if code := b.exitCode(task); code != 2 {
				t.Error(code)
			}
			if got := b.log(r); got != "out:/dev/pts/0\r\nout:11 22\r\n" {
				t.Errorf("%q", got)
			}

			r = b.request("nosuch")
			r.Runtime = runtime
			r.Spec.Version = "1.0.2"
			_, err = b.launcher.Start(context.Background(), r)
			var e *shim.ExecError
			if !errors.As(err, &e) || e.Code != 127 {
				t.Error(err)
			}
		})
	}
	if !found {
		t.Skip("neither runc nor crun is installed")
	}
}

func TestKillPaused(t *testing.T) {
	b := newBench(t, 1)
	ctx := context.Background()
	task := b.start(b.request("sleep", "100"))
	if err := task.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := task.Signal(ctx, "", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 137 {
		t.Error(code)
	}
	task = b.start(b.request("sleep", "100"))
	if err := task.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := task.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestExecEndsFirst checks that exec sessions are reported before the container that they end with, in each kind of pid namespace.
func TestExecEndsFirst(t *testing.T) {
	b := newBench(t, 1)
	for _, host := range []bool{false, true} {
		r := b.request("sleep", "1000")
		if host {
			r.Spec.Linux.Namespaces = r.Spec.Linux.Namespaces[1:]
		}
		task := b.start(r)
		conn, s := b.stream(shim.Stream{Stdout: true, Mux: true})
		process := &specs.Process{Args: []string{"sh", "-c", "sleep 1000 & sleep 1000"}, Cwd: "/", Env: []string{"PATH=/bin"}}
		if _, err := task.Exec(context.Background(), shim.ExecRequest{ID: "e", Process: process, Streams: []shim.Stream{s}}); err != nil {
			t.Fatal(err)
		}
		if err := task.Signal(context.Background(), "", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := <-task.Events(); e.Kind != shim.EventExecExit || e.Exit.Code != 137 {
			t.Errorf("%+v", e)
		}
		if e := <-task.Events(); e.Kind != shim.EventExit || e.Exit.Code != 137 {
			t.Errorf("%+v", e)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if err := task.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestLogDiskFull checks that a container does not notice that its log cannot be written, and that the daemon does.
func TestLogDiskFull(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sh", "-c", "echo hi; exit 4")
	if err := os.Symlink("/dev/full", r.Log.Path); err != nil {
		t.Fatal(err)
	}
	task := b.start(r)
	if e := b.event(task, shim.EventWarning); !strings.Contains(e.Message, "no space left") {
		t.Error(e)
	}
	if code := b.exitCode(task); code != 4 {
		t.Error(code)
	}
	if text, err := os.ReadFile(filepath.Join(r.Dir, "shim.log")); err != nil || !strings.Contains(string(text), "1 log messages are lost") {
		t.Error(string(text), err)
	}
}

// TestShimDiesInStart uses a shim that ends as soon as it runs.
func TestShimDiesInStart(t *testing.T) {
	b := newBench(t, 0)
	l, err := shim.NewLauncher(shim.Options{Exe: filepath.Join(b.root, "bin/busybox"), Warm: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		r := b.request("true")
		conn, s := b.stream(shim.Stream{Stdout: true})
		r.Streams = []shim.Stream{s}
		if _, err := l.Start(context.Background(), r); !errdefs.Is(err, errdefs.Unavailable) {
			t.Error(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
	}
}

// TestCanceledStart checks that a start that nobody waits for leaves nothing.
func TestCanceledStart(t *testing.T) {
	b := newBench(t, 1)
	r := b.request("sleep", "1000")
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	task, err := b.launcher.Start(ctx, r)
	if err == nil { // it was faster
		_ = task.Delete(context.Background())
		return
	}
	if !errdefs.Is(err, errdefs.Canceled) {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		_, err := os.Stat(filepath.Join(r.Dir, "shim.sock"))
		if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent() + "/" + r.ID); len(dirs) == 0 && errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the container is still there")
}
