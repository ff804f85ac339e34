package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
)

func ptr[T any](v T) *T { return &v }

func shown(p *properties) string {
	var lines []string
	for _, one := range p.list {
		lines = append(lines, fmt.Sprintf("%s=%s %v", one.name, one.value.Type, one.value.Value))
	}
	return strings.Join(lines, "; ")
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		r      specs.LinuxResources
		v2, v1 string
	}{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(300)), Reservation: ptr(int64(50))}}, "MemoryMax=t 100; MemoryLow=t 50; MemorySwapMax=t 200", "MemoryLimit=t 100"},
		{"no memory limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}, "MemoryMax=t 18446744073709551615; MemorySwapMax=t 18446744073709551615", "MemoryLimit=t 18446744073709551615"},
		{"no swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(7)), Swap: ptr(int64(7))}}, "MemoryMax=t 7; MemorySwapMax=t 0", "MemoryLimit=t 7"},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(33333)), Period: ptr(uint64(50000)), Cpus: "0-2,9", Mems: "0"}},
			"CPUWeight=t 100; CPUQuotaPeriodUSec=t 50000; CPUQuotaPerSecUSec=t 670000; AllowedCPUs=ay [7 2]; AllowedMemoryNodes=ay [1]",
			"CPUShares=t 1024; CPUQuotaPeriodUSec=t 50000; CPUQuotaPerSecUSec=t 670000; AllowedCPUs=ay [7 2]; AllowedMemoryNodes=ay [1]"},
		{"no quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}}, "CPUQuotaPerSecUSec=t 18446744073709551615", "CPUQuotaPerSecUSec=t 18446744073709551615"},
		{"idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(5)), Idle: ptr(int64(1))}}, "CPUWeight=t 0", "CPUShares=t 5"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}}, "TasksMax=t 1", "TasksMax=t 1"},
		{"no pids limit", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, "TasksMax=t 18446744073709551615", "TasksMax=t 18446744073709551615"},
		{"weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(30))}}, "", "BlockIOWeight=t 30"},
		{"devices", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rw"}, {Allow: true, Type: "b", Major: ptr(int64(8)), Access: "r"}, {Allow: true, Type: "c", Access: "m"}}},
			"DeviceAllow=a(ss) []; DevicePolicy=s strict; DeviceAllow=a(ss) [[char-* m] [/dev/char/1:3 rw] [block-8 r]]", "DeviceAllow=a(ss) []; DevicePolicy=s strict; DeviceAllow=a(ss) [[char-* m] [/dev/char/1:3 rw] [block-8 r]]"},
		{"all devices", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}, "DeviceAllow=a(ss) []; DevicePolicy=s auto", "DeviceAllow=a(ss) []; DevicePolicy=s auto"},
		{"unified", specs.LinuxResources{Unified: map[string]string{"memory.high": "5", "memory.max": "max", "cpu.max": "1000 10000", "cpu.weight": "7", "pids.max": "0", "cpuset.cpus": "1", "io.max": "8:0 rbps=1"}},
			"CPUQuotaPeriodUSec=t 10000; CPUQuotaPerSecUSec=t 100000; CPUWeight=t 7; AllowedCPUs=ay [2]; MemoryHigh=t 5; MemoryMax=t 18446744073709551615; TasksMax=t 1", "-"},
	} {
		for unified, want := range map[bool]string{true: c.v2, false: c.v1} {
			p := properties{version: 252}
			if err := p.limits(&c.r, unified); err != nil || shown(&p) != want && want != "-" {
				t.Errorf("%s, unified %v: %v\n%s\nwant\n%s", c.name, unified, err, shown(&p), want)
			}
		}
	}
	for text, r := range map[string]specs.LinuxResources{
		"linux.resources.cpu.cpus":    {CPU: &specs.LinuxCPU{Cpus: "3-1"}},
		"without memory limit":        {Memory: &specs.LinuxMemory{Swap: ptr(int64(5))}},
		"resource \"memory.high\"":    {Unified: map[string]string{"memory.high": "much"}},
		"resource \"cpu.max\"":        {Unified: map[string]string{"cpu.max": "1 0"}},
		"linux.resources.devices[0]":  {Devices: []specs.LinuxDeviceCgroup{{Type: "q"}}},
		"unified: cpuset.mems: \"x\"": {Unified: map[string]string{"cpuset.mems": "x"}},
	} {
		p := properties{version: 252}
		if err := p.limits(&r, true); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
	update := properties{version: 252, update: true}
	if err := update.limits(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}, true); err != nil || shown(&update) != "DeviceAllow=a(ss) []; DevicePolicy=s strict; DeviceAllow=a(ss) [[char-* rwm] [block-* rwm]]" {
		t.Errorf("all devices, of a unit that is there: %v, %s", err, shown(&update))
	}
	old := properties{version: 230}
	if err := old.limits(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(1000)), Quota: ptr(int64(500)), Cpus: "1"}}, true); err != nil || shown(&old) != "CPUQuotaPerSecUSec=t 500000" {
		t.Errorf("an old systemd: %v, %s", err, shown(&old))
	}
}

