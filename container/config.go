package container

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/errdefs"
	"gantry/linux/signal"
	"gantry/logs"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// defaultShmSize is Docker's size of /dev/shm, in bytes.
const defaultShmSize = 64 << 20

// minMemory is the least memory limit that Docker accepts, in bytes.
const minMemory = 6 << 20

// normalize checks the request, fills in the daemon's defaults and merges the image's configuration; it changes cfg.
func (s *Service) normalize(cfg *Config, img *dockerspec.DockerOCIImageConfig) error {
	if cfg.Config == nil {
		return errdefs.New(errdefs.InvalidParameter, "config cannot be empty in order to create a container")
	}
	if cfg.Host == nil {
		cfg.Host = &container.HostConfig{}
	}
	if cfg.Network == nil {
		cfg.Network = &network.NetworkingConfig{}
	}
	exposed := len(cfg.Config.ExposedPorts) > 0 // those of the image are of no consequence
	if img != nil {
		mergeImage(cfg.Config, img)
	}
	if len(cfg.Config.Entrypoint) == 1 && cfg.Config.Entrypoint[0] == "" {
		cfg.Config.Entrypoint = nil
	}
	if len(cfg.Config.Entrypoint)+len(cfg.Config.Cmd) == 0 {
		return errdefs.New(errdefs.InvalidParameter, "no command specified")
	}
	if err := checkConfig(cfg.Config); err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	s.hostDefaults(cfg.Host)
	if err := s.checkHost(cfg.Config, cfg.Host); err != nil {
		if errdefs.KindOf(err) == errdefs.Internal {
			err = errdefs.With(errdefs.InvalidParameter, err)
		}
		return err
	}
	if cfg.Host.NetworkMode.IsContainer() && exposed {
		return errdefs.New(errdefs.InvalidParameter, "conflicting options: port exposing and the container type network mode")
	}
	return nil
}

// mergeImage completes what the user asked for with what the image says.
func mergeImage(c *container.Config, img *dockerspec.DockerOCIImageConfig) {
	if c.User == "" {
		c.User = img.User
	}
	for port := range img.ExposedPorts {
		p, err := network.ParsePort(port)
		if err != nil {
			continue // an image's metadata is data: what is no port exposes nothing
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	has := map[string]bool{}
	for _, e := range c.Env {
		key, _, _ := strings.Cut(e, "=")
		has[key] = true
	}
	for _, e := range img.Env {
		if key, _, _ := strings.Cut(e, "="); !has[key] {
			c.Env = append(c.Env, e)
		}
	}
	if len(img.Labels) > 0 {
		labels := maps.Clone(img.Labels)
		maps.Copy(labels, c.Labels)
		c.Labels = labels
	}
	// An entry point of one's own drops the image's command with the image's entry point.
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = img.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = img.Entrypoint
		}
	}
	if c.WorkingDir == "" {
		c.WorkingDir = img.WorkingDir
	}
	for v := range img.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	if c.StopSignal == "" {
		c.StopSignal = img.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = img.Shell
	}
	mergeHealth(c, img.Healthcheck)
}

func mergeHealth(c *container.Config, img *dockerspec.HealthcheckConfig) {
	switch {
	case img == nil:
	case c.Healthcheck == nil:
		c.Healthcheck = img
	default:
		h := *c.Healthcheck
		if len(h.Test) == 0 {
			h.Test = img.Test
		}
		for _, f := range []struct {
			own *time.Duration
			img time.Duration
		}{{&h.Interval, img.Interval}, {&h.Timeout, img.Timeout}, {&h.StartPeriod, img.StartPeriod}, {&h.StartInterval, img.StartInterval}} {
			if *f.own == 0 {
				*f.own = f.img
			}
		}
		if h.Retries == 0 {
			h.Retries = img.Retries
		}
		c.Healthcheck = &h
	}
}

