package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

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
