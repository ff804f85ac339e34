package foreign

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// each runs a test with every runtime.
func each(t *testing.T, test func(e *harness.Env, runtime string)) {
	for name, program := range known {
		t.Run(program, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("%s is not installed", program)
			}
			if program == "crun" {
				hideUnified(t)
			}
			test(harness.New(t, daemon), name)
		})
	}
}

// hideUnified makes a machine with both kinds of cgroups look like one with the first only: Debian's crun 1.8.1 starts nothing on such a
// machine ("cgroups in hybrid mode not supported"). Nobody outside this test's mount namespace notices.
func hideUnified(t *testing.T) {
	const dir = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(dir + "/cgroup.procs"); err != nil {
		return
	}
	t.Log("this machine has both kinds of cgroups, which crun refuses: the second is hidden from it")
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestRun(t *testing.T) {
	each(t, func(e *harness.Env, runtime string) {
		r := e.Do("run", "--rm", "--runtime", runtime, "-e", "A=b", "-w", "/tmp", "--hostname", "h1", image, "sh", "-c", "echo $A $(pwd) $(hostname) $$; echo oops >&2; exit 7")
		if r.Code != 7 || r.Stdout != "b /tmp h1 1\n" || r.Stderr != "oops\n" {
			e.Errorf("%v", r)
		}
		if r := e.DoInput("in\n", "run", "--rm", "-i", "--runtime", runtime, image, "cat"); r.Code != 0 || r.Stdout != "in\n" {
			e.Errorf("%v", r)
		}
		if r := e.Do("run", "--rm", "--runtime", runtime, "-m", "64m", "--pids-limit", "33", image, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"); r.Stdout != "67108864\n33\n" {
			e.Errorf("limits: %v", r)
		}
		missing, directory := 127, 126
		if strings.HasSuffix(runtime, "crun") { // docker's command line tells the codes from runc's words, and crun has others
			missing, directory = 125, 125
		}
		e.Fails(missing, "not found", "run", "--rm", "--runtime", runtime, image, "nosuch")
		e.Fails(directory, "OCI runtime create failed", "run", "--rm", "--runtime", runtime, image, "/etc")
		e.Fails(125, "unknown or invalid runtime name", "run", "--rm", "--runtime", "nosuch", image, "true")
	})
}

func TestLife(t *testing.T) {
	each(t, func(e *harness.Env, runtime string) {
		id := e.OK("run", "-d", "--runtime", runtime, image, "sh", "-c", "echo first; trap 'echo term; exit 3' TERM; while :; do sleep 0.05; done")
		if got := e.Inspect(id, "{{.HostConfig.Runtime}} {{.State.Status}} {{.State.Running}}"); got != runtime+" running true" {
			e.Errorf("inspect: %s", got)
		}
		if got := e.OK("exec", id, "sh", "-c", "echo $$ | grep -q '^1$' || echo inside; cat /proc/1/comm"); got != "inside\nsh" {
			e.Errorf("exec: %q", got)
		}
		if r := e.Do("exec", id, "sh", "-c", "exit 5"); r.Code != 5 {
			e.Errorf("exec: %v", r)
		}
		if r := e.Do("exec", id, "nosuch"); r.Code != 127 {
			e.Errorf("exec: %v", r)
		}
		s := e.Terminal("exec", "-it", id, "sh", "-c", "tty; read x; echo got $x")
		s.Expect("/dev/pts/")
		s.Type("word\n")
		s.Expect("got word")
		if code := s.Wait(); code != 0 {
			e.Errorf("exec on a terminal: exit code %d", code)
		}
		if got := e.OK("top", id); !strings.Contains(got, "sh -c") {
			e.Errorf("top: %q", got)
		}
		e.OK("pause", id)
		e.Await(id, "{{.State.Status}}", "paused")
		e.OK("unpause", id)
		e.OK("kill", "--signal", "TERM", id)
		e.Await(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 3")
		if got := e.OK("logs", id); got != "first\nterm" {
			e.Errorf("logs: %q", got)
		}
		e.OK("start", id) // once more
		e.Await(id, "{{.State.Status}}", "running")
		e.OK("stop", "-t", "10", id)
		e.Await(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 3")
		e.OK("rm", id)
		id = e.Sleeper("--runtime", runtime)
		e.OK("kill", id)
		e.Await(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 137")
		e.OK("rm", id)
		id = e.Sleeper("--runtime", runtime)
		e.OK("rm", "-f", id)
	})
}

// TestDaemonRestart has containers outlive the daemon, and one end without it.
func TestDaemonRestart(t *testing.T) {
	each(t, func(e *harness.Env, runtime string) {
		stays := e.OK("run", "-d", "--runtime", runtime, image, "sh", "-c", "trap 'exit 4' TERM; n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done")
		ends := e.OK("run", "-d", "--runtime", runtime, image, "sh", "-c", "while test ! -e /end; do sleep 0.05; done; echo last; exit 9")
		before := e.Inspect(stays, "{{.State.Pid}}")
		e.OK("exec", "-d", ends, "sh", "-c", "sleep 1; touch /end")
		daemon.Kill()
		time.Sleep(2 * time.Second) // the other container ends meanwhile
		if err := daemon.Start(); err != nil {
			e.Fatal(err)
		}
		if got := e.Inspect(stays, "{{.State.Status}} {{.State.Pid}}"); got != "running "+before {
			e.Errorf("%s, was %s", got, before)
		}
		e.Await(ends, "{{.State.Status}} {{.State.ExitCode}}", "exited 9")
		if got := e.OK("logs", "--tail", "1", ends); got != "last" {
			e.Errorf("logs: %q", got)
		}
		e.Is("fine", "exec", stays, "echo", "fine")
		lines := func() int { return strings.Count(e.OK("logs", stays), "\n") }
		n := lines()
		e.Eventually(10*time.Second, func() error {
			if now := lines(); now <= n {
				return fmt.Errorf("no more lines than %d", now)
			}
			return nil
		})
		e.OK("stop", stays)
		e.Await(stays, "{{.State.Status}} {{.State.ExitCode}}", "exited 4")
		e.OK("rm", stays, ends)
	})
}
