package crash

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// restart kills the daemon and starts it again; between is called while it is gone. It must be ready within the time that a user would wait.
func restart(e *harness.Env, between func()) {
	e.Helper()
	daemon.Kill()
	if between != nil {
		between()
	}
	start := time.Now()
	if err := daemon.Start(); err != nil {
		e.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second && !harness.Oracle() {
		e.Errorf("ready after %v", took)
	}
}

func pid(e *harness.Env, id string) int {
	e.Helper()
	var n int
	if _, err := fmt.Sscan(e.Inspect(id, "{{.State.Pid}}"), &n); err != nil || n == 0 {
		e.Fatalf("no process of %s: %v", id, err)
	}
	return n
}

func get(url string) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && strings.TrimSpace(string(body)) != "hello" {
		err = fmt.Errorf("got %q", body)
	}
	return err
}

// Everything works with containers that were running when the daemon was killed.
func TestDaemonKilled(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "n1")
	server := e.OK("run", "-d", "--name", "server", "--network", "n1", "-p", "127.0.0.1:18090:80", image, "probe", "serve", "80", "hello")
	client := e.Sleeper("--name", "client", "--network", "n1")
	e.OK("create", "--name", "made", image, "true")
	ticker := e.OK("run", "-d", "--name", "ticker", "-v", "vol:/v", image, "sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done")
	e.Eventually(5*time.Second, func() error { return get("http://127.0.0.1:18090") })
	e.OK("exec", client, "probe", "get", "http://server")
	before := pid(e, server)
	address := e.Inspect(server, "{{.NetworkSettings.Networks.n1.IPAddress}}")
	lines := len(strings.Fields(e.OK("logs", ticker)))

	restart(e, func() {
		time.Sleep(300 * time.Millisecond)
		if err := syscall.Kill(before, 0); err != nil {
			t.Fatalf("the container died with the daemon: %v", err)
		}
		if !harness.Oracle() { // docker-proxy dies with dockerd's cgroup at most; the port itself is served by the kernel
			if err := get("http://127.0.0.1:18090"); err != nil {
				t.Errorf("the port does not answer while the daemon is gone: %v", err)
			}
		}
	})
	if after := pid(e, server); after != before {
		t.Errorf("process %d became %d", before, after)
	}
	e.Is(address, "inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", server)
	names := strings.Fields(e.OK("ps", "-a", "--format", "{{.Names}}:{{.State}}"))
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "client:running made:created server:running ticker:running" {
		t.Errorf("ps: %s", got)
	}
	// Logs went on without a gap.
	e.Eventually(5*time.Second, func() error {
		got := strings.Split(e.OK("logs", ticker), "\n")
		for i, line := range got {
			if line != fmt.Sprintf("tick %d", i+1) {
				return fmt.Errorf("line %d of the log is %q", i+1, line)
			}
		}
		if len(got) < lines+5 {
			return fmt.Errorf("%d lines, %d before", len(got), lines)
		}
		return nil
	})
	// Exec, names, ports, new containers, attach, stop.
	e.Is("hello", "exec", client, "probe", "get", "http://server")
	e.Eventually(5*time.Second, func() error { return get("http://127.0.0.1:18090") })
	e.Is("hello", "run", "--rm", "--network", "n1", image, "probe", "get", "http://server")
	other := e.OK("run", "-d", "--network", "n1", image, "sleep", "100")
	if got := e.Inspect(other, "{{.NetworkSettings.Networks.n1.IPAddress}}"); got == address || got == e.Inspect(client, "{{.NetworkSettings.Networks.n1.IPAddress}}") {
		t.Errorf("address %s was given twice", got)
	}
	e.Fails(125, "port is already allocated", "run", "--rm", "-p", "127.0.0.1:18090:80", image, "true")
	s := e.Go("attach", "--no-stdin", ticker)
	s.Expect("tick \\d+\n")
	e.Fails(1, "volume is in use", "volume", "rm", "vol")
	e.OK("pause", ticker)
	e.OK("unpause", ticker)
	e.Match("^"+ticker[:12]+`\|2?`, "stats", "--no-stream", "--format", "{{.ID}}|{{.PIDs}}", ticker)
	e.OK("stop", "-t", "1", ticker)
	e.Is("exited 137", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", ticker)
	e.OK("rm", "-f", server)
	if err := get("http://127.0.0.1:18090"); err == nil {
		t.Error("the port still answers")
	}
	e.OK("start", "-a", "made")
	e.OK("rm", "-f", client, other)
	e.OK("network", "rm", "n1")
}

