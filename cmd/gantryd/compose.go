package main

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gantry/api/docker"
	"gantry/container"
	"gantry/engine"
	"gantry/network"
	"gantry/network/ipam"
	"gantry/registry"

	api "github.com/moby/moby/api/types/container"
)

const (
	warmShims      = 2
	warmNamespaces = 4
)

// engineOptions translates the configuration, which was checked before, for the engine. shim is the shim's binary.
func (c *config) engineOptions(shim string, log *slog.Logger) engine.Options {
	o := engine.Options{
		DataRoot: c.dataRoot, ExecRoot: c.execRoot,
		ShimExe: shim, WarmShims: warmShims,
		StorageDriver: c.storageDriver, Limits: c.layerLimits,
		Network: network.Options{
			Bridge: c.bridge, BIP: prefix(c.bip), FixedCIDR: prefix(c.fixedCIDR), DefaultGateway: c.gatewayV4,
			MTU: int(c.mtu), ICC: c.icc, IPForward: c.ipForward, IPMasq: c.ipMasq, IPTables: c.iptables,
			DNS: c.dns, Pool: warmNamespaces,
		},
		Registry: c.registries(log),
		Containers: container.Options{
			InitPath: shim, LogDriver: c.logDriver, LogOptions: c.logOpts, ShmSize: c.shmSize, IPCMode: c.ipcMode, CgroupnsMode: c.cgroupNS,
			CgroupParent: c.cgroupParent, SeccompProfile: c.seccompProfile, NoNewPrivs: c.noNewPrivs, Init: c.init, DefaultRuntime: c.defaultRuntime,
			Runtimes: c.runtimePaths(), StopTimeout: int(c.stopTimeout), DNS: c.dns, DNSSearch: c.dnsSearch, DNSOptions: c.dnsOpts,
		},
		Downloads: int(c.maxDownloads), Uploads: int(c.maxUploads), ImagePolicy: c.imagePolicy, Packing: c.packing, KeepBlobs: c.keepCompressed,
		Log: log,
	}
	if !c.publishIP.IsUnspecified() {
		o.Network.HostBinding = c.publishIP
	}
	for _, name := range slices.Sorted(maps.Keys(c.ulimits)) {
		u := c.ulimits[name]
		o.Containers.Ulimits = append(o.Containers.Ulimits, &api.Ulimit{Name: u.Name, Hard: u.Hard, Soft: u.Soft})
	}
	if len(c.hostGateways) > 0 {
		o.HostGateway = c.hostGateways[0]
	}
	for _, pool := range c.pools {
		o.Network.DefaultPools = append(o.Network.DefaultPools, ipam.Pool{Base: pool.Base, Size: pool.Size})
	}
	return o
}

// runtimePaths are the runtimes' binaries by name.
func (c *config) runtimePaths() map[string]string {
	paths := map[string]string{}
	for name, r := range c.runtimes {
		if r.Path != "" {
			paths[name] = r.Path
		}
	}
	return paths
}

// registries is how registries are reached; SIGHUP may change it.
func (c *config) registries(log *slog.Logger) registry.Config {
	return registry.Config{
		Insecure: slices.Clone(c.insecure), Mirrors: slices.Clone(c.mirrors),
		CertsDirs: []string{"/etc/gantry/certs.d", "/etc/docker/certs.d"},
		UserAgent: "docker/" + version + " gantry", Attempts: int(c.maxAttempts), Log: log,
	}
}

// prefix is the parsed text; it was checked to be empty or valid.
func prefix(text string) netip.Prefix {
	p, _ := netip.ParsePrefix(text)
	return p
}

// findShim finds the shim's binary: beside our own, else in PATH.
func findShim() (string, error) {
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), "gantry-shim")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("gantry-shim")
	if err != nil {
		return "", errors.New("gantry-shim is neither beside gantryd nor in PATH: install them together")
	}
	return path, nil
}

func (c *config) minVersion() docker.Version {
	_, minor, _ := parseMinAPI(c.minAPI) // was checked
	return docker.Version(minor)
}

// settings are what /info shows of the configuration.
func (d *daemon) settings() docker.Settings {
	d.mu.Lock()
	c := d.config
	d.mu.Unlock()
	s := docker.Settings{
		Debug: c.debug, Labels: c.labels, LiveRestore: c.liveRestore, Experimental: c.experimental,
		LogDriver: c.logDriver, DefaultRuntime: c.defaultRuntime, Runtimes: map[string]docker.Runtime{},
		SeccompProfile: c.seccompProfile, NoNewPrivileges: c.noNewPrivs,
		InsecureRegistries: c.insecure, Mirrors: c.mirrors,
		HTTPProxy: masked(c.httpProxy), HTTPSProxy: masked(c.httpsProxy), NoProxy: c.noProxy,
		CgroupDriver: "cgroupfs", NetworkOptions: c.networkOpts,
		OpenTCP: c.openTCP(),
	}
	for name, r := range c.runtimes {
		s.Runtimes[name] = docker.Runtime{Path: r.Path, Args: r.Args}
	}
	for _, pool := range c.pools {
		s.DefaultAddressPools = append(s.DefaultAddressPools, docker.AddressPool{Base: pool.Base, Size: pool.Size})
	}
	return s
}

// openTCP lists the TCP addresses at which clients need no certificate.
func (c *config) openTCP() []string {
	if c.tlsVerify {
		return nil
	}
	var open []string
	for _, host := range c.hosts {
		if strings.HasPrefix(host, "tcp://") {
			open = append(open, host)
		}
	}
	return open
}