func TestAnnotations(t *testing.T) {
	var p properties
	err := p.annotations(map[string]string{"org.systemd.property.TimeoutStopSec": "5", "org.systemd.property.After": "['a.service']", "org.systemd.property.RuntimeMaxUSec": "uint64 7", "other": "x"})
	if want := "After=as [a.service]; RuntimeMaxUSec=t 7; TimeoutStopUSec=t 5000000"; err != nil || shown(&p) != want {
		t.Errorf("%v, %s, want %s", err, shown(&p), want)
	}
	for key, value := range map[string]string{"org.systemd.property.x": "1", "org.systemd.property.a-b-c": "1", "org.systemd.property.TimeoutSec": "'x'", "org.systemd.property.FooSec": "-1", "org.systemd.property.Bar": "'"} {
		var p properties
		if err := p.annotations(map[string]string{key: value}); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: %v, %s", key, value, err, shown(&p))
		}
	}
}

func TestUnitOf(t *testing.T) {
	for path, want := range map[string]string{"": "gantry-id.scope ", "system.slice:docker:x": "docker-x.scope system.slice", ":cri:x": "cri-x.scope ", "a-b.slice:p:x": "p-x.scope a-b.slice", "-.slice:p:x": "p-x.scope -.slice"} {
		if name, slice, err := unitOf(path, "id"); name+" "+slice != want || err != nil {
			t.Errorf("%q: %q, %q, %v", path, name, slice, err)
		}
	}
	for _, path := range []string{"/a/b", "a:b", "a.slice:b:c:d", "a:b:c", "-a.slice:b:c", "a--b.slice:b:c", ".slice:b:c", "a.slice:b:", "a.slice:b:c.slice", "a.slice:../b:c", "a/b.slice:b:c"} {
		if name, slice, err := unitOf(path, "id"); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), "linux.cgroupsPath") {
			t.Errorf("%q: %q, %q, %v", path, name, slice, err)
		}
	}
	for text, want := range map[string]int{"v245.4-1.fc32": 245, "252.39-1~deb12u1": 252, "257": 257, "": 0, "x": 0} {
		if got := parseVersion(text); got != want {
			t.Errorf("version %q: %d", text, got)
		}
	}
}

func TestWithoutSystemd(t *testing.T) {
	if cgroup.Booted() {
		t.Skip("systemd runs this machine; TestScope tries it")
	}
	_, err := Create(t.Context(), Request{Path: "a.slice:b:c", ID: "c"})
	if !errdefs.Is(err, errdefs.Unavailable) || !strings.Contains(err.Error(), "systemd not running on this host") {
		t.Error(err)
	}
}

