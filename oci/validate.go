package oci

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cred"
	"gantry/linux/ns"
)

func bad(format string, args ...any) error {
	return errdefs.New(errdefs.InvalidParameter, format, args...)
}

// validateLinux refuses what no container can be made of, in words that name the field of config.json. given lists the namespaces that
// come by descriptor.
func validateLinux(s *specs.Spec, given map[specs.LinuxNamespaceType]*os.File) error {
	l := s.Linux
	have := map[specs.LinuxNamespaceType]bool{}
	fresh := map[specs.LinuxNamespaceType]bool{}
	paths := map[specs.LinuxNamespaceType]string{}
	for i, n := range l.Namespaces {
		switch {
		case ns.Flag(n.Type) == 0:
			return bad("linux.namespaces[%d].type: %q is unknown", i, n.Type)
		case have[n.Type]:
			return bad("linux.namespaces[%d].type: %q is there twice", i, n.Type)
		case n.Path != "" && (!path.IsAbs(n.Path) || strings.ContainsRune(n.Path, 0)):
			return bad("linux.namespaces[%d].path: %q is not an absolute path", i, n.Path)
		}
		have[n.Type], fresh[n.Type], paths[n.Type] = true, n.Path == "" && given[n.Type] == nil, n.Path
	}
	for t := range given {
		have[t] = true
	}
	if !have[specs.MountNamespace] {
		switch {
		case len(l.MaskedPaths)+len(l.ReadonlyPaths) > 0:
			return bad("linux.maskedPaths, linux.readonlyPaths: unable to restrict sys entries without a private MNT namespace")
		case have[specs.UserNamespace]:
			return bad("linux.namespaces: with a user namespace a container needs a mount namespace: it has no right to mount in the host's")
		case s.Root == nil || s.Root.Path == "":
			return bad("root.path: missing, and without a mount namespace that is where the root file system is mounted")
		}
	}
	if l.MountLabel != "" && !cred.SELinux() {
		return bad("linux.mountLabel: %q cannot be set: this kernel runs without SELinux", l.MountLabel)
	}
	for _, err := range []error{
		validateMaps("linux.uidMappings", l.UIDMappings), validateMaps("linux.gidMappings", l.GIDMappings), validateUser(s, have, fresh),
		validateTime(l, fresh), validateNames(s, have), validateSysctl(s, have, paths), validateNetDevices(l, have, paths), validateMounts(s), validateDevices(l.Devices), validateHooks(s.Hooks),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func validateUser(s *specs.Spec, have, fresh map[specs.LinuxNamespaceType]bool) error {
	l := s.Linux
	mapped := len(l.UIDMappings)+len(l.GIDMappings) > 0
	switch {
	case fresh[specs.UserNamespace] && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return bad("linux.uidMappings, linux.gidMappings: a new user namespace needs both")
	case mapped && !have[specs.UserNamespace]:
		return bad("linux.uidMappings, linux.gidMappings: there is no user namespace in linux.namespaces")
	case !fresh[specs.UserNamespace]:
		return nil
	}
	m := idMaps{true, l.UIDMappings, l.GIDMappings}
	if _, _, err := m.ids(0, 0); err != nil {
		return fmt.Errorf("linux.uidMappings, linux.gidMappings: a container's root must be mapped: %w", err)
	}
	if _, err := m.outside(s.Process.User); err != nil {
		return err
	}
	for _, g := range s.Process.User.AdditionalGids {
		if _, ok := ns.HostID(l.GIDMappings, g); !ok {
			return bad("process.user.additionalGids: %d is not in linux.gidMappings", g)
		}
	}
	return nil
}

// validateMaps refuses a mapping that the kernel would, but cannot explain.
func validateMaps(field string, m []specs.LinuxIDMapping) error {
	for _, side := range []func(specs.LinuxIDMapping) uint64{
		func(l specs.LinuxIDMapping) uint64 { return uint64(l.ContainerID) }, func(l specs.LinuxIDMapping) uint64 { return uint64(l.HostID) },
	} {
		sorted := slices.SortedFunc(slices.Values(m), func(a, b specs.LinuxIDMapping) int { return cmp.Compare(side(a), side(b)) })
		for i, l := range sorted {
			switch end := side(l) + uint64(l.Size); {
			case l.Size == 0:
				return bad("%s: a size of 0", field)
			case end > 1<<32-1:
				return bad("%s: %d and %d more is beyond the last number there is", field, side(l), l.Size)
			case i+1 < len(sorted) && end > side(sorted[i+1]):
				return bad("%s: the ranges at %d and %d overlap", field, side(l), side(sorted[i+1]))
			}
		}
	}
	return nil
}

func validateTime(l *specs.Linux, fresh map[specs.LinuxNamespaceType]bool) error {
	if len(l.TimeOffsets) > 0 && !fresh[specs.TimeNamespace] {
		return bad("linux.timeOffsets: there is no new time namespace in linux.namespaces")
	}
	for clock, o := range l.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return bad("linux.timeOffsets: %q is not a clock with an offset (monotonic, boottime)", clock)
		}
		if o.Nanosecs > 999999999 {
			return bad("linux.timeOffsets.%s.nanosecs: %d is a second or more", clock, o.Nanosecs)
		}
	}
	return nil
}