func checkConfig(c *container.Config) error {
	if c.WorkingDir != "" {
		c.WorkingDir = path.Clean(c.WorkingDir)
		if !path.IsAbs(c.WorkingDir) {
			return fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
		}
	}
	if c.StopSignal != "" {
		if _, err := signal.Parse(c.StopSignal); err != nil {
			return err
		}
	}
	if len(c.Hostname) > 63 {
		return fmt.Errorf("invalid hostname: %q is longer than 63 characters", c.Hostname)
	}
	for _, e := range c.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" {
			return fmt.Errorf("invalid environment variable: %s", e)
		}
		if strings.ContainsRune(e, 0) {
			return fmt.Errorf("invalid environment variable: %q contains a zero byte", e)
		}
	}
	for _, arg := range slices.Concat(c.Entrypoint, c.Cmd) {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("invalid argument: %q contains a zero byte", arg)
		}
	}
	for v := range c.Volumes {
		if !path.IsAbs(path.Clean(v)) || path.Clean(v) == "/" {
			return fmt.Errorf("invalid volume specification: '%s': destination must be an absolute path other than '/'", v)
		}
	}
	return checkHealth(c.Healthcheck)
}

func checkHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < container.MinimumDuration {
			return fmt.Errorf("%s in Healthcheck cannot be less than %s", d.name, container.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return fmt.Errorf("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) > 0 && !slices.Contains([]string{"", "NONE", "CMD", "CMD-SHELL"}, h.Test[0]) {
		return fmt.Errorf("Unknown type %q in Healthcheck (try 'CMD')", h.Test[0])
	}
	return nil
}

// hostDefaults fills in what the user left to the daemon.
func (s *Service) hostDefaults(h *container.HostConfig) {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
	}
	if h.ShmSize == 0 {
		h.ShmSize = s.opts.ShmSize
		if h.ShmSize == 0 {
			h.ShmSize = defaultShmSize
		}
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = container.IPCModePrivate
		if s.opts.IPCMode != "" {
			h.IpcMode = container.IpcMode(s.opts.IPCMode)
		}
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = s.defaultCgroupns(h.Privileged)
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = s.opts.LogDriver
		if h.LogConfig.Type == "" {
			h.LogConfig.Type = "json-file"
		}
	}
	if h.LogConfig.Type == s.opts.LogDriver || s.opts.LogDriver == "" {
		for k, v := range s.opts.LogOptions {
			if _, ok := h.LogConfig.Config[k]; !ok {
				if h.LogConfig.Config == nil {
					h.LogConfig.Config = map[string]string{}
				}
				h.LogConfig.Config[k] = v
			}
		}
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.Runtime == "" {
		h.Runtime = s.runtimes().byDefault
	}
	if h.MemorySwap == 0 && h.Memory > 0 {
		h.MemorySwap = h.Memory * 2
	}
	have := map[string]bool{}
	for _, u := range h.Ulimits {
		have[u.Name] = true
	}
	for _, u := range s.opts.Ulimits {
		if !have[u.Name] {
			h.Ulimits = append(h.Ulimits, u)
		}
	}
	if h.MaskedPaths == nil && !h.Privileged {
		h.MaskedPaths = maskedPaths()
	}
	if h.ReadonlyPaths == nil && !h.Privileged {
		h.ReadonlyPaths = readonlyPaths()
	}
}

// defaultCgroupns returns private where the host has the unified hierarchy and host elsewhere, as Docker does.
func (s *Service) defaultCgroupns(privileged bool) container.CgroupnsMode {
	if s.opts.CgroupnsMode != "" {
		return container.CgroupnsMode(s.opts.CgroupnsMode)
	}
	if s.unified && !privileged {
		return container.CgroupnsModePrivate
	}
	return container.CgroupnsModeHost
}

func (s *Service) checkHost(c *container.Config, h *container.HostConfig) error {
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return fmt.Errorf("can't create 'AutoRemove' container with restart policy")
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return err
	}
	if err := checkModes(c, h); err != nil {
		return err
	}
	if err := CheckResources(&h.Resources); err != nil {
		return err
	}
	if !h.Isolation.IsDefault() {
		return fmt.Errorf("invalid isolation '%s' on linux", h.Isolation)
	}
	if h.ShmSize < 0 {
		return fmt.Errorf("SHM size can not be less than 0")
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return fmt.Errorf("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	for _, host := range h.ExtraHosts {
		name, address, ok := strings.Cut(host, ":")
		if !ok || name == "" {
			return fmt.Errorf("bad format for add-host: %q", host)
		}
		if _, err := netip.ParseAddr(strings.Trim(address, "[]")); err != nil && address != "host-gateway" {
			return fmt.Errorf("invalid IP address in add-host: %q", address)
		}
	}
	for _, rule := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(rule); err != nil {
			return err
		}
	}
	if h.Cgroup != "" {
		return errdefs.New(errdefs.NotImplemented, "joining the cgroup of another container (%s) is not supported", h.Cgroup)
	}
	for k := range h.Sysctls {
		if err := checkSysctl(k, h); err != nil {
			return err
		}
	}
	if _, err := parseSecurity(h.SecurityOpt); err != nil {
		return err
	}
	if _, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged); err != nil {
		return err
	}
	for port, bindings := range h.PortBindings {
		if !port.IsValid() || port.Num() == 0 {
			return fmt.Errorf("invalid port specification: %q", port.String())
		}
		for _, b := range bindings {
			if err := checkHostPort(b.HostPort); err != nil {
				return err
			}
		}
	}
	if known := s.runtimes(); h.Runtime != "" && known.paths[h.Runtime] == "" && h.Runtime != known.byDefault && h.Runtime != "runc" && h.Runtime != "gantry" {
		return errdefs.New(errdefs.InvalidParameter, "unknown or invalid runtime name: %s", h.Runtime)
	}
	if len(h.DeviceRequests) > 0 {
		return errdefs.New(errdefs.InvalidParameter, "could not select device driver %q with capabilities: %v", h.DeviceRequests[0].Driver, h.DeviceRequests[0].Capabilities)
	}
	if len(h.StorageOpt) > 0 {
		return fmt.Errorf("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
	}
	return logs.Validate(logs.Config{Driver: h.LogConfig.Type, Options: h.LogConfig.Config})
}

