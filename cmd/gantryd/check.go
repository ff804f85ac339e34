package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gantry/api/docker"
	"gantry/logs"
)

// check judges the merged configuration and fills what depends on other options in.
func (c *config) check(program string) error {
	levels := []string{"panic", "fatal", "error", "warn", "info", "debug", "trace"}
	if !slices.Contains(levels, strings.ToLower(c.logLevel)) {
		return fmt.Errorf("invalid logging level: %s", c.logLevel)
	}
	if c.logFormat != "text" && c.logFormat != "json" && c.logFormat != "" {
		return fmt.Errorf("invalid log format: %s", c.logFormat)
	}
	for _, n := range []struct {
		what  string
		value int64
	}{
		{"default MTU", c.mtu}, {"max concurrent downloads", c.maxDownloads}, {"max concurrent uploads", c.maxUploads},
		{"max download attempts", c.maxAttempts}, {"default stop timeout", c.stopTimeout}, {"default shm size", c.shmSize},
	} {
		if n.value < 0 {
			return fmt.Errorf("invalid %s: %d", n.what, n.value)
		}
	}
	for _, n := range []struct {
		name         string
		value, least int64
	}{
		{"max-layer-entries", c.layerLimits.Entries, 1}, {"max-layer-size", c.layerLimits.Size, 1 << 20}, {"max-layer-ratio", c.layerLimits.Ratio, 2},
		{"max-layer-memory", c.layerLimits.Memory, 128 << 20},
	} {
		if n.value < n.least {
			return fmt.Errorf("invalid %s: %d: must be at least %d", n.name, n.value, n.least)
		}
	}
	if c.oomScoreAdj < -1000 || c.oomScoreAdj > 1000 {
		return fmt.Errorf("invalid oom-score-adjust: %d: must be between -1000 and 1000", c.oomScoreAdj)
	}
	if c.ipcMode != "private" && c.ipcMode != "shareable" {
		return fmt.Errorf(`default IPC mode setting (%s) is invalid; use "shareable" or "private"`, c.ipcMode)
	}
	if c.cgroupNS != "" && c.cgroupNS != "private" && c.cgroupNS != "host" {
		return fmt.Errorf(`invalid default cgroup namespace (%s): use "host" or "private"`, c.cgroupNS)
	}
	switch c.seccompProfile {
	case "builtin", "unconfined":
	case "":
		return errors.New("invalid seccomp-profile: use \"builtin\", \"unconfined\" or the path of a profile")
	default:
		if _, err := os.Stat(c.seccompProfile); err != nil {
			return fmt.Errorf("opening seccomp profile (%s) failed: %w", c.seccompProfile, err)
		}
	}
	if err := logs.Validate(logs.Config{Driver: c.logDriver, Options: c.logOpts}); err != nil {
		return fmt.Errorf("failed to set log opts: %w", err)
	}
	if _, _, err := parseMinAPI(c.minAPI); err != nil {
		return err
	}
	// Defences that do not exist must not seem to.
	if len(c.authzPlugins) > 0 {
		return errors.New("authorization-plugins are not supported yet, and without them every request would be allowed: remove the option to start")
	}
	if c.usernsRemap != "" {
		return errors.New("userns-remap is not supported yet, and without it root in a container is root outside: remove the option to start")
	}
	if c.defaultRuntime != "runc" && c.defaultRuntime != "gantry" {
		if _, ok := c.runtimes[c.defaultRuntime]; !ok {
			return fmt.Errorf("specified default runtime '%s' does not exist", c.defaultRuntime)
		}
	}
	for name, r := range c.runtimes {
		if r.Type != "" {
			c.notes = append(c.notes, "runtime "+name+": runtimes of containerd are not supported yet")
		} else if len(r.Args) > 0 {
			c.notes = append(c.notes, "runtime "+name+": runtimeArgs are not passed on yet")
		}
	}
	if err := c.checkNetwork(); err != nil {
		return err
	}
	if err := c.uniqueLabels(); err != nil {
		return err
	}
	for what, dir := range map[string]*string{"data-root": &c.dataRoot, "exec-root": &c.execRoot} {
		if *dir == "" {
			return fmt.Errorf("invalid %s: it is empty", what)
		}
		absolute, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("invalid %s: %w", what, err)
		}
		*dir = absolute
	}
	return c.checkHosts(program)
}

