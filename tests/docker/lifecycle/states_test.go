package lifecycle

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

func TestCreateStartWaitRemove(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("create", "--name", "web", image, "sh", "-c", "echo hi; exit 3")
	e.Is("created false 0", "inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.Pid}}", "web")
	e.Match(`^Created$`, "ps", "-a", "--format", "{{.Status}}")
	e.Is("web", "start", "web")
	e.Is("3", "wait", "web")
	e.Is("exited 3 0 0001", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}} {{slice (slice .State.StartedAt 0 0) 0}}0001", id)
	e.Match(`^Exited \(3\)`, "ps", "-a", "--format", "{{.Status}}")
	e.Is("hi", "logs", "web")
	// Starting again runs it again; output is appended to its log.
	r := e.Do("start", "-a", "web")
	if r.Code != 3 || r.Stdout != "hi\n" {
		t.Error(r)
	}
	e.Is("hi\nhi", "logs", "web")
	e.Is("web", "rm", "web")
	for _, args := range [][]string{{"start"}, {"stop"}, {"kill"}, {"restart"}, {"pause"}, {"unpause"}, {"wait"}, {"rm"}, {"logs"}, {"top"}, {"port"}, {"diff"}, {"attach"}, {"update", "-m", "64m"}, {"rename"}} {
		args = append(args, "web")
		if args[0] == "rename" {
			args = append(args, "other")
		}
		e.Fails(1, "No such container: web", args...)
	}
	e.Fails(1, "No such container: web", "exec", "web", "true")
	e.Fails(1, "No such container:(path:)? web", "cp", "web:/etc/passwd", "-")
	e.Fails(1, "No such container: web", "export", "web")
	e.Fails(1, "No such container: web", "commit", "web")
	e.Fails(1, "No such container: web|No such object: web", "stats", "--no-stream", "web")
	if !harness.OldCLI() {
		e.Is("", "rm", "-f", "web")
	}
}

func TestStartStdin(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("create", "-i", "--name", "cat", image, "sh", "-c", "cat; exit 4")
	r := e.DoInput("through\n", "start", "-ai", "cat")
	if r.Code != 4 || r.Stdout != "through\n" {
		t.Error(r)
	}
	e.Is("through", "logs", "cat")
}

func TestStartTwice(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	pid := e.Inspect(id, "{{.State.Pid}}")
	e.Is(id, "start", id) // not modified is no failure
	e.Is(pid, "inspect", "-f", "{{.State.Pid}}", id)
	e.Fails(1, "[Yy]ou cannot start and attach multiple containers at once", "start", "-a", id, id)
}

func TestStop(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	e.Ready(id)
	r := e.Do("stop", id)
	if r.Code != 0 || r.Took > 5*time.Second {
		t.Error("a container that obeys SIGTERM", r)
	}
	e.Is("0", "inspect", "-f", "{{.State.ExitCode}}", id)
	e.Is(id, "stop", id) // already

	// One that does not is killed after the time given.
	id = e.OK("run", "-d", image, "sleep", "1000")
	r = e.Do("stop", "-t", "1", id)
	if r.Code != 0 || r.Took < time.Second || r.Took > 6*time.Second {
		t.Error(r)
	}
	e.Is("137", "inspect", "-f", "{{.State.ExitCode}}", id)
	id = e.OK("run", "-d", "--stop-timeout", "0", image, "sleep", "1000")
	if r = e.Do("stop", id); r.Code != 0 || r.Took > 5*time.Second {
		t.Error("stop timeout of the container", r)
	}
	// The container's own stop signal, and one of the command's.
	id = e.OK("run", "-d", "--stop-signal", "SIGUSR1", image, "sh", "-c", "trap 'exit 44' USR1; while :; do sleep 0.1; done")
	time.Sleep(300 * time.Millisecond) // until sh has set its trap
	e.OK("stop", id)
	e.Is("44", "inspect", "-f", "{{.State.ExitCode}}", id)
	e.Fails(125, "[Ii]nvalid signal: NOSUCH", "run", "--rm", "--stop-signal", "NOSUCH", image, "true")
}

func TestKill(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sleep", "1000")
	e.Is(id, "kill", id)
	e.Is("137", "wait", id)
	e.Is("exited 137 false", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", id)
	e.Fails(1, "[Cc]ontainer "+id+" is not running", "kill", id)
	for _, signal := range []string{"HUP", "SIGHUP", "1", "sighup"} {
		id = e.OK("run", "-d", image, "sh", "-c", "trap 'echo got hup; exit 9' HUP; echo ready; while :; do sleep 0.1; done")
		e.Eventually(10*time.Second, func() error { return has(e.OK("logs", id), "ready") })
		e.OK("kill", "-s", signal, id)
		e.Is("9", "wait", id)
	}
	id = e.Sleeper()
	e.Fails(1, "[Ii]nvalid signal: NOSUCH", "kill", "-s", "NOSUCH", id)
	e.Is("running", "inspect", "-f", "{{.State.Status}}", id)
}

func has(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("no %q in %q", part, text)
	}
	return nil
}

