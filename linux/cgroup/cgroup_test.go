package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

func ptr[T any](v T) *T { return &v }

// make creates a cgroup with the given limits for one test.
func makeCgroup(t *testing.T, r *specs.LinuxResources) *Cgroup {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("cgroups need root")
	}
	c, err := Create(fmt.Sprintf("/gantry-cgroup-test/%d-%s", os.Getpid(), t.Name()), r, Options{Named: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
		for _, d := range c.Dirs() {
			if _, err := os.Stat(d.Path); err == nil {
				t.Errorf("%s is left", d.Path)
			}
			_ = os.Remove(filepath.Dir(d.Path)) // the last test's succeeds
		}
		if dir := c.dir(""); dir != "" {
			_ = os.Remove(filepath.Dir(dir)) // likewise, in the unified hierarchy beside v1
		}
	})
	return c
}

// inside starts a shell script in the cgroup.
func inside(t *testing.T, c *Cgroup, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // ended, mostly
	if err := c.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestLimits(t *testing.T) {
	c := makeCgroup(t, &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(20))},
	})
	cmd := inside(t, c, "i=0; while test $i -lt 20000; do i=$((i+1)); done; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 0.2 & done 2>/dev/null; wait")
	_ = cmd.Wait() // the shell may fail for want of processes
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Total == 0 || s.Memory.Limit != 64<<20 || s.Memory.MaxUsage == 0 || len(s.Memory.Stat) == 0 || s.Pids.Limit != 20 {
		t.Errorf("statistics %+v", s)
	}
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}); err != nil {
		t.Fatal(err)
	}
	if s, err = c.Stats(); err != nil || s.Memory.Limit != 128<<20 || s.Pids.Limit != 0 {
		t.Errorf("after the update %+v, %v", s, err)
	}
}

// TestLateController limits what the cgroup has not been in so far, with a process in it.
func TestLateController(t *testing.T) {
	c := makeCgroup(t, nil)
	cmd := inside(t, c, "sleep 1000")
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Shares: ptr(uint64(100))}}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(data), "Cpus_allowed_list:\t0\n") {
		t.Errorf("the process may run elsewhere: %v\n%s", err, data)
	}
	pids, err := c.Procs()
	if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("processes %v, %v", pids, err)
	}
}

func TestFreeze(t *testing.T) {
	c := makeCgroup(t, nil)
	cmd := inside(t, c, "while :; do :; done")
	if err := c.Thaw(); err != nil {
		t.Errorf("thaw of what was never frozen: %v", err)
	}
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if f, err := c.Frozen(); !f || err != nil {
		t.Errorf("frozen %v, %v", f, err)
	}
	// The time of the last moments may be counted late (cgroup v2 sums up per processor), but that comes to its end.
	for deadline := time.Now().Add(2 * time.Second); ; {
		before, _ := c.Stats()
		time.Sleep(20 * time.Millisecond)
		after, _ := c.Stats()
		if before.CPU.Total == after.CPU.Total {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("it runs on: %d, %d ns", before.CPU.Total, after.CPU.Total)
			break
		}
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	if f, err := c.Frozen(); f || err != nil {
		t.Errorf("frozen %v, %v", f, err)
	}
	if err := c.Freeze(); err != nil { // Delete must do with a frozen one
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // killed by Delete
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
}

func TestKill(t *testing.T) {
	c := makeCgroup(t, nil)
	cmd := inside(t, c, "for i in 1 2 3 4 5; do sleep 1000 & done; wait")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the shell ended well")
	}
}

func TestOOM(t *testing.T) {
	c := makeCgroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}})
	n, err := c.NotifyOOM()
	if err != nil {
		t.Fatal(err)
	}
	inside(t, c, "exec sleep 1000") // on v2 the end of the last process is told, too
	got := make(chan error, 1)
	go func() {
		_, err := n.Wait()
		got <- err
	}()
	cmd := inside(t, c, "exec dd if=/dev/zero of=/dev/null bs=200M count=1")
	_ = cmd.Wait() // killed
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("no notice")
	}
	if kills, err := c.OOMKills(); kills != 1 || err != nil {
		t.Errorf("%d kills, %v", kills, err)
	}
	go func() {
		_, err := n.Wait()
		got <- err
	}()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestNested(t *testing.T) {
	c := makeCgroup(t, nil)
	for _, d := range c.Dirs() {
		if err := os.MkdirAll(d.Path+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
	if _, err := Open(c.Path()); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("open after delete: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	if _, err := Create("/..", nil, Options{}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("root: %v", err)
	}
	if os.Getuid() != 0 {
		return
	}
	path := fmt.Sprintf("/gantry-cgroup-test/bad-%d", os.Getpid())
	if _, err := Create(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "9999"}}, Options{}); err == nil {
		t.Error("a processor that is not there: no error")
	}
	if _, err := Open(path); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("something is left: %v", err)
	}
	matches, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-cgroup-test")
	for _, m := range matches {
		_ = os.Remove(m) // unless other tests are in it
	}
}

