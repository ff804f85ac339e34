package docker

import (
	"bufio"
	"context"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"gantry/linux/apparmor"
)

// Settings are the daemon's options that /info shows or that shape requests.
type Settings struct {
	Debug, Experimental, LiveRestore bool
	Labels                           []string
	LogDriver                        string
	CgroupDriver                     string
	DefaultRuntime                   string
	Runtimes                         map[string]Runtime // besides the built-in one
	SeccompProfile                   string
	NoNewPrivileges                  bool
	InsecureRegistries, Mirrors      []string
	HTTPProxy, HTTPSProxy, NoProxy   string // without credentials
	DefaultAddressPools              []AddressPool
	OpenTCP                          []string // addresses at which everyone is let in
	// NetworkOptions are given to new networks that do not say otherwise, by driver.
	NetworkOptions map[string]map[string]string
}

// Runtime is an OCI runtime that containers may ask for.
type Runtime struct {
	Path string
	Args []string
}

// AddressPool is a range from which networks get subnets with a prefix of Size bits.
type AddressPool struct {
	Base netip.Prefix
	Size int
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.collectInfo(r.Context())
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, infoFor(VersionOf(r), info))
}

func (s *Server) collectInfo(ctx context.Context) (*system.Info, error) {
	settings := s.options.Settings()
	images, err := s.engine.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	hostname, _ := os.Hostname() // "" where there is none, as with docker
	info := &system.Info{
		ID:                 s.engine.ID,
		Name:               hostname,
		Images:             len(images),
		Driver:             s.engine.Snapshots.Name(),
		DriverStatus:       [][2]string{{"Backing Filesystem", fileSystem(s.engine.DataRoot)}, {"Supports d_type", "true"}, {"Native Overlay Diff", "true"}},
		Debug:              settings.Debug,
		ExperimentalBuild:  settings.Experimental,
		NFd:                openFiles(),
		NGoroutines:        runtime.NumGoroutine(),
		NEventsListener:    s.engine.Events.Subscribers(),
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      settings.LogDriver,
		CgroupDriver:       settings.CgroupDriver,
		KernelVersion:      kernelRelease(),
		OSType:             runtime.GOOS,
		Architecture:       machine(),
		NCPU:               runtime.NumCPU(),
		MemTotal:           memTotal(),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     registryConfig(settings),
		DockerRootDir:      s.engine.DataRoot,
		HTTPProxy:          settings.HTTPProxy,
		HTTPSProxy:         settings.HTTPSProxy,
		NoProxy:            settings.NoProxy,
		Labels:             nonNil(settings.Labels),
		ServerVersion:      s.options.ServerVersion,
		Runtimes:           map[string]system.RuntimeWithStatus{"runc": {Runtime: system.Runtime{Path: "builtin"}}},
		DefaultRuntime:     settings.DefaultRuntime,
		Swarm:              swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled: settings.LiveRestore,
		Isolation:          container.IsolationEmpty,
		InitBinary:         "docker-init",
		ContainerdCommit:   system.Commit{ID: "none"},
		RuncCommit:         system.Commit{ID: "builtin"},
		InitCommit:         system.Commit{ID: "builtin"},
		FirewallBackend:    &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:        []string{},
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "null"},
			Log: []string{"json-file", "local", "none"},
		},
	}
	info.OperatingSystem, info.OSVersion = osRelease()
	s.countContainers(info)
	fillKernel(info)
	if apparmor.Manageable() {
		info.SecurityOptions = append(info.SecurityOptions, "name=apparmor")
	}
	info.SecurityOptions = append(info.SecurityOptions, "name=seccomp,profile="+settings.SeccompProfile)
	if settings.NoNewPrivileges {
		info.SecurityOptions = append(info.SecurityOptions, "name=no-new-privileges")
	}
	if info.CgroupVersion == "2" {
		info.SecurityOptions = append(info.SecurityOptions, "name=cgroupns")
	}
	for name, r := range settings.Runtimes {
		info.Runtimes[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
	}
	for _, pool := range settings.DefaultAddressPools {
		info.DefaultAddressPools = append(info.DefaultAddressPools, system.NetworkAddressPool{Base: pool.Base, Size: pool.Size})
	}
	for _, address := range settings.OpenTCP {
		info.Warnings = append(info.Warnings, "WARNING: API is accessible on "+address+" without client certificates: access to it is equivalent to root access on the host")
	}
	if settings.SeccompProfile != "builtin" {
		info.Warnings = append(info.Warnings, "WARNING: daemon is not using the default seccomp profile")
	}
	return info, nil
}

