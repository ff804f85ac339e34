package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// containerFlags are the flags of create and run that describe the container.
type containerFlags struct {
	addHost, attach, blkioWeightDevice, capAdd, capDrop, device, deviceRule         []string
	readBps, readIOps, writeBps, writeIOps                                          []string
	dns, dnsOption, dnsSearch, env, envFile, expose, groupAdd, label, labelFile     []string
	link, linkLocalIP, logOpt, networks, networkAlias, publish, securityOpt         []string
	storageOpt, tmpfs, volume, volumesFrom                                          []string
	annotation, sysctl                                                              map[string]string
	ulimit                                                                          []*container.Ulimit
	mounts                                                                          []mount.Mount
	gpus                                                                            []container.DeviceRequest
	blkioWeight                                                                     uint16
	cgroupParent, cgroupns, cidfile, cpusetCpus, cpusetMems, domainname, entrypoint string
	healthCmd, hostname, ip, ip6, ipc, isolation, logDriver, macAddress, name, pid  string
	platform, pull, restart, runtime, stopSignal, user, userns, uts, volumeDriver   string
	workdir                                                                         string
	cpuPeriod, cpuQuota, cpuRtPeriod, cpuRtRuntime, cpuShares, nanoCPUs             int64
	cpuCount, cpuPercent, ioMaxBandwidth, kernelMemory, memory, memoryReservation   int64
	memorySwap, memorySwappiness, pidsLimit, shmSize                                int64
	ioMaxIOps                                                                       uint64
	healthInterval, healthStartInterval, healthStartPeriod, healthTimeout           time.Duration
	healthRetries, oomScoreAdj, stopTimeout                                         int
	init, interactive, noHealthcheck, oomKillDisable, privileged, publishAll        bool
	readOnly, rm, tty, useAPISocket, disableContentTrust, quiet                     bool
}

