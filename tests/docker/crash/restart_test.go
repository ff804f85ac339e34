package crash

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// A container that waits for its last retry when the daemon is killed has that retry, and then has ended.
func TestLastRetry(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--restart", "on-failure:3", image, "sh", "-c", "echo run; exit 4")
	e.Await(id, "{{.State.Status}} {{.RestartCount}}", "restarting 3") // the third delay is 400 ms
	restart(e, nil)
	e.Await(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 4")
	if got := e.OK("logs", id); strings.Count(got, "run") != 4 {
		t.Errorf("it ran %d times, want the first and 3 retries", strings.Count(got, "run"))
	}
}

// A restart that the policy wants no more is given up by the next daemon.
func TestRestartNotWanted(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--restart", "always", image, "sh", "-c", "exit 3")
	e.Await(id, "{{.State.Status}} {{.RestartCount}}", "restarting 6") // waits for 3.2 s
	e.OK("update", "--restart", "no", id)
	restart(e, nil)
	e.Await(id, "{{.State.Status}} {{.State.Running}}", "exited false")
	e.OK("rm", id)
}

// At boot those whose namespaces others join come first.
func TestDonorsFirst(t *testing.T) {
	e := harness.New(t, daemon)
	var all []string
	run := func(name string, flags ...string) {
		e.OK(append(append([]string{"run", "-d", "--restart", "always", "--name", name}, flags...), image, "sleep", "1000")...)
		all = append(all, name)
	}
	run("donor0", "--ipc", "shareable")
	for i := range 6 { // in a random order half of them would come before their donors
		flags := []string{"--network", fmt.Sprint("container:donor", i)}
		if i == 0 {
			flags = append(flags, "--pid", "container:donor0", "--ipc", "container:donor0")
		}
		run(fmt.Sprint("donor", i+1), flags...)
	}
	restart(e, func() {
		for _, shim := range harness.Children(1, "gantry-shim") {
			_ = syscall.Kill(shim, syscall.SIGKILL)
		}
		time.Sleep(200 * time.Millisecond)
	})
	for _, name := range all {
		e.Await(name, "{{.State.Status}}", "running")
	}
}

// A restart that the daemon's end interrupts is finished by the next one, and a container with --rm stays one.
func TestRestartInterrupted(t *testing.T) {
	e := harness.New(t, daemon)
	for _, flags := range [][]string{{}, {"--rm"}} {
		args := append(append([]string{"run", "-d"}, flags...), image, "sh", "-c", "trap 'sleep 2; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
		id := e.OK(args...)
		e.Ready(id)
		before := pid(e, id)
		s := e.Go("restart", "-t", "20", id)
		e.Eventually(10*time.Second, func() error { // it is on record before the container gets its signal
			if got := e.OK("events", "--since", "1h", "--until", "0s", "--filter", "container="+id, "--filter", "event=kill", "--format", "{{.Action}}"); got != "kill" {
				return fmt.Errorf("events: %q", got)
			}
			return nil
		})
		restart(e, nil)
		s.Wait()
		e.Eventually(30*time.Second, func() error {
			r := e.Do("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", id)
			var state string
			var now int
			if _, err := fmt.Sscan(r.Stdout, &state, &now); err != nil || state != "running" || now == before {
				return fmt.Errorf("%v: %v", err, r)
			}
			return nil
		})
		if len(flags) > 0 {
			e.Is("true", "inspect", "-f", "{{.HostConfig.AutoRemove}}", id)
			e.OK("kill", id)
			e.Eventually(5*time.Second, func() error {
				if r := e.Do("inspect", id); r.Code == 0 {
					return fmt.Errorf("still there: %v", r)
				}
				return nil
			})
		}
	}
}
