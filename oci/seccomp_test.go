package oci_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/oci"
)

// agent is one that lets every call go on that it is asked about, but for making directories: there is no medium.
type agent struct {
	socket string
	states chan specs.ContainerProcessState
}

func newAgent(t *testing.T) agent {
	t.Helper()
	a := agent{filepath.Join(t.TempDir(), "agent.sock"), make(chan specs.ContainerProcessState, 100)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			data := make([]byte, 64<<10)
			n, files, err := fd.Receive(c, data)
			var s specs.ContainerProcessState
			if err != nil || len(files) != 1 || json.Unmarshal(data[:n], &s) != nil {
				t.Errorf("the agent gets %q, %d descriptors, %v", data[:n], len(files), err)
			} else {
				a.states <- s
				go answer(files[0])
			}
			c.Close()
		}
	}()
	return a
}

// answer answers until no process has the filter any more.
func answer(listener *os.File) {
	defer listener.Close()
	const receive, send, goOn, hangUp, noMedium = 0xc0502100, 0xc0182101, 1, 0x10, 123
	ioctl := func(request uintptr, p unsafe.Pointer) syscall.Errno {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, listener.Fd(), request, uintptr(p))
		return errno
	}
	for {
		poll := struct {
			fd              int32
			events, revents int16
		}{fd: int32(listener.Fd()), events: 1}
		if _, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, 0, 0, 0, 0); errno != 0 && errno != syscall.EINTR || poll.revents&hangUp != 0 {
			return
		}
		var q struct {
			id         uint64
			pid, flags uint32
			number     int32
			rest       [60]byte
		}
		if ioctl(receive, unsafe.Pointer(&q)) != 0 {
			continue // who asked is gone
		}
		r := struct {
			id    uint64
			value int64
			errno int32
			flags uint32
		}{id: q.id, flags: goOn}
		if q.number == syscall.SYS_MKDIRAT || runtime.GOARCH == "amd64" && q.number == 83 /* mkdir */ {
			r.flags, r.errno = 0, -noMedium
		}
		_ = ioctl(send, unsafe.Pointer(&r)) // as above
	}
}

func asking(socket string, calls ...string) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "of the test",
		Syscalls: []specs.LinuxSyscall{{Names: calls, Action: specs.ActNotify}},
	}
}

// TestListener has an agent asked about all that a process does from the loading of its filter on but write.
func TestListener(t *testing.T) {
	calls := []string{"mkdir", "mkdirat", "read", "prctl", "capset", "execve", "close", "openat", "mmap", "brk", "fcntl", "sendmsg", "exit_group"}
	for _, nnp := range []bool{false, true} {
		for _, uid := range []uint32{0, 1000} {
			a := newAgent(t)
			s := dockerSpec(t, rootfs(t), "sh", "-c", "mkdir /tmp/x; sleep 1000")
			s.Linux.Seccomp = asking(a.socket, calls...)
			s.Process.NoNewPrivileges, s.Process.User.UID = nnp, uid
			s.Annotations = map[string]string{"a": "b"}
			c := start(t, s)
			state := <-a.states
			if state.Pid != c.Init().Pid || state.State.Pid != state.Pid || state.Metadata != "of the test" || len(state.Fds) != 1 || state.Fds[0] != "seccompFd" || state.Version != specs.Version ||
				state.State.ID != "c1" || state.State.Bundle != "/" || state.State.Annotations["a"] != "b" || state.State.Status != specs.StateCreated {
				t.Errorf("state of init %+v", state)
			}
			p := process("sh", "-c", "ls /proc/self/fd | wc -l; mkdir /tmp/x; echo $?")
			p.NoNewPrivileges, p.User.UID = nnp, uid
			if out, code := execIn(t, c, p); out != "4\nmkdir: can't create directory '/tmp/x': No medium found\n1\n" || code != 0 {
				t.Errorf("exec: exit code %d, output %q", code, out)
			}
			if state := <-a.states; state.Pid == c.Init().Pid || state.State.Pid != c.Init().Pid || state.State.Status != specs.StateRunning {
				t.Errorf("state of exec %+v", state)
			}
			if len(a.states) != 0 {
				t.Errorf("the agent was told of %d more", len(a.states))
			}
		}
	}
}

