package lifecycle

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"gantry/tests/harness"
)

// Killing a container that waits for its next start ends the waiting.
func TestKillRestarting(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--restart", "always", image, "sh", "-c", "exit 3")
	e.Await(id, "{{.State.Status}} {{.RestartCount}}", "restarting 5") // waits for 1.6 s
	e.OK("kill", id)
	e.Await(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 3")
	time.Sleep(2 * time.Second) // longer than it would have waited
	e.Is("exited 5", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", id)
	e.Fails(1, "Cannot kill container: "+id+": [Cc]ontainer "+id+" is not running", "kill", id)
}

// A session's exit code can be asked for when its container has ended, and no more when it is gone.
func TestExecEndsWithItsContainer(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sleep", "1000")
	s := e.Go("exec", id, "sh", "-c", "echo started; sleep 1000")
	s.Expect("started")
	session := strings.Trim(e.Inspect(id, "{{.ExecIDs}}"), "[]")
	e.OK("kill", id)
	if code := s.Wait(); code != 137 {
		t.Errorf("docker exec ended with %d: %s", code, s.Output())
	}
	status, body, err := daemon.Get("/exec/" + session + "/json")
	var state struct {
		Running  bool
		ExitCode int
	}
	if err == nil {
		err = json.Unmarshal(body, &state)
	}
	if err != nil || status != 200 || state.Running || state.ExitCode != 137 {
		t.Errorf("%d %s %v", status, body, err)
	}
	e.OK("rm", id)
	if status, body, err := daemon.Get("/exec/" + session + "/json"); err != nil || status != 404 {
		t.Errorf("after the removal: %d %s %v", status, body, err)
	}
}

// TERM is for sessions with a terminal.
func TestExecTERM(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-dt", image, "sleep", "1000")
	if got := e.OK("exec", id, "env"); strings.Contains(got, "TERM=") {
		t.Errorf("TERM without a terminal: %s", got)
	}
	s := e.Terminal("exec", "-it", id, "env")
	s.Expect("TERM=xterm")
	s.Wait()
}

// A restart is no end to a container with --rm.
func TestRestartAutoRemove(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("--rm")
	e.Ready(id)
	e.OK("restart", id)
	e.Is("running true", "inspect", "-f", "{{.State.Status}} {{.HostConfig.AutoRemove}}", id)
	e.OK("stop", "-t", "0", id)
	e.Eventually(5*time.Second, func() error {
		if e.Do("inspect", id).Code == 0 {
			return os.ErrExist
		}
		return nil
	})
}
