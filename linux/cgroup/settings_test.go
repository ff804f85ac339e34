package cgroup

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

func show(l list) string {
	var lines []string
	for _, s := range l {
		lines = append(lines, s.file+"="+s.value)
	}
	return strings.Join(lines, "; ")
}

func TestSettings(t *testing.T) {
	throttle := func(rate uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = 8, 16
		return []specs.LinuxThrottleDevice{d}
	}
	weighted := specs.LinuxWeightDevice{Weight: ptr(uint16(20)), LeafWeight: ptr(uint16(30))}
	weighted.Major = 8
	for _, c := range []struct {
		name   string
		r      specs.LinuxResources
		v1, v2 string
	}{
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000)), Burst: ptr(uint64(100)), Idle: ptr(int64(1)), Cpus: "0-1", Mems: "0"}},
			"cpuset.cpus=0-1; cpuset.mems=0; cpu.shares=1024; cpu.cfs_period_us=50000; cpu.cfs_burst_us=100; cpu.cfs_quota_us=20000; cpu.idle=1",
			"cpu.idle=1; cpu.weight=100; cpu.max.burst=100; cpu.max=20000 50000; cpuset.cpus=0-1; cpuset.mems=0"},
		{"no quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(0)), Quota: ptr(int64(-1))}}, "cpu.cfs_quota_us=-1", "cpu.max=max 100000"},
		{"period alone", specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(1000))}}, "cpu.cfs_period_us=1000", "cpu.max=max 1000"},
		{"realtime", specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: ptr(uint64(9)), RealtimeRuntime: ptr(int64(5))}}, "cpu.rt_period_us=9; cpu.rt_runtime_us=5", ""},
		//lint:ignore SA1019 it is deprecated, and has to be ignored
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(300)), Reservation: ptr(int64(50)), Swappiness: ptr(uint64(60)), DisableOOMKiller: ptr(true), Kernel: ptr(int64(7)), KernelTCP: ptr(int64(7))}},
			"memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=300; memory.soft_limit_in_bytes=50; memory.oom_control=1; memory.swappiness=60",
			"memory.swap.max=200; memory.max=100; memory.low=50"},
		{"no memory limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Reservation: ptr(int64(-1))}},
			"memory.limit_in_bytes=-1; memory.memsw.limit_in_bytes=-1; memory.soft_limit_in_bytes=-1", "memory.swap.max=max; memory.max=max; memory.low=max"},
		{"no swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(100))}}, "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=100", "memory.swap.max=0; memory.max=100"},
		{"any swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(-1))}}, "memory.memsw.limit_in_bytes=-1", "memory.swap.max=max"},
		{"zeroes", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(0)), Swap: ptr(int64(0))}}, "", ""},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(9))}}, "pids.max=9", "pids.max=9"},
		{"pids 0", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}}, "pids.max=1", "pids.max=1"},
		{"pids -1", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, "pids.max=max", "pids.max=max"},
		{"pids unsaid", specs.LinuxResources{Pids: &specs.LinuxPids{}}, "", ""},
		{"blkio", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(500)), LeafWeight: ptr(uint16(10)), WeightDevice: []specs.LinuxWeightDevice{weighted},
			ThrottleReadBpsDevice: throttle(1), ThrottleWriteBpsDevice: throttle(2), ThrottleReadIOPSDevice: throttle(3), ThrottleWriteIOPSDevice: throttle(0)}},
			"blkio.weight=500; blkio.leaf_weight=10; blkio.weight_device=8:0 20; blkio.leaf_weight_device=8:0 30; blkio.throttle.read_bps_device=8:16 1; blkio.throttle.write_bps_device=8:16 2; blkio.throttle.read_iops_device=8:16 3; blkio.throttle.write_iops_device=8:16 0",
			"io.bfq.weight=500; io.bfq.weight=8:0 20; io.max=8:16 rbps=1; io.max=8:16 wbps=2; io.max=8:16 riops=3; io.max=8:16 wiops=max"},
		{"hugetlb", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 9}}},
			"hugetlb.2MB.limit_in_bytes=9; hugetlb.2MB.rsvd.limit_in_bytes=9", "hugetlb.2MB.max=9; hugetlb.2MB.rsvd.max=9"},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: ptr(uint32(3))}, "mlx5_0": {HcaHandles: ptr(uint32(1)), HcaObjects: ptr(uint32(2))}}},
			"rdma.max=mlx5_0 hca_handle=1 hca_object=2; rdma.max=mlx5_1 hca_handle=3", "rdma.max=mlx5_0 hca_handle=1 hca_object=2; rdma.max=mlx5_1 hca_handle=3"},
		{"network", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}}},
			"net_cls.classid=1048577; net_prio.ifpriomap=eth0 5", ""},
		{"unified", specs.LinuxResources{Unified: map[string]string{"memory.high": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}, Pids: &specs.LinuxPids{Limit: ptr(int64(1))}},
			"pids.max=1", "pids.max=1; io.max=8:0 rbps=1; io.max=8:16 rbps=2; memory.high=5"},
	} {
		if got := show(settingsV1(&c.r)); got != c.v1 {
			t.Errorf("%s, v1\n%s\nwant\n%s", c.name, got, c.v1)
		}
		l, err := settingsV2(&c.r)
		if got := show(l); got != c.v2 || err != nil {
			t.Errorf("%s, v2: %v\n%s\nwant\n%s", c.name, err, got, c.v2)
		}
	}
}

