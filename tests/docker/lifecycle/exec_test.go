package lifecycle

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

func TestExec(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("-e", "A=container", "-w", "/tmp", "-u", "app")
	r := e.Do("exec", id, "sh", "-c", "echo out; echo err >&2; exit 9")
	if r.Stdout != "out\n" || r.Stderr != "err\n" || r.Code != 9 {
		t.Error(r)
	}
	if r = e.DoInput("in\n", "exec", "-i", id, "cat"); r.Stdout != "in\n" || r.Code != 0 {
		t.Error(r)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"container /tmp app", []string{id, "sh", "-c", "echo $A $PWD $(id -un)"}},
		{"mine / root", []string{"-e", "A=mine", "-w", "/", "-u", "0", id, "sh", "-c", "echo $A $PWD $(id -un)"}},
		{"file", []string{"--env-file", e.File("env", "A=file\n"), id, "sh", "-c", "echo $A"}},
		{"CapEff:\t0000000000000000", []string{id, "grep", "CapEff", "/proc/self/status"}},
		{"CapEff:\t00000000a80425fb", []string{"-u", "0", id, "grep", "CapEff", "/proc/self/status"}},
		{"Seccomp:\t2", []string{id, "grep", "Seccomp:", "/proc/self/status"}},
	} {
		e.Is(c.want, append([]string{"exec"}, c.args...)...)
	}
	r = e.Do("exec", id, "nosuch")
	if want := 127; r.Code != want && !harness.Oracle() || !strings.Contains(r.Stdout+r.Stderr, `OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH`) {
		t.Error(r) // dockerd 20.10 still says 126
	}
	if r = e.Do("exec", id, "/etc/notexec"); r.Code != 126 || !strings.Contains(r.Stdout+r.Stderr, `exec: "/etc/notexec": permission denied`) {
		t.Error(r)
	}
	if r = e.Do("exec", "-u", "nosuch", id, "true"); r.Code == 0 || !strings.Contains(r.Stderr+r.Stdout, "unable to find user nosuch") {
		t.Error(r)
	}
	if r = e.Do("exec", "-w", "/nosuch", id, "true"); r.Code == 0 || !strings.Contains(r.Stderr+r.Stdout, "no such file or directory") {
		t.Error(r)
	}
	// Killed by a signal.
	if r = e.Do("exec", id, "sh", "-c", "kill -9 $$"); r.Code != 137 {
		t.Error(r)
	}
	// The container's processes are seen, and the exec is in its cgroup.
	e.Match("sleep 1000", "exec", id, "ps")
	e.OK("stop", id)
	e.Fails(1, "[Cc]ontainer "+id+" is not running", "exec", id, "true")
}