func registryConfig(settings Settings) *registry.ServiceConfig {
	config := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: nonNil(settings.Mirrors), Secure: true, Official: true},
		},
		Mirrors: nonNil(settings.Mirrors),
	}
	for _, insecure := range settings.InsecureRegistries {
		if network, err := netip.ParsePrefix(insecure); err == nil {
			config.InsecureRegistryCIDRs = append(config.InsecureRegistryCIDRs, network)
		} else {
			config.IndexConfigs[insecure] = &registry.IndexInfo{Name: insecure, Mirrors: []string{}}
		}
	}
	return config
}

// nonNil makes an absent list an empty one, which JSON shows as [].
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// fillKernel notes what the kernel can do. Cgroups: Docker's words for what is mounted.
func fillKernel(info *system.Info) {
	info.IPv4Forwarding = firstLine("/proc/sys/net/ipv4/ip_forward") == "1"
	const root = "/sys/fs/cgroup/"
	if controllers, err := os.ReadFile(root + "cgroup.controllers"); err == nil {
		have := strings.Fields(string(controllers))
		info.CgroupVersion = "2"
		info.MemoryLimit = slices.Contains(have, "memory")
		info.SwapLimit = info.MemoryLimit
		info.PidsLimit = slices.Contains(have, "pids")
		info.CPUSet = slices.Contains(have, "cpuset")
		cpu := slices.Contains(have, "cpu")
		info.CPUCfsPeriod, info.CPUCfsQuota, info.CPUShares = cpu, cpu, cpu
		return
	}
	info.CgroupVersion = "1"
	exists := func(file string) bool { _, err := os.Stat(root + file); return err == nil }
	info.MemoryLimit = exists("memory/memory.limit_in_bytes") || exists("memory/cgroup.procs")
	info.SwapLimit = exists("memory/memory.memsw.limit_in_bytes")
	info.OomKillDisable = exists("memory/memory.oom_control")
	info.PidsLimit = exists("pids")
	info.CPUSet = exists("cpuset")
	info.CPUShares = exists("cpu/cpu.shares")
	info.CPUCfsPeriod = exists("cpu/cpu.cfs_period_us")
	info.CPUCfsQuota = exists("cpu/cpu.cfs_quota_us")
	for _, lack := range []struct {
		have bool
		what string
	}{{info.MemoryLimit, "memory limit"}, {info.SwapLimit, "swap limit"}, {info.CPUCfsQuota, "CPU CFS quota"}, {info.PidsLimit, "pids limit"}} {
		if !lack.have {
			info.Warnings = append(info.Warnings, "WARNING: No "+lack.what+" support")
		}
	}
	if !info.IPv4Forwarding {
		info.Warnings = append(info.Warnings, "WARNING: IPv4 forwarding is disabled")
	}
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func kernelRelease() string { return firstLine("/proc/sys/kernel/osrelease") }

// machine is the architecture in the kernel's words, as docker shows it.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	default:
		return runtime.GOARCH
	}
}

func memTotal() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries) - 1 // without the one that reads the folder
}

// osRelease returns the distribution's name and version.
func osRelease() (name, version string) {
	name = "Linux"
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), "=")
			value = strings.Trim(value, `"'`)
			switch key {
			case "PRETTY_NAME":
				name = value
			case "VERSION_ID":
				version = value
			}
		}
		_ = f.Close() // only read
		break
	}
	return name, version
}

// fileSystem returns the type of the file system that holds the folder, from the longest mount point above it.
func fileSystem(dir string) string {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "<unknown>"
	}
	defer func() { _ = f.Close() }() // only read
	best, kind := "", "<unknown>"
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		at := strings.TrimSuffix(fields[1], "/")
		if (dir == at || strings.HasPrefix(dir, at+"/")) && len(at) >= len(best) {
			best, kind = at, fields[2]
		}
	}
	return kind
}
