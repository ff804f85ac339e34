package system

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// own starts a further daemon with the test image, and stops it at the end.
func own(t *testing.T, name string, flags ...string) *harness.Env {
	t.Helper()
	if harness.Oracle() {
		t.Skip("about gantryd's own process")
	}
	d, err := harness.NewDaemon(harness.Dir(), name, flags...)
	if err == nil {
		err = d.Start()
	}
	if err == nil {
		err = d.Base()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return harness.New(t, d)
}

// gantryd runs the daemon's program to its end and returns what it wrote to stderr.
func gantryd(t *testing.T, args ...string) (string, int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), harness.Bin("gantryd"), args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	c.WaitDelay = 5 * time.Second
	_ = c.Run() // the exit code says it
	return strings.TrimSpace(stderr.String()), c.ProcessState.ExitCode()
}

func TestRefusedConfigurations(t *testing.T) {
	if harness.Oracle() {
		t.Skip("about gantryd's own process")
	}
	file := filepath.Join(t.TempDir(), "daemon.json")
	for _, c := range []struct {
		json string
		args []string
		code int
		want string
	}{
		{`{}`, nil, 0, "configuration OK"},
		{`{"labels":["a=b"],"features":{"x":true}}`, []string{"-D", "--containerd", "/x"}, 0, "configuration OK"},
		{`{"nope":1}`, nil, 1, "unable to configure the Docker daemon with file " + file + ": the following directives don't match any configuration option: nope"},
		{`{"debug":true}`, []string{"-D"}, 1, "unable to configure the Docker daemon with file " + file + ": the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		{`{"debug":1}`, nil, 1, "unable to configure the Docker daemon with file " + file + ": debug: must be true or false"},
		{`{"runtimes":{"runc":{"path":"/x"}}}`, nil, 1, "unable to configure the Docker daemon with file " + file + ": runtimes: runtime name 'runc' is reserved"},
		{`{}`, []string{"--nope"}, 1, "unknown flag: --nope\nSee 'gantryd --help'."},
		{`{}`, []string{"-H", "tcp://127.0.0.1:1"}, 1, "refusing to listen on tcp://127.0.0.1:1 without TLS, because everyone who can reach it would control this machine: use --tlsverify with certificates, or --tls=false to allow it all the same"},
	} {
		if err := os.WriteFile(file, []byte(c.json), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, code := gantryd(t, append([]string{"--validate", "--config-file", file}, c.args...)...); got != c.want || code != c.code {
			t.Errorf("%s %q: code %d, %s", c.json, c.args, code, got)
		}
	}
}

func TestOneDaemonPerRoot(t *testing.T) {
	e := own(t, "roots")
	dir := t.TempDir()
	args := func(data, exec, pid, host string) []string {
		return []string{"--config-file=", "--data-root", data, "--exec-root", exec, "--pidfile", pid, "-H", "unix://" + host, "--bridge", "none"}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for want, list := range map[string][]string{
		e.D.DataRoot() + " is in use by another daemon":                               args(e.D.DataRoot(), in("e"), in("p"), in("s")),
		e.D.ExecRoot() + " is in use by another daemon":                               args(in("d"), e.D.ExecRoot(), in("p"), in("s")),
		"process with PID " + strconv.Itoa(e.D.Pid()) + " is still running":           args(in("d"), in("e"), filepath.Join(e.D.Dir, "pid"), in("s")),
		"can't create unix socket " + e.D.Socket() + ": another daemon answers on it": args(in("d"), in("e"), in("p"), e.D.Socket()),
	} {
		if got, code := gantryd(t, list...); code != 1 || !strings.Contains(got, want) {
			t.Errorf("code %d: %s\nwant %s", code, got, want)
		}
	}
	e.Is("hi", "run", "--rm", image, "echo", "hi") // the first one is none the worse
	if info, err := os.Stat(e.D.Socket()); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v %v", info, err)
	}
}

func TestTerminateKeepsContainers(t *testing.T) {
	e := own(t, "keep")
	id := e.Sleeper()
	pid := e.Inspect(id, "{{.State.Pid}}")
	follower := e.Go("logs", "-f", id)
	listener := e.Go("events")
	time.Sleep(100 * time.Millisecond)
	start := time.Now()
	if err := e.D.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the stop took %v", took)
	}
	follower.Wait()
	listener.Wait()
	for _, file := range []string{e.D.Socket(), filepath.Join(e.D.Dir, "pid")} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is left", file)
		}
	}
	if err := e.D.Start(); err != nil {
		t.Fatal(err)
	}
	if again := e.Inspect(id, "{{.State.Pid}} {{.State.Running}}"); again != pid+" true" {
		t.Errorf("pid %s before, %s after", pid, again)
	}
}