func TestExecDetached(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	e.Is("", "exec", "-d", id, "sh", "-c", "sleep 0.2; touch /done; sleep 1000")
	e.Eventually(10*time.Second, func() error {
		if r := e.Do("exec", id, "ls", "/done"); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	// Everything in the container ends with it.
	e.OK("rm", "-f", id)
}

func TestExecPrivileged(t *testing.T) {
	if harness.Oracle() {
		t.Skip("runc fails where the host itself lacks a capability")
	}
	e := harness.New(t, daemon)
	id := e.Sleeper()
	// All capabilities that there are; the container's seccomp filter stays.
	host, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	own := regexp.MustCompile(`CapBnd:\t(\w+)`).FindSubmatch(host)[1]
	e.Is("CapEff:\t"+string(own)+"\nSeccomp:\t2", "exec", "--privileged", id, "grep", "-E", "CapEff|Seccomp:", "/proc/self/status")
}

func TestExecTerminal(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	s := e.Terminal("exec", "-it", id, "sh")
	s.Expect("/ # ")
	e.Eventually(10*time.Second, func() error { // the command line sets the size after the start
		s.Type("stty size\n")
		time.Sleep(100 * time.Millisecond)
		return has(s.Output(), "\r\n30 100\r\n")
	})
	s.Type("tty; exit 5\n")
	s.Expect(`/dev/(pts/\d|console)\r\n`)
	if code := s.Wait(); code != 5 {
		t.Errorf("exit code %d: %s", code, s.Output())
	}
	// Detach keys leave it running.
	s = e.Terminal("exec", "-it", id, "sh", "-c", "echo in; sleep 777")
	s.Expect("in")
	s.Type("\x10\x11")
	s.Wait()
	e.Match("sleep 777", "exec", id, "ps")
}

func TestRunTerminal(t *testing.T) {
	e := harness.New(t, daemon)
	s := e.Terminal("run", "-it", "--name", "tty", image, "sh")
	s.Expect(`/ # `)
	e.Eventually(10*time.Second, func() error {
		s.Type("stty size\n")
		time.Sleep(100 * time.Millisecond)
		return has(s.Output(), "\r\n30 100\r\n")
	})
	s.Type("tty\n")
	s.Expect(`/dev/(pts/0|console)\r\n`)
	s.Resize(40, 120)
	e.Eventually(5*time.Second, func() error {
		s.Type("stty size\n")
		time.Sleep(100 * time.Millisecond)
		return has(s.Output(), "40 120")
	})
	s.Type("echo $((6*7)); exit 3\n")
	s.Expect("\r\n42\r\n")
	if code := s.Wait(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	// The log of a terminal is what it showed.
	e.Match("42", "logs", "tty")
	if r := e.Do("run", "-it", image, "true"); r.Code == 0 || !strings.Contains(r.Stderr, "the input device is not a TTY") {
		t.Error(r)
	}
}

func TestAttach(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "-i", image, "sh", "-c", "while read x; do echo got $x; done; exit 8")
	s := e.Go("attach", id)
	s.Type("one\n")
	s.Expect("got one")
	// A second client sees the same output.
	s2 := e.Go("attach", "--no-stdin", id)
	e.Eventually(10*time.Second, func() error {
		s.Type("two\n")
		time.Sleep(50 * time.Millisecond)
		return has(s2.Output(), "got two")
	})
	// -d -i keeps stdin open when a client goes.
	s.Signal(syscall.SIGKILL)
	s.Wait()
	e.Is("running false", "inspect", "-f", "{{.State.Status}} {{.Config.StdinOnce}}", id)
	e.OK("rm", "-f", id)
	s2.Wait()

	id = e.OK("create", image)
	e.Fails(1, "[Yy]ou cannot attach to a stopped container, start it first", "attach", id)
	id = e.Sleeper()
	e.OK("pause", id)
	e.Fails(1, "[Yy]ou cannot attach to a paused container, unpause it first", "attach", id)
}

func TestDetachKeys(t *testing.T) {
	e := harness.New(t, daemon)
	s := e.Terminal("run", "-it", "--name", "dk", image, "sh")
	s.Expect("/ # ")
	s.Type("\x10\x11")
	s.Wait()
	e.Is("running", "inspect", "-f", "{{.State.Status}}", "dk")
	s = e.Terminal("attach", "--detach-keys", "ctrl-x,x", "dk")
	e.Eventually(10*time.Second, func() error {
		s.Type("echo $((40+2))\n")
		time.Sleep(100 * time.Millisecond)
		return has(s.Output(), "42")
	})
	s.Type("\x18x")
	s.Wait()
	e.Is("running", "inspect", "-f", "{{.State.Status}}", "dk")
	e.Fails(1, "[Ii]nvalid detach keys|unable to upgrade to tcp, received 400", "attach", "--detach-keys", "ctrl-", "--no-stdin", "dk")
}

func TestSignalProxy(t *testing.T) {
	e := harness.New(t, daemon)
	s := e.Go("run", "--name", "sig", image, "sh", "-c", "trap 'echo got term; exit 12' TERM; echo ready; while :; do sleep 0.1; done")
	s.Expect("ready")
	s.Signal(syscall.SIGTERM)
	if code := s.Wait(); code != 12 {
		t.Errorf("exit code %d: %s", code, s.Output())
	}
	s.Expect("got term")
	// Without the proxy the signal does not come through.
	s = e.Go("run", "--name", "nosig", "--sig-proxy=false", image, "sh", "-c", "echo ready; sleep 1000")
	s.Expect("ready")
	s.Signal(syscall.SIGTERM)
	time.Sleep(200 * time.Millisecond)
	e.Is("running", "inspect", "-f", "{{.State.Status}}", "nosig")
}

func TestStdinOnce(t *testing.T) {
	e := harness.New(t, daemon)
	s := e.Go("run", "-i", "--name", "once", image, "sh", "-c", "cat; echo end of input; exit 2")
	s.Type("abc\n")
	s.Expect("abc")
	s.In.Close()
	if code := s.Wait(); code != 2 {
		t.Errorf("exit code %d: %s", code, s.Output())
	}
	s.Expect("end of input")
}
