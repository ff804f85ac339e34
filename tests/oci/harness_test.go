// Package oci_test drives the built gantry-oci as its callers do: by its command line, over every verb.
package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var binary string

// TestMain builds the program once.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gantry-oci-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "gantry-oci")
	ldflags := "-s -w"
	if goruntime.GOARCH == "amd64" {
		ldflags += " -E gantry/oci/early.entry"
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", ldflags, "-o", binary, "gantry/cmd/gantry-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=norandomizedheapbase64") // as make does
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// runtime is the program with a root and a bundle of its own.
type runtime struct {
	t      *testing.T
	root   string
	bundle string
	group  string // cgroup that the bundle's config names
}

// setup makes a bundle with busybox in it, whose program is args.
func setup(t *testing.T, args ...string) *runtime {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and busybox")
	}
	r := &runtime{t, filepath.Join(t.TempDir(), "state"), t.TempDir(), fmt.Sprintf("/gantry-oci-black/%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(r.bundle, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(r.bundle, "rootfs/bin")
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "echo", "cat", "tty", "true", "id", "env", "pwd", "grep", "readlink", "ls", "kill", "stty", "ps", "dd", "tail"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.must("spec", "--bundle", r.bundle)
	r.edit(func(s *specs.Spec) {
		s.Process.Args, s.Process.Terminal, s.Linux.CgroupsPath, s.Root.Readonly = args, false, r.group, false
	})
	t.Cleanup(r.leftovers)
	return r
}

// leftovers removes what a failed test left and complains about it.
func (r *runtime) leftovers() {
	entries, _ := os.ReadDir(r.root)
	for _, e := range entries {
		if !r.t.Failed() {
			r.t.Errorf("state of container %s is left", e.Name())
		}
		r.run("delete", "--force", e.Name())
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + r.group)
	if len(left) > 0 {
		r.t.Errorf("cgroups left: %v", left)
	}
	parents, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-oci-black")
	for _, p := range parents {
		_ = os.Remove(p) // unless another test is in it
	}
	data, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(data), r.bundle) || strings.Contains(string(data), r.root) {
		r.t.Errorf("mounts left:\n%s", data)
	}
}

// edit changes the bundle's config.json.
func (r *runtime) edit(change func(*specs.Spec)) {
	r.t.Helper()
	path := filepath.Join(r.bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		r.t.Fatal(err)
	}
	change(&s)
	if data, err = json.Marshal(s); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *runtime) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, append([]string{"--root", r.root}, args...)...)
	cmd.Dir = r.bundle
	return cmd
}

// result is what a call came to.
type result struct {
	out, err string
	code     int
}

// run runs the program. Its output goes to files, because a container would keep a pipe open.
func (r *runtime) run(args ...string) result {
	r.t.Helper()
	return r.finish(r.command(args...))
}

func (r *runtime) finish(cmd *exec.Cmd) result {
	r.t.Helper()
	dir := r.t.TempDir()
	var files [2]*os.File
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			r.t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	var text [2]string
	for i, f := range files {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			r.t.Fatal(err)
		}
		text[i] = string(data)
	}
	return result{text[0], text[1], cmd.ProcessState.ExitCode()}
}

// must is run of a call that has to succeed, and returns its output.
func (r *runtime) must(args ...string) string {
	r.t.Helper()
	res := r.run(args...)
	if res.code != 0 {
		r.t.Fatalf("%v: exit code %d, output %q, errors %q", args, res.code, res.out, res.err)
	}
	return res.out
}

// fails is run of a call that has to fail with a message.
func (r *runtime) fails(code int, message string, args ...string) {
	r.t.Helper()
	res := r.run(args...)
	if res.code != code || !strings.Contains(res.err, message) {
		r.t.Errorf("%v: exit code %d, want %d; errors %q, want %q", args, res.code, code, res.err, message)
	}
}

type state struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations"`
	Owner       string            `json:"owner"`
}

func (r *runtime) state(id string) state {
	r.t.Helper()
	var s state
	if err := json.Unmarshal([]byte(r.must("state", id)), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
