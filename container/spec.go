package container

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gantry/sandbox"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Inputs is what a spec needs besides the record: facts found out at the start.
type Inputs struct {
	User         User // resolved in the container's file system
	Files        sandbox.Files
	Devices      []device // those of --device, and all of the host's for privileged containers
	Capabilities []string
	Security     security
	AppArmor     string // profile; empty: none
	CgroupPath   string
	InitPath     string // set for --init
	LinkEnv      []string
	Joined       map[specs.LinuxNamespaceType]bool
	NoNewPrivs   bool
}

// defaultPath is the PATH of a container whose image sets none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// spec returns the OCI specification of a container. It is pure: the same record and inputs give the same spec.
// Seccomp is left to the caller.
func spec(r *Record, in Inputs) *specs.Spec {
	h := r.Host
	process := processSpec(r, in)
	s := &specs.Spec{
		Version:     specs.Version,
		Process:     process,
		Root:        &specs.Root{Path: "rootfs", Readonly: h.ReadonlyRootfs},
		Hostname:    r.Hostname,
		Domainname:  r.Config.Domainname,
		Mounts:      mountsSpec(r, in),
		Annotations: h.Annotations,
		Linux: &specs.Linux{
			CgroupsPath:       in.CgroupPath,
			Resources:         ResourcesSpec(&h.Resources),
			Namespaces:        namespaces(h, in.Joined),
			MaskedPaths:       h.MaskedPaths,
			ReadonlyPaths:     h.ReadonlyPaths,
			Sysctl:            sysctls(h, in.Joined),
			Devices:           nodes(in.Devices),
			RootfsPropagation: rootPropagation(r.Mounts),
		},
	}
	if in.Security.unmaskSystem || h.Privileged {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}
	if h.UTSMode.IsHost() {
		s.Hostname, s.Domainname = "", ""
	}
	s.Linux.Resources.Devices = deviceRules(h, in.Devices)
	return s
}

func processSpec(r *Record, in Inputs) *specs.Process {
	h := r.Host
	p := &specs.Process{
		Terminal:        r.Config.Tty,
		User:            in.User.Spec(),
		Args:            append([]string{r.Path}, r.Args...),
		Env:             environment(r, r.Config.Tty, in.LinkEnv),
		Cwd:             cmp.Or(r.Config.WorkingDir, "/"),
		Capabilities:    capabilitySets(in.Capabilities, in.User.UID),
		NoNewPrivileges: in.Security.noNewPrivs || in.NoNewPrivs,
		ApparmorProfile: in.AppArmor,
	}
	if h.Umask != nil {
		p.User.Umask = h.Umask
	}
	if h.ConsoleSize[0] != 0 && h.ConsoleSize[1] != 0 {
		p.ConsoleSize = &specs.Box{Height: h.ConsoleSize[0], Width: h.ConsoleSize[1]}
	}
	if h.OomScoreAdj != 0 {
		p.OOMScoreAdj = &h.OomScoreAdj
	}
	for _, u := range h.Ulimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: limit(u.Soft), Hard: limit(u.Hard)})
	}
	if in.InitPath != "" {
		p.Args = append([]string{"/sbin/docker-init", "--"}, p.Args...)
	}
	return p
}

