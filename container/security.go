package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/apparmor"
)

// allCapabilities are the capabilities of capabilities(7), by number.
var allCapabilities = [...]string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}

// defaultCapabilities is what Docker grants a container.
var defaultCapabilities = [...]string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// normalCapability returns the name with its prefix and in upper case, or an error for an unknown one.
func normalCapability(name string) (string, error) {
	up := strings.ToUpper(name)
	if up == "ALL" {
		return up, nil
	}
	if !strings.HasPrefix(up, "CAP_") {
		up = "CAP_" + up
	}
	if !slices.Contains(allCapabilities[:], up) {
		return "", fmt.Errorf("unknown capability: %q", name)
	}
	return up, nil
}

// capabilities returns the capabilities of a container, in the order of their numbers.
func capabilities(add, drop []string, privileged bool) ([]string, error) {
	has := map[string]bool{}
	grant := func(names []string, value bool) {
		for _, n := range names {
			has[n] = value
		}
	}
	normal := func(field string, names []string) ([]string, error) {
		out := make([]string, len(names))
		for i, n := range names {
			var err error
			if out[i], err = normalCapability(n); err != nil {
				return nil, fmt.Errorf("invalid %s: %w", field, err)
			}
		}
		return out, nil
	}
	add, err := normal("CapAdd", add)
	if err != nil {
		return nil, err
	}
	drop, err = normal("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	switch {
	case privileged || slices.Contains(add, "ALL"):
		grant(allCapabilities[:], true)
	case slices.Contains(drop, "ALL"):
	default:
		grant(defaultCapabilities[:], true)
	}
	if !privileged {
		grant(drop, false)
		grant(add, true)
	}
	var out []string
	for _, name := range allCapabilities {
		if has[name] && capabilityAvailable(name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// security is what the --security-opt options of a container say.
type security struct {
	seccomp       string // "", "unconfined", "builtin", or the profile's JSON
	apparmor      string
	noNewPrivs    bool
	unmaskSystem  bool
	selinuxLabels []string
	writableCgrp  bool
}

func parseSecurity(opts []string) (security, error) {
	var sec security
	for _, opt := range opts {
		if opt == "no-new-privileges" {
			sec.noNewPrivs = true
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			if key, value, ok = strings.Cut(opt, ":"); !ok {
				if opt == "disable" {
					continue
				}
				return sec, fmt.Errorf("invalid --security-opt 1: %q", opt)
			}
		}
		switch key {
		case "label":
			sec.selinuxLabels = append(sec.selinuxLabels, value)
		case "apparmor":
			sec.apparmor = value
		case "seccomp":
			sec.seccomp = value
		case "no-new-privileges":
			switch value {
			case "true", "1", "t", "T", "TRUE", "True":
				sec.noNewPrivs = true
			case "false", "0", "f", "F", "FALSE", "False":
				sec.noNewPrivs = false
			default:
				return sec, fmt.Errorf("invalid --security-opt 2: %q", opt)
			}
		case "systempaths":
			if value != "unconfined" {
				return sec, fmt.Errorf("invalid --security-opt 2: %q", opt)
			}
			sec.unmaskSystem = true
		case "writable-cgroups":
			sec.writableCgrp = value == "true" || value == "1"
		default:
			return sec, fmt.Errorf("invalid --security-opt 2: %q", opt)
		}
	}
	if sec.seccomp != "" && sec.seccomp != "unconfined" && sec.seccomp != "builtin" && !json.Valid([]byte(sec.seccomp)) {
		return sec, fmt.Errorf("Decoding seccomp profile failed: the profile is not JSON")
	}
	return sec, nil
}

// unconfined is the name of no profile.
const unconfined = "unconfined"

// onThisHost returns the profile of AppArmor's that a container runs with: what it asks for, or else the default one, unless it is privileged; none on a kernel without AppArmor, as configurations that ask for
// a profile run anywhere.
func (sec security) onThisHost(privileged bool) security {
	switch {
	case !apparmor.Enabled():
		sec.apparmor = ""
	case sec.apparmor != "":
	case privileged:
		sec.apparmor = unconfined
	case apparmor.Manageable():
		sec.apparmor = apparmor.Default
	}
	return sec
}

// profile returns what to tell the runtime, with the profile loaded if it is the default one.
func (sec security) profile(ctx context.Context) (string, error) {
	switch sec.apparmor {
	case unconfined:
		return "", nil
	case apparmor.Default:
		return apparmor.Default, apparmor.LoadDefault(ctx)
	}
	return sec.apparmor, nil
}

// seccompProfile returns the filter for a container, or nil for none. The default profile depends on the capabilities.
func (s *Service) seccompProfile(sec security, privileged bool, spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	profile := sec.seccomp
	if profile == "" && !privileged && s.opts.SeccompProfile != "" {
		if s.opts.SeccompProfile == "unconfined" || s.opts.SeccompProfile == "builtin" {
			profile = s.opts.SeccompProfile
		} else {
			body, err := os.ReadFile(s.opts.SeccompProfile)
			if err != nil {
				return nil, fmt.Errorf("read the daemon's seccomp profile: %w", err)
			}
			profile = string(body)
		}
	}
	switch {
	case profile == "unconfined", profile == "" && privileged:
		return nil, nil
	case profile == "" || profile == "builtin":
		return seccomp.GetDefaultProfile(spec)
	default:
		return seccomp.LoadProfile(profile, spec)
	}
}

func maskedPaths() []string {
	return []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