func TestListenerMissing(t *testing.T) {
	dead := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for socket, want := range map[string]string{
		"": "linux.seccomp.listenerPath: missing", dead: "failed to connect with seccomp agent", "/no/such": "failed to connect with seccomp agent",
		"@gantry-no-such-agent": "failed to connect with seccomp agent", "/etc": "failed to connect with seccomp agent",
	} {
		s := dockerSpec(t, rootfs(t), "true")
		s.Linux.Seccomp = asking(socket, "mkdir")
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("listener at %q: %v", socket, err)
		}
	}
	s := dockerSpec(t, rootfs(t), "echo", "fine") // nobody is asked
	s.Linux.Seccomp = asking("/no/such", "no_such_call")
	if out, code := run(t, s); out != "fine\n" || code != 0 {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

// TestListenerMute has an agent that takes listeners and never answers: start and exec must come back.
func TestListenerMute(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "mute.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := make(chan *os.File, 10)
	go func() {
		defer close(taken)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			_, files, _ := fd.Receive(c, make([]byte, 64<<10)) // one that failed shows as a process that ends
			c.Close()
			for _, f := range files {
				taken <- f
			}
		}
	}()
	for _, nnp := range []bool{false, true} {
		s := dockerSpec(t, rootfs(t), "sleep", "1000")
		s.Linux.Seccomp = asking(socket, "execve")
		s.Process.NoNewPrivileges = nnp
		ctx := context.Background()
		c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		type result struct {
			p   *oci.Process
			err error
		}
		done := make(chan result)
		for _, what := range []string{"start", "exec"} {
			go func() {
				if what == "start" {
					done <- result{err: c.Start(ctx)}
					return
				}
				p, err := c.Exec(ctx, process("true"), oci.ExecOptions{})
				done <- result{p, err}
			}()
			select {
			case r := <-done:
				if r.err != nil {
					t.Errorf("%s: %v", what, r.err)
				}
				p := r.p
				if p == nil {
					p = c.Init()
				}
				soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				if st, err := p.Wait(soon); err == nil {
					t.Errorf("%s: the process has ended: %+v", what, st)
				}
				cancel()
				if r.p != nil {
					_ = r.p.Signal(syscall.SIGKILL) // it waits, or has ended, which was said
					if _, err := r.p.Wait(ctx); err != nil {
						t.Error(err)
					}
					r.p.Close()
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s waits for an agent that never answers", what)
				_ = c.Init().Signal(syscall.SIGKILL) // so that it comes back
				<-done
			}
			(<-taken).Close()
		}
		if err := c.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
}

// TestListenerGone has the agent go between Create and Start: the program must not run.
func TestListenerGone(t *testing.T) {
	a := newAgent(t)
	root := rootfs(t)
	s := dockerSpec(t, root, "touch", "/ran")
	s.Linux.Seccomp = asking(a.socket, "mkdir", "read")
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.states) != 0 {
		t.Error("the agent was told of a process that has no filter yet")
	}
	if err := os.Remove(a.socket); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err == nil || !strings.Contains(err.Error(), "failed to connect with seccomp agent") {
		t.Errorf("start: %v", err)
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if st, err := c.Init().Wait(wait); err != nil || st.Signal != syscall.SIGKILL {
		t.Errorf("init ended with %+v, %v", st, err)
	}
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root + "/ran"); err == nil {
		t.Error("the program ran")
	}
}

// TestListenerSilent has a filter that keeps the process from telling of its listener.
func TestListenerSilent(t *testing.T) {
	a := newAgent(t)
	for _, action := range []specs.LinuxSeccompAction{specs.ActErrno, specs.ActKillProcess} {
		s := dockerSpec(t, rootfs(t), "true")
		s.Linux.Seccomp = asking(a.socket, "mkdir")
		s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"write"}, Action: action})
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "does not let it write") {
			t.Errorf("%s: %v", action, err)
		}
	}
	s := dockerSpec(t, rootfs(t), "true")
	s.Linux.Seccomp = asking(a.socket, "write")
	if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter {
		t.Errorf("write: %v", err)
	}
}

// TestSeccompActions has the kernel act on a call of a shell's.
func TestSeccompActions(t *testing.T) {
	errno := uint(123)
	for action, want := range map[specs.LinuxSeccompAction]string{
		specs.ActKill: "159\n", specs.ActKillThread: "159\n", specs.ActKillProcess: "159\n", specs.ActTrap: "159\n", specs.ActLog: "0\n", specs.ActAllow: "0\n",
		specs.ActErrno: "mkdir: can't create directory '/tmp/x': No medium found\n1\n", specs.ActTrace: "mkdir: can't create directory '/tmp/x': Function not implemented\n1\n",
	} {
		s := dockerSpec(t, rootfs(t), "sh", "-c", "(mkdir /tmp/x; exit $?) 2>&1; echo $?")
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_CORE"})
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActLog, Flags: []specs.LinuxSeccompFlag{}, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: action}}}
		if action == specs.ActErrno || action == specs.ActTrace {
			s.Linux.Seccomp.Syscalls[0].ErrnoRet = &errno
		}
		if out, _ := run(t, s); !strings.HasSuffix(out, want) {
			t.Errorf("%s: %q, want %q", action, out, want)
		}
	}
}
