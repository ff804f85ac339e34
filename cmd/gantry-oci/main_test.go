package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/fd"
)

// TestMain lets the test program stand in for the command.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_OCI_TEST") == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type runtime struct {
	t      *testing.T
	root   string
	bundle string
}

// setup makes a bundle with busybox in it.
func setup(t *testing.T, args ...string) *runtime {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and busybox")
	}
	r := &runtime{t, filepath.Join(t.TempDir(), "state"), t.TempDir()}
	for _, d := range []string{"bin", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(r.bundle, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "echo", "cat", "tty"} {
		if err := os.WriteFile(filepath.Join(r.bundle, "rootfs/bin", name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := example()
	s.Process.Args, s.Process.Terminal, s.Linux.CgroupsPath = args, false, fmt.Sprintf("/gantry-oci-test/%d-%s", os.Getpid(), t.Name())
	config, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.bundle, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + s.Linux.CgroupsPath)
		if len(left) > 0 {
			t.Errorf("cgroups left: %v", left)
		}
		parents, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-oci-test")
		for _, p := range parents {
			_ = os.Remove(p) // unless another test is in it
		}
	})
	return r
}

// run runs the command and returns its output and exit code.
func (r *runtime) run(args ...string) (string, int) {
	r.t.Helper()
	out := filepath.Join(r.t.TempDir(), "out") // a file: a container would keep a pipe open
	f, err := os.Create(out)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", r.root}, args...)...)
	cmd.Env = append(os.Environ(), "GANTRY_OCI_TEST=1")
	cmd.Stdout, cmd.Stderr = f, f
	_ = cmd.Run() // the exit code says it
	data, err := os.ReadFile(out)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// must is run of what must succeed.
func (r *runtime) must(args ...string) string {
	r.t.Helper()
	out, code := r.run(args...)
	if code != 0 {
		r.t.Fatalf("%v: exit code %d\n%s", args, code, out)
	}
	return out
}

func (r *runtime) status(id string) (s specs.State) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.must("state", id)), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

func TestRun(t *testing.T) {
	r := setup(t, "sh", "-c", "echo hello; exit 9")
	if out, code := r.run("run", "--bundle", r.bundle, "a"); out != "hello\n" || code != 9 {
		t.Errorf("exit code %d, output %q", code, out)
	}
	if out := r.must("list", "-q"); out != "" {
		t.Errorf("left: %q", out)
	}
}

func TestLifeCycle(t *testing.T) {
	r := setup(t, "sleep", "1000")
	pidFile := filepath.Join(r.bundle, "pid")
	r.must("create", "--bundle", r.bundle, "--pid-file", pidFile, "a")
	defer r.run("delete", "--force", "a")
	s := r.status("a")
	if data, err := os.ReadFile(pidFile); err != nil || string(data) != strconv.Itoa(s.Pid) || s.Status != specs.StateCreated {
		t.Errorf("pid %q, %v, state %+v", data, err, s)
	}
	// CVE-2019-5736: what a container could reach as /proc/PID/exe must not be a file of the host.
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", s.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if !fd.IsSealed(exe) {
		t.Error("the waiting process runs a file that can be written")
	}
	if out, code := r.run("create", "--bundle", r.bundle, "a"); code == 0 || !strings.Contains(out, "already exists") {
		t.Errorf("second create: exit code %d, %s", code, out)
	}
	r.must("start", "a")
	if out, code := r.run("start", "a"); code == 0 {
		t.Errorf("second start: %s", out)
	}
	if s := r.status("a"); s.Status != specs.StateRunning {
		t.Errorf("state %+v", s)
	}
	if out, code := r.run("exec", "-e", "X=1", "a", "sh", "-c", "echo $X $$; exit 3"); !strings.HasPrefix(out, "1 ") || code != 3 {
		t.Errorf("exec: exit code %d, output %q", code, out)
	}
	if out, code := r.run("exec", "a", "nosuch"); code == 0 || !strings.Contains(out, "executable file not found in $PATH") {
		t.Errorf("exec of nothing: exit code %d, output %q", code, out)
	}
	r.must("pause", "a")
	if s := r.status("a"); s.Status != "paused" {
		t.Errorf("state %+v", s)
	}
	r.must("resume", "a")
	if out := r.must("ps", "a"); !strings.Contains(out, strconv.Itoa(s.Pid)) {
		t.Errorf("ps: %q", out)
	}
	r.must("update", "--pids-limit", "77", "a")
	if out := r.must("events", "--stats", "a"); !strings.Contains(out, `"limit":77`) {
		t.Errorf("events: %s", out)
	}
	if out, code := r.run("delete", "a"); code == 0 {
		t.Errorf("delete of a running container: %s", out)
	}
	r.must("kill", "a", "SIGKILL")
	r.must("delete", "--force", "a")
	if out, code := r.run("state", "a"); code == 0 || !strings.Contains(out, "does not exist") {
		t.Errorf("state after delete: exit code %d, %s", code, out)
	}
}

func TestErrors(t *testing.T) {
	r := setup(t, "nosuch")
	log := filepath.Join(r.bundle, "log")
	out, code := r.run("--log", log, "--log-format", "json", "create", "--bundle", r.bundle, "a")
	data, _ := os.ReadFile(log)
	if code != 1 || !strings.Contains(out, `exec: "nosuch": executable file not found in $PATH`) || !strings.Contains(string(data), `"level":"error"`) {
		t.Errorf("exit code %d, output %q, log %q", code, out, data)
	}
	for _, args := range [][]string{{"nosuchverb"}, {"state"}, {"state", "../x"}, {"kill", "a", "NOSIG"}, {"create", "--bundle", "/no/such", "b"}} {
		if out, code := r.run(args...); code != 1 || out == "" {
			t.Errorf("%v: exit code %d, output %q", args, code, out)
		}
	}
}