func TestHybridSettings(t *testing.T) {
	l := layout{v1: map[string]*hierarchy{"memory": {}}, hybrid: &hierarchy{controllers: []string{"hugetlb", "io", "memory"}}}
	got, err := settingsOf(l, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(1))}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 9}}, BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10))},
	})
	if want := "memory.limit_in_bytes=1; io.bfq.weight=10; hugetlb.2MB.max=9; hugetlb.2MB.rsvd.max=9"; err != nil || show(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, show(got), want)
	}
}

func TestConversions(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("weight of %d shares: %d, want %d", shares, got, want)
		}
	}
	for w, want := range map[uint16]uint64{0: 1, 10: 1, 500: 4950, 750: 7475, 1000: 10000} {
		if got := ioWeight(w); got != want {
			t.Errorf("io.weight of %d: %d, want %d", w, got, want)
		}
	}
	for _, c := range []struct {
		both, memory, swap int64
		set                bool
		wrong              string
	}{
		{0, 0, 0, false, ""}, {0, 100, 0, false, ""}, {300, 100, 200, true, ""}, {100, 100, 0, true, ""}, {-1, 100, -1, true, ""}, {0, -1, -1, true, ""}, {50, -1, 50, true, ""},
		{50, 0, 0, false, "without memory limit"}, {50, 100, 0, false, ">= memory limit"}, {50, -7, 0, false, "-7"},
	} {
		swap, set, err := Swap(c.both, c.memory)
		if swap != c.swap || set != c.set || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("swap of %d with memory %d: %d, %v, %v", c.both, c.memory, swap, set, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		r       specs.LinuxResources
		unified bool
		text    string
	}{
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(101))}}, false, "linux.resources.memory.swappiness: invalid memory swappiness value: 101"},
		{specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}, false, "invalid configuration: cannot use unified on cgroup v1 (memory.high)"},
		{specs.LinuxResources{Unified: map[string]string{"../x.y": "1"}}, true, "must be a file name (no slashes)"},
		{specs.LinuxResources{Unified: map[string]string{"high": "1"}}, true, "must be in the form CONTROLLER.PARAMETER"},
		{specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB/../x"}}}, true, "hugepageLimits[0].pageSize"},
	} {
		var g Cgroup
		if err := g.check(&c.r, c.unified); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v, want %q", c.r, err, c.text)
		}
	}
	var g Cgroup
	//lint:ignore SA1019 it is deprecated, and has to be ignored
	r := specs.LinuxResources{Memory: &specs.LinuxMemory{Kernel: ptr(int64(1)), Swappiness: ptr(uint64(1)), DisableOOMKiller: ptr(true), UseHierarchy: ptr(false)}, CPU: &specs.LinuxCPU{RealtimeRuntime: ptr(int64(1))}, Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}}
	if err := g.check(&r, true); err != nil || len(g.Warnings()) != 6 {
		t.Errorf("%v, warnings %q", err, g.Warnings())
	}
}

func TestLocate(t *testing.T) {
	v1 := layout{v1: map[string]*hierarchy{"memory": {dir: "/c/memory", mounted: "/"}}}
	v2 := layout{v2: &hierarchy{dir: "/c", mounted: "/"}}
	for p, want := range map[string]string{"/a/b": "/a/b", "/a/../b": "/b", "/a//./b/": "/a/b"} {
		for _, l := range []layout{v1, v2} {
			if got, places, err := locate(l, p); got != want || places != nil || err != nil {
				t.Errorf("%q: %q, %v, %v", p, got, places, err)
			}
		}
	}
	for _, p := range []string{"", "/", ".", "/..", "../x", "a/../../b", "/../../x", "x/.."} {
		if got, _, err := locate(v1, p); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), "linux.cgroupsPath") {
			t.Errorf("%q: %q, %v", p, got, err)
		}
	}
	if _, places, err := locate(v1, "a/b"); err != nil || !strings.HasPrefix(places["memory"], "/c/memory/") || !strings.HasSuffix(places["memory"], "/a/b") {
		t.Errorf("relative: %v, %v", places, err)
	}
	own := parseOwn("9:name=systemd:/x\n4:cpu,cpuacct:/process_api/1:2\n0::/u\n")
	if own["cpuacct"] != "/process_api/1:2" || own[""] != "/u" || own[systemd] != "/x" {
		t.Errorf("%v", own)
	}
	if got := below(&hierarchy{mounted: "/docker/x"}, "/docker/x/y"); got != "/y" {
		t.Errorf("below a mounted cgroup: %q", got)
	}
}