// add registers the flags. a gives the environment that --env takes bare names from.
func (f *containerFlags) add(a *app, fs *pflag.FlagSet) {
	list := func(p *[]string, name, short, usage string, check func(string) (string, error)) {
		fs.VarP(&listValue{values: p, check: check}, name, short, usage)
	}
	devices := func(p *[]string, name, usage string, check func(string) (string, error)) {
		fs.Var(&listValue{values: p, check: check, text: "[]"}, name, usage)
	}
	list(&f.addHost, "add-host", "", "Add a custom host-to-IP mapping (host:ip)", checkExtraHost)
	fs.Var(&mapValue{values: &f.annotation}, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	list(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR", checkAttach)
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	devices(&f.blkioWeightDevice, "blkio-weight-device", "Block IO weight (relative device weight)", checkWith(parseWeightDevice))
	list(&f.capAdd, "cap-add", "", "Add Linux capabilities", nil)
	list(&f.capDrop, "cap-drop", "", "Drop Linux capabilities", nil)
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)")
	fs.StringVar(&f.cidfile, "cidfile", "", "Write the container ID to the file")
	fs.Int64Var(&f.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&f.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&cpusValue{&f.nanoCPUs}, "cpus", "Number of CPUs")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	list(&f.device, "device", "", "Add a host device to the container", nil)
	list(&f.deviceRule, "device-cgroup-rule", "", "Add a rule to the cgroup allowed devices list", checkDeviceRule)
	devices(&f.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device", checkWith(parseBpsDevice))
	devices(&f.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device", checkWith(parseIOpsDevice))
	devices(&f.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device", checkWith(parseBpsDevice))
	devices(&f.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device", checkWith(parseIOpsDevice))
	fs.BoolVar(&f.disableContentTrust, "disable-content-trust", true, "Skip image verification")
	list(&f.dns, "dns", "", "Set custom DNS servers", checkIP)
	list(&f.dnsOption, "dns-opt", "", "Set DNS options", nil)
	_ = fs.MarkHidden("dns-opt")
	list(&f.dnsOption, "dns-option", "", "Set DNS options", nil)
	list(&f.dnsSearch, "dns-search", "", "Set custom DNS search domains", checkDNSSearch)
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	list(&f.env, "env", "e", "Set environment variables", checkEnv(a.lookupEnv))
	list(&f.envFile, "env-file", "", "Read in a file of environment variables", nil)
	list(&f.expose, "expose", "", "Expose a port or a range of ports", nil)
	fs.Var(&gpusValue{&f.gpus}, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	list(&f.groupAdd, "group-add", "", "Add additional groups to join", nil)
	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&f.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.Var(&bytesValue{n: &f.ioMaxBandwidth}, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	fs.Uint64Var(&f.ioMaxIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	fs.StringVar(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	fs.Var(&bytesValue{n: &f.kernelMemory}, "kernel-memory", "Kernel memory limit")
	list(&f.label, "label", "l", "Set meta data on a container", checkLabel)
	list(&f.labelFile, "label-file", "", "Read in a line delimited file of labels", nil)
	list(&f.link, "link", "", "Add link to another container", checkLink)
	list(&f.linkLocalIP, "link-local-ip", "", "Container IPv4/IPv6 link-local addresses", nil)
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	list(&f.logOpt, "log-opt", "", "Log driver options", nil)
	fs.StringVar(&f.macAddress, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.VarP(&bytesValue{n: &f.memory}, "memory", "m", "Memory limit")
	fs.Var(&bytesValue{n: &f.memoryReservation}, "memory-reservation", "Memory soft limit")
	fs.Var(&bytesValue{n: &f.memorySwap, unlimited: true}, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.memorySwappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.Var(&mountValue{&f.mounts}, "mount", "Attach a filesystem mount to the container")
	fs.StringVar(&f.name, "name", "", "Assign a name to the container")
	for _, name := range []string{"net", "network"} {
		fs.Var(&listValue{values: &f.networks, kind: "network", check: checkNetwork}, name, "Connect a container to a network")
	}
	_ = fs.MarkHidden("net")
	list(&f.networkAlias, "net-alias", "", "Add network-scoped alias for the container", nil)
	_ = fs.MarkHidden("net-alias")
	list(&f.networkAlias, "network-alias", "", "Add network-scoped alias for the container", nil)
	fs.BoolVar(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&f.platform, "platform", a.getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	list(&f.publish, "publish", "p", "Publish a container's port(s) to the host", nil)
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.StringVar(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.BoolVar(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	list(&f.securityOpt, "security-opt", "", "Security Options", nil)
	fs.Var(&bytesValue{n: &f.shmSize}, "shm-size", "Size of /dev/shm")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	list(&f.storageOpt, "storage-opt", "", "Storage driver options for the container", nil)
	fs.Var(&mapValue{values: &f.sysctl, check: checkSysctl}, "sysctl", "Sysctl options")
	list(&f.tmpfs, "tmpfs", "", "Mount a tmpfs directory", nil)
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.Var(&ulimitValue{&f.ulimit}, "ulimit", "Ulimit options")
	fs.BoolVar(&f.useAPISocket, "use-api-socket", false, "Bind mount Docker API socket and required auth")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	list(&f.volume, "volume", "v", "Bind mount a volume", nil)
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	list(&f.volumesFrom, "volumes-from", "", "Mount volumes from the specified container(s)", nil)
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
}

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

// isCDI reports whether s is a Container Device Interface name, vendor.com/class=name, and not a path.
func isCDI(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, okKind := strings.Cut(kind, "/")
	return ok && okKind && vendor != "" && class != "" && name != "" && !strings.HasPrefix(s, "/") && !strings.ContainsAny(kind, ": ")
}

// parseDevice parses /dev/host[:/dev/container][:rwm].
func parseDevice(s string) (container.DeviceMapping, error) {
	parts := strings.Split(s, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], CgroupPermissions: "rwm"}
	switch len(parts) {
	case 1:
	case 2:
		if validDeviceMode(parts[1]) {
			d.CgroupPermissions = parts[1]
		} else {
			d.PathInContainer = parts[1]
		}
	case 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
		if !validDeviceMode(d.CgroupPermissions) {
			return d, fmt.Errorf("bad mode specified: %s", d.CgroupPermissions)
		}
	default:
		return d, fmt.Errorf("bad format for path: %s", s)
	}
	if d.PathInContainer == "" {
		d.PathInContainer = d.PathOnHost
	}
	if !filepath.IsAbs(d.PathOnHost) || !filepath.IsAbs(d.PathInContainer) {
		return d, fmt.Errorf("%s is not an absolute path", s)
	}
	return d, nil
}

// validDeviceMode reports whether s has only r, w and m, each at most once.
func validDeviceMode(s string) bool {
	for _, c := range "rwm" {
		s = strings.Replace(s, string(c), "", 1)
	}
	return s == ""
}

// checkDeviceRule checks "c 1:3 rwm".
func checkDeviceRule(s string) (string, error) {
	f := strings.Fields(s)
	ok := len(f) == 3 && len(f[0]) == 1 && strings.Contains("abc", f[0]) && f[2] != "" && len(f[2]) <= 3 && strings.Trim(f[2], "rwm") == ""
	if ok {
		major, minor, cut := strings.Cut(f[1], ":")
		ok = cut
		for _, n := range []string{major, minor} {
			ok = ok && n != "" && (n == "*" || strings.Trim(n, "0123456789") == "")
		}
	}
	if !ok {
		return "", fmt.Errorf("invalid device cgroup format '%s'", s)
	}
	return s, nil
}

// checkWith makes a flag's check of a parser; the value is parsed again when it is used.
func checkWith[T any](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		_, err := parse(s)
		return s, err
	}
}

func splitDevice(s string) (path, value string, err error) {
	path, value, ok := strings.Cut(s, ":")
	if !ok || path == "" {
		return "", "", fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", s)
	}
	return path, value, nil
}

func parseWeightDevice(s string) (*blkiodev.WeightDevice, error) {
	path, value, err := splitDevice(s)
	if err != nil {
		return nil, err
	}
	w, err := strconv.ParseUint(value, 10, 16)
	if err != nil || w > 0 && (w < 10 || w > 1000) {
		return nil, fmt.Errorf("invalid weight for device: %s", s)
	}
	return &blkiodev.WeightDevice{Path: path, Weight: uint16(w)}, nil
}

func parseBpsDevice(s string) (*blkiodev.ThrottleDevice, error) {
	path, value, err := splitDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := units.RAMInBytes(value)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
	}
	return &blkiodev.ThrottleDevice{Path: path, Rate: uint64(n)}, nil
}

func parseIOpsDevice(s string) (*blkiodev.ThrottleDevice, error) {
	path, value, err := splitDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return &blkiodev.ThrottleDevice{Path: path, Rate: n}, nil
}

func checkAttach(s string) (string, error) {
	l := strings.ToLower(s)
	if l != "stdin" && l != "stdout" && l != "stderr" {
		return "", errors.New("valid streams are STDIN, STDOUT and STDERR")
	}
	return l, nil
}

func checkIP(s string) (string, error) {
	if _, err := netip.ParseAddr(strings.TrimSpace(s)); err != nil {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", s)
	}
	return strings.TrimSpace(s), nil
}

// checkExtraHost checks host:ip or host=ip and returns it as host:ip. An address may be in brackets.
func checkExtraHost(s string) (string, error) {
	host, ip, ok := strings.Cut(s, "=")
	if !ok {
		host, ip, ok = strings.Cut(s, ":")
	}
	if !ok || host == "" {
		return "", fmt.Errorf("bad format for add-host: %q", s)
	}
	if ip == "host-gateway" {
		return host + ":" + ip, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return host + ":" + ip, nil
}

// checkDNSSearch checks a domain; "." means none.
func checkDNSSearch(s string) (string, error) {
	s = strings.Trim(s, " ")
	if s == "." {
		return s, nil
	}
	bad := fmt.Errorf("%s is not a valid domain", s)
	if len(s) == 0 || len(s) > 255 {
		return "", bad
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", bad
		}
	}
	return s, nil
}

// checkLink checks name[:alias].
func checkLink(s string) (string, error) {
	if s == "" {
		return "", errors.New("empty string specified for links")
	}
	if strings.Count(s, ":") > 1 {
		return "", fmt.Errorf("bad format for links: %s", s)
	}
	return s, nil
}

// gpusValue is --gpus: all, a number, or device=..., capabilities=... as CSV.
type gpusValue struct{ requests *[]container.DeviceRequest }

func (g *gpusValue) Type() string   { return "gpu-request" }
func (g *gpusValue) String() string { return "" }

func (g *gpusValue) Set(v string) error {
	fields, err := readCSV(v)
	if err != nil {
		return err
	}
	req := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}, Options: map[string]string{}}
	for _, field := range fields {
		k, val, ok := strings.Cut(field, "=")
		if !ok {
			k, val = "count", k
		}
		switch k {
		case "driver":
			req.Driver = val
		case "count":
			if val == "all" {
				req.Count = -1
				continue
			}
			if req.Count, err = strconv.Atoi(val); err != nil {
				return fmt.Errorf(`invalid count (%s): value must be either "all" or an integer: invalid syntax`, val)
			}
		case "device":
			req.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			req.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			opts, err := readCSV(val)
			if err != nil {
				return fmt.Errorf("failed to read gpu options: %w", err)
			}
			req.Options = keyValues(opts)
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", k, field)
		}
	}
	if req.Count == 0 && req.DeviceIDs == nil {
		req.Count = 1
	}
	*g.requests = append(*g.requests, req)
	return nil
}

// networking makes the endpoints of --network and the flags that go with it, and the network mode.
func (f *containerFlags) networking() (*network.NetworkingConfig, container.NetworkMode, error) {
	var first network.EndpointSettings
	if err := f.endpointOptions(&first); err != nil {
		return nil, "", err
	}
	nets := f.networks
	if len(nets) == 0 {
		nets = []string{network.NetworkDefault}
	}
	cfg := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	var mode container.NetworkMode
	user, other := false, false
	for i, spec := range nets {
		ep := &network.EndpointSettings{}
		if i == 0 {
			ep = &first
		}
		name, err := parseNetwork(spec, ep)
		if err != nil {
			return nil, "", err
		}
		m := container.NetworkMode(name)
		if i == 0 {
			mode = m
			if m.IsUserDefined() && len(f.link) > 0 {
				ep.Links = f.link
			}
		}
		if m.IsUserDefined() {
			user = true
		} else {
			other = true
			if len(ep.Aliases) > 0 {
				return nil, "", errors.New("network-scoped aliases are only supported for user-defined networks")
			}
		}
		if user && other {
			return nil, "", errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if _, ok := cfg.EndpointsConfig[name]; ok {
			return nil, "", fmt.Errorf("network %q is specified multiple times", name)
		}
		if len(nets) == 1 && emptyEndpoint(ep) {
			break
		}
		cfg.EndpointsConfig[name] = ep
	}
	return cfg, mode, nil
}

func emptyEndpoint(e *network.EndpointSettings) bool {
	return e.IPAMConfig == nil && e.Links == nil && e.Aliases == nil && e.DriverOpts == nil && e.GwPriority == 0 && e.MacAddress == nil
}

// endpointOptions sets what --ip, --network-alias and the like say of the first network.
func (f *containerFlags) endpointOptions(ep *network.EndpointSettings) error {
	ep.Aliases = f.networkAlias
	if f.macAddress != "" {
		if err := ep.MacAddress.UnmarshalText([]byte(strings.TrimSpace(f.macAddress))); err != nil {
			return fmt.Errorf("%s is not a valid mac address", f.macAddress)
		}
	}
	if f.ip == "" && f.ip6 == "" && len(f.linkLocalIP) == 0 {
		return nil
	}
	ep.IPAMConfig = &network.EndpointIPAMConfig{}
	var err error
	if f.ip != "" {
		if ep.IPAMConfig.IPv4Address, err = netip.ParseAddr(f.ip); err != nil || !ep.IPAMConfig.IPv4Address.Is4() {
			return fmt.Errorf("invalid IPv4 address: %s", f.ip)
		}
	}
	if f.ip6 != "" {
		if ep.IPAMConfig.IPv6Address, err = netip.ParseAddr(f.ip6); err != nil || !ep.IPAMConfig.IPv6Address.Is6() {
			return fmt.Errorf("invalid IPv6 address: %s", f.ip6)
		}
	}
	for _, s := range f.linkLocalIP {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("invalid link-local IP address: %s", s)
		}
		ep.IPAMConfig.LinkLocalIPs = append(ep.IPAMConfig.LinkLocalIPs, addr)
	}
	return nil
}

// checkNetwork checks the value of --network.
func checkNetwork(s string) (string, error) {
	_, err := parseNetwork(s, &network.EndpointSettings{})
	return s, err
}

// parseNetwork parses the value of --network: a name, or name=...,alias=...,ip=... as CSV.
func parseNetwork(spec string, ep *network.EndpointSettings) (string, error) {
	if !strings.Contains(spec, "=") {
		return spec, nil
	}
	fields, err := readCSV(spec)
	if err != nil {
		return "", err
	}
	name := ""
	ipam := func() *network.EndpointIPAMConfig {
		if ep.IPAMConfig == nil {
			ep.IPAMConfig = &network.EndpointIPAMConfig{}
		}
		return ep.IPAMConfig
	}
	for _, field := range fields {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return "", fmt.Errorf("invalid key/value pair format in network options: %s", field)
		}
		v = strings.TrimSpace(v)
		var err error
		switch strings.ToLower(strings.TrimSpace(k)) {
		case "name":
			name = v
		case "alias":
			ep.Aliases = append(ep.Aliases, v)
		case "ip":
			ipam().IPv4Address, err = netip.ParseAddr(v)
		case "ip6":
			ipam().IPv6Address, err = netip.ParseAddr(v)
		case "link-local-ip":
			var addr netip.Addr
			addr, err = netip.ParseAddr(v)
			ipam().LinkLocalIPs = append(ipam().LinkLocalIPs, addr)
		case "mac-address":
			err = ep.MacAddress.UnmarshalText([]byte(v))
		case "driver-opt":
			dk, dv, ok := strings.Cut(v, "=")
			if !ok {
				return "", fmt.Errorf("invalid key value pair format in driver options")
			}
			if ep.DriverOpts == nil {
				ep.DriverOpts = map[string]string{}
			}
			ep.DriverOpts[dk] = dv
		case "gw-priority":
			ep.GwPriority, err = strconv.Atoi(v)
		default:
			return "", fmt.Errorf("invalid field key %s", k)
		}
		if err != nil {
			return "", fmt.Errorf("invalid value for %s: %s", k, v)
		}
	}
	if name == "" {
		return "", errors.New("network name/id is not specified")
	}
	return name, nil
}
