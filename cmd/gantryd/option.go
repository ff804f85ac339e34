package main

import (
	"encoding/json"
	"net/netip"
)

// option is one setting: a flag, a key of daemon.json, or both.
type option struct {
	flag   string // "" for one that only daemon.json has
	short  string
	key    string // in daemon.json; "" for one that only a flag has
	usage  string
	value  *value
	effect string // why the option has no effect; "" for those that have one
	hidden bool   // not shown by --help: docker's deprecated ones
}

// both returns an option whose flag and key have one name.
func both(name, usage string, v *value) option {
	return option{flag: name, key: name, usage: usage, value: v}
}

// named returns an option whose key in daemon.json is another, as docker's plurals are.
func named(flag, key, usage string, v *value) option {
	return option{flag: flag, key: key, usage: usage, value: v}
}

func (o option) shortened(letter string) option { o.short = letter; return o }

// idle marks an option that is accepted for dockerd's sake.
func (o option) idle(why string) option { o.effect = why; return o }

func (o option) hide() option { o.hidden = true; return o }

// Why options of dockerd have no effect here.
const (
	noContainerd = "there is no containerd"
	noSwarm      = "there is no swarm mode"
	noProxy      = "published ports never go through a proxy process"
	noIPv6       = "the default bridge has no IPv6 yet; user-defined networks may"
	notYet       = "not supported yet"
)

