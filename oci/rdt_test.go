package oci_test

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

// TestRdt asks for what this machine, unless it is a rare one, cannot do.
func TestRdt(t *testing.T) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(table), " - resctrl ") {
		t.Skip("this machine has Intel RDT; linux/rdt tries a made-up one")
	}
	s := dockerSpec(t, rootfs(t), "true")
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}
	if _, _, err := tryRun(s); !errdefs.Is(err, errdefs.NotImplemented) || !strings.Contains(err.Error(), "linux.intelRdt") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory" + s.Linux.CgroupsPath); err == nil {
		t.Error("a cgroup is left")
	}
}
