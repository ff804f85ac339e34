package oci_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestLifecycle(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.edit(func(s *specs.Spec) { s.Annotations = map[string]string{"org.example": "x"} })
	pidFile := filepath.Join(r.bundle, "pid")
	r.must("create", "--bundle", r.bundle, "--pid-file", pidFile, "a")
	s := r.state("a")
	data, err := os.ReadFile(pidFile)
	if err != nil || string(data) != strconv.Itoa(s.Pid) {
		t.Errorf("pid file %q, %v, pid %d", data, err, s.Pid)
	}
	if s.ID != "a" || s.Status != "created" || s.Bundle != r.bundle || s.Rootfs != r.bundle+"/rootfs" || s.Version != specs.Version || s.Created.IsZero() || s.Annotations["org.example"] != "x" {
		t.Errorf("state %+v", s)
	}
	r.fails(1, "container with given ID already exists", "create", "--bundle", r.bundle, "a")
	r.must("start", "a")
	r.fails(1, "cannot start an already running container", "start", "a")
	if s := r.state("a"); s.Status != "running" {
		t.Errorf("state %+v", s)
	}
	r.fails(1, "cannot delete container a that is not stopped: running", "delete", "a")
	r.must("pause", "a")
	if s := r.state("a"); s.Status != "paused" {
		t.Errorf("state %+v", s)
	}
	r.fails(1, "container not running", "pause", "a")
	r.fails(1, "cannot start a container in the paused state", "start", "a")
	r.fails(255, "cannot exec in a paused container", "exec", "a", "true")
	r.must("resume", "a")
	r.fails(1, "container not paused", "resume", "a")
	r.must("kill", "a", "KILL")
	eventually(t, "the end of init", func() bool { return r.state("a").Status == "stopped" })
	if s := r.state("a"); s.Pid != 0 {
		t.Errorf("state %+v", s)
	}
	r.fails(1, "container not running", "kill", "a", "TERM")
	r.must("kill", "--all", "a", "KILL")
	r.fails(1, "cannot start a container that has stopped", "start", "a")
	r.fails(255, "cannot exec in a stopped container", "exec", "a", "true")
	r.fails(1, "container with id a is not running", "events", "--stats", "a")
	r.fails(1, "container not running", "pause", "a")
	r.fails(1, "container not running", "update", "--memory", "100M", "a")
	r.must("delete", "a")
	for verb, code := range map[string]int{"state": 1, "start": 1, "kill": 1, "delete": 1, "ps": 1, "pause": 1, "resume": 1, "update": 1, "events": 1, "checkpoint": 1} {
		r.fails(code, "container does not exist", verb, "a")
	}
	r.fails(255, "exec failed: container does not exist", "exec", "a", "true")
	r.must("delete", "--force", "a")
	if out := r.must("list", "-q"); out != "" {
		t.Errorf("list: %q", out)
	}
}

// TestKillCreated has signals end an init that waits for its start: as the first process of its pid namespace, and in the host's.
func TestKillCreated(t *testing.T) {
	r := setup(t, "sleep", "1000")
	for _, kinds := range [][]specs.LinuxNamespaceType{{specs.PIDNamespace, specs.MountNamespace}, {specs.MountNamespace}} {
		r.edit(func(s *specs.Spec) {
			s.Hostname, s.Linux.Namespaces = "", nil
			for _, k := range kinds {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
			}
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" || m.Type == "mqueue" })
		})
		for _, sig := range []string{"TERM", "INT", "HUP", "QUIT", "KILL"} {
			r.must("create", "k")
			r.must("kill", "k", "USR1")
			if s := r.state("k"); s.Status != "created" {
				t.Errorf("after USR1 it is %s", s.Status)
			}
			r.must("kill", "k", sig)
			eventually(t, "the end of a created container by SIG"+sig, func() bool { return r.state("k").Status == "stopped" })
			r.fails(1, "cannot start a container that has stopped", "start", "k")
			r.must("delete", "k")
		}
		r.must("create", "k") // and it starts all the same
		r.must("start", "k")
		if s := r.state("k"); s.Status != "running" {
			t.Errorf("%+v", s)
		}
		r.must("delete", "--force", "k")
	}
}