func checkModes(c *container.Config, h *container.HostConfig) error {
	switch {
	case !h.PidMode.Valid() && h.PidMode != "":
		return fmt.Errorf("invalid PID mode: %q", h.PidMode)
	case !h.IpcMode.Valid():
		return fmt.Errorf("invalid IPC mode: %v", h.IpcMode)
	case !h.UTSMode.Valid():
		return fmt.Errorf("invalid UTS mode: %q", h.UTSMode)
	case !h.UsernsMode.Valid():
		return fmt.Errorf("invalid USER mode: %q", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return fmt.Errorf("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case h.UTSMode.IsHost() && c.Hostname != "":
		return fmt.Errorf("conflicting options: hostname and the UTS mode")
	case h.NetworkMode.IsContainer() && c.Hostname != "":
		return fmt.Errorf("conflicting options: hostname and the network mode")
	case h.NetworkMode.IsContainer() && len(h.PortBindings) > 0:
		return fmt.Errorf("conflicting options: port publishing and the container type network mode")
	case h.NetworkMode.IsContainer() && h.PublishAllPorts:
		return fmt.Errorf("conflicting options: port publishing and the container type network mode")
	case h.NetworkMode.IsContainer() && len(h.DNS) > 0:
		return fmt.Errorf("conflicting options: dns and the network mode")
	case h.NetworkMode.IsContainer() && len(h.ExtraHosts) > 0:
		return fmt.Errorf("conflicting options: custom host-to-IP mapping and the network mode")
	case h.NetworkMode.IsContainer() && len(h.Links) > 0:
		return fmt.Errorf("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return fmt.Errorf("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case h.NetworkMode.IsContainer() && h.NetworkMode.ConnectedContainer() == "":
		return fmt.Errorf("Invalid network mode: invalid container format container:<name|id>")
	}
	return nil
}

func checkHostPort(p string) error {
	if p == "" {
		return nil
	}
	first, last, isRange := strings.Cut(p, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return fmt.Errorf("invalid port specification: %q", p)
	}
	if isRange {
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil || b < a {
			return fmt.Errorf("invalid port specification: %q", p)
		}
	}
	return nil
}

// CheckResources checks the limits of a container, at creation and at update.
func CheckResources(r *container.Resources) error {
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return errdefs.New(errdefs.InvalidParameter, "Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errdefs.New(errdefs.InvalidParameter, "Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return errdefs.New(errdefs.InvalidParameter, "You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwappiness != nil && *r.MemorySwappiness != -1 && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return errdefs.New(errdefs.InvalidParameter, "Invalid value: %v, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return errdefs.New(errdefs.InvalidParameter, "Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return errdefs.New(errdefs.InvalidParameter, "Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return errdefs.New(errdefs.InvalidParameter, "Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return errdefs.New(errdefs.InvalidParameter, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(hostCPUs())*1e9:
		return errdefs.New(errdefs.InvalidParameter, "range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", hostCPUs(), hostCPUs())
	case r.CPUShares < 0:
		return errdefs.New(errdefs.InvalidParameter, "invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return errdefs.New(errdefs.InvalidParameter, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errdefs.New(errdefs.InvalidParameter, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return errdefs.New(errdefs.InvalidParameter, "cpu real-time runtime cannot be higher than cpu real-time period")
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return errdefs.New(errdefs.InvalidParameter, "Range of blkio weight is from 10 to 1000")
	}
	if _, err := blockIOSpec(r); err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	if err := checkCPUSet(r.CpusetCpus, "cpus", "CPUs", "/sys/devices/system/cpu/online"); err != nil {
		return err
	}
	return checkCPUSet(r.CpusetMems, "mems", "memory nodes", "/sys/devices/system/node/online")
}

// checkCPUSet checks a list as of cpuset(7), such as "0-2,4", against the one in a file of sysfs.
func checkCPUSet(set, what, noun, file string) error {
	if set == "" {
		return nil
	}
	asked, err := cpuSet(set)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "Invalid value %s for cpuset %s: %w", set, what, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // a kernel without NUMA nodes has no list of them: the cgroup will judge
	}
	online := strings.TrimSpace(string(data))
	available, err := cpuSet(online)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for n := range asked {
		if !available[n] {
			return errdefs.New(errdefs.InvalidParameter, "Requested %s are not available - requested %s, available: %s", noun, set, online)
		}
	}
	return nil
}

// cpuSet reads the list format of cpuset(7). Numbers end at 8191, the most that a kernel can be built for.
func cpuSet(list string) (map[uint64]bool, error) {
	set := map[uint64]bool{}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 13)
		b, errB := strconv.ParseUint(last, 10, 13)
		if errA != nil || errB != nil || b < a {
			return nil, fmt.Errorf("invalid format: %s", part)
		}
		for n := a; n <= b; n++ {
			set[n] = true
		}
	}
	return set, nil
}

// checkSysctl allows only the sysctls that belong to a namespace of the container's own.
func checkSysctl(name string, h *container.HostConfig) error {
	name = strings.ReplaceAll(name, "/", ".")
	ipc := strings.HasPrefix(name, "fs.mqueue.") || slices.Contains([]string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",
		"kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}, name)
	switch {
	case ipc && h.IpcMode.IsHost():
		return fmt.Errorf("sysctl '%s' is not allowed in the host ipc namespace", name)
	case ipc:
		return nil
	case strings.HasPrefix(name, "net.") && h.NetworkMode.IsHost():
		return fmt.Errorf("sysctl '%s' is not allowed in the host network namespace", name)
	case strings.HasPrefix(name, "net."):
		return nil
	case name == "kernel.domainname" && !h.UTSMode.IsHost():
		return nil
	}
	return fmt.Errorf("sysctl '%s' is not allowed: it belongs to no namespace of the container", name)
}