// maxName is the longest host or domain name the kernel takes.
const maxName = 64

func validateNames(s *specs.Spec, have map[specs.LinuxNamespaceType]bool) error {
	for field, name := range map[string]string{"hostname": s.Hostname, "domainname": s.Domainname} {
		switch {
		case name != "" && !have[specs.UTSNamespace]:
			return bad("%s: %q would be the host's, as there is no uts namespace in linux.namespaces", field, name)
		case len(name) > maxName:
			return bad("%s: %q is longer than %d bytes", field, name, maxName)
		}
	}
	return nil
}

// validateSysctl refuses settings that would be the host's.
func validateSysctl(s *specs.Spec, have map[specs.LinuxNamespaceType]bool, paths map[specs.LinuxNamespaceType]string) error {
	ipc := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id", "kernel.auto_msgmni"}
	for key := range s.Linux.Sysctl {
		name := strings.ReplaceAll(sysctlName(key), "/", ".")
		var needs specs.LinuxNamespaceType
		switch {
		case strings.Contains(key, ".."):
			return bad("linux.sysctl: %q is not the name of a setting", key)
		case slices.Contains(ipc, name) || strings.HasPrefix(name, "fs.mqueue."):
			needs = specs.IPCNamespace
		case strings.HasPrefix(name, "net."):
			needs = specs.NetworkNamespace
		case strings.HasPrefix(name, "user."):
			needs = specs.UserNamespace
		case name == "kernel.domainname" && s.Domainname == "":
			needs = specs.UTSNamespace
		case name == "kernel.hostname", name == "kernel.domainname":
			return bad("linux.sysctl: %q is what the field %s is for", key, strings.TrimPrefix(name, "kernel."))
		default:
			return bad("linux.sysctl: %q is not in a separate kernel namespace", key)
		}
		if !have[needs] || isOwn(paths[needs], needs) {
			return bad("linux.sysctl: %q would be the host's, as the container has no %s namespace of its own", key, needs)
		}
	}
	return nil
}

// sysctlName returns a setting's name with dots between its parts, and slashes for dots in them.
func sysctlName(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		return key
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

// isOwn reports whether the namespace at name is this process's own.
func isOwn(name string, t specs.LinuxNamespaceType) bool {
	if name == "" {
		return false
	}
	a, err := os.Stat(name)
	b, err2 := os.Stat("/proc/self/ns/" + ns.File(t))
	return err == nil && err2 == nil && os.SameFile(a, b)
}

func validateMounts(s *specs.Spec) error {
	for i, m := range s.Mounts {
		switch {
		case m.Destination == "" || strings.ContainsRune(m.Destination, 0):
			return bad("mounts[%d].destination: %q is not a path", i, m.Destination)
		case strings.ContainsRune(m.Source+m.Type, 0):
			return bad("mounts[%d]: a zero byte", i)
		case (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0):
			return bad("mounts[%d].uidMappings, mounts[%[1]d].gidMappings: one needs the other", i)
		}
		for field, list := range map[string][]specs.LinuxIDMapping{"uidMappings": m.UIDMappings, "gidMappings": m.GIDMappings} {
			if err := validateMaps(fmt.Sprintf("mounts[%d].%s", i, field), list); err != nil {
				return err
			}
		}
	}
	return nil
}

func validateDevices(list []specs.LinuxDevice) error {
	for i, d := range list {
		switch {
		case !path.IsAbs(d.Path) || strings.ContainsRune(d.Path, 0):
			return bad("linux.devices[%d].path: %q is not an absolute path", i, d.Path)
		case !slices.Contains([]string{"b", "c", "u", "p"}, d.Type):
			return bad("linux.devices[%d].type: %q is unknown", i, d.Type)
		case d.Major < 0 || d.Minor < 0 || d.Major >= 1<<12 || d.Minor >= 1<<20:
			return bad("linux.devices[%d]: %d:%d is not the number of a device", i, d.Major, d.Minor)
		case d.Type == "b" && d.Major == 0 && d.Minor == 0:
			return bad("linux.devices[%d].major, linux.devices[%[1]d].minor: missing", i)
		}
	}
	return nil
}

func validateHooks(h *specs.Hooks) error {
	for point, list := range hookTable(h) {
		for i, one := range list {
			switch {
			case !path.IsAbs(one.Path):
				return bad("hooks.%s[%d].path: %q is not an absolute path", point, i, one.Path)
			case one.Timeout != nil && *one.Timeout <= 0:
				return bad("hooks.%s[%d].timeout: %d is not more than 0", point, i, *one.Timeout)
			}
			for _, text := range slices.Concat([]string{one.Path}, one.Args, one.Env) {
				if strings.ContainsRune(text, 0) {
					return bad("hooks.%s[%d]: %q has a zero byte", point, i, text)
				}
			}
		}
	}
	return nil
}