func TestRestart(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	e.Ready(id)
	e.OK("exec", id, "touch", "/kept")
	before := e.Inspect(id, "{{.State.Pid}} {{.State.StartedAt}}")
	e.Is(id, "restart", id)
	if after := e.Inspect(id, "{{.State.Pid}} {{.State.StartedAt}}"); after == before {
		t.Error("the same process after restart")
	}
	e.OK("exec", id, "ls", "/kept")
	e.OK("stop", "-t", "0", id)
	e.OK("restart", "-t", "0", id)
	e.Is("running 0", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", id)
}

func TestPause(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	e.Is(id, "pause", id)
	e.Is("paused true true", "inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", id)
	e.Match(`^Up .*\(Paused\)$`, "ps", "--format", "{{.Status}}")
	e.Fails(1, "already paused", "pause", id)
	e.Fails(1, "is paused, unpause the container before exec", "exec", id, "true")
	e.Fails(1, "paused", "start", id)
	e.Is(id, "unpause", id)
	e.OK("exec", id, "true")
	e.Fails(1, "is not paused", "unpause", id)
	// A paused container can be stopped and removed.
	e.OK("pause", id)
	e.OK("rm", "-f", id)
	id = e.OK("create", image)
	e.Fails(1, "is not running", "pause", id)
}

func TestWait(t *testing.T) {
	e := harness.New(t, daemon)
	a, b := e.OK("run", "-d", image, "sh", "-c", "sleep 0.5; exit 5"), e.OK("run", "-d", image, "sh", "-c", "exit 6")
	e.Is("5\n6", "wait", a, b)
	e.Is("5", "wait", a)
}

func TestRemove(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("--name", "busy")
	e.Fails(1, "[Yy]ou cannot remove a running container|container is running", "rm", "busy")
	e.OK("pause", "busy")
	e.Fails(1, "[Yy]ou cannot remove a paused container|container is paused", "rm", "busy")
	e.Is("busy", "rm", "-f", "busy")
	e.Fails(1, "No such (object|container)", "inspect", id)
	// Several, of which one is missing.
	a := e.OK("create", image)
	r := e.Fails(1, "No such container: nosuch", "rm", "nosuch", a)
	if strings.TrimSpace(r.Stdout) != a {
		t.Error(r)
	}
}

func TestRename(t *testing.T) {
	e := harness.New(t, daemon)
	e.Sleeper("--name", "old")
	e.OK("create", "--name", "third", image)
	e.OK("rename", "old", "new")
	e.Is("/new", "inspect", "-f", "{{.Name}}", "new")
	e.Fails(1, "No such", "inspect", "old")
	e.Fails(1, "already in use by container", "rename", "new", "third")
	e.Fails(1, "[Ii]nvalid container name", "rename", "new", "a b")
	e.OK("create", "--name", "old", image)
}

func TestUpdate(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("-m", "64m", "--memory-swap", "64m")
	e.Is(id, "update", "-m", "96m", "--memory-swap", "96m", "--cpus", "0.5", "--pids-limit", "50", id)
	e.Is("100663296 500000000 50", "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", id)
	if got := e.OK("exec", id, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"); got != "100663296" {
		t.Errorf("limit %s", got)
	}
	e.OK("update", "--restart", "always", id)
	e.Is("always", "inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", id)
	e.Fails(1, "[Mm]inimum memory limit allowed is 6MB", "update", "-m", "1m", id)
	e.Fails(1, "invalid restart policy|unknown policy", "update", "--restart", "sometimes", id)
}

func TestRestartPolicies(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("run", "-d", "--name", "onfail", "--restart", "on-failure:2", image, "sh", "-c", "echo try; exit 3")
	e.Await("onfail", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 2 3")
	e.Is("try\ntry\ntry", "logs", "onfail")
	e.OK("run", "-d", "--name", "good", "--restart", "on-failure", image, "true")
	e.Await("good", "{{.State.Status}} {{.RestartCount}}", "exited 0")
	e.OK("run", "-d", "--name", "always", "--restart", "always", image, "sh", "-c", "sleep 0.2")
	e.Eventually(10*time.Second, func() error {
		if e.Inspect("always", "{{.RestartCount}}") == "0" {
			return fmt.Errorf("not restarted")
		}
		return nil
	})
	// Stopped by the user it stays stopped.
	e.OK("stop", "always")
	time.Sleep(500 * time.Millisecond)
	e.Is("exited", "inspect", "-f", "{{.State.Status}}", "always")
	// A container that dies of a signal from outside counts as failed.
	e.OK("run", "-d", "--name", "killed", "--restart", "unless-stopped", image, "sleep", "1000")
	var pid int
	fmt.Sscan(e.Inspect("killed", "{{.State.Pid}}"), &pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.Await("killed", "{{.State.Status}} {{.RestartCount}}", "running 1")
	e.Fails(125, "[Cc]onflicting options: (--restart and --rm|cannot specify both --restart and --rm)", "run", "--rm", "--restart", "always", image, "true")
	e.Fails(125, "invalid restart policy|unknown policy", "run", "--restart", "sometimes", image, "true")
	e.Fails(125, "maximum retry count", "run", "--restart", "always:5", image, "true")
}

func TestUnexpectedDeath(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sleep", "1000")
	var pid int
	fmt.Sscan(e.Inspect(id, "{{.State.Pid}}"), &pid)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil { // ignored: process 1 has no handler
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.Await(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 137")
}
