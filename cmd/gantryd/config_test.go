package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gantry/archive"

	"github.com/spf13/pflag"
)

func none(string) string { return "" }

// loadFile loads a configuration from the text of a daemon.json and flags.
func loadFile(t *testing.T, text string, args ...string) (*config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return load("gantryd", append([]string{"--config-file", path}, args...), none, io.Discard)
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		args []string
		want string
	}{
		"unknown flag":      {args: []string{"--nope"}, want: "unknown flag: --nope\nSee 'gantryd --help'."},
		"argument":          {args: []string{"run"}, want: "\"gantryd\" accepts no arguments."},
		"unknown keys":      {file: `{"foo":1,"debug":true,"bar":2}`, want: "the following directives don't match any configuration option: bar, foo"},
		"singular of a key": {file: `{"label":["a=b"]}`, want: "don't match any configuration option: label"},
		"flag and file":     {file: `{"debug":true}`, args: []string{"-D"}, want: "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		"hosts twice":       {file: `{"hosts":["unix:///a"]}`, args: []string{"-H", "unix:///b"}, want: "hosts: (from flag: [unix:///b], from file: [unix:///a])"},
		"proxy credentials": {file: `{"proxies":{"http-proxy":"http://u:p@h"}}`, args: []string{"--http-proxy", "http://a:b@c"}, want: "(from flag: http://xxxxx:xxxxx@c, from file: http://xxxxx:xxxxx@h)"},
		"wrong type":        {file: `{"debug":"yes"}`, want: "debug: must be true or false"},
		"wrong list":        {file: `{"dns":"1.1.1.1"}`, want: "dns: must be an array of strings"},
		"null":              {file: `{"debug":null}`, want: "debug: must be true or false"},
		"key twice":         {file: `{"debug":true,"debug":false}`, want: `the key "debug" is there twice`},
		"no object":         {file: `[]`, want: "invalid JSON: an object is wanted"},
		"cut off":           {file: `{"debug":true`, want: "invalid JSON: unexpected end"},
		"two objects":       {file: `{}{}`, want: "there is more after the object"},
		"no UTF-8":          {file: "{\"labels\":[\"a=\xff\"]}", want: "it is not UTF-8"},
		"level":             {file: `{"log-level":"loud"}`, want: "invalid logging level: loud"},
		"mirror's password": {args: []string{"--registry-mirror", "https://u:pw@h"}, want: "invalid argument for \"--registry-mirror\" flag: invalid mirror: username/password not allowed"},
		"mirror":            {file: `{"registry-mirrors":["hub"]}`, want: "invalid mirror: no scheme specified"},
		"labels":            {file: `{"labels":["a=1","a=2"]}`, want: "conflict labels for a=2 and a=1"},
		"label":             {args: []string{"--label", "x"}, want: "bad attribute format: x"},
		"address":           {args: []string{"--dns", "one"}, want: "IP address is not correctly formatted: one"},
		"pool":              {args: []string{"--default-address-pool", "base=10.0.0.0/8,size=4"}, want: "invalid default-address-pool"},
		"ulimit":            {args: []string{"--default-ulimit", "nofile=9:3"}, want: "ulimit soft limit must be less than or equal to hard limit"},
		"bridge and bip":    {args: []string{"-b", "x", "--bip", "10.0.0.1/8"}, want: "You specified -b & --bip, mutually exclusive options."},
		"bip":               {args: []string{"--bip", "10.0.0.1"}, want: "invalid CIDR address: 10.0.0.1"},
		"runtime":           {args: []string{"--default-runtime", "crun"}, want: "specified default runtime 'crun' does not exist"},
		"open TCP":          {args: []string{"-H", "tcp://0.0.0.0:2375"}, want: "refusing to listen on tcp://0.0.0.0:2375 without TLS"},
		"TCP by default":    {args: []string{"-H", ":2375"}, want: "refusing to listen on tcp://localhost:2375 without TLS"},
		"protocol":          {args: []string{"-H", "npipe://x"}, want: "unsupported protocol npipe"},
		"authorization":     {file: `{"authorization-plugins":["opa"]}`, want: "authorization-plugins are not supported yet"},
		"user namespace":    {args: []string{"--userns-remap", "default"}, want: "userns-remap is not supported yet"},
		"API version":       {file: `{"min-api-version":"1.12"}`, want: "must be between 1.24 and"},
		"size":              {file: `{"default-shm-size":"64x"}`, want: "invalid suffix: 'x'"},
		"layer limit":       {file: `{"max-layer-memory":"1m"}`, want: "invalid max-layer-memory: 1048576: must be at least 134217728"},
		"exec option":       {args: []string{"--exec-opt", "a=b"}, want: "unknown option: 'a'"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadFile(t, c.file, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// all has every key of dockerd 28's daemon.json.
const all = `{
	"allow-direct-routing": true, "allow-nondistributable-artifacts": [], "api-cors-header": "", "authorization-plugins": [],
	"bip": "", "bip6": "", "bridge": "br1", "bridge-accept-fwmark": "1/2", "builder": {"gc": {"enabled": true, "defaultKeepStorage": "10GB"}},
	"cdi-spec-dirs": ["/etc/cdi"], "cgroup-parent": "p", "containerd": "/run/c.sock", "containerd-namespace": "a", "containerd-plugins-namespace": "b",
	"cpu-rt-period": 0, "cpu-rt-runtime": 0, "cri-containerd": false, "data-root": "/d", "debug": true,
	"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}], "default-cgroupns-mode": "private", "default-gateway": "10.0.0.1",
	"default-gateway-v6": "fd00::1", "default-ipc-mode": "shareable", "default-network-opts": {"overlay": {"com.docker.network.driver.mtu": "1337"}},
	"default-runtime": "runc", "default-shm-size": "64M", "default-stop-timeout": 10, "default-ulimits": {"nofile": {"Hard": 64000, "Name": "nofile", "Soft": 64000}},
	"dns": ["1.1.1.1"], "dns-opts": ["ndots:1"], "dns-search": ["example.com"], "exec-opts": ["native.cgroupdriver=cgroupfs"], "exec-root": "/e",
	"experimental": false, "features": {"cdi": true, "containerd-snapshotter": true}, "firewall-backend": "", "fixed-cidr": "10.0.0.0/16", "fixed-cidr-v6": "",
	"group": "g", "host-gateway-ips": ["10.0.0.2"], "hosts": ["unix:///x.sock"], "icc": false, "init": true, "init-path": "/i", "insecure-registries": ["r:5000", "10.0.0.0/8"],
	"ip": "127.0.0.1", "ip-forward": false, "ip-forward-no-drop": true, "ip-masq": false, "ip6tables": false, "iptables": false, "ipv6": false,
	"keep-compressed": true, "labels": ["a=b"], "live-restore": false, "log-driver": "local", "log-format": "json", "log-level": "warn", "log-opts": {"max-size": "1m"},
	"max-concurrent-downloads": 1, "max-concurrent-uploads": 2, "max-download-attempts": 3, "max-layer-entries": 1000, "max-layer-memory": "1g", "max-layer-ratio": 100, "max-layer-size": "10g", "metrics-addr": "127.0.0.1:9323", "min-api-version": "1.30", "mtu": 1400,
	"network-control-plane-mtu": 1500, "network-diagnostic-port": 0, "no-new-privileges": true, "node-generic-resources": ["A=1"], "nri-opts": {"enable": false}, "pidfile": "/p",
	"push-compression": "zstd:9", "proxies": {"http-proxy": "http://a:80", "https-proxy": "http://b:80", "no-proxy": "c"}, "raw-logs": true, "registry-mirrors": ["https://m"], "rootless": false,
	"runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}, "w": {"runtimeType": "io.containerd.w", "options": {"a": 1}}},
	"seccomp-profile": "unconfined", "selinux-enabled": false, "shutdown-timeout": 20, "storage-driver": "overlay2", "storage-opts": ["a=b"],
	"swarm-default-advertise-addr": "", "tls": true, "tlscacert": "/ca", "tlscert": "/c", "tlskey": "/k", "tlsverify": true,
	"userland-proxy": false, "userland-proxy-path": "/p", "userns-remap": ""
}`

func TestEveryKey(t *testing.T) {
	c, err := loadFile(t, all)
	if err != nil {
		t.Fatal(err)
	}
	if !c.debug || !c.keepCompressed || c.dataRoot != "/d" || c.shmSize != 64<<20 || len(c.pools) != 1 || c.icc || c.liveRestore || c.noProxy != "c" ||
		c.runtimes["crun"].Path != "/usr/bin/crun" || c.ulimits["nofile"].Hard != 64000 || !slices.Equal(c.hosts, []string{"unix:///x.sock"}) ||
		c.minVersion() != 30 || c.logOpts["max-size"] != "1m" ||
		c.packing != (archive.Packing{Kind: archive.Zstd, Level: 9}) || c.layerLimits != (archive.Limits{Entries: 1000, Size: 10 << 30, Ratio: 100, Memory: 1 << 30}) {
		t.Errorf("got %+v", c)
	}
	if !slices.Contains(c.notes, "containerd: "+noContainerd) {
		t.Errorf("notes %q", c.notes)
	}
}

func TestFlags(t *testing.T) {
	c, err := load("dockerd", []string{
		"--config-file", "/dev/null", "-D", "-H", "unix:///a", "--host=fd://", "--containerd=/run/containerd/containerd.sock",
		"--live-restore=false", "--log-opt", "max-size=1m", "--insecure-registry", "r:5000", "--default-shm-size", "1g", "--add-runtime", "crun=/usr/bin/crun",
		"--userland-proxy=false", "--storage-driver", "overlay2", "--oom-score-adjust", "-500", "--iptables=0",
	}, none, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.liveRestore || c.iptables || c.shmSize != 1<<30 || c.oomScoreAdj != -500 || c.pidfile != "/var/run/docker.pid" || !slices.Equal(c.hosts, []string{"fd://", "unix:///a"}) {
		t.Errorf("got %+v", c)
	}
	if want := []string{"--containerd: " + noContainerd, "--userland-proxy: " + noProxy}; !slices.Equal(c.notes, want) {
		t.Errorf("notes %q, want %q", c.notes, want)
	}
}

func TestDefaultHosts(t *testing.T) {
	for program, want := range map[string]string{"gantryd": "unix:///run/gantry.sock", "dockerd": "unix:///var/run/docker.sock"} {
		c, err := load(program, []string{"--config-file="}, none, io.Discard)
		if err != nil || !slices.Equal(c.hosts, []string{want}) {
			t.Errorf("%s: %v, %v", program, c, err)
		}
	}
	c, err := load("gantryd", []string{"--config-file=", "--tlsverify"}, none, io.Discard)
	if err != nil || !slices.Equal(c.hosts, []string{"tcp://localhost:2376"}) || !c.tls {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := load("gantryd", []string{"--help"}, none, io.Discard); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}

func TestByteOrderMarks(t *testing.T) {
	for _, text := range []string{"\xef\xbb\xbf{\"debug\":true}", "\xff\xfe{\x00}\x00", "\xfe\xff\x00{\x00}", " \n"} {
		if _, err := loadFile(t, text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPidfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "pid")
	for _, old := range []string{"", "garbage", "999999999", "1"} { // 1 is no daemon of ours
		if old != "" {
			if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := writePidfile(path); err != nil {
			t.Errorf("over %q: %v", old, err)
		}
	}
	other := exec.CommandContext(t.Context(), os.Args[0])
	other.Env = append(os.Environ(), "GANTRY_TEST_WAIT=1")
	stdin, err := other.StdinPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(other.Process.Pid)
	if err := os.WriteFile(path, []byte(pid+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writePidfile(path); err == nil || !strings.Contains(err.Error(), "process with PID "+pid+" is still running") {
		t.Errorf("over a living one: %v", err)
	}
	_ = stdin.Close() // lets it end
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	if err := writePidfile(path); err != nil {
		t.Errorf("over one that ended: %v", err)
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(all))
	f.Add([]byte(`{"proxies":{"proxies":{"proxies":{}}}}`))
	f.Add([]byte("\xff\xfe{\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newConfig("gantryd")
		if err := c.applyFile(data, c.options()); err == nil {
			_ = c.check("gantryd")
		}
	})
}

func FuzzFlags(f *testing.F) {
	f.Add("--default-address-pool", "base=10.0.0.0/8,size=24")
	f.Add("--default-ulimit", "nofile=1:2")
	f.Add("-H", "tcp://[::1]:0")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a, "config-file") || strings.Contains(b, "config-file") {
			return
		}
		_, _ = load("gantryd", []string{"--config-file=", a, b}, none, io.Discard)
	})
}
