package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// ports sets the ports that --publish and --expose name.
func (f *containerFlags) ports(c *container.Config, h *container.HostConfig) error {
	c.ExposedPorts, h.PortBindings = network.PortSet{}, network.PortMap{}
	for _, spec := range f.publish {
		short, err := shortPort(spec)
		if err != nil {
			return err
		}
		maps, err := parsePublish(short)
		if err != nil {
			return err
		}
		for _, m := range maps {
			c.ExposedPorts[m.port] = struct{}{}
			h.PortBindings[m.port] = append(h.PortBindings[m.port], m.binding)
		}
	}
	for _, e := range f.expose {
		if strings.Contains(e, ":") {
			return fmt.Errorf("invalid port format for --expose: %s", e)
		}
		ports, proto, _ := strings.Cut(e, "/")
		start, end, err := portRange(ports)
		if err != nil {
			return fmt.Errorf("invalid range format for --expose: %s, error: %w", e, err)
		}
		for n := start; n <= end; n++ {
			p, ok := network.PortFrom(uint16(n), network.IPProtocol(strings.ToLower(cmp.Or(proto, "tcp"))))
			if !ok {
				return fmt.Errorf("invalid port format for --expose: %s", e)
			}
			c.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

// shortPort turns the long form of --publish, target=80,published=8080, into the short one.
func shortPort(spec string) (string, error) {
	if !strings.Contains(spec, "=") {
		return spec, nil
	}
	var target, published, proto string
	for _, field := range strings.Split(spec, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok || k == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", field)
		}
		switch k {
		case "target":
			target = v
		case "published":
			published = v
		case "protocol":
			proto = v
		case "mode":
		default:
			return "", fmt.Errorf("invalid publish option: %s", k)
		}
	}
	if proto == "" {
		proto = "tcp"
	}
	return fmt.Sprintf("%s:%s/%s", published, target, proto), nil
}

// portMapping is one published port.
type portMapping struct {
	port    network.Port
	binding network.PortBinding
}

// parsePublish parses [[ip:]hostPort:]containerPort[/proto], where ports may be ranges.
func parsePublish(spec string) ([]portMapping, error) {
	rest, proto, hasProto := strings.Cut(spec, "/")
	if !hasProto || proto == "" {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	ip, hostPort, ctrPort := splitPublish(rest)
	if ctrPort == "" {
		return nil, fmt.Errorf("no port specified: %s<empty>", spec)
	}
	var addr netip.Addr
	if ip != "" {
		if ip[0] == '[' {
			ip = strings.TrimSuffix(ip[1:], "]")
		}
		var err error
		if addr, err = netip.ParseAddr(ip); err != nil {
			return nil, fmt.Errorf("invalid IP address: %s", ip)
		}
	}
	start, end, err := portRange(ctrPort)
	if err != nil {
		return nil, errors.New("invalid containerPort: " + ctrPort)
	}
	var hostStart, hostEnd uint64
	if hostPort != "" {
		if hostStart, hostEnd, err = portRange(hostPort); err != nil {
			return nil, errors.New("invalid hostPort: " + hostPort)
		}
		// A range of host ports for one of the container means any of them.
		if end-start != hostEnd-hostStart && end != start {
			return nil, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", ctrPort, hostPort)
		}
	}
	switch proto {
	case "tcp", "udp", "sctp":
	default:
		return nil, errors.New("invalid proto: " + proto)
	}
	var out []portMapping
	for i := range end - start + 1 {
		p, ok := network.PortFrom(uint16(start+i), network.IPProtocol(proto))
		if !ok {
			return nil, errors.New("invalid containerPort: " + ctrPort)
		}
		m := portMapping{port: p, binding: network.PortBinding{HostIP: addr}}
		switch {
		case hostPort == "":
		case end == start && hostStart != hostEnd:
			m.binding.HostPort = fmt.Sprintf("%d-%d", hostStart, hostEnd)
		default:
			m.binding.HostPort = strconv.FormatUint(hostStart+i, 10)
		}
		out = append(out, m)
	}
	return out, nil
}

// splitPublish splits ip:host:container; an IPv6 address has colons of its own and is in brackets.
func splitPublish(s string) (ip, host, ctr string) {
	parts := strings.Split(s, ":")
	switch n := len(parts); n {
	case 1:
		return "", "", parts[0]
	case 2:
		return "", parts[0], parts[1]
	case 3:
		return parts[0], parts[1], parts[2]
	default:
		return strings.Join(parts[:n-2], ":"), parts[n-2], parts[n-1]
	}
}

// portRange parses a port or a range of ports such as 8000-8010.
func portRange(s string) (start, end uint64, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if start, err = strconv.ParseUint(a, 10, 16); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return start, start, nil
	}
	if end, err = strconv.ParseUint(b, 10, 16); err != nil {
		return 0, 0, err
	}
	if end < start {
		return 0, 0, fmt.Errorf("invalid range specified for port: %s", s)
	}
	return start, end, nil
}

// hostPort writes an address and a port as docker's ps and port do.
func hostPort(ip netip.Addr, port string) string {
	if !ip.IsValid() {
		return net.JoinHostPort("", port)
	}
	return net.JoinHostPort(ip.String(), port)
}