// options lists every option of dockerd 28, dockerd 20.10's that tools still use, and ours, with c as their target.
func (c *config) options() []option {
	// Options without effect share a target of their type: they are only checked.
	var sink struct {
		text    string
		flag    bool
		number  int64
		list    []string
		address netip.Addr
		object  json.RawMessage
	}
	return []option{
		{flag: "config-file", usage: "Daemon configuration file", value: text(&c.configFile)},
		{flag: "validate", usage: "Validate daemon configuration and exit", value: boolean(&c.validate)},
		{flag: "version", short: "v", usage: "Print version information and quit", value: boolean(&c.version)},

		// Where the API is.
		named("host", "hosts", "Daemon socket(s) to connect to", list(&c.hosts, checkHost)).shortened("H"),
		both("group", "Group for the unix socket (default: docker or gantry, whichever exists)", text(&c.group)).shortened("G"),
		both("tls", "Use TLS; implied by --tlsverify. --tls=false allows TCP without TLS: everyone who can reach the port controls the machine", boolean(&c.tls)),
		both("tlsverify", "Use TLS and verify the remote", boolean(&c.tlsVerify)),
		both("tlscacert", "Trust certs signed only by this CA", text(&c.tlsCACert)),
		both("tlscert", "Path to TLS certificate file", text(&c.tlsCert)),
		both("tlskey", "Path to TLS key file", text(&c.tlsKey)),
		{key: "min-api-version", value: text(&c.minAPI)},
		both("api-cors-header", "Set CORS headers in the Engine API", text(&sink.text)).idle("the API sends no CORS headers").hide(),

		// The process.
		both("pidfile", "Path to use for daemon PID file", text(&c.pidfile)).shortened("p"),
		both("data-root", "Root directory of persistent state", text(&c.dataRoot)),
		both("exec-root", "Root directory for execution state files", text(&c.execRoot)),
		both("oom-score-adjust", "Set the oom_score_adj for the daemon", number(&c.oomScoreAdj)),
		both("debug", "Enable debug mode", boolean(&c.debug)).shortened("D"),
		both("log-level", `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`, text(&c.logLevel)).shortened("l"),
		both("log-format", `Set the logging format ("text"|"json")`, text(&c.logFormat)),
		both("raw-logs", "Full timestamps without ANSI coloring", boolean(&sink.flag)).idle("logs are always raw"),
		named("label", "labels", "Set key=value labels to the daemon", list(&c.labels, checkLabel)),
		named("feature", "features", "Enable feature in the daemon", switches(&c.features)),
		both("experimental", "Enable experimental features", boolean(&c.experimental)),
		both("metrics-addr", "Set default address and port to serve the metrics api on", text(&sink.text)).idle(notYet),
		both("live-restore", "Keep containers running while the daemon is down", boolean(&c.liveRestore)),
		both("shutdown-timeout", "Set the default shutdown timeout", number(&c.shutdownTimeout)),
		both("default-stop-timeout", "Set the default container stop timeout in seconds (0 to terminate immediately)", number(&c.stopTimeout)),
		both("rootless", "Enable rootless mode", boolean(&sink.flag)).idle(notYet),
		both("restart", "Restart containers; use restart policies", boolean(&sink.flag)).shortened("r").idle("restart policies decide").hide(),

		// Storage.
		both("storage-driver", "Storage driver to use", text(&c.storageDriver)).shortened("s"),
		named("storage-opt", "storage-opts", "Storage driver options", list(&sink.list, nil)).idle("storage drivers have no options here"),

		// Network.
		both("bridge", "Attach containers to a network bridge", text(&c.bridge)).shortened("b"),
		both("bip", "IPv4 address for the default bridge", text(&c.bip)),
		both("bip6", "IPv6 address for the default bridge", text(&c.bip6)).idle(noIPv6),
		both("fixed-cidr", "IPv4 subnet for the default bridge network", text(&c.fixedCIDR)),
		both("fixed-cidr-v6", "IPv6 subnet for the default bridge network", text(&c.fixedCIDRv6)).idle(noIPv6),
		both("default-gateway", "Default gateway IPv4 address for the default bridge network", address(&c.gatewayV4)),
		both("default-gateway-v6", "Default gateway IPv6 address for the default bridge network", address(&sink.address)).idle(noIPv6),
		both("ip", "Host IP for port publishing from the default bridge network", address(&c.publishIP)),
		both("mtu", `Set the MTU for the default "bridge" network`, number(&c.mtu)),
		both("icc", "Enable inter-container communication for the default bridge network", boolean(&c.icc)),
		both("ip-forward", "Enable IP forwarding in system configuration", boolean(&c.ipForward)),
		both("ip-forward-no-drop", "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding", boolean(&sink.flag)).idle("the FORWARD policy is never changed"),
		both("ip-masq", "Enable IP masquerading for the default bridge network", boolean(&c.ipMasq)),
		both("ipv6", "Enable IPv6 networking for the default bridge network", boolean(&sink.flag)).idle(noIPv6),
		both("iptables", "Enable addition of firewall rules (ours are nftables)", boolean(&c.iptables)),
		both("ip6tables", "Enable addition of IPv6 firewall rules", boolean(&sink.flag)).idle("IPv6 rules are kept with the others: see iptables"),
		both("firewall-backend", "Firewall backend to use, iptables or nftables", text(&sink.text)).idle("the firewall is always nftables"),
		both("bridge-accept-fwmark", "In bridge networks, accept packets with this firewall mark/mask", text(&sink.text)).idle(notYet),
		both("allow-direct-routing", "Allow remote access to published ports on container IP addresses", boolean(&sink.flag)).idle(notYet),
		both("userland-proxy", "Use userland proxy for loopback traffic", boolean(&sink.flag)).idle(noProxy),
		both("userland-proxy-path", "Path to the userland proxy binary", text(&sink.text)).idle(noProxy),
		named("default-address-pool", "default-address-pools", "Default address pools for node specific local networks", addressPools(&c.pools)),
		named("default-network-opt", "default-network-opts", "Default network options", optionsByDriver(&c.networkOpts)),
		both("network-control-plane-mtu", "Network Control plane MTU", number(&sink.number)).idle(noSwarm),
		both("network-diagnostic-port", "TCP port number of the network diagnostic server", number(&sink.number)).idle(noSwarm).hide(),
		both("dns", "DNS server to use", addresses(&c.dns)),
		named("dns-opt", "dns-opts", "DNS options to use", list(&c.dnsOpts, nil)),
		both("dns-search", "DNS search domains to use", list(&c.dnsSearch, checkSearchDomain)),
		named("host-gateway-ip", "host-gateway-ips", "IP addresses that the special 'host-gateway' string in --add-host resolves to", addresses(&c.hostGateways)),
		{key: "host-gateway-ip", value: oneAddress(&c.hostGateways)},

		// Images.
		named("registry-mirror", "registry-mirrors", "Preferred registry mirror", list(&c.mirrors, checkMirror)),
		named("insecure-registry", "insecure-registries", "Enable insecure registry communication", list(&c.insecure, checkRegistry)),
		both("max-concurrent-downloads", "Set the max concurrent downloads", number(&c.maxDownloads)),
		both("max-concurrent-uploads", "Set the max concurrent uploads", number(&c.maxUploads)),
		both("max-download-attempts", "Set the max download attempts for each pull", number(&c.maxAttempts)),
		both("push-compression", "How a push compresses layers that are not compressed: gzip or zstd, with or without a level (zstd:9)", packing(&c.packing)),
		both("image-policy", "File that says which images may be used, by their signatures (containers-policy.json)", text(&c.imagePolicy)),
		both("keep-compressed", "Keep the compressed layers of images beside the unpacked ones, instead of what is needed to make them anew", boolean(&c.keepCompressed)),
		both("max-layer-entries", "Refuse image layers with more files and folders than this", number(&c.layerLimits.Entries)),
		both("max-layer-size", "Refuse image layers with more bytes than this when unpacked, holes included", size(&c.layerLimits.Size)),
		both("max-layer-ratio", "Refuse image layers beyond 1 GiB that grow to more than this many times their compressed size", number(&c.layerLimits.Ratio)),
		both("max-layer-memory", "Memory that the unpacking of one image layer may take", size(&c.layerLimits.Memory)),
		both("http-proxy", "HTTP proxy URL to use for outgoing traffic", text(&c.httpProxy)),
		both("https-proxy", "HTTPS proxy URL to use for outgoing traffic", text(&c.httpsProxy)),
		both("no-proxy", "Comma-separated list of hosts or IP addresses for which the proxy is skipped", text(&c.noProxy)),
		both("allow-nondistributable-artifacts", "Allow push of nondistributable artifacts to registry", list(&sink.list, nil)).idle("deprecated").hide(),
		{key: "deprecated-key-path", value: text(&sink.text), effect: "deprecated"},
		{key: "builder", value: object(&sink.object), effect: "the cache of builds is images: image prune empties it"},

		// Containers.
		both("log-driver", "Default driver for container logs", text(&c.logDriver)),
		named("log-opt", "log-opts", "Default log driver options for containers", mapping(&c.logOpts)),
		named("default-ulimit", "default-ulimits", "Default ulimits for containers", ulimits(&c.ulimits)),
		both("default-shm-size", "Default shm size for containers", size(&c.shmSize)),
		both("default-ipc-mode", `Default mode for containers ipc ("shareable" | "private")`, text(&c.ipcMode)),
		both("default-cgroupns-mode", `Default mode for containers cgroup namespace ("host" | "private")`, text(&c.cgroupNS)),
		both("cgroup-parent", "Set parent cgroup for all containers", text(&c.cgroupParent)),
		both("init", "Run an init in the container to forward signals and reap processes", boolean(&c.init)),
		both("init-path", "Path to the docker-init binary", text(&sink.text)).idle("the init is built in"),
		both("seccomp-profile", `Path to seccomp profile. Set to "unconfined" to disable the default seccomp profile`, text(&c.seccompProfile)),
		both("no-new-privileges", "Set no-new-privileges by default for new containers", boolean(&c.noNewPrivs)),
		both("selinux-enabled", "Enable selinux support", boolean(&sink.flag)).idle(notYet),
		both("userns-remap", "User/Group setting for user namespaces", text(&c.usernsRemap)),
		both("cpu-rt-period", "Limit the CPU real-time period in microseconds for the parent cgroup", number(&sink.number)).idle(notYet),
		both("cpu-rt-runtime", "Limit the CPU real-time runtime in microseconds for the parent cgroup", number(&sink.number)).idle(notYet),
		named("exec-opt", "exec-opts", "Runtime execution options", list(&sink.list, checkExecOpt)).idle("cgroups are made without systemd's help (cgroupfs)"),
		named("add-runtime", "runtimes", "Register an additional OCI compatible runtime", runtimes(&c.runtimes)),
		both("default-runtime", "Default OCI runtime for containers", text(&c.defaultRuntime)),
		named("cdi-spec-dir", "cdi-spec-dirs", "CDI specification directories to use", list(&sink.list, nil)).idle(notYet),
		both("nri-opts", "Node Resource Interface configuration", nriOptions(&sink.object)).idle(notYet),

		// What belongs to parts that are not here.
		both("containerd", "containerd grpc address", text(&sink.text)).idle(noContainerd),
		both("containerd-namespace", "Containerd namespace to use", text(&sink.text)).idle(noContainerd),
		both("containerd-plugins-namespace", "Containerd namespace to use for plugins", text(&sink.text)).idle(noContainerd),
		{key: "containerd-plugin-namespace", value: text(&sink.text), effect: noContainerd},
		both("cri-containerd", "start containerd with cri", boolean(&sink.flag)).idle(noContainerd),
		both("swarm-default-advertise-addr", "Set default address or interface for swarm advertised address", text(&sink.text)).idle(noSwarm),
		named("node-generic-resource", "node-generic-resources", "Advertise user-defined resource", list(&sink.list, nil)).idle(noSwarm),
		named("authorization-plugin", "authorization-plugins", "Authorization plugins to load", list(&c.authzPlugins, nil)),
	}
}
