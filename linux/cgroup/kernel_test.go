package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// has compares a file of a controller in c.
func has(t *testing.T, c *Cgroup, controller, file, want string) {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(c.home(controller), file))
	if have := strings.TrimSpace(string(body)); err != nil || have != want {
		t.Errorf("%s is %q, want %q, %v", file, have, want, err)
	}
}

// TestEveryLimit sets everything this machine has, and changes it on a live cgroup in the order in which the kernel takes it.
func TestEveryLimit(t *testing.T) {
	r := &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(10000)), Cpus: "0", Mems: "0"},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(32 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(20))},
	}
	controllers, err := Controllers()
	if err != nil {
		t.Fatal(err)
	}
	sizes, _ := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-2048kB")
	huge := len(sizes) > 0 && (slices.Contains(controllers, "hugetlb") || hybridHas("hugetlb"))
	if huge {
		r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}
	}
	c := makeCgroup(t, r)
	inside(t, c, "x=$(head -c 300000 /dev/zero | tr '\\0' x); sleep 1000")
	v1 := !Unified()
	pick := func(one, two string) string {
		if v1 {
			return one
		}
		return two
	}
	has(t, c, "cpu", pick("cpu.shares", "cpu.weight"), pick("1024", "100"))
	has(t, c, "cpuset", "cpuset.cpus", "0")
	has(t, c, "memory", pick("memory.limit_in_bytes", "memory.max"), "67108864")
	has(t, c, "memory", pick("memory.memsw.limit_in_bytes", "memory.swap.max"), pick("100663296", "33554432"))
	has(t, c, "memory", pick("memory.soft_limit_in_bytes", "memory.low"), "33554432")
	if v1 {
		has(t, c, "cpu", "cpu.cfs_quota_us", "50000")
		has(t, c, "cpu", "cpu.cfs_burst_us", "10000")
	} else {
		has(t, c, "cpu", "cpu.max", "50000 100000")
		has(t, c, "cpu", "cpu.max.burst", "10000")
	}
	if huge {
		file := "hugetlb.2MB.limit_in_bytes"
		if c.home("hugetlb") == c.dir("") {
			file = "hugetlb.2MB.max"
		}
		has(t, c, "hugetlb", file, "4194304")
	} else {
		t.Log("this machine has no huge pages, or no controller for them")
	}
	for _, step := range []struct {
		name         string
		limit, swap  int64
		memory, both string // v1
		max, swapMax string // v2
	}{
		{"up", 128 << 20, 256 << 20, "134217728", "268435456", "134217728", "134217728"},
		{"down", 16 << 20, 24 << 20, "16777216", "25165824", "16777216", "8388608"},
		{"limit up to what both were", 24 << 20, 24 << 20, "25165824", "25165824", "25165824", "0"},
		{"none", -1, 0, "9223372036854771712", "9223372036854771712", "max", "max"},
		{"again", 32 << 20, -1, "33554432", "9223372036854771712", "33554432", "max"},
	} {
		m := &specs.LinuxMemory{Limit: &step.limit, Swap: &step.swap}
		if err := c.Update(&specs.LinuxResources{Memory: m}); err != nil {
			t.Errorf("%s: %v", step.name, err)
			continue
		}
		has(t, c, "memory", pick("memory.limit_in_bytes", "memory.max"), pick(step.memory, step.max))
		has(t, c, "memory", pick("memory.memsw.limit_in_bytes", "memory.swap.max"), pick(step.both, step.swapMax))
	}
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(200000)), Period: ptr(uint64(1000000)), Burst: ptr(uint64(150000))}}); err != nil { // burst above the old quota
		t.Error(err)
	}
	quota := func(want string) {
		t.Helper()
		q, p := c.quota()
		if got := fmt.Sprint(q, " ", p); got != want {
			t.Errorf("quota and period %s, want %s", got, want)
		}
	}
	quota("200000 1000000")
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(300000))}}); err != nil {
		t.Error(err)
	}
	quota("300000 1000000")
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(900000))}}); err != nil {
		t.Error(err)
	}
	quota("300000 900000")
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(80 << 20))}}); err != nil { // with a limit of 32 MB
		t.Error(err)
	}
	has(t, c, "memory", pick("memory.memsw.limit_in_bytes", "memory.swap.max"), pick("83886080", "50331648"))
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Burst: ptr(uint64(0)), Quota: ptr(int64(-1))}}); err != nil {
		t.Error(err)
	}
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}}); err != nil {
		t.Error(err)
	}
	has(t, c, "cpu", "cpu.idle", "1")
	for range 500 {
		if s, err := c.Stats(); err != nil || s.Memory.Usage > 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1)), CheckBeforeUpdate: ptr(true)}}); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), "rejecting memory limit 1 <= usage") {
		t.Errorf("a limit below what is used: %v", err)
	}
}

