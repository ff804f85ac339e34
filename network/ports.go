package network

import (
	"net/netip"

	"gantry/errdefs"
	"gantry/network/publish"
)

func (p PortBinding) validate() error {
	switch p.Proto {
	case "", "tcp", "udp", "sctp":
	default:
		return errdefs.New(errdefs.InvalidParameter, "invalid proto: %s", p.Proto)
	}
	if p.ContainerPort == 0 {
		return errdefs.New(errdefs.InvalidParameter, "invalid container port: 0")
	}
	if p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort {
		return errdefs.New(errdefs.InvalidParameter, "invalid range of host ports: %d-%d", p.HostPort, p.HostPortEnd)
	}
	return nil
}

// publish opens the ports that the sandbox asked for on its gateway endpoint; without one (all networks are internal)
// none is open, as with Docker.
func (s *Service) publish(sb *sandbox, undo *undoStack) error {
	e := sb.gateway()
	if e == nil || len(sb.Ports) == 0 {
		return nil
	}
	s.mu.Lock()
	n := s.networks[e.NetworkID]
	s.mu.Unlock()
	var open []openPort
	for _, want := range sb.Ports {
		h, target, err := s.hold(want, n, e)
		if err != nil {
			kind := errdefs.KindOf(err)
			if kind == errdefs.Conflict {
				kind = errdefs.Internal // as Docker: 500
			}
			return errdefs.New(kind, "driver failed programming external connectivity on endpoint %s (%s): %w", sb.Name, e.EndpointID, err)
		}
		sb.held = append(sb.held, h)
		for _, host := range h.Hosts {
			open = append(open, openPort{
				Published: Published{Proto: h.Proto, ContainerPort: want.ContainerPort, HostAddr: host, HostPort: h.Port},
				Target:    target,
			})
		}
	}
	s.mu.Lock()
	sb.Open = open
	s.mu.Unlock()
	return s.redirect(sb, undo)
}

// hold takes the host's port for one binding.
func (s *Service) hold(want PortBinding, n *network, e *Endpoint) (*publish.Held, netip.AddrPort, error) {
	r := publish.Request{Proto: want.Proto, First: want.HostPort, Last: want.HostPortEnd}
	if r.Proto == "" {
		r.Proto = "tcp"
	}
	host := want.HostAddr
	if !host.IsValid() {
		host = n.binding
	}
	if host.IsValid() {
		host = host.Unmap()
		r.Hosts = []netip.Addr{host}
	} else {
		r.Hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	r.Target = netip.AddrPortFrom(e.IPv4.Addr(), want.ContainerPort)
	if !e.IPv4.IsValid() || host.Is6() && e.IPv6.IsValid() {
		r.Target = netip.AddrPortFrom(e.IPv6.Addr(), want.ContainerPort)
	}
	h, err := s.ports.Hold(r)
	return h, r.Target, err
}

// redirect tells the firewall of the sandbox's ports.
func (s *Service) redirect(sb *sandbox, undo *undoStack) error {
	if s.fw == nil {
		return nil
	}
	rules := sb.rules()
	if err := s.fw.Publish(rules); err != nil {
		return err
	}
	undo.add(func() error { return s.fw.Unpublish(rules) })
	return nil
}

// unpublish closes all ports of the sandbox.
func (s *Service) unpublish(sb *sandbox) error {
	var err error
	if s.fw != nil {
		err = s.fw.Unpublish(sb.rules())
	}
	for _, h := range sb.held {
		h.Close()
	}
	sb.held = nil
	s.mu.Lock()
	sb.Open = nil
	s.mu.Unlock()
	return err
}
