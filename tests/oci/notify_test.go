package oci_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// manager is a service manager's socket.
type manager struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "manager.sock")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// next returns the next message. Descriptors that come with it are gone with it, as the kernel has it for who does not ask for them.
func (m *manager) next() string {
	m.t.Helper()
	buf := make([]byte, 256)
	if err := m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	n, err := m.conn.Read(buf)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(buf[:n])
}

// expect has the manager be told that all is ready, and what to watch.
func (m *manager) expect(ready string, pid int) {
	m.t.Helper()
	for _, want := range []string{ready + "\n", fmt.Sprintf("MAINPID=%d\n", pid), "BARRIER=1"} {
		if got := m.next(); got != want {
			m.t.Errorf("the service manager was told %q, want %q", got, want)
		}
	}
}

// quiet has nothing more come.
func (m *manager) quiet() {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 256)
	if n, err := m.conn.Read(buf); err == nil {
		m.t.Errorf("the service manager was told %q, too", buf[:n])
	}
}

// notified is a call that the service manager asks for news.
func (r *runtime) notified(m *manager, args ...string) *exec.Cmd {
	cmd := r.command(args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path)
	return cmd
}

// say sends what a process of the container would, on the path that it has for it.
func say(t *testing.T, pid int, message string) {
	t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: fmt.Sprintf("/proc/%d/root/run/notify/notify.sock", pid), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(message)); err != nil {
		t.Fatal(err)
	}
}

const showsSocket = "echo $NOTIFY_SOCKET >/seen; ls -l $NOTIFY_SOCKET | cut -c 1-10 >>/seen; touch /run/notify/x 2>>/seen; grep -c ' /run/notify ro,nosuid,nodev,noexec' /proc/self/mountinfo >>/seen; "

func (r *runtime) sawSocket() {
	r.t.Helper()
	want := "/run/notify/notify.sock\nsrwxrwxrwx\ntouch: /run/notify/x: Read-only file system\n1\n"
	eventually(r.t, "what the program sees", func() bool {
		data, err := os.ReadFile(filepath.Join(r.bundle, "rootfs/seen"))
		return err == nil && string(data) == want
	})
	if err := os.Remove(filepath.Join(r.bundle, "rootfs/seen")); err != nil {
		r.t.Error(err)
	}
}

func TestNotifyDetached(t *testing.T) {
	r := setup(t, "sh", "-c", showsSocket+"sleep 1000")
	for _, name := range []string{"cut", "touch"} {
		if err := os.Symlink("busybox", filepath.Join(r.bundle, "rootfs/bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	m := newManager(t)
	for _, verb := range []string{"run", "start"} {
		cmd := r.notified(m, "run", "--detach", "n")
		if verb == "start" {
			if res := r.finish(r.notified(m, "create", "n")); res.code != 0 {
				t.Fatalf("create: %+v", res)
			}
			cmd = r.notified(m, "start", "n")
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.sawSocket()
		pid := r.state("n").Pid
		say(t, pid, "STATUS=soon")
		m.quiet()
		if !alive(cmd.Process.Pid) {
			t.Errorf("%s does not wait", verb)
		}
		say(t, pid, "STATUS=now\nREADY=1\nX=1")
		m.expect("READY=1", pid)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		m.quiet()
		if out := r.must("exec", "n", "env"); strings.Contains(out, "NOTIFY_SOCKET") {
			t.Errorf("a further process has %q", out)
		}
		r.must("delete", "--force", "n")
	}
}

func TestNotifyForeground(t *testing.T) {
	r := setup(t, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
	m := newManager(t)
	cmd := r.notified(m, "run", "n")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container", func() bool { return r.run("state", "n").code == 0 && r.state("n").Status == "running" })
	say(t, r.state("n").Pid, "READY=1")
	m.expect("READY=1", cmd.Process.Pid)
	r.must("kill", "n", "TERM")
	_ = cmd.Wait() // its code says it
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit code %d", code)
	}
}

// TestNotifyNever has containers end that were never ready: the call must end, too.
func TestNotifyNever(t *testing.T) {
	r := setup(t, "sh", "-c", "exit 3")
	m := newManager(t)
	if res := r.finish(r.notified(m, "run", "n")); res.code != 3 {
		t.Errorf("%+v", res)
	}
	if res := r.finish(r.notified(m, "run", "--detach", "n")); res.code != 0 {
		t.Errorf("%+v", res)
	}
	m.quiet()
	r.must("delete", "n")
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	r.must("create", "n")
	if res := r.finish(r.notified(m, "start", "n")); res.code != 1 || !strings.Contains(res.err, "notify.sock: bind: no such file or directory") { // made without
		t.Errorf("%+v", res)
	}
	if s := r.state("n"); s.Status != "created" {
		t.Errorf("%+v", s)
	}
	r.must("start", "n")
	r.must("delete", "--force", "n")
}