// TestDeletePaused removes a container that is frozen, which on cgroup v1 does not die of a signal.
func TestDeletePaused(t *testing.T) {
	r := setup(t)
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	r.must("create", "--bundle", r.bundle, "p")
	r.must("start", "p")
	r.must("pause", "p")
	done := make(chan string)
	go func() { done <- r.must("delete", "--force", "p") }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		r.must("resume", "p")
		t.Error("it takes too long")
	}
}

func TestRunExitCodes(t *testing.T) {
	r := setup(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$; kill -KILL $$": 0, "exit 255": 255} {
		r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", script} })
		res := r.run("run", "c")
		if strings.HasPrefix(script, "kill") { // pid 1 cannot kill itself
			if res.code != 0 {
				t.Errorf("%q: exit code %d", script, res.code)
			}
			continue
		}
		if res.code != want || res.err != "" {
			t.Errorf("%q: exit code %d, want %d; %q", script, res.code, want, res.err)
		}
	}
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"echo", "hello"} })
	if res := r.run("run", "c"); res.out != "hello\n" {
		t.Errorf("%+v", res)
	}
	if _, err := os.Stat(filepath.Join(r.root, "c")); err == nil {
		t.Error("run left its state")
	}
	for _, name := range []string{"data", "bin/data"} {
		if err := os.WriteFile(filepath.Join(r.bundle, "rootfs", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"nosuch": `run failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH`, "/nosuch": `no such file or directory`, "/etc": `exec: \"/etc\": is a directory`, "/data": `exec: \"/data\": permission denied`, "data": `exec: \"data\": executable file not found in $PATH`,
	} {
		r.edit(func(s *specs.Spec) { s.Process.Args = []string{name} })
		r.fails(1, want, "run", "c")
		r.fails(1, strings.ReplaceAll(want, "run failed", "create failed"), "create", "c")
	}
}

// TestExecErrorTexts has programs that are there and cannot run: what they need is missing, or they are none.
func TestExecErrorTexts(t *testing.T) {
	r := setup(t, "/run.sh")
	for name, text := range map[string]string{"run.sh": "#!/no/such/interpreter\n", "bin/none": "not a program"} {
		if err := os.WriteFile(filepath.Join(r.bundle, "rootfs", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.edit(func(s *specs.Spec) { s.Process.Args, s.Process.Cwd = []string{"./busybox", "true"}, "/bin" })
	r.must("run", "c")
	r.edit(func(s *specs.Spec) { s.Process.Args, s.Process.Cwd = []string{"/run.sh"}, "/" })
	const missing = "exec /run.sh: no such file or directory"
	if res := r.run("run", "c"); res.code != 255 || res.err != missing+"\n" {
		t.Errorf("%+v", res)
	}
	r.fails(1, "run failed: unable to start container process: "+missing, "run", "--detach", "c")
	r.must("create", "c")
	r.fails(1, missing, "start", "c")
	r.must("delete", "c")
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"none"} })
	r.fails(255, "exec none: exec format error", "run", "c")
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	r.must("run", "-d", "c")
	for name, want := range map[string]string{"/run.sh": missing, "/etc": `exec: \"/etc\": is a directory`, "/no/such": `exec: \"/no/such\": stat /no/such: no such file or directory`} {
		r.fails(255, want, "exec", "c", name)
	}
	r.must("delete", "-f", "c")
}

func TestRunKeep(t *testing.T) {
	r := setup(t, "true")
	r.must("run", "--keep", "k")
	if s := r.state("k"); s.Status != "stopped" {
		t.Errorf("state %+v", s)
	}
	r.must("delete", "k")
}

func TestRunDetached(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.must("run", "--detach", "--pid-file", "pid", "d")
	data, err := os.ReadFile(filepath.Join(r.bundle, "pid"))
	if s := r.state("d"); err != nil || s.Status != "running" || string(data) != strconv.Itoa(s.Pid) {
		t.Errorf("%+v, pid file %q, %v", s, data, err)
	}
	r.must("delete", "-f", "d")
}

func TestSignalsAreForwarded(t *testing.T) {
	r := setup(t, "sh", "-c", "trap 'exit 42' USR1; trap 'exit 43' TERM; echo ready; while :; do sleep 0.05; done")
	for _, c := range []struct {
		send func(*exec.Cmd) error
		want int
	}{
		{func(run *exec.Cmd) error { return run.Process.Signal(syscall.SIGUSR1) }, 42},
		{func(run *exec.Cmd) error { return run.Process.Signal(syscall.SIGTERM) }, 43},
		{func(*exec.Cmd) error { r.must("kill", "s", "KILL"); return nil }, 128 + 9},
	} {
		cmd := r.command("run", "s")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil { // the program runs
			t.Fatal(err)
		}
		if err := c.send(cmd); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its code says it
		if code := cmd.ProcessState.ExitCode(); code != c.want {
			t.Errorf("exit code %d, want %d", code, c.want)
		}
	}
}

func TestList(t *testing.T) {
	r := setup(t, "sleep", "1000")
	if res := r.run("list"); res.code != 1 || !strings.Contains(res.err, "no such file or directory") { // as with runc: an explicit root must be there
		t.Errorf("%+v", res)
	}
	r.must("create", "a")
	r.edit(func(s *specs.Spec) { s.Linux.CgroupsPath += "-b" })
	r.must("run", "-d", "b")
	defer r.must("delete", "-f", "a")
	defer r.must("delete", "-f", "b")
	if out := r.must("list", "--quiet"); out != "a\nb\n" {
		t.Errorf("%q", out)
	}
	out := r.must("list")
	if lines := strings.Split(out, "\n"); len(lines) != 4 || !slices.Equal(strings.Fields(lines[0]), []string{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}) || !strings.Contains(lines[1], "created") || !strings.HasSuffix(lines[2], "root") {
		t.Errorf("%s", out)
	}
	var list []state
	if err := json.Unmarshal([]byte(r.must("list", "-f", "json")), &list); err != nil || len(list) != 2 || list[0].ID != "a" || list[1].Status != "running" || list[1].Owner != "root" {
		t.Errorf("%+v, %v", list, err)
	}
	r.fails(1, "invalid format option", "list", "-f", "xml")
}

func TestPs(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.must("run", "-d", "p")
	defer r.must("delete", "-f", "p")
	pid := strconv.Itoa(r.state("p").Pid)
	if out := r.must("ps", "--format", "json", "p"); strings.TrimSpace(out) != "["+pid+"]" {
		t.Errorf("%q", out)
	}
	if _, err := exec.LookPath("ps"); err != nil {
		return // the table is made by it
	}
	out := r.must("ps", "p")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || strings.Fields(lines[1])[1] != pid {
		t.Errorf("%q", out)
	}
	if out := r.must("ps", "p", "-o", "pid,comm"); !strings.Contains(out, pid+" sleep") {
		t.Errorf("%q", out)
	}
	r.fails(1, "couldn't find PID field in ps output", "ps", "p", "-o", "comm")
}

func TestUpdateAndEvents(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.must("run", "-d", "u")
	defer r.must("delete", "-f", "u")
	stats := func() map[string]any {
		var e struct {
			Type, ID string
			Data     map[string]any
		}
		out := r.must("events", "--stats", "u")
		if err := json.Unmarshal([]byte(out), &e); err != nil || e.Type != "stats" || e.ID != "u" {
			t.Fatalf("%s, %v", out, err)
		}
		return e.Data
	}
	r.must("update", "--pids-limit", "77", "--memory", "64m", "--memory-reservation=32M", "--cpu-share", "512", "--cpu-quota", "50000", "--cpu-period", "100000", "u")
	s := stats()
	if s["pids"].(map[string]any)["limit"] != 77.0 || s["memory"].(map[string]any)["usage"].(map[string]any)["limit"] != 64.0*1024*1024 {
		t.Errorf("%v", s)
	}
	for _, key := range []string{"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"} {
		if _, ok := s[key]; !ok {
			t.Errorf("statistics without %s: %v", key, s)
		}
	}
	file := filepath.Join(r.bundle, "limits")
	if err := os.WriteFile(file, []byte(`{"pids":{"limit":55}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r.must("update", "-r", file, "u")
	if s := stats(); s["pids"].(map[string]any)["limit"] != 55.0 {
		t.Errorf("%v", s)
	}
	cmd := r.command("update", "-r", "-", "u")
	cmd.Stdin = strings.NewReader(`{"pids":{"limit":44}}`)
	if res := r.finish(cmd); res.code != 0 {
		t.Errorf("%+v", res)
	}
	if s := stats(); s["pids"].(map[string]any)["limit"] != 44.0 {
		t.Errorf("%v", s)
	}
	for _, args := range [][]string{{"--memory", "lots"}, {"--cpu-quota", "x"}, {"--cpu-share", "-1"}, {"--pids-limit", "x"}, {"--blkio-weight", "70000"}} {
		r.fails(1, "invalid value for "+args[0][2:], append(append([]string{"update"}, args...), "u")...)
	}
	r.fails(1, "Intel RDT is not available", "update", "--l3-cache-schema", "L3:0=f", "u")
	r.fails(1, "duration interval must be greater than 0", "events", "--interval", "0s", "u")
}

// TestEvents follows a container that runs out of memory, to its end.
func TestEvents(t *testing.T) {
	r := setup(t, "sh", "-c", "while :; do busybox yes | busybox tail -c 100000000; sleep 0.2; done")
	limit := int64(24 << 20)
	r.edit(func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit} })
	r.must("create", "e")
	file := filepath.Join(r.bundle, "events")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := r.command("events", "--interval", "100ms", "e")
	cmd.Stdout = f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := func(what string) func() bool {
		return func() bool {
			data, _ := os.ReadFile(file)
			return strings.Contains(string(data), `{"type":"`+what+`","id":"e"`)
		}
	}
	eventually(t, "statistics", seen("stats"))
	r.must("start", "e")
	eventually(t, "out of memory", seen("oom"))
	r.must("delete", "-f", "e")
	if err := cmd.Wait(); err != nil {
		t.Errorf("events: %v", err)
	}
}

// TestWritableCgroups has a container make cgroups of its own, in every hierarchy that the machine has.
func TestWritableCgroups(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.edit(func(s *specs.Spec) {
		for i, m := range s.Mounts {
			if m.Type == "cgroup" {
				s.Mounts[i].Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
			}
		}
	})
	r.must("run", "-d", "w")
	dirs := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil { // v1
		dirs = nil
		for _, name := range []string{"memory", "freezer", "cpuset", "pids", "devices", "cpu"} {
			if _, err := os.Stat("/sys/fs/cgroup/" + name + "/tasks"); err == nil {
				dirs = append(dirs, "/sys/fs/cgroup/"+name)
			}
		}
	}
	for _, dir := range dirs {
		if res := r.run("exec", "w", "/bin/busybox", "mkdir", dir+"/own"); res.code != 0 {
			t.Errorf("%s: %+v", dir, res)
		}
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(r.state("w").Pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if !strings.HasSuffix(strings.TrimSpace(line), r.group) {
			t.Errorf("init is not in the container's cgroup: %s", line)
		}
	}
	r.must("delete", "--force", "w")
}

// TestHookDirectory has a createContainer hook find itself in the root file system, as callers of runc expect.
func TestHookDirectory(t *testing.T) {
	r := setup(t, "ls", "/from-hook")
	r.edit(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", ": >./from-hook"}}}}
	})
	if out := r.must("run", "h"); out != "/from-hook\n" {
		t.Errorf("%q", out)
	}
}