func hybridHas(controller string) bool {
	l, err := machine()
	return err == nil && l.hybrid != nil && slices.Contains(l.hybrid.controllers, controller)
}

// TestWrongLimits sees that errors name the field, and that nothing is left.
func TestWrongLimits(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		r     specs.LinuxResources
		texts []string
	}{
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "9999"}}, []string{"linux.resources.cpu.cpus", "cpuset.cpus"}},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1))}}, []string{"linux.resources.cpu.quota", "invalid argument"}},
		{specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {HcaHandles: ptr(uint32(1))}}}, []string{"linux.resources.rdma"}},
		{specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "3MB"}}}, []string{"linux.resources.hugepageLimits", "hugetlb.3MB"}},
		{specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{Rate: 5}}}}, []string{"linux.resources.blockIO.throttleReadBpsDevice"}},
		{specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{}, {Type: "z"}}}, []string{"linux.resources.devices[1].type"}},
	} {
		path := fmt.Sprintf("/gantry-cgroup-wrong-%d", os.Getpid())
		g, err := Create(path, &c.r, Options{Named: true})
		if err == nil {
			t.Errorf("%v: no error", c.texts)
			_ = g.Delete()
			continue
		}
		for _, text := range c.texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%v does not say %q", err, text)
			}
		}
		if _, err := Open(path); !errdefs.Is(err, errdefs.NotFound) {
			t.Errorf("after %v something is left: %v", c.texts, err)
		}
	}
	if !Unified() {
		_, err := Create("/gantry-cgroup-wrong", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1))}}, Options{})
		if err == nil || !strings.Contains(err.Error(), "the minimum allowed cpu-shares is 2") {
			t.Errorf("1 share: %v", err)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("cgroups need root")
	}
}

// TestUsed sees that a cgroup with processes, or a frozen one, is refused and left as it is.
func TestUsed(t *testing.T) {
	c := makeCgroup(t, nil)
	cmd := inside(t, c, "exec sleep 1000")
	limit := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(3))}}
	if _, err := Create(c.Path(), limit, Options{Named: true}); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), "container's cgroup is not empty: 1 process(es) found") {
		t.Errorf("in use: %v", err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the process in it: %v", err)
	}
	has(t, c, "pids", "pids.max", "max")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()   // killed
	for range 1000 { // an ended process leaves its cgroup a moment later
		if pids, _ := c.Procs(); len(pids) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(c.Path(), limit, Options{Named: true}); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), "container's cgroup unexpectedly frozen") {
		t.Errorf("frozen: %v", err)
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	again, err := Create(c.Path(), limit, Options{Named: true})
	if err != nil {
		t.Fatal(err)
	}
	has(t, again, "pids", "pids.max", "3")
}

// TestRelative makes a cgroup below, or beside, this process's own.
func TestRelative(t *testing.T) {
	needRoot(t)
	name := fmt.Sprintf("gantry-cgroup-relative-%d", os.Getpid())
	c, err := Create(name, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
	}()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own := parseOwn(string(text))
	l, err := machine()
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	if l.v2 != nil {
		want = filepath.Join(l.v2.dir, filepath.Dir(own[""]), name)
	} else {
		want = filepath.Join(l.v1["memory"].dir, own["memory"], name)
	}
	if got := c.home("memory"); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	again, err := Reopen(c.Path(), c.Places())
	if err != nil || again.home("memory") != want {
		t.Errorf("opened again: %v", err)
	}
	if err := again.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(100))}}); err != nil { // a controller it did without
		t.Error(err)
	}
	if err := again.Delete(); err != nil {
		t.Error(err)
	}
}