func TestTerminateStopsContainers(t *testing.T) {
	e := own(t, "stop", "--live-restore=false")
	id := e.Sleeper()
	if err := e.D.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := e.D.Start(); err != nil {
		t.Fatal(err)
	}
	if got := e.Inspect(id, "{{.State.Running}}"); got != "false" {
		t.Errorf("running: %s", got)
	}
}

func TestReload(t *testing.T) {
	e := own(t, "reload")
	hup := func(json string) {
		t.Helper()
		if err := e.D.Configure(json); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(e.D.Pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	info := "{{.Debug}} {{.Labels}} {{index .RegistryConfig.Mirrors 0}}"
	hup(`{"debug":true,"labels":["a=b"],"registry-mirrors":["https://mirror.example/"]}`)
	e.Eventually(5*time.Second, func() error {
		if r := e.Do("info", "--format", info); strings.TrimSpace(r.Stdout) != "true [a=b] https://mirror.example/" {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	// Limits of layers hold from then on.
	layered, err := harness.BusyboxArchive("layered:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "a"}, harness.Entry{Name: "b"}, harness.Entry{Name: "c"}))
	if err != nil {
		t.Fatal(err)
	}
	hup(`{"debug":true,"labels":["a=b"],"registry-mirrors":["https://mirror.example/"],"max-layer-entries":2}`)
	e.Eventually(5*time.Second, func() error {
		r := e.DoInput(string(layered), "load")
		if !strings.Contains(r.Stdout+r.Stderr, "has more than 2 entries: raise max-layer-entries") {
			e.Do("rmi", "layered:1")
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	hup(`{"debug":true,"labels":["a=b"],"registry-mirrors":["https://mirror.example/"],"max-layer-entries":1000}`)
	e.Eventually(5*time.Second, func() error {
		if r := e.DoInput(string(layered), "load"); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	e.OK("rmi", "layered:1")
	hup(`{"debug":false,"labels":["c=d"],"nope":1}`)
	e.Eventually(5*time.Second, func() error {
		if tail := e.D.LogTail(50); !strings.Contains(tail, "Error reloading configuration") {
			return fmt.Errorf("no word of the bad file in the log:\n%s", tail)
		}
		return nil
	})
	e.Match(`^true \[a=b\]`, "info", "--format", info)
	now := time.Now()
	_, events, err := e.D.Get(fmt.Sprintf("/events?since=1&until=%d.%09d", now.Unix(), now.Nanosecond()))
	if err != nil || !strings.Contains(string(events), `"Action":"reload"`) || !strings.Contains(string(events), `"debug":"true"`) {
		t.Errorf("%v %s", err, events)
	}
}

func TestStacks(t *testing.T) {
	e := own(t, "stacks")
	stacks := func() []string {
		files, _ := filepath.Glob(filepath.Join(e.D.ExecRoot(), "goroutine-stacks-*.log"))
		return files
	}
	for _, file := range stacks() { // of the same test before
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(e.D.Pid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	e.Eventually(5*time.Second, func() error {
		files := stacks()
		if len(files) != 1 {
			return fmt.Errorf("files: %v", files)
		}
		data, err := os.ReadFile(files[0])
		if err == nil && !bytes.Contains(data, []byte("goroutine ")) {
			err = fmt.Errorf("no stacks in it: %.100s", data)
		}
		return err
	})
}

func TestSideBySide(t *testing.T) {
	a, b := own(t, "sidea"), own(t, "sideb")
	for _, e := range []*harness.Env{a, b} {
		e.OK("run", "-d", "--name", "same", "-p", "80", image, "sleep", "1000")
	}
	if x, y := a.Inspect("same", "{{.NetworkSettings.IPAddress}}"), b.Inspect("same", "{{.NetworkSettings.IPAddress}}"); x == y || x == "" {
		t.Errorf("addresses %q and %q", x, y)
	}
	a.OK("rm", "-f", "same")
	b.Is("same", "ps", "--format", "{{.Names}}")
	b.OK("exec", "same", "true")
}

func TestIdleMemory(t *testing.T) {
	e := own(t, "idle")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.D.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil || kb > 40<<10 {
				t.Errorf("resident: %s", rest)
			}
		}
	}
}

func TestAPIVersions(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("run", "-d", "--name", "one", "--label", "a=b", image, "sleep", "1000")
	for _, path := range []string{
		"/info", "/version", "/containers/json?all=1&size=1", "/containers/one/json", "/images/json", "/images/" + image + "/json",
		"/images/" + image + "/history", "/networks", "/networks/bridge", "/volumes", "/system/df", "/events?since=0&until=1",
	} {
		for _, version := range []string{"", "/v1.24", "/v1.30", "/v1.41", "/v1.44"} {
			if harness.Oracle() && version == "/v1.44" {
				continue
			}
			status, body, err := daemon.Get(version + path)
			if err != nil || status != 200 || !strings.HasPrefix(path, "/events") && !json.Valid(body) {
				t.Errorf("%s%s: %d %v %.200s", version, path, status, err, body)
			}
		}
	}
	for path, want := range map[string]string{
		"/v1.1/info":  "is too old. Minimum supported API version is ",
		"/v1.99/info": "client version 1.99 is too new. Maximum supported API version is ",
		"/nowhere":    "page not found",
	} {
		status, body, err := daemon.Get(path)
		if err != nil || status != 400 && status != 404 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %v %s", path, status, err, body)
		}
	}
	if status, body, err := daemon.Do("POST", "/v1.41/session", ""); !harness.Oracle() && (err != nil || status != 501 || !strings.Contains(string(body), "not supported yet")) {
		t.Errorf("session: %d %v %s", status, err, body)
	}
}

func TestInfoAndUsage(t *testing.T) {
	e := harness.New(t, daemon)
	before := e.OK("info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}}")
	if strings.TrimSpace(before) != "0 0 0" {
		t.Fatalf("containers: %s", before)
	}
	e.OK("run", "-d", "--name", "runs", "-v", "data:/data", image, "sh", "-c", "head -c 10000 /dev/zero >/f; head -c 20000 /dev/zero >/data/f; echo ready; sleep 1000")
	e.OK("create", "--name", "stands", image, "true")
	e.Eventually(5*time.Second, func() error {
		if r := e.Do("logs", "runs"); !strings.Contains(r.Stdout, "ready") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	e.Is("2 1 1", "info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}}")
	usage := e.OK("system", "df", "--format", "{{.Type}}:{{.TotalCount}}:{{.Active}}")
	for _, want := range []string{"Images:1:1", "Containers:2:1", "Local Volumes:1:1"} {
		if !strings.Contains(usage, want) {
			t.Errorf("%s is not in %s", want, usage)
		}
	}
	e.Match(`(?m)^data +1 +(20kB|2[048]\.\d+kB)`, "system", "df", "-v")
}
