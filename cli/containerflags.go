package cli

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
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