func (c *config) checkNetwork() error {
	if c.bridge != "" && c.bip != "" {
		return errors.New("You specified -b & --bip, mutually exclusive options. Please specify only one") //nolint:staticcheck // docker's words
	}
	for what, text := range map[string]string{"bip": c.bip, "bip6": c.bip6, "fixed-cidr": c.fixedCIDR, "fixed-cidr-v6": c.fixedCIDRv6} {
		if text == "" {
			continue
		}
		if _, err := netip.ParsePrefix(text); err != nil {
			return fmt.Errorf("invalid %s: invalid CIDR address: %s", what, text)
		}
	}
	return nil
}

// uniqueLabels keeps one of equal labels and refuses two values of one key.
func (c *config) uniqueLabels() error {
	values := map[string]string{}
	for _, label := range c.labels {
		key, value, _ := strings.Cut(label, "=")
		if old, ok := values[key]; ok && old != value {
			return fmt.Errorf("conflict labels for %s=%s and %s=%s", key, value, key, old)
		}
		values[key] = value
	}
	c.labels = nil
	for key, value := range values {
		c.labels = append(c.labels, key+"="+value)
	}
	slices.Sort(c.labels)
	return nil
}

// checkHosts settles TLS and the sockets to listen on.
func (c *config) checkHosts(program string) error {
	given := func(name string) bool { return c.fromFlag[name] || c.fromFile[name] }
	if given("tlsverify") || c.tlsVerify { // any mention of it asks for TLS, as with docker; DOCKER_TLS_VERIFY too
		c.tls = true
	} else if c.tls {
		c.tlsVerify = true
	}
	c.hosts = slices.DeleteFunc(c.hosts, func(h string) bool { return strings.TrimSpace(h) == "" })
	if len(c.hosts) == 0 {
		c.hosts = []string{defaultHost(program, c.tls)}
	}
	for i, host := range c.hosts {
		h, err := parseHost(host, program, c.tls)
		if err != nil {
			return err
		}
		c.hosts[i] = h
		if strings.HasPrefix(h, "tcp://") && !c.tls && !given("tls") {
			return fmt.Errorf("refusing to listen on %s without TLS, because everyone who can reach it would control this machine: use --tlsverify with certificates, or --tls=false to allow it all the same", h)
		}
	}
	slices.Sort(c.hosts)
	c.hosts = slices.Compact(c.hosts)
	return nil
}

// parseHost brings a host to the form protocol://address.
func parseHost(host, program string, tls bool) (string, error) {
	host = strings.TrimSpace(host)
	proto, addr, ok := strings.Cut(host, "://")
	if !ok {
		proto, addr = "tcp", host
	}
	switch proto {
	case "unix":
		if addr == "" {
			addr = strings.TrimPrefix(defaultHost(program, false), "unix://")
		}
		return "unix://" + addr, nil
	case "fd":
		return "fd://" + addr, nil
	case "tcp":
		port := "2375"
		if tls {
			port = "2376"
		}
		if addr == "" || addr == ":" {
			return "tcp://localhost:" + port, nil
		}
		if h, p, err := net.SplitHostPort(addr); err == nil {
			if h == "" {
				h = "localhost"
			}
			if p == "" {
				p = port
			}
			if _, err := strconv.ParseUint(p, 10, 16); err != nil {
				return "", fmt.Errorf("invalid bind address (%s): invalid port %s", host, p)
			}
			return "tcp://" + net.JoinHostPort(h, p), nil
		}
		if strings.ContainsAny(addr, "/?#@") {
			return "", fmt.Errorf("invalid bind address (%s): should not contain a path element", host)
		}
		return "tcp://" + net.JoinHostPort(strings.Trim(addr, "[]"), port), nil
	default:
		return "", fmt.Errorf("invalid bind address (%s): unsupported protocol %s", host, proto)
	}
}

func checkHost(host string) error {
	_, err := parseHost(host, "", false)
	return err
}

func checkLabel(label string) error {
	key, _, ok := strings.Cut(label, "=")
	switch {
	case !ok:
		return fmt.Errorf("bad attribute format: %s", label)
	case strings.TrimSpace(key) == "":
		return fmt.Errorf("invalid label '%s': empty name", label)
	default:
		return nil
	}
}

