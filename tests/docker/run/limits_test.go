package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

// limit reads one file of the container's cgroup on whichever version the host has: v1 as controller/name, v2 as the second name.
func limit(e *harness.Env, id, v1, v2 string) string {
	e.Helper()
	pid := e.Inspect(id, "{{.State.Pid}}")
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		e.Fatal(err)
	}
	controller, name, _ := strings.Cut(v1, "/")
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for _, c := range strings.Split(fields[1], ",") {
			if c == controller {
				text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, fields[2], name))
				if err == nil {
					return strings.TrimSpace(string(text))
				}
			}
		}
		if fields[0] == "0" {
			if text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", fields[2], v2)); err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	e.Fatalf("no %s or %s in\n%s", v1, v2, data)
	return ""
}

func TestMemory(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("-m", "64m", "--memory-swap", "128m", "--memory-reservation", "32m", "--cpus", "1.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "77")
	for _, c := range []struct{ v1, v2, want1, want2 string }{
		{"memory/memory.limit_in_bytes", "memory.max", "67108864", "67108864"},
		{"cpu/cpu.shares", "cpu.weight", "512", "20"},
		{"cpu/cpu.cfs_quota_us", "cpu.max", "150000", "150000 100000"},
		{"cpuset/cpuset.cpus", "cpuset.cpus", "0", "0"},
		{"pids/pids.max", "pids.max", "77", "77"},
	} {
		if got := limit(e, id, c.v1, c.v2); got != c.want1 && got != c.want2 {
			t.Errorf("%s is %q, want %q or %q", c.v1, got, c.want1, c.want2)
		}
	}
	e.Is("67108864 134217728 33554432 1500000000 512 0 77", "inspect", "-f",
		"{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.CpusetCpus}} {{.HostConfig.PidsLimit}}", id)

	e.Fails(125, "Minimum memory limit allowed is 6MB", "run", "--rm", "-m", "1m", image, "true")
	e.Fails(125, "Minimum memoryswap limit should be larger than memory limit", "run", "--rm", "-m", "64m", "--memory-swap", "32m", image, "true")
	e.Fails(125, "[Rr]ange of CPUs is from 0.01", "run", "--rm", "--cpus", "4096", image, "true")
	e.Fails(125, "Requested CPUs are not available", "run", "--rm", "--cpuset-cpus", "4000", image, "true")
	e.Fails(125, "[Ii]nvalid.*cpuset|Invalid value", "run", "--rm", "--cpuset-cpus", "zero", image, "true")
}

func TestOutOfMemory(t *testing.T) {
	e := harness.New(t, daemon)
	r := e.Do("run", "--name", "hog", "-m", "24m", "--memory-swap", "24m", image, "sh", "-c", "x=a; while :; do x=$x$x$x$x; done")
	if r.Code != 137 {
		t.Error(r)
	}
	e.Is("true 137", "inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog")
}

func TestPidsLimit(t *testing.T) {
	e := harness.New(t, daemon)
	r := e.Do("run", "--rm", "--pids-limit", "8", image, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 30 & done; exit 0")
	if !strings.Contains(r.Stderr, "fork") {
		t.Error(r)
	}
}

func TestUlimit(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--ulimit", "nofile=512:1024", "--ulimit", "core=0", image, "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c"); got != "512\n1024\n0" {
		t.Errorf("got %q", got)
	}
	e.Fails(125, "ulimit soft limit must be less than or equal to hard limit", "run", "--rm", "--ulimit", "nofile=10:5", image, "true")
	e.Fails(125, "invalid ulimit", "run", "--rm", "--ulimit", "nosuch=1", image, "true")
}

func TestOOMScore(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--oom-score-adj", "321", image, "cat", "/proc/self/oom_score_adj"); got != "321" {
		t.Errorf("got %q", got)
	}
	e.Fails(125, "oom.score.adj", "run", "--rm", "--oom-score-adj", "4321", image, "true")
}

func TestSharedMemory(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--shm-size", "8m", image, "sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"); got != "8192" {
		t.Errorf("got %q", got)
	}
	if got := e.Run(image, "sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"); got != "65536" {
		t.Errorf("default: got %q", got)
	}
}

func TestSysctl(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "--sysctl", "kernel.msgmax=4096", image, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax"); got != "99\n4096" {
		t.Errorf("got %q", got)
	}
	e.Fails(125, "sysctl", "run", "--rm", "--sysctl", "kernel.nosuch=1", image, "true")
	e.Fails(125, "sysctl", "run", "--rm", "--sysctl", "vm.swappiness=1", image, "true")
	e.Fails(125, "sysctl", "run", "--rm", "--network", "host", "--sysctl", "net.ipv4.ip_forward=1", image, "true")
}

// Limits of devices that are not there are refused, not left out.
func TestBlockDevices(t *testing.T) {
	e := harness.New(t, daemon)
	for _, flag := range []string{"--device-read-bps=/dev/nosuch:1mb", "--device-write-bps=/dev/nosuch:1mb", "--device-read-iops=/dev/nosuch:10", "--device-write-iops=/dev/nosuch:10"} {
		e.Fails(127, "stat /dev/nosuch: no such file or directory", "run", "--rm", flag, image, "true")
	}
	e.Fails(125, "cpu real-time runtime cannot be higher than cpu real-time period", "run", "--rm", "--cpu-rt-period", "1000", "--cpu-rt-runtime", "2000", image, "true")
	e.Fails(125, "[Ii]nvalid isolation", "run", "--rm", "--isolation", "hyperv", image, "true")
}
