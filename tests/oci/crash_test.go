package oci_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// members returns the processes in the bundle's cgroup, whichever hierarchy has it.
func (r *runtime) members() []string {
	files, _ := filepath.Glob("/sys/fs/cgroup/*" + r.group + "/cgroup.procs")
	if len(files) == 0 {
		files = []string{"/sys/fs/cgroup" + r.group + "/cgroup.procs"}
	}
	var pids []string
	for _, f := range files {
		data, _ := os.ReadFile(f)
		pids = append(pids, strings.Fields(string(data))...)
	}
	return pids
}

// TestKilledCreate kills create at many moments. Whatever there is then, delete --force takes back, with every process, and the name is
// free again.
func TestKilledCreate(t *testing.T) {
	r := setup(t, "sleep", "1000")
	half, whole, nothing := 0, 0, 0
	for i := range 60 {
		cmd := r.command("create", "k")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 700 * time.Microsecond)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		switch _, err := os.Stat(filepath.Join(r.root, "k")); {
		case err != nil:
			nothing++
		case r.run("state", "k").code == 0:
			whole++
		default:
			half++
			r.fails(1, "container does not exist", "start", "k")
			r.fails(1, "container with given ID already exists", "create", "k")
			if out := r.must("list", "-q"); out != "" {
				t.Errorf("list shows a half-made container: %q", out)
			}
		}
		r.must("delete", "--force", "k")
		if _, err := os.Stat(filepath.Join(r.root, "k")); err == nil {
			t.Fatal("state is left")
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + r.group); len(left) > 0 {
			t.Fatalf("cgroups left: %v, processes %v", left, r.members())
		}
	}
	t.Logf("killed with nothing made %d times, half-made %d, complete %d", nothing, half, whole)
	if half == 0 {
		t.Error("no create was killed in its middle")
	}
}

// TestKilledRun kills a foreground run: the container is still there, and can be deleted.
func TestKilledRun(t *testing.T) {
	r := setup(t, "sleep", "1000")
	cmd := r.command("run", "k")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a running container", func() bool {
		res := r.run("state", "k")
		return res.code == 0 && strings.Contains(res.out, `"running"`)
	})
	pid := r.state("k").Pid
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	r.must("delete", "--force", "k")
	eventually(t, "the end of init", func() bool { return !alive(pid) })
}

// TestHalfMade makes what a kill can leave, one by one.
func TestHalfMade(t *testing.T) {
	r := setup(t, "true")
	dir := filepath.Join(r.root, "h")
	for name, files := range map[string]map[string]string{
		"empty": {}, "config only": {"config.json": "{}"}, "intent": {"config.json": "{}", "state.json": `{"id":"h","pid":0,"cgroup":"` + r.group + `"}`},
		"half-written": {".state.json": `{"id`}, "no cgroup": {"state.json": `{"id":"h","pid":0}`},
	} {
		for _, force := range []bool{false, true} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r.fails(1, "container does not exist", "state", "h")
			if force {
				r.must("delete", "--force", "h")
			} else {
				r.fails(1, "container does not exist", "delete", "h") // as with runc, it is gone all the same
			}
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s: the directory is left", name)
			}
		}
	}
	// A state that cannot be read, and one whose specification is lost.
	for _, files := range []map[string]string{{"state.json": "garbage"}, {"state.json": `{"id":"h","pid":1,"birth":1,"created":"2026-01-01T00:00:00Z"}`}} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if res := r.run("delete", "h"); res.code != 1 || strings.Contains(res.err, "goroutine") {
			t.Errorf("%+v", res)
		}
		r.must("delete", "--force", "h")
	}
	if !alive(1) {
		t.Error("a recorded number that is another process's now was killed")
	}
}

// TestConcurrentVerbs has many calls at one container at a time: one create, one start and one delete succeed, whatever the order.
func TestConcurrentVerbs(t *testing.T) {
	r := setup(t, "sleep", "1000")
	for round := range 5 {
		id := "c" + strconv.Itoa(round)
		succeed := func(args ...string) int {
			var mu sync.Mutex // guards n
			n := 0
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					cmd := r.command(args...)
					if cmd.Run() == nil {
						mu.Lock()
						n++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			return n
		}
		for _, args := range [][]string{{"create", id}, {"start", id}, {"pause", id}, {"resume", id}} {
			if n := succeed(args...); n < 1 || n > 1 && (args[0] == "create" || args[0] == "start") {
				t.Errorf("%v: %d of 8 succeeded", args, n)
			}
		}
		if s := r.state(id); s.Status != "running" {
			t.Errorf("%+v", s)
		}
		if n := succeed("delete", "--force", id); n != 8 {
			t.Errorf("delete --force: %d of 8 succeeded", n)
		}
	}
}

// TestManyRuns runs containers one after the other and side by side, and counts what is left.
func TestManyRuns(t *testing.T) {
	r := setup(t, "true")
	base := r.group
	var wg sync.WaitGroup
	var bundles []string
	for i := range 8 {
		r.edit(func(s *specs.Spec) { s.Linux.CgroupsPath = fmt.Sprint(base, "-", i) })
		data, err := os.ReadFile(filepath.Join(r.bundle, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.Symlink(filepath.Join(r.bundle, "rootfs"), filepath.Join(dir, "rootfs")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, dir)
	}
	for i, dir := range bundles {
		wg.Go(func() {
			for n := range 10 {
				if out, err := r.command("run", "--bundle", dir, fmt.Sprintf("m%d-%d", i, n)).CombinedOutput(); err != nil {
					t.Errorf("%v, %s", err, out)
				}
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + base + "*"); len(left) > 0 {
		t.Errorf("cgroups left: %v", left)
	}
	if entries, err := os.ReadDir(r.root); err != nil || len(entries) > 0 {
		t.Errorf("state left: %v, %v", entries, err)
	}
}