// TestSub puts a process below.
func TestSub(t *testing.T) {
	c := makeCgroup(t, nil)
	for _, d := range c.Dirs() {
		if err := os.Mkdir(d.Path+"/sub", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Sub(map[string]string{"": "sub"})
	if err != nil {
		t.Fatal(err)
	}
	cmd := inside(t, s, "sleep 1000")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(text), c.Path()+"/sub\n") {
		t.Errorf("%s%v", text, err)
	}
	if pids, err := c.Procs(); err != nil || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("processes %v, %v", pids, err)
	}
	for _, bad := range []map[string]string{{"": "../x"}, {"nosuch": "x"}} {
		if _, err := c.Sub(bad); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestForkBomb freezes and kills processes that make others all the time.
func TestForkBomb(t *testing.T) {
	c := makeCgroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}})
	cmd := inside(t, c, "b() { while :; do (b) & (:); done; }; b 2>/dev/null")
	time.Sleep(100 * time.Millisecond)
	for range 3 {
		if err := c.Freeze(); err != nil {
			t.Fatal(err)
		}
		if frozen, err := c.Frozen(); !frozen || err != nil {
			t.Errorf("frozen %v, %v", frozen, err)
		}
		if err := c.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids, err := c.Procs()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d processes live on", len(pids))
		}
	}
}

// TestSignal signals all, those below too.
func TestSignal(t *testing.T) {
	c := makeCgroup(t, nil)
	cmd := inside(t, c, "trap 'exit 7' TERM; while :; do sleep 0.01; done")
	time.Sleep(50 * time.Millisecond) // for the trap
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("it ended with %v", err)
	}
}

// TestReport checks the names that callers read.
func TestReport(t *testing.T) {
	c := makeCgroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(20000)), Burst: ptr(uint64(5000)), Cpus: "0"}, Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(20))}})
	cmd := inside(t, c, "x=$(head -c 3000000 /dev/zero | tr '\\0' x); i=0; while test $i -lt 50000; do i=$((i+1)); done; sleep 1000")
	// Until there is some of each: the kernel counts time by ticks, and the first may all have been its own.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Report(); r.CPU.Throttling.ThrottledTime > 0 && r.CPU.Usage.User > 0 || time.Now().After(end) {
			u := r.CPU.Usage
			if u.Total == 0 || u.User == 0 || r.CPU.Throttling.Periods == 0 || r.CPU.Throttling.ThrottledTime == 0 || r.Memory.Usage.Limit != 64<<20 || r.Memory.Usage.Usage == 0 || len(r.Memory.Raw) == 0 || r.Pids.Current == 0 || r.Pids.Limit != 20 || r.Hugetlb == nil {
				t.Errorf("%+v", r)
			}
			if Unified() {
				if exists(c.main()+"/cpu.pressure") && r.CPU.PSI == nil {
					t.Error("no pressure")
				}
			} else if len(u.PerCPU) == 0 || len(u.PerCPUUser) != len(u.PerCPU) || len(r.Cpuset.CPUs) != 1 || r.Memory.Swap.Limit == 0 {
				t.Errorf("%+v", r)
			}
			break
		}
	}
	_ = cmd.Process.Kill()
}

