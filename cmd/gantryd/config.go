package main

import (
	"encoding/json"
	"net/netip"

	"gantry/archive"
)

// config is all that the daemon can be told, by flags and by daemon.json. Options without a field are accepted, so that
// what starts dockerd can start us, and have no effect (see options).
type config struct {
	configFile string
	validate   bool
	version    bool

	hosts       []string
	group       string
	tls         bool
	tlsVerify   bool
	tlsCACert   string
	tlsCert     string
	tlsKey      string
	pidfile     string
	dataRoot    string
	execRoot    string
	oomScoreAdj int64

	debug     bool
	logLevel  string
	logFormat string

	labels       []string
	features     map[string]bool
	experimental bool
	minAPI       string

	liveRestore     bool
	shutdownTimeout int64 // seconds; negative waits for ever
	stopTimeout     int64 // seconds

	storageDriver string

	bridge       string
	bip          string
	bip6         string
	fixedCIDR    string
	fixedCIDRv6  string
	gatewayV4    netip.Addr
	publishIP    netip.Addr
	mtu          int64
	icc          bool
	ipForward    bool
	ipMasq       bool
	iptables     bool
	pools        []addressPool
	networkOpts  map[string]map[string]string
	dns          []netip.Addr
	dnsOpts      []string
	dnsSearch    []string
	hostGateways []netip.Addr

	mirrors        []string
	insecure       []string
	maxDownloads   int64
	maxUploads     int64
	maxAttempts    int64
	imagePolicy    string
	packing        archive.Packing
	keepCompressed bool
	layerLimits    archive.Limits
	httpProxy      string
	httpsProxy     string
	noProxy        string
	logDriver      string
	logOpts        map[string]string
	ulimits        map[string]ulimit
	shmSize        int64 // bytes
	init           bool
	seccompProfile string
	noNewPrivs     bool
	ipcMode        string
	cgroupNS       string
	cgroupParent   string
	usernsRemap    string
	runtimes       map[string]runtimeConfig
	defaultRuntime string
	authzPlugins   []string

	fromFlag map[string]bool // the flags that were given, by name
	fromFile map[string]bool // the keys that daemon.json has
	notes    []string        // what to log: options without effect, by the name they were given
}

// addressPool is a range of which networks get subnets of the given size (prefix length).
type addressPool struct {
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"`
}

// ulimit is a default resource limit of containers.
type ulimit struct {
	Name string `json:"Name"`
	Hard int64  `json:"Hard"`
	Soft int64  `json:"Soft"`
}

// runtimeConfig is an OCI runtime that containers may ask for by name.
type runtimeConfig struct {
	Path    string          `json:"path,omitempty"`
	Args    []string        `json:"runtimeArgs,omitempty"`
	Type    string          `json:"runtimeType,omitempty"`
	Options json.RawMessage `json:"options,omitempty"`
}

// newConfig returns the defaults of a daemon that was started by the given name: as "dockerd" it listens where Docker's
// clients look and reads Docker's configuration file, but its data stays apart from Docker's.
func newConfig(program string) *config {
	c := &config{
		configFile: "/etc/gantry/daemon.json",
		pidfile:    "/run/gantry.pid",
		dataRoot:   "/var/lib/gantry",
		execRoot:   "/run/gantry",
		logLevel:   "info", logFormat: "text",
		features:    map[string]bool{},
		minAPI:      "1.24",
		liveRestore: true, shutdownTimeout: 15, stopTimeout: 10,
		publishIP: netip.IPv4Unspecified(),
		mtu:       1500,
		icc:       true, ipForward: true, ipMasq: true, iptables: true,
		networkOpts:  map[string]map[string]string{},
		maxDownloads: 3, maxUploads: 5, maxAttempts: 5,
		layerLimits: archive.DefaultLimits(),
		logDriver:   "json-file", logOpts: map[string]string{},
		ulimits: map[string]ulimit{}, shmSize: 64 << 20,
		seccompProfile: "builtin",
		ipcMode:        "private",
		runtimes:       map[string]runtimeConfig{},
		defaultRuntime: "runc",
		fromFlag:       map[string]bool{},
		fromFile:       map[string]bool{},
	}
	if program == "dockerd" {
		c.configFile, c.pidfile = "/etc/docker/daemon.json", "/var/run/docker.pid"
	}
	return c
}

// defaultHost is where a daemon of the given name listens when it is told nothing.
func defaultHost(program string, tls bool) string {
	switch {
	case tls:
		return "tcp://localhost:2376"
	case program == "dockerd":
		return "unix:///var/run/docker.sock"
	default:
		return "unix:///run/gantry.sock"
	}
}
