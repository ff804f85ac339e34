package oci_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/fd"
)

func sleeping(t *testing.T) *runtime {
	t.Helper()
	r := setup(t, "sleep", "1000")
	r.must("run", "-d", "e")
	t.Cleanup(func() { r.run("delete", "-f", "e") })
	return r
}

func TestExec(t *testing.T) {
	r := sleeping(t)
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"e", "sh", "-c", "echo hello; exit 3"}, "hello\n", 3},
		{[]string{"-e", "X=1", "--env", "Y=2", "e", "sh", "-c", "echo $X$Y"}, "12\n", 0},
		{[]string{"--cwd", "/bin", "e", "pwd"}, "/bin\n", 0},
		{[]string{"--user", "7:8", "-g", "9", "--additional-gids=10", "e", "sh", "-c", "id -u; id -g; id -G"}, "7\n8\n8 9 10\n", 0},
		{[]string{"e", "sh", "-c", "kill -9 $$"}, "", 128 + 9},
		{[]string{"e", "--", "echo", "-d"}, "-d\n", 0},
		{[]string{"e", "echo", "--", "-d"}, "-- -d\n", 0},
		{[]string{"e", "grep", "CapBnd", "/proc/self/status"}, "CapBnd:\t0000000020000420\n", 0},
		{[]string{"--cap", "CAP_CHOWN", "-c", "CAP_SETUID", "e", "grep", "CapEff", "/proc/self/status"}, "CapEff:\t00000000200004a1\n", 0},
		{[]string{"--no-new-privs=false", "e", "grep", "NoNewPrivs", "/proc/self/status"}, "NoNewPrivs:\t0\n", 0},
		{[]string{"--no-new-privs", "e", "grep", "NoNewPrivs", "/proc/self/status"}, "NoNewPrivs:\t1\n", 0},
	} {
		if res := r.run(append([]string{"exec"}, c.args...)...); res.code != c.code || res.out != c.want {
			t.Errorf("%v: %+v, want %q and exit code %d", c.args, res, c.want, c.code)
		}
	}
	r.fails(255, `exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH`, "exec", "e", "nosuch")
	r.fails(255, "no such file or directory", "exec", "e", "/no/such")
	r.fails(255, "is a directory", "exec", "e", "/etc")
	r.fails(255, "exec args cannot be empty", "exec", "e")
	r.fails(255, "bad uid", "exec", "-u", "root", "e", "true")
	r.fails(255, "bad gid", "exec", "-u", "0:wheel", "e", "true")
	r.fails(255, "additional-gids must be a positive number", "exec", "-g", "-1", "e", "true")
	r.fails(255, "not an absolute path", "exec", "--cwd", "bin", "e", "true")
	r.fails(255, "cannot allocate tty", "exec", "-t", "-d", "e", "true")
	r.fails(255, "cannot use console socket", "exec", "--console-socket", "/x", "e", "true")
	r.fails(255, "unable to stat preserved-fd", "exec", "--preserve-fds", "100", "e", "true")
	process := filepath.Join(r.bundle, "process.json")
	data, err := json.Marshal(specs.Process{Args: []string{"sh", "-c", "pwd; echo $A"}, Cwd: "/tmp", Env: []string{"PATH=/bin", "A=b"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(process, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if res := r.run("exec", "--process", process, "e"); res.out != "/tmp\nb\n" || res.code != 0 {
		t.Errorf("%+v", res)
	}
	if err := os.WriteFile(process, []byte(`{"args":"sh"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r.fails(255, "args: string is no", "exec", "-p", process, "e")
}

func TestExecDetached(t *testing.T) {
	r := sleeping(t)
	r.must("exec", "-d", "--pid-file", "pid", "e", "sleep", "500")
	data, err := os.ReadFile(filepath.Join(r.bundle, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil || !alive(pid) {
		t.Errorf("pid %q, %v", data, err)
	}
	if out := r.must("ps", "-f", "json", "e"); !strings.Contains(out, string(data)) {
		t.Errorf("ps %s without %d", out, pid)
	}
}

func TestIgnorePaused(t *testing.T) {
	r := sleeping(t)
	r.must("pause", "e")
	cmd := r.command("exec", "--ignore-paused", "e", "echo", "late")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.must("resume", "e")
	if err := cmd.Wait(); err != nil || out.String() != "late\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestExecCgroup(t *testing.T) {
	r := sleeping(t)
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + r.group)
	if err != nil || len(dirs) == 0 {
		dirs = []string{"/sys/fs/cgroup" + r.group}
	}
	for _, d := range dirs {
		if err := os.Mkdir(filepath.Join(d, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if res := r.run("exec", "--cgroup", "sub", "e", "cat", "/proc/self/cgroup"); res.code != 0 || !strings.Contains(res.out, r.group+"/sub\n") {
		t.Errorf("%+v", res)
	}
	if len(dirs) > 1 {
		res := r.run("exec", "--cgroup", "memory:sub", "e", "cat", "/proc/self/cgroup")
		if res.code != 0 || !strings.Contains(res.out, ":memory:"+r.group+"/sub\n") || !strings.Contains(res.out, ":pids:"+r.group+"\n") {
			t.Errorf("%+v", res)
		}
	}
	r.fails(255, "bad sub cgroup path", "exec", "--cgroup", "../..", "e", "true")
	r.fails(255, "no such file or directory", "exec", "--cgroup", "none", "e", "true")
	r.fails(255, " adding pid ", "exec", "--cgroup", "none", "e", "true")
	r.fails(255, "unknown controller nosuch", "exec", "--cgroup", "nosuch:sub", "e", "true")
	r.fails(255, "missing <controller>: prefix", "exec", "--cgroup", "memory:sub", "--cgroup", "x", "e", "true")
	r.fails(255, "specified multiple times", "exec", "--cgroup", "memory:sub", "--cgroup", "pids,memory:x", "e", "true")
	r.fails(255, "empty <controller> prefix", "exec", "--cgroup", ":sub", "e", "true")
}

// receiver is a socket that takes one message with a descriptor.
func receiver(t *testing.T) (path string, receive func() *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, func() *os.File {
		t.Helper()
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, files, err := fd.Receive(c, make([]byte, 64))
		if err != nil || len(files) != 1 {
			t.Fatalf("%d descriptors, %v", len(files), err)
		}
		return files[0]
	}
}

func TestConsoleSocket(t *testing.T) {
	r := setup(t, "sh", "-c", "tty; stty size; read x; echo got $x; exec sleep 1000")
	r.edit(func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	})
	r.fails(1, "cannot allocate tty", "create", "c")
	path, receive := receiver(t)
	r.fails(1, "cannot use console socket", "run", "--console-socket", path, "c")
	r.must("create", "--console-socket", path, "c")
	defer r.must("delete", "-f", "c")
	console := receive()
	defer console.Close()
	r.must("start", "c")
	if _, err := console.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for buf := make([]byte, 256); !strings.Contains(text.String(), "got hello"); {
		n, err := console.Read(buf)
		if err != nil {
			t.Fatalf("%q, %v", text.String(), err)
		}
		text.Write(buf[:n])
	}
	if !strings.Contains(text.String(), "/dev/pts/0") || !strings.Contains(text.String(), "33 77") {
		t.Errorf("%q", text.String())
	}
	path, receive = receiver(t)
	r.must("exec", "-d", "-t", "--console-socket", path, "c", "echo", "exec")
	c := receive()
	defer c.Close()
	buf := make([]byte, 64)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "exec\r\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// TestForegroundTerminal runs a terminal container on a terminal: raw mode, size, output, the terminal as it was afterwards.
func TestForegroundTerminal(t *testing.T) {
	r := setup(t, "sh", "-c", "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done")
	r.edit(func(s *specs.Spec) { s.Process.Terminal = true })
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if err := pty.Setsize(master, &pty.Winsize{Rows: 21, Cols: 81}); err != nil {
		t.Fatal(err)
	}
	before := termios(t, slave)
	cmd := r.command("run", "t")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	until := func(what string) {
		t.Helper()
		for buf := make([]byte, 256); !strings.Contains(text.String(), what); {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatalf("%q, %v", text.String(), err)
			}
			text.Write(buf[:n])
		}
	}
	until("ready")
	if err := pty.Setsize(master, &pty.Winsize{Rows: 22, Cols: 82}); err != nil {
		t.Fatal(err)
	}
	until("22 82")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d, %q", code, text.String())
	}
	if after := termios(t, slave); after != before {
		t.Errorf("the terminal was %s and is %s", before, after)
	}
}

func termios(t *testing.T, f *os.File) string {
	t.Helper()
	cmd := exec.Command("stty", "-g")
	cmd.Stdin = f
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestPidfdSocket(t *testing.T) {
	r := setup(t, "sleep", "1000")
	path, receive := receiver(t)
	r.must("create", "--pidfd-socket", path, "p")
	pidfd := receive()
	defer pidfd.Close()
	r.must("start", "p")
	if err := fd.Signal(pidfd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of init", func() bool { return r.state("p").Status == "stopped" })
	r.must("delete", "p")
	r.must("run", "-d", "p")
	defer r.must("delete", "-f", "p")
	path, receive = receiver(t)
	r.must("exec", "-d", "--pidfd-socket", path, "p", "sleep", "500")
	receive().Close()
	r.fails(255, "no such file or directory", "exec", "--pidfd-socket", "/no/such", "p", "true")
	r.fails(1, "no such file or directory", "create", "--pidfd-socket", "/no/such", "q")
}

// TestPreserveFDs checks which descriptors a program gets: the standard ones, those asked for, and no other.
func TestPreserveFDs(t *testing.T) {
	r := setup(t, "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd; echo $LISTEN_FDS $LISTEN_PID")
	var files []*os.File
	for _, text := range []string{"one\n", "two\n", "three\n"} {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	cmd := r.command("run", "--preserve-fds", "2", "f")
	cmd.ExtraFiles = files
	if res := r.finish(cmd); res.out != "one\ntwo\n0\n1\n2\n3\n4\n5\n\n" { // 5 is the directory that ls reads
		t.Errorf("%+v", res)
	}
	for _, f := range files {
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	// A service manager's descriptors come first. It names the process by its number, so a shell stands in.
	cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, binary, "--root", r.root, "run", "--preserve-fds", "1", "f")
	cmd.Dir, cmd.ExtraFiles = r.bundle, files
	if res := r.finish(cmd); res.out != "one\ntwo\n0\n1\n2\n3\n4\n5\n1 1\n" {
		t.Errorf("%+v", res)
	}
	r.fails(1, "unable to stat preserved-fd", "run", "--preserve-fds", "40", "f")
}

func TestOtherFlags(t *testing.T) {
	r := setup(t, "true")
	for _, flag := range []string{"--no-pivot", "--no-new-keyring", "--no-subreaper", "--keep=false"} {
		if res := r.run("run", flag, "o"); res.code != 0 || res.err != "" {
			t.Errorf("%s: %+v", flag, res)
		}
	}
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", "ls /; pwd"} })
	if res := r.run("run", "--no-pivot", "o"); res.out != "bin\ndev\netc\nproc\nsys\ntmp\n/\n" {
		t.Errorf("%+v", res)
	}
}

// TestTerminalIntoPipe reads what a terminal container says without a terminal of one's own: no carriage returns, from the first line on,
// and the terminal has its name.
func TestTerminalIntoPipe(t *testing.T) {
	r := setup(t, "sh", "-c", "tty; echo x")
	r.edit(func(s *specs.Spec) { s.Process.Terminal = true })
	if res := r.run("run", "--bundle", r.bundle, "p"); res.code != 0 || res.out != "/dev/pts/0\nx\n" {
		t.Errorf("%+v", res)
	}
}

// TestProcessorsOfTheRuntime has a runtime that is bound to one processor: its containers' processes are not.
func TestProcessorsOfTheRuntime(t *testing.T) {
	all, err := exec.Command("grep", "-e", "Cpus_allowed_list", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(all)) == "Cpus_allowed_list:\t0" {
		t.Skip("this machine has one processor")
	}
	look := []string{"grep", "-e", "Cpus_allowed_list", "/proc/self/status"}
	r := setup(t, look...)
	bound := func(args ...string) result {
		cmd := r.command(args...)
		cmd.Path, cmd.Args = "/usr/bin/taskset", append([]string{"taskset", "-c", "0"}, cmd.Args...)
		return r.finish(cmd)
	}
	if res := bound("run", "p"); res.out != string(all) {
		t.Errorf("run: %+v, want %q", res, all)
	}
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	r.must("create", "q")
	r.must("start", "q")
	if res := bound(append([]string{"exec", "q"}, look...)...); res.out != string(all) {
		t.Errorf("exec: %+v, want %q", res, all)
	}
	r.must("delete", "--force", "q")
}

// TestExecWarnings has a further process with a capability that there is not: the log tells.
func TestExecWarnings(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.must("run", "-d", "e")
	log := filepath.Join(t.TempDir(), "log")
	res := r.run("--log", log, "exec", "--cap", "CAP_NO_SUCH", "e", "true")
	data, err := os.ReadFile(log)
	if res.code != 0 || res.err != "" || err != nil || !strings.Contains(string(data), "level=warning") || !strings.Contains(string(data), "CAP_NO_SUCH") {
		t.Errorf("%+v, log %q, %v", res, data, err)
	}
	r.must("delete", "-f", "e")
	r.edit(func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Process.Capabilities.Ambient, s.Process.Capabilities.Inheritable = []string{"CAP_KILL"}, nil
	})
	r.must("--log", log, "run", "e")
	if data, err := os.ReadFile(log); err != nil || !strings.Contains(string(data), "can't raise ambient capability CAP_KILL") {
		t.Errorf("log %q, %v", data, err)
	}
}

// TestOwnNull has standard streams that are /dev/null be the container's own: the host's lies on no mount that it knows.
func TestOwnNull(t *testing.T) {
	const same = "fd=$(stat -L -c %d /proc/self/fd/0) && own=$(stat -c %d /dev/null) && echo $fd $own && test $fd -eq $own"
	r := setup(t, "sh", "-c", same)
	r.edit(func(s *specs.Spec) { s.Process.Cwd = "/proc" })
	if res := r.run("run", "c"); res.code != 0 {
		t.Errorf("run: %+v", res)
	}
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "100"} })
	r.must("run", "-d", "d")
	if res := r.run("exec", "d", "sh", "-c", same); res.code != 0 {
		t.Errorf("exec: %+v", res)
	}
	r.must("delete", "-f", "d")
	// A file that is called so is none.
	r.edit(func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "rm /dev/null && echo text >/dev/null && exec sleep 100"}
	})
	r.must("run", "-d", "d")
	const regular = "test -f /dev/null"
	for until := time.Now().Add(20 * time.Second); ; {
		res := r.run("exec", "d", "sh", "-c", regular)
		if res.code == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%s: %+v", regular, res)
		}
	}
	if res := r.run("exec", "d", "sh", "-c", "read line; echo =$line"); res.code != 0 || res.out != "=\n" {
		t.Errorf("exec with a file in the place of the device: %+v", res)
	}
	r.must("delete", "-f", "d")
}