// TestScope makes a scope by the systemd that runs this machine, or by the user's.
func TestScope(t *testing.T) {
	if !cgroup.Booted() {
		t.Skip("systemd does not run this machine; tests/vm boots one where it does")
	}
	rootless := os.Getuid() != 0
	show := func(name, property string) string {
		args := []string{"show", "-p", property, name}
		if rootless {
			args = append([]string{"--user"}, args...)
		}
		out, err := exec.Command("systemctl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemctl %v: %v, %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	id := fmt.Sprintf("unit%d", os.Getpid())
	q := Request{Path: ":test:" + id, ID: id, Rootless: rootless, Resources: &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(30))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(20000))},
	}}
	s, err := Create(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Cgroup.Delete(); err != nil {
			t.Error(err)
		}
	}()
	name := s.Unit.Name
	dir := s.Cgroup.Dirs()[0].Path
	pids, err := s.Cgroup.Procs()
	if err != nil || len(pids) != 1 || pids[0] != s.standIn.Pid {
		t.Errorf("processes %v, %v, not %d", pids, err, s.standIn.Pid)
	}
	if _, err := Create(t.Context(), q); !errdefs.Is(err, errdefs.Conflict) {
		t.Errorf("a second one: %v", err)
	}
	for property, want := range map[string]string{"MemoryMax": "67108864", "TasksMax": "30", "CPUQuotaPerSecUSec": "200ms", "Delegate": "yes"} {
		if got := show(name, property); got != property+"="+want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// What comes after the stand-in is born in the cgroup, or, where this process may not do so, moved there.
	into, _, err := s.Cgroup.Join()
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	if rootless {
		into = nil
	}
	other, err := standInAt(into)
	if err != nil {
		t.Fatal(err)
	}
	if rootless {
		if err := s.Unit.Attach(t.Context(), other.Pid); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if err := (&Scope{standIn: other}).Release(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.Release(); err != nil {
		t.Error(err)
	}
	if pids, err := s.Cgroup.Procs(); err != nil || len(pids) != 1 || pids[0] != other.Pid {
		t.Errorf("processes %v, %v, not %d", pids, err, other.Pid)
	}
	if err := s.Cgroup.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}, Unified: map[string]string{"memory.high": "1048576"}}); err != nil {
		t.Fatal(err)
	}
	for property, want := range map[string]string{"MemoryMax": "33554432", "MemorySwapMax": "0", "MemoryHigh": "1048576", "TasksMax": "30"} {
		if got := show(name, property); got != property+"="+want {
			t.Errorf("after the update %s, want %s", got, want)
		}
	}
	if err := s.Cgroup.Freeze(); err != nil {
		t.Error(err)
	}
	if err := s.Cgroup.Delete(); err != nil { // frozen, and with a process
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if got := show(name, "LoadState"); got != "LoadState=not-found" {
		t.Errorf("after the end %s", got)
	}
}

// TestRuntimeDies kills a process that has made a scope and not put anything into it yet.
func TestRuntimeDies(t *testing.T) {
	if !cgroup.Booted() {
		t.Skip("systemd does not run this machine; tests/vm boots one where it does")
	}
	if id := os.Getenv("SYSTEMD_TEST_SCOPE"); id != "" {
		s, err := Create(context.Background(), Request{ID: id, Rootless: os.Getuid() != 0})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.Cgroup.Dirs()[0].Path)
		os.Stdout.Close()
		select {}
	}
	c := exec.Command("/proc/self/exe", "-test.run", "^TestRuntimeDies$")
	c.Env = append(os.Environ(), fmt.Sprintf("SYSTEMD_TEST_SCOPE=dies%d", os.Getpid()))
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	if _, err := fmt.Fscanln(out, &dir); err != nil || !strings.HasPrefix(dir, "/") {
		t.Fatalf("%q, %v", dir, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed
	for range 300 {
		if _, err := os.Stat(dir); err != nil {
			return
		}
		_ = exec.Command("sleep", "0.1").Run()
	}
	t.Errorf("%s is left", dir)
}