func checkSearchDomain(domain string) error {
	domain = strings.Trim(domain, " ")
	if domain == "." || regexp.MustCompile(`^([a-zA-Z0-9_-]{1,63}\.)*[a-zA-Z0-9_-]{1,63}\.?$`).MatchString(domain) && strings.ContainsFunc(domain, func(r rune) bool { return r < '0' || r > '9' }) {
		return nil
	}
	return fmt.Errorf("%s is not a valid domain", domain)
}

func checkMirror(mirror string) error {
	u, err := url.Parse(mirror)
	switch {
	case err != nil:
		return fmt.Errorf("invalid mirror: %q is not a valid URI: %w", mirror, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("invalid mirror: no scheme specified for %q: must use either 'https://' or 'http://'", mirror)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("invalid mirror: query or fragment at end of the URI %q", mirror)
	case u.User != nil:
		return errors.New("invalid mirror: username/password not allowed in URI")
	case u.Host == "":
		return fmt.Errorf("invalid mirror: %q has no host", mirror)
	default:
		return nil
	}
}

// checkRegistry takes host, host:port or a network in CIDR notation.
func checkRegistry(registry string) error {
	if strings.HasPrefix(registry, "-") || strings.HasSuffix(registry, "-") {
		return fmt.Errorf("invalid index name (%s). Cannot begin or end with a hyphen", registry)
	}
	if strings.ContainsAny(registry, " \t") || registry == "" {
		return fmt.Errorf("insecure registry %q is not valid", registry)
	}
	return nil
}

func checkExecOpt(text string) error {
	key, value, ok := strings.Cut(text, "=")
	key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
	switch {
	case !ok || key == "" || value == "":
		return fmt.Errorf("invalid exec-opt (%s): must be formatted 'opt=value'", text)
	case key == "isolation":
		return fmt.Errorf("invalid exec-opt (%s): option 'isolation' is only supported on windows", text)
	case key != "native.cgroupdriver":
		return fmt.Errorf("invalid exec-opt (%s): unknown option: '%s'", text, key)
	case value != "cgroupfs" && value != "systemd":
		return fmt.Errorf("invalid exec-opt (%s): native.cgroupdriver option %s is not cgroupfs or systemd", text, value)
	default:
		return nil
	}
}

// parseMinAPI returns the major and minor number of the oldest API version to serve.
func parseMinAPI(text string) (major, minor int, err error) {
	majorText, minorText, _ := strings.Cut(text, ".")
	major, err1 := strconv.Atoi(majorText)
	minor, err2 := strconv.Atoi(minorText)
	switch {
	case err1 != nil || err2 != nil:
		return 0, 0, fmt.Errorf("invalid minimum API version (%s): want a number such as %s, without \"v\"", text, docker.MinVersion)
	case major != 1 || docker.Version(minor) < docker.MinVersion || docker.Version(minor) > docker.MaxVersion:
		return 0, 0, fmt.Errorf("invalid minimum API version (%s): must be between %s and %s", text, docker.MinVersion, docker.MaxVersion)
	default:
		return major, minor, nil
	}
}

// masked hides the credentials in a text that is a URL.
func masked(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return text
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}

// oneAddress is the older key of a list of addresses.
func oneAddress(p *[]netip.Addr) *value {
	var one netip.Addr
	v := address(&one)
	decode := v.decode
	v.decode = func(raw json.RawMessage) error {
		if err := decode(raw); err != nil || !one.IsValid() {
			return err
		}
		*p = []netip.Addr{one}
		return nil
	}
	return v
}

// nriOptions takes "enable=true,plugin-path=..." or an object.
func nriOptions(p *json.RawMessage) *value {
	v := object(p)
	v.kind = "nri-opts"
	v.set = func(text string) error {
		if !strings.Contains(text, "=") {
			return fmt.Errorf("invalid nri-opts: %q is no key=value pair", text)
		}
		*p = bytes.Clone([]byte(strconv.Quote(text)))
		return nil
	}
	return v
}

// certificateDefaults fills the places of certificates in that were not given: docker's, where there are files.
func (c *config) certificateDefaults(getenv func(string) string) {
	dir := getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = getenv("DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(getenv("HOME"), ".docker")
	}
	for name, p := range map[string]*string{"ca.pem": &c.tlsCACert, "cert.pem": &c.tlsCert, "key.pem": &c.tlsKey} {
		if *p != "" {
			continue
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			*p = path
		}
	}
}
