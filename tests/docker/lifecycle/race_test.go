package lifecycle

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// A container that keeps ending can be stopped and restarted at any moment of that.
func TestStopAndRestartWhileItEnds(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--restart", "always", image, "sh", "-c", "exit 1")
	for range 12 {
		e.OK("restart", "-t", "1", id)
	}
	e.OK("stop", "-t", "1", id)
	time.Sleep(300 * time.Millisecond) // longer than the first delays of the policy
	e.Is("exited", "inspect", "-f", "{{.State.Status}}", id)
}

// Removals, starts and restarts of one container in any order leave nothing of it.
func TestRemoveWhileItStarts(t *testing.T) {
	e := harness.New(t, daemon)
	for i := range 10 {
		name := fmt.Sprint("brief", i)
		e.OK("create", "--name", name, image, "sleep", "100")
		var wg sync.WaitGroup
		wg.Go(func() { e.Do("start", name) }) // may come too late
		e.OK("rm", "-f", name)
		wg.Wait()
		e.Is("", "ps", "-aq", "--filter", "name="+name)
	}
}

// A client that gives up on its stop does not take the container's time to end.
func TestStopOutlivesItsClient(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sh", "-c", "trap 'sleep 1; exit 5' TERM; echo ready; while :; do sleep 0.02; done")
	e.Eventually(5*time.Second, func() error {
		if e.OK("logs", id) != "ready" {
			return fmt.Errorf("no trap yet")
		}
		return nil
	})
	s := e.Go("stop", "-t", "20", id)
	time.Sleep(300 * time.Millisecond)
	s.Signal(syscall.SIGKILL)
	s.Wait()
	e.Is("5", "wait", id)
}

// Many exec sessions that end with their container do not hold up its end.
func TestManyExecsEndWithTheContainer(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	for range 24 {
		e.OK("exec", "-d", id, "sleep", "100")
	}
	begun := time.Now()
	e.OK("kill", id)
	e.OK("rm", id)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// Clients that attach to a container before its start and go away leave no descriptors with the daemon.
func TestAbandonedAttachments(t *testing.T) {
	e := harness.New(t, daemon)
	if harness.Oracle() {
		t.Skip("counts the descriptors of gantryd")
	}
	id := e.OK("create", "--name", "late", image, "true")
	descriptors := func() int {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", daemon.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	attach := func() {
		conn, err := net.Dial("unix", daemon.Socket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /containers/%s/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", id)
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(answer, "101") {
			t.Fatalf("attach: %v: %s", err, answer)
		}
	}
	attach()
	before := descriptors()
	for range 30 {
		attach()
	}
	e.Eventually(5*time.Second, func() error {
		if now := descriptors(); now > before+10 {
			return fmt.Errorf("%d descriptors, %d before", now, before)
		}
		return nil
	})
	e.OK("start", "-a", "late")
}
