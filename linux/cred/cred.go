// Package cred knows the names and numbers of capabilities and resource limits.
package cred

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// capNames lists the capabilities in the kernel's order.
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// SysResource is CAP_SYS_RESOURCE: the right to raise hard limits.
const SysResource = unix.CAP_SYS_RESOURCE

// CapabilityName returns the name of capability n.
func CapabilityName(n int) string {
	if n >= 0 && n < len(capNames) {
		return capNames[n]
	}
	return "CAP_" + strconv.Itoa(n)
}

// Capabilities returns the names of the capabilities there are, in order.
func Capabilities() []string { return append([]string{}, capNames[:]...) }

// Mask returns the set of the named capabilities as bits, and the names that are unknown.
func Mask(list []string) (mask uint64, unknown []string) {
	for _, name := range list {
		if i := slices.Index(capNames[:], name); i >= 0 {
			mask |= 1 << i
		} else {
			unknown = append(unknown, name)
		}
	}
	return mask, unknown
}

// Own is what a process may have and pass on.
type Own struct {
	Bounding  uint64 // capabilities it could gain
	Permitted uint64
	Last      int // the highest capability the kernel has
}

// Self returns the capabilities that this process had when it was first asked.
var Self = sync.OnceValues(self)

func self() (Own, error) {
	data, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return Own{}, err
	}
	o := Own{Last: len(capNames) - 1}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "CapBnd":
			o.Bounding, err = strconv.ParseUint(value, 16, 64)
		case "CapPrm":
			o.Permitted, err = strconv.ParseUint(value, 16, 64)
		}
		if err != nil {
			return Own{}, err
		}
	}
	if last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(last))); err == nil {
			o.Last = n
		}
	}
	return o, nil
}

// rlimits lists the resource limits in the kernel's order (of all architectures Go runs on but MIPS).
var rlimits = [...]string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

// Rlimit returns the number of the resource limit of that name.
func Rlimit(name string) (int, error) {
	for i, n := range rlimits {
		if n == name {
			return i, nil
		}
	}
	return 0, errdefs.New(errdefs.InvalidParameter, "resource limit %q is unknown", name)
}

// HardLimit returns the calling process's hard limit of a resource.
func HardLimit(resource int) (uint64, error) {
	var r unix.Rlimit
	if err := unix.Prlimit(0, resource, nil, &r); err != nil {
		return 0, err
	}
	return r.Max, nil
}
