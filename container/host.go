package container

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// hostCPUs returns the number of CPUs of the host.
func hostCPUs() int { return runtime.NumCPU() }

// capabilityAvailable reports whether the daemon may hand the capability on: the kernel knows it and the daemon's own
// bounding set has it (capabilities(7)).
func capabilityAvailable(name string) bool {
	i := slices.Index(allCapabilities[:], name)
	return i >= 0 && boundingSet()&(1<<i) != 0
}

// boundingSet returns the daemon's capability bounding set as a bit mask; all bits when it cannot be told.
var boundingSet = sync.OnceValue(func() uint64 {
	body, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ^uint64(0)
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			if mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil {
				return mask
			}
		}
	}
	return ^uint64(0)
})

// unifiedHierarchy reports whether the host has only the cgroup v2 hierarchy (cgroups(7)).
func unifiedHierarchy() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// memoryTotal returns the host's memory in bytes, 0 when it cannot be told.
func memoryTotal() uint64 {
	body, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(body)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(fields[1], 10, 54)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// mountOf returns where the mount that a path of the host lies in is mounted, and its optional fields, each after a blank
// (proc_pid_mountinfo(5)).
func mountOf(name string) (place, fields string, err error) {
	body, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(body)) {
		f := strings.Fields(line)
		end := slices.Index(f, "-")
		if end < 6 {
			continue
		}
		at := unescape.Replace(f[4])
		if name == at || at == "/" || strings.HasPrefix(name, at+"/") {
			if len(at) >= len(place) { // a later one hides an earlier one at the same place
				place, fields = at, " "+strings.Join(f[6:end], " ")
			}
		}
	}
	return place, fields, nil
}