// TestDeviceRules opens devices in a cgroup of whichever version, and changes the rules while a process uses what both allow.
func TestDeviceRules(t *testing.T) {
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	allow := func(minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: &minor, Access: access}
	}
	c := makeCgroup(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny, allow(11, "w")}})
	try := func() string {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		dir := t.TempDir()
		for name, minor := range map[string]uint32{"kmsg": 11, "port": 4} {
			if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
				t.Fatal(err)
			}
		}
		cmd := inside(t, c, `cd `+dir+`; exec >`+out+` 2>/dev/null
		try() { if (eval ": $1 $2") 2>/dev/null; then echo "$1$2"; else echo "no $1$2"; fi; }
		try '<' /dev/null; try '>' /dev/null; try '<' /dev/zero; try '<' kmsg; try '>' kmsg; try '<' port`)
		_ = cmd.Wait() // its output tells
		body, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; ")
	}
	if got, want := try(), "</dev/null; >/dev/null; </dev/zero; no <kmsg; >kmsg; no <port"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	user := inside(t, c, "while : >/dev/null; do :; done; exit 9")
	for i := range 50 {
		access := []string{"r", "w"}[i%2]
		if err := c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny, allow(11, access)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := user.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process that used what is always allowed: %v", err)
	}
	_ = user.Process.Kill()
	if err := user.Wait(); user.ProcessState.ExitCode() != -1 {
		t.Errorf("it was refused in between: %v", err)
	}
	if err := c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny, allow(11, "r")}}); err != nil {
		t.Fatal(err)
	}
	if got, want := try(), "</dev/null; >/dev/null; </dev/zero; <kmsg; no >kmsg; no <port"; got != want {
		t.Errorf("after the update %q, want %q", got, want)
	}
	reopened, err := Open(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := reopened.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}); err != nil {
		t.Fatal(err)
	}
	if got := try(); strings.Contains(got, "no <kmsg") || strings.Contains(got, "no >kmsg") {
		t.Errorf("with everything allowed %q", got)
	}
}

// TestRootless tries as a user without rights.
func TestRootless(t *testing.T) {
	if os.Getenv("CGROUP_TEST_ROOTLESS") == "" {
		needRoot(t)
		// A copy, because the test program's folder is root's alone.
		dir, err := os.MkdirTemp("/tmp", "gantry-rootless")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/test", self, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(dir+"/test", "-test.run", "^TestRootless$")
		cmd.Env = append(os.Environ(), "CGROUP_TEST_ROOTLESS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	limits := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}
	devices := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	for _, r := range []*specs.LinuxResources{nil, devices} {
		if c, err := Create("rootless", r, Options{Rootless: true}); c != nil || err != nil {
			t.Errorf("without limits: %v, %v", c, err)
		}
	}
	_, err := Create("rootless", limits, Options{Rootless: true})
	if !errdefs.Is(err, errdefs.Forbidden) || !strings.Contains(err.Error(), "rootless needs no limits + no cgrouppath when no permission is granted for cgroups") && !strings.Contains(err.Error(), "cannot set pids limit: container could not join or create cgroup") {
		t.Errorf("with limits: %v", err)
	}
	_, err = Create("/rootless", nil, Options{Rootless: true, Named: true})
	if err == nil || !strings.Contains(err.Error(), "unable to apply cgroup configuration") || !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "read-only") {
		t.Errorf("with a path: %v", err)
	}
}

// TestDelegated makes a cgroup as a user who has a part of the tree; tests/vm starts it so.
func TestDelegated(t *testing.T) {
	if os.Getenv("CGROUP_TEST_DELEGATED") == "" {
		t.Skip("this needs a part of a v2 tree that belongs to a user; tests/vm gives it one")
	}
	c, err := Create("rootless", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(9))}, Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}, Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}, Options{Rootless: true})
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		t.Fatal("there is none")
	}
	has(t, c, "pids", "pids.max", "9")
	has(t, c, "memory", "memory.max", "33554432")
	into, _, err := c.Join()
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	dir, err := os.Open(c.Dirs()[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("cat", "/proc/self/cgroup")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "0::/delegated/rootless\n" {
		t.Errorf("%v, %q", err, out)
	}
	if err := c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}); err != nil {
		t.Error(err)
	}
	has(t, c, "pids", "pids.max", "7")
	if _, err := Create("rootless2", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}, Options{Rootless: true}); err == nil || !strings.Contains(err.Error(), "linux.resources.cpu.cpus: controller cpuset is not available") {
		t.Errorf("a controller that was not delegated: %v", err)
	}
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
}

func TestChown(t *testing.T) {
	c := makeCgroup(t, nil)
	if err := c.Chown(1234); err != nil {
		t.Fatal(err)
	}
	for name, uid := range map[string]uint32{".": 1234, "cgroup.procs": 1234, "cgroup.subtree_control": 1234, "memory.max": 0} {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(c.main(), name), &st)
		if !Unified() {
			if err != nil {
				continue // a file of v2
			}
			uid = 0
		}
		if err != nil || st.Uid != uid {
			t.Errorf("%s is %d's, want %d, %v", name, st.Uid, uid, err)
		}
	}
}