// Containers that ended while the daemon was gone have their exit codes, times and logs, and restart policies are obeyed.
func TestEndsWhileDaemonIsGone(t *testing.T) {
	e := harness.New(t, daemon)
	ends := e.OK("run", "-d", "--name", "ends", image, "sh", "-c", "while ! test -e /go; do sleep 0.02; done; echo last words; exit 7")
	gone := e.OK("run", "-d", "--rm", "--name", "gone", image, "sh", "-c", "while ! test -e /go; do sleep 0.02; done")
	killed := e.OK("run", "-d", "--name", "killed", image, "sleep", "1000")
	always := e.OK("run", "-d", "--name", "always", "--restart", "always", image, "sh", "-c", "sleep 1000")
	onfail := e.OK("run", "-d", "--name", "onfail", "--restart", "on-failure", image, "sh", "-c", "while ! test -e /go; do sleep 0.02; done; exit 0")
	pids := map[string]int{}
	for _, id := range []string{ends, gone, killed, always, onfail} {
		pids[id] = pid(e, id)
	}
	restart(e, func() {
		for _, id := range []string{ends, gone, onfail} {
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/go", pids[id]), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{killed, always} {
			if err := syscall.Kill(pids[id], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		for id, p := range pids {
			if err := harness.Within(5*time.Second, func() error {
				if syscall.Kill(p, 0) == nil {
					return fmt.Errorf("process %d of %s is still there", p, id)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(200 * time.Millisecond) // its supervisor may be writing
	})
	e.Is("exited 7", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", ends)
	e.Is("last words", "logs", ends)
	e.Is("7", "wait", ends)
	e.Is("exited 137", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", killed)
	e.Await("always", "{{.State.Status}}", "running")
	if now := pid(e, always); now == pids[always] {
		t.Error("always was not started again")
	}
	e.Is("exited 0", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", onfail)
	e.Eventually(5*time.Second, func() error {
		if r := e.Do("inspect", gone); r.Code == 0 {
			return fmt.Errorf("a container with --rm is still there")
		}
		return nil
	})
	if finished := e.Inspect(ends, "{{.State.FinishedAt}}"); strings.HasPrefix(finished, "0001") {
		t.Errorf("finished at %s", finished)
	}
}

// Restart policies of containers that the user stopped.
func TestStoppedStaysStopped(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("run", "-d", "--name", "unless", "--restart", "unless-stopped", image, "sleep", "1000")
	e.OK("stop", "-t", "0", "unless")
	restart(e, nil)
	e.Is("exited", "inspect", "-f", "{{.State.Status}}", "unless")
	e.OK("start", "unless")
	e.Is("running", "inspect", "-f", "{{.State.Status}}", "unless")
}

// A stop in order leaves containers running too (live restore).
func TestStopInOrder(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	before := pid(e, id)
	if err := daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(before, 0); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if after := pid(e, id); after != before {
		t.Errorf("process %d became %d", before, after)
	}
	e.Is("ready", "logs", id)
}

// Health is watched on, and a session of exec keeps its client, while the daemon is gone.
func TestSessionsOutliveDaemon(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd holds the connections itself")
	}
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "-i", "--health-cmd", "test -e /ok", "--health-interval", "100ms", "--health-retries", "1", image, "sh", "-c", "while read x; do echo got $x; done")
	attached := e.Go("attach", id)
	attached.Type("1\n")
	attached.Expect("got 1\n")
	session := e.Go("exec", "-i", id, "cat")
	session.Type("a\n")
	session.Expect("a\n")
	restart(e, func() {
		attached.Type("2\n")
		attached.Expect("got 2\n")
		session.Type("b\n")
		session.Expect("b\n")
	})
	attached.Type("3\n")
	attached.Expect("got 3\n")
	session.Type("c\n")
	session.Expect("c\n")
	session.In.Close()
	session.Wait()
	e.OK("exec", id, "touch", "/ok")
	e.Await(id, "{{.State.Health.Status}}", "healthy")
}

// A killed shim: its container is reported dead with a reason, and nothing of it is left.
func TestShimKilled(t *testing.T) {
	if harness.Oracle() {
		t.Skip("what dockerd makes of it is not what we promise")
	}
	e := harness.New(t, daemon)
	if id := e.OK("run", "-d", "--rm", image, "true"); id == "" {
		t.Fatal("no container")
	}
	e.Eventually(5*time.Second, func() error {
		if ids := e.OK("ps", "-aq"); ids != "" {
			return fmt.Errorf("still there: %s", ids)
		}
		return nil
	})
	before := e.Settled()
	id := e.OK("run", "-d", "-p", "127.0.0.1:18091:80", image, "sleep", "1000")
	always := e.OK("run", "-d", "--restart", "always", image, "sleep", "1000")
	for _, c := range []string{id, always} {
		p := pid(e, c)
		shim := supervisor(e, c, p)
		if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		e.Eventually(5*time.Second, func() error {
			if syscall.Kill(p, 0) == nil {
				return fmt.Errorf("the container's process %d outlived its shim", p)
			}
			return nil
		})
	}
	e.Await(id, "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", "exited 137 false")
	if reason := e.Inspect(id, "{{.State.Error}}"); reason == "" {
		t.Error("no reason is given")
	}
	e.Await(always, "{{.State.Status}}", "running")
	e.OK("start", id)
	e.OK("rm", "-f", id, always)
	e.SameAs(before)
}

// supervisor returns the process that supervises a container: the only other one that has the container's folder in its arguments or its socket.
func supervisor(e *harness.Env, id string, init int) int {
	e.Helper()
	parent, name := harness.Parent(init)
	if parent <= 1 {
		e.Fatalf("the parent of %s's process %d is %d (%s)", id, init, parent, name)
	}
	return parent
}

// Both at once: shims and containers die while the daemon is gone.
func TestShimKilledWhileDaemonIsGone(t *testing.T) {
	if harness.Oracle() {
		t.Skip("what dockerd makes of it is not what we promise")
	}
	e := harness.New(t, daemon)
	id := e.Sleeper("--name", "both")
	p := pid(e, id)
	shim := supervisor(e, id, p)
	restart(e, func() {
		if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	})
	e.Is("exited 137", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)
	e.OK("start", id)
	e.OK("exec", id, "true")
}

// Killed at random moments of work the daemon comes back, fsck is clean, and nothing that was acknowledged is lost.
func TestKilledUnderLoad(t *testing.T) {
	e := harness.New(t, daemon)
	rounds := 8
	if harness.Oracle() {
		rounds = 1
	}
	for round := range rounds {
		made := make(chan string, 1000)
		stop := make(chan struct{})
		for worker := range 3 {
			go func() {
				defer func() { made <- "" }()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("r%d-w%d-%d", round, worker, i)
					if r := e.Do("run", "-d", "--name", name, image, "sleep", "1000"); r.Code == 0 {
						made <- name
					}
					if i%3 == 2 {
						e.Do("rm", "-f", fmt.Sprintf("r%d-w%d-%d", round, worker, i-1))
					}
				}
			}()
		}
		time.Sleep(time.Duration(100+round*53) * time.Millisecond)
		daemon.Kill()
		close(stop)
		var names []string
		for left := 3; left > 0; {
			if name := <-made; name == "" {
				left--
			} else {
				names = append(names, name)
			}
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for line := range strings.Lines(e.OK("ps", "-a", "--format", "{{.Names}}")) {
			have[strings.TrimSpace(line)] = true
		}
		for _, name := range names {
			var r, w, i int
			if _, err := fmt.Sscanf(name, "r%d-w%d-%d", &r, &w, &i); err != nil {
				t.Fatal(err)
			}
			if i%3 == 1 {
				continue // removed on purpose, or about to be
			}
			if !have[name] {
				t.Errorf("round %d: %s was acknowledged and is gone", round, name)
			}
			if r := e.Do("exec", name, "true"); r.Code != 0 {
				t.Errorf("round %d: %v", round, r)
			}
		}
		if found, err := daemon.Fsck(); err != nil || len(found) > 0 {
			t.Errorf("round %d: fsck: %v %v", round, found, err)
		}
		if ids := strings.Fields(e.OK("ps", "-aq")); len(ids) > 0 {
			e.OK(append([]string{"rm", "-f"}, ids...)...)
		}
	}
}

// kill -9 in the middle of load, pull, commit and cp leaves nothing but what was finished.
func TestKilledDuringImageWork(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd leaves temporary files")
	}
	e := harness.New(t, daemon)
	big := harness.Layer(harness.Entry{Name: "big", Body: strings.Repeat("0123456789abcdef", 4<<20)})
	data, err := harness.BusyboxArchive("big:1", harness.ImageConfig{}, big)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.DoInput(string(data), "load")
		}()
		time.Sleep(time.Duration(60+90*round) * time.Millisecond)
		daemon.Kill()
		<-done
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		if found, err := daemon.Fsck(); err != nil || len(found) > 0 {
			t.Errorf("round %d: fsck: %v %v", round, found, err)
		}
		e.OK("run", "--rm", image, "true")
		if r := e.Do("image", "inspect", "big:1"); r.Code == 0 {
			e.Is("67108864", "run", "--rm", "big:1", "stat", "-c", "%s", "/big")
			e.OK("rmi", "big:1")
		}
	}
}
