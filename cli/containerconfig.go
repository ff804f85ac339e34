package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// request makes the API's request of the flags. args are the image and the command; fs tells which flags were given, and lookup
// gives the environment that --env-file takes bare names from.
func (f *containerFlags) request(fs *pflag.FlagSet, args []string, lookup func(string) (string, bool)) (container.CreateRequest, error) {
	var none container.CreateRequest
	cfg, err := f.config(fs, args, lookup)
	if err != nil {
		return none, err
	}
	host, err := f.hostConfig(fs)
	if err != nil {
		return none, err
	}
	if err := f.volumes(cfg, host); err != nil {
		return none, err
	}
	if err := f.ports(cfg, host); err != nil {
		return none, err
	}
	nets, mode, err := f.networking()
	if err != nil {
		return none, err
	}
	host.NetworkMode = mode
	return container.CreateRequest{Config: cfg, HostConfig: host, NetworkingConfig: nets}, nil
}

// config makes the part that does not depend on the host.
func (f *containerFlags) config(fs *pflag.FlagSet, args []string, lookup func(string) (string, bool)) (*container.Config, error) {
	env, err := readKeyValueFiles(f.envFile, f.env, lookup)
	if err != nil {
		return nil, err
	}
	labels, err := readKeyValueFiles(f.labelFile, f.label, func(string) (string, bool) { return "", true })
	if err != nil {
		return nil, err
	}
	health, err := f.healthcheck()
	if err != nil {
		return nil, err
	}
	c := &container.Config{
		Hostname: f.hostname, Domainname: f.domainname, User: f.user, Tty: f.tty, OpenStdin: f.interactive, Env: env, Cmd: args[1:],
		Healthcheck: health, Image: args[0], WorkingDir: f.workdir, Labels: keyValues(labels), StopSignal: f.stopSignal,
	}
	if len(c.Cmd) == 0 {
		c.Cmd = nil
	}
	if fs.Changed("entrypoint") {
		c.Entrypoint = []string{f.entrypoint}
	}
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	for _, s := range f.attach {
		switch s {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		}
	}
	detached := false
	if d := fs.Lookup("detach"); d != nil {
		detached = d.Value.String() == "true"
	}
	if len(f.attach) == 0 && !detached {
		c.AttachStdout, c.AttachStderr, c.AttachStdin = true, true, f.interactive
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return c, nil
}

func (f *containerFlags) healthcheck() (*container.HealthConfig, error) {
	given := f.healthCmd != "" || f.healthInterval != 0 || f.healthTimeout != 0 || f.healthStartPeriod != 0 || f.healthStartInterval != 0 || f.healthRetries != 0
	if f.noHealthcheck {
		if given {
			return nil, errors.New("--no-healthcheck conflicts with --health-* options")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if !given {
		return nil, nil
	}
	h := &container.HealthConfig{Interval: f.healthInterval, Timeout: f.healthTimeout, StartPeriod: f.healthStartPeriod, StartInterval: f.healthStartInterval, Retries: f.healthRetries}
	if f.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	for name, d := range map[string]time.Duration{"interval": h.Interval, "timeout": h.Timeout, "start-period": h.StartPeriod, "start-interval": h.StartInterval} {
		if d < 0 {
			return nil, fmt.Errorf("--health-%s cannot be negative", name)
		}
	}
	if h.Retries < 0 {
		return nil, errors.New("--health-retries cannot be negative")
	}
	return h, nil
}

// hostConfig makes the part that depends on the host, but for volumes, ports and networks.
func (f *containerFlags) hostConfig(fs *pflag.FlagSet) (*container.HostConfig, error) {
	if f.memorySwappiness != -1 && (f.memorySwappiness < 0 || f.memorySwappiness > 100) {
		return nil, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", f.memorySwappiness)
	}
	restart, err := parseRestartPolicy(f.restart)
	if err != nil {
		return nil, err
	}
	if f.rm && !restart.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	h := &container.HostConfig{
		ContainerIDFile: f.cidfile, RestartPolicy: restart, AutoRemove: f.rm, VolumeDriver: f.volumeDriver, VolumesFrom: f.volumesFrom,
		Annotations: f.annotation, CgroupnsMode: container.CgroupnsMode(f.cgroupns),
		DNSOptions: f.dnsOption, DNSSearch: f.dnsSearch, ExtraHosts: f.addHost, GroupAdd: f.groupAdd, IpcMode: container.IpcMode(f.ipc),
		Links: f.link, OomScoreAdj: f.oomScoreAdj, PidMode: container.PidMode(f.pid), Privileged: f.privileged,
		PublishAllPorts: f.publishAll, ReadonlyRootfs: f.readOnly, UTSMode: container.UTSMode(f.uts),
		UsernsMode: container.UsernsMode(f.userns), ShmSize: f.shmSize, Sysctls: f.sysctl, Runtime: f.runtime,
		Isolation: container.Isolation(f.isolation), Mounts: f.mounts,
	}
	for _, m := range []struct {
		ok   bool
		text string
	}{
		{h.PidMode.Valid(), "--pid: invalid PID mode"},
		{h.UTSMode.Valid(), "--uts: invalid UTS mode"},
		{h.UsernsMode.Valid(), "--userns: invalid USER mode"},
		{h.CgroupnsMode.Valid(), "--cgroupns: invalid CGROUP mode"},
	} {
		if !m.ok {
			return nil, errors.New(m.text)
		}
	}
	h.CapAdd, h.CapDrop = capabilities(f.capAdd, f.capDrop)
	if fs.Changed("init") {
		h.Init = &f.init
	}
	for _, s := range f.dns {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%s is not an ip address", s)
		}
		h.DNS = append(h.DNS, addr)
	}
	h.LogConfig = container.LogConfig{Type: f.logDriver, Config: keyValues(f.logOpt)}
	if f.logDriver == "none" && len(f.logOpt) > 0 {
		return nil, fmt.Errorf("invalid logging opts for driver %s", f.logDriver)
	}
	if len(f.storageOpt) > 0 {
		h.StorageOpt = map[string]string{}
		for _, o := range f.storageOpt {
			k, v, ok := strings.Cut(o, "=")
			if !ok {
				return nil, errors.New("invalid storage option")
			}
			h.StorageOpt[k] = v
		}
	}
	if err := f.security(h); err != nil {
		return nil, err
	}
	return h, f.resources(&h.Resources)
}

// capabilities writes capabilities as the kernel's names, sorted, without doubles; one that is both added and dropped is added.
func capabilities(add, drop []string) (added, dropped []string) {
	names := func(in, not []string) []string {
		var out []string
		for _, c := range in {
			c = strings.ToUpper(strings.TrimSpace(c))
			if c == "ALL" {
				return []string{"ALL"}
			}
			if !strings.HasPrefix(c, "CAP_") {
				c = "CAP_" + c
			}
			if !slices.Contains(out, c) && !slices.Contains(not, c) {
				out = append(out, c)
			}
		}
		slices.Sort(out)
		return out
	}
	added = names(add, nil)
	return added, names(drop, added)
}

// checkSysctl refuses what is not in a namespace of the container's own.
func checkSysctl(s string) (string, error) {
	name, _, ok := strings.Cut(s, "=")
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
	default:
		ok = ok && (strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue."))
	}
	if !ok {
		return "", fmt.Errorf("sysctl '%s' is not allowed", s)
	}
	return s, nil
}

// security sets the security options; a seccomp profile's file is read here, because the daemon may be elsewhere.
func (f *containerFlags) security(h *container.HostConfig) error {
	for _, o := range f.securityOpt {
		if o == "systempaths=unconfined" || o == "systempaths:unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		k, v, ok := strings.Cut(o, "=")
		if !ok && o != "no-new-privileges" {
			if k, v, ok = strings.Cut(o, ":"); !ok {
				return fmt.Errorf("Invalid --security-opt: %q", o) //nolint:staticcheck // docker's words
			}
		}
		if (k == "seccomp") && v != "unconfined" && v != "builtin" {
			b, err := os.ReadFile(v)
			if err != nil {
				return fmt.Errorf("opening seccomp profile (%s) failed: %w", v, err)
			}
			var out bytes.Buffer
			if err := json.Compact(&out, b); err != nil {
				return fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", v, err)
			}
			o = "seccomp=" + out.String()
		}
		h.SecurityOpt = append(h.SecurityOpt, o)
	}
	return nil
}

func (f *containerFlags) resources(r *container.Resources) error {
	swappiness, oom, pids := f.memorySwappiness, f.oomKillDisable, f.pidsLimit
	*r = container.Resources{
		CPUShares: f.cpuShares, Memory: f.memory, NanoCPUs: f.nanoCPUs, CgroupParent: f.cgroupParent, BlkioWeight: f.blkioWeight,
		CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota, CPURealtimePeriod: f.cpuRtPeriod, CPURealtimeRuntime: f.cpuRtRuntime,
		CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems, DeviceCgroupRules: f.deviceRule, DeviceRequests: f.gpus,
		MemoryReservation: f.memoryReservation, MemorySwap: f.memorySwap, MemorySwappiness: &swappiness, OomKillDisable: &oom,
		PidsLimit: &pids, Ulimits: f.ulimit, CPUCount: f.cpuCount, CPUPercent: f.cpuPercent, IOMaximumIOps: f.ioMaxIOps,
		IOMaximumBandwidth: uint64(f.ioMaxBandwidth),
	}
	for _, d := range f.blkioWeightDevice {
		w, err := parseWeightDevice(d)
		if err != nil {
			return err
		}
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, w)
	}
	for _, t := range []struct {
		in    []string
		out   *[]*blkiodev.ThrottleDevice
		parse func(string) (*blkiodev.ThrottleDevice, error)
	}{
		{f.readBps, &r.BlkioDeviceReadBps, parseBpsDevice}, {f.writeBps, &r.BlkioDeviceWriteBps, parseBpsDevice},
		{f.readIOps, &r.BlkioDeviceReadIOps, parseIOpsDevice}, {f.writeIOps, &r.BlkioDeviceWriteIOps, parseIOpsDevice},
	} {
		for _, s := range t.in {
			d, err := t.parse(s)
			if err != nil {
				return err
			}
			*t.out = append(*t.out, d)
		}
	}
	for _, s := range f.device {
		if isCDI(s) {
			r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{s}})
			continue
		}
		d, err := parseDevice(s)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, d)
	}
	return nil
}