func TestParseLayout(t *testing.T) {
	v1 := "30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n31 20 0:27 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n"
	v2 := "32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	l, err := parseLayout(v1+v2, func(string) []string { return nil })
	if err != nil || l.v2 != nil || l.v1["cpu"] != l.v1["cpuacct"] || l.v1["memory"].dir != "/sys/fs/cgroup/memory" {
		t.Errorf("hybrid: %+v, %v", l, err)
	}
	if l, err = parseLayout(v2, func(string) []string { return []string{"memory"} }); err != nil || l.v2 == nil {
		t.Errorf("v2: %+v, %v", l, err)
	}
	if _, err = parseLayout("", nil); !errdefs.Is(err, errdefs.NotImplemented) {
		t.Errorf("none: %v", err)
	}
}

// TestDeviceProgram gives a v2 cgroup a program, which works beside v1 too, and opens devices in it.
func TestDeviceProgram(t *testing.T) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	root := ""
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			root = f[4]
		}
	}
	if root == "" || os.Getuid() != 0 {
		t.Skip("no cgroup2 mount, or not root")
	}
	dir := fmt.Sprintf("%s/gantry-devices-%d", root, os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	rules := []specs.LinuxDeviceCgroup{
		{Access: "rwm"}, {Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(5)), Access: "r"},
		{Allow: true, Type: "c", Major: ptr(int64(5)), Minor: ptr(int64(-1)), Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(9)), Access: "rwm"},
		{Allow: false, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(9)), Access: "w"},
	}
	if err := attachDevices(dir, rules, nil); err != nil {
		t.Fatal(err)
	}
	try := func() string {
		out, err := exec.Command("sh", "-c", `echo 0 > `+dir+`/cgroup.procs
		try() { if (eval ": $1 /dev/$2") 2>/dev/null; then echo "$1$2"; else echo "no $1$2"; fi; }
		try '<' null; try '>' null; try '<>' null; try '<' zero; try '>' zero; try '<' full; try '<' urandom; try '>' urandom`).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(out), "\n", "; ")
	}
	if got, want := try(), "<null; >null; <>null; <zero; no >zero; no <full; <urandom; no >urandom; "; got != want {
		t.Errorf("prints %q, want %q", got, want)
	}
	// Each kind of access is decided by the last rule that speaks of it.
	split := []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "r"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Access: "w"}}
	if err := replaceDevices(dir, split, false); err != nil {
		t.Fatal(err)
	}
	if got, want := try(), "<null; >null; <>null; no <zero; >zero; no <full; no <urandom; >urandom; "; got != want {
		t.Errorf("after the replacement it prints %q, want %q", got, want)
	}
	if err := replaceDevices(dir, []specs.LinuxDeviceCgroup{{Allow: true}}, true); err != nil {
		t.Fatal(err)
	}
	if got, want := try(), "<null; >null; <>null; <zero; >zero; <full; <urandom; >urandom; "; got != want {
		t.Errorf("with everything allowed it prints %q, want %q", got, want)
	}
	if _, err := deviceProgram([]specs.LinuxDeviceCgroup{{Type: "x"}}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("type x: %v", err)
	}
}

// TestOpenRoot holds that nobody gets the root for a cgroup that has no path yet: to delete it would end every process of the machine.
func TestOpenRoot(t *testing.T) {
	for _, p := range []string{"", "/", "/..", "//"} {
		c, err := Reopen(p, nil)
		if !errdefs.Is(err, errdefs.NotFound) || len(c.dirs) != 0 {
			t.Errorf("%q: %v, %v", p, c.dirs, err)
		}
	}
}