// limit turns -1 into "no limit" (getrlimit(2)).
func limit(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// capabilitySets returns the sets for a process. Inheritable and ambient stay empty (CVE-2022-24769).
func capabilitySets(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// environment returns what the process sees: Docker's own variables first, the user's last and strongest.
func environment(r *Record, tty bool, links []string) []string {
	env := []string{defaultPath, "HOSTNAME=" + r.Hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	return mergeEnv(append(env, links...), r.Config.Env)
}

// mergeEnv lets later entries replace earlier ones of the same name; a name without a value removes it.
func mergeEnv(base, override []string) []string {
	env := slices.Clone(base)
	for _, e := range override {
		name, _, valued := strings.Cut(e, "=")
		i := slices.IndexFunc(env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		switch {
		case valued && i >= 0:
			env[i] = e
		case valued:
			env = append(env, e)
		case i >= 0:
			env = slices.Delete(env, i, i+1)
		}
	}
	return env
}

func namespaces(h *container.HostConfig, joined map[specs.LinuxNamespaceType]bool) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(t specs.LinuxNamespaceType, private bool) {
		if private || joined[t] {
			ns = append(ns, specs.LinuxNamespace{Type: t})
		}
	}
	add(specs.PIDNamespace, !h.PidMode.IsHost())
	add(specs.IPCNamespace, !h.IpcMode.IsHost())
	add(specs.UTSNamespace, !h.UTSMode.IsHost())
	add(specs.NetworkNamespace, !h.NetworkMode.IsHost())
	add(specs.CgroupNamespace, h.CgroupnsMode.IsPrivate())
	return ns
}

func sysctls(h *container.HostConfig, joined map[specs.LinuxNamespaceType]bool) map[string]string {
	values := map[string]string{}
	if !h.NetworkMode.IsHost() && !joined[specs.NetworkNamespace] {
		values["net.ipv4.ip_unprivileged_port_start"] = "0"
		values["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	maps.Copy(values, h.Sysctls)
	return values
}

func rootPropagation(mounts []Mount) string {
	propagation := ""
	for _, m := range mounts {
		switch m.Propagation {
		case mount.PropagationShared, mount.PropagationRShared:
			return "shared"
		case mount.PropagationSlave, mount.PropagationRSlave:
			propagation = "rslave"
		default:
		}
	}
	return propagation
}

// mountsSpec returns the mounts in the order in which they are made: what every container has, then the user's by
// the depth of their destinations.
func mountsSpec(r *Record, in Inputs) []specs.Mount {
	h := r.Host
	readOnly := func(options ...string) []string {
		if h.Privileged {
			return slices.DeleteFunc(options, func(o string) bool { return o == "ro" })
		}
		return options
	}
	shm := specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", h.ShmSize)}}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: readOnly("nosuid", "noexec", "nodev", "ro")},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: readOnly("nosuid", "noexec", "nodev", "ro")},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		shm,
	}
	if h.IpcMode.IsNone() {
		mounts = mounts[:len(mounts)-1]
	}
	if h.IpcMode.IsHost() {
		// A mqueue file system made in the host's IPC namespace shows the host's queues; shared memory is a mount of its own.
		mounts[len(mounts)-1] = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	fileOptions := []string{"rbind", "rprivate"}
	if h.ReadonlyRootfs {
		fileOptions = append(fileOptions, "ro")
	}
	for _, f := range []struct{ destination, source string }{
		{"/etc/resolv.conf", in.Files.ResolvConf}, {"/etc/hostname", in.Files.Hostname}, {"/etc/hosts", in.Files.Hosts},
	} {
		if f.source != "" && r.mountAt(f.destination) == nil {
			mounts = append(mounts, specs.Mount{Destination: f.destination, Type: "bind", Source: f.source, Options: fileOptions})
		}
	}
	if in.InitPath != "" {
		mounts = append(mounts, specs.Mount{Destination: "/sbin/docker-init", Type: "bind", Source: in.InitPath, Options: []string{"bind", "ro"}})
	}
	var own []specs.Mount
	for i := range r.Mounts {
		own = append(own, mountSpec(&r.Mounts[i]))
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return cmp.Or(cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/")), cmp.Compare(a.Destination, b.Destination))
	})
	for _, m := range own {
		mounts = slices.DeleteFunc(mounts, func(have specs.Mount) bool { return have.Destination == m.Destination })
	}
	return append(mounts, own...)
}

func mountSpec(m *Mount) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		options := []string{"nosuid", "nodev", "noexec"}
		for o := range strings.SplitSeq(m.Options, ",") {
			switch o {
			case "":
			case "exec", "dev", "suid":
				options = slices.DeleteFunc(options, func(have string) bool { return have == "no"+o })
				options = append(options, o)
			default:
				options = append(options, o)
			}
		}
		if !m.RW && !slices.Contains(options, "ro") {
			options = append(options, "ro")
		}
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	options := []string{"rbind"}
	if slices.Contains(m.Flags, "bind") {
		options = []string{"bind"}
	}
	if !m.RW {
		if slices.Contains(m.Flags, "ro") {
			options = append(options, "ro")
		} else {
			options = append(options, "ro", "rro")
		}
	}
	options = append(options, string(cmp.Or(m.Propagation, mount.PropagationRPrivate)))
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: filepath.Join(m.Source, m.Subpath), Options: options}
}

// ResourcesSpec translates Docker's limits.
func ResourcesSpec(r *container.Resources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r.Memory != 0 || r.MemoryReservation != 0 || r.MemorySwap != 0 || r.MemorySwappiness != nil || r.OomKillDisable != nil {
		m := &specs.LinuxMemory{}
		if r.Memory != 0 {
			m.Limit = &r.Memory
		}
		if r.MemoryReservation != 0 {
			m.Reservation = &r.MemoryReservation
		}
		if r.MemorySwap != 0 {
			m.Swap = &r.MemorySwap
		}
		if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
			n := uint64(*r.MemorySwappiness)
			m.Swappiness = &n
		}
		if r.OomKillDisable != nil && *r.OomKillDisable {
			m.DisableOOMKiller = r.OomKillDisable
		}
		out.Memory = m
	}
	out.CPU = cpuSpec(r)
	if r.PidsLimit != nil {
		n := *r.PidsLimit
		if n <= 0 {
			n = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &n}
	}
	out.BlockIO, _ = blockIOSpec(r) // devices that CheckResources found and that are gone by now limit nothing
	return out
}

func cpuSpec(r *container.Resources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	set := c.Cpus != "" || c.Mems != ""
	unsigned := func(n int64) *uint64 {
		set = true
		u := uint64(n)
		return &u
	}
	if r.CPUShares > 0 {
		c.Shares = unsigned(r.CPUShares)
	}
	if r.NanoCPUs > 0 {
		quota := r.NanoCPUs * 100000 / 1e9
		c.Period, c.Quota = unsigned(100000), &quota
	}
	if r.CPUPeriod != 0 {
		c.Period = unsigned(r.CPUPeriod)
	}
	if r.CPUQuota != 0 {
		c.Quota, set = &r.CPUQuota, true
	}
	if r.CPURealtimePeriod != 0 {
		c.RealtimePeriod = unsigned(r.CPURealtimePeriod)
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime, set = &r.CPURealtimeRuntime, true
	}
	if !set {
		return nil
	}
	return c
}

// blockIOSpec returns the limits of block devices; with an error, those of the devices that there are.
func blockIOSpec(r *container.Resources) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	set := false
	var errs []error
	number := func(p string) (specs.LinuxBlockIODevice, bool) {
		major, minor, err := deviceNumber(p)
		if err != nil {
			errs = append(errs, err)
		}
		set = set || err == nil
		return specs.LinuxBlockIODevice{Major: major, Minor: minor}, err == nil
	}
	if r.BlkioWeight != 0 {
		b.Weight, set = &r.BlkioWeight, true
	}
	for _, w := range r.BlkioWeightDevice {
		if dev, ok := number(w.Path); ok {
			b.WeightDevice = append(b.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: dev, Weight: &w.Weight})
		}
	}
	throttle := func(in []*blkiodev.ThrottleDevice) (out []specs.LinuxThrottleDevice) {
		for _, t := range in {
			if dev, ok := number(t.Path); ok {
				out = append(out, specs.LinuxThrottleDevice{LinuxBlockIODevice: dev, Rate: t.Rate})
			}
		}
		return out
	}
	b.ThrottleReadBpsDevice, b.ThrottleWriteBpsDevice = throttle(r.BlkioDeviceReadBps), throttle(r.BlkioDeviceWriteBps)
	b.ThrottleReadIOPSDevice, b.ThrottleWriteIOPSDevice = throttle(r.BlkioDeviceReadIOps), throttle(r.BlkioDeviceWriteIOps)
	if !set {
		b = nil
	}
	return b, errors.Join(errs...)
}

// cgroupPath returns the container's cgroup below the hierarchies' roots.
func cgroupPath(parent, id string) string { return path.Join("/", parent, id) }

// hostDevice describes a device node of the host.
func hostDevice(hostPath, containerPath string) (specs.LinuxDevice, error) {
	fi, err := os.Stat(hostPath)
	if err != nil {
		return specs.LinuxDevice{}, err
	}
	return deviceFrom(fi, containerPath)
}