func TestRules(t *testing.T) {
	rule := func(allow bool, text string) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: allow}
		if text == "all" {
			return d
		}
		one, err := parseDevicesList(text)
		if err != nil {
			t.Fatal(err)
		}
		for n, bits := range one.except {
			d.Type, d.Access = string(n.kind), bits.String()
			if n.major != every {
				d.Major = ptr(n.major)
			}
			if n.minor != every {
				d.Minor = ptr(n.minor)
			}
		}
		return d
	}
	allow := func(text string) specs.LinuxDeviceCgroup { return rule(true, text) }
	deny := func(text string) specs.LinuxDeviceCgroup { return rule(false, text) }
	for _, c := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		from  string // devices.list
		want  string
	}{
		{"none is to deny", nil, "a *:* rwm", "deny a"},
		{"merged", []specs.LinuxDeviceCgroup{deny("all"), allow("c 1:3 r"), allow("c 1:3 wm")}, "a *:* rwm", "deny a; allow c 1:3 rwm"},
		{"undone", []specs.LinuxDeviceCgroup{allow("c 1:3 rw"), allow("b 8:* r"), deny("all"), allow("c 1:5 r")}, "a *:* rwm", "deny a; allow c 1:5 r"},
		{"taken back by a wider one", []specs.LinuxDeviceCgroup{allow("c 1:3 rw"), allow("c 1:5 r"), deny("c 1:* r")}, "", "allow c 1:3 w"},
		{"nothing to do", []specs.LinuxDeviceCgroup{allow("c 1:3 rw")}, "c 1:3 rw", ""},
		{"first more, then less", []specs.LinuxDeviceCgroup{allow("c 1:3 rw"), allow("c 1:7 r")}, "c 1:3 rwm\nc 1:5 r\n", "allow c 1:7 r; deny c 1:3 m; deny c 1:5 r"},
		{"all but", []specs.LinuxDeviceCgroup{allow("all"), deny("b 8:0 w")}, "c 1:3 r", "allow a; deny b 8:0 w"},
		{"all", []specs.LinuxDeviceCgroup{allow("all")}, "c 1:3 r", "allow a"},
		{"of both kinds", []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Major: ptr(int64(7)), Access: "r"}}, "", "allow b 7:* r; allow c 7:* r"},
	} {
		from, err := parseDevicesList(c.from)
		if err != nil {
			t.Fatal(err)
		}
		to := targetOf(c.rules)
		var got []string
		for _, s := range changes(from, to, true) {
			word := "deny "
			if s.allow {
				word = "allow "
			}
			got = append(got, word+s.text)
		}
		if strings.Join(got, "; ") != c.want || to.err != nil {
			t.Errorf("%s: %q, want %q, %v", c.name, got, c.want, to.err)
		}
	}
	if hole := targetOf([]specs.LinuxDeviceCgroup{allow("c *:* rwm"), deny("c 1:9 w")}); !errdefs.Is(hole.err, errdefs.NotImplemented) {
		t.Errorf("a hole in a wider rule: %v", hole.err)
	}
	for _, d := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Access: "rx"}, {Type: "c", Major: ptr(int64(1) << 40)}} {
		if bad := targetOf([]specs.LinuxDeviceCgroup{d}); !errdefs.Is(bad.err, errdefs.InvalidParameter) {
			t.Errorf("%+v: %v", d, bad.err)
		}
	}
	for _, text := range []string{"c 1 r", "x 1:2 r", "c 1:2", "c 1:z r", "c 1:2 x"} {
		if _, err := parseDevicesList(text); err == nil {
			t.Errorf("devices.list %q: no error", text)
		}
	}
	if !targetOf(rulesOf(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}})).everything() {
		t.Error("with everything allowed the defaults make a difference")
	}
}

func TestParsers(t *testing.T) {
	p := parsePressure("some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.10 avg300=0.00 total=7\n")
	if p.Some != (PSIData{1.5, 0.25, 0, 12345}) || p.Full != (PSIData{0, 0.1, 0, 7}) {
		t.Errorf("pressure %+v", p)
	}
	if got := ranges("0-2,7\n"); len(got) != 4 || got[3] != 7 {
		t.Errorf("ranges %v", got)
	}
	if got := blkioV1("8:0 Read 5\n8:0 9\nTotal 14\n8:x Read 1\n"); len(got) != 2 || got[0] != (BlkioEntry{8, 0, "Read", 5}) || got[1] != (BlkioEntry{8, 0, "", 9}) {
		t.Errorf("blkio %+v", got)
	}
	user, system := usageAll("cpu user system\n0 1 2\n1 3 4\n")
	if len(user) != 2 || user[1] != 3 || system[1] != 4 {
		t.Errorf("usage %v, %v", user, system)
	}
}
