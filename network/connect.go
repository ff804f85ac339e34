package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"gantry/errdefs"
	"gantry/network/bridge"
)

// Connect attaches a running sandbox to a further network. For one that does not run (netns nil and never joined) it
// only checks the request and returns an endpoint without addresses.
func (s *Service) Connect(ctx context.Context, sandboxID string, netns *os.File, c EndpointConfig) (_ Endpoint, err error) {
	s.mu.Lock()
	n, err := s.find(c.Network)
	if err == nil {
		err = n.admit(c)
	}
	sb := s.sandboxes[sandboxID]
	if err == nil && sb != nil {
		n.users++
	}
	s.mu.Unlock()
	if err != nil {
		return Endpoint{}, err
	}
	if sb == nil {
		return Endpoint{
			NetworkID: n.ID, NetworkName: n.Name, Aliases: c.Aliases, Links: c.Links, DriverOpts: c.DriverOpts,
			GatewayPriority: c.GatewayPriority, Static4: c.IPv4, Static6: c.IPv6, StaticMAC: c.MAC,
		}, nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	var undo undoStack
	undo.add(func() error { s.exit([]*network{n}); return nil })
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	if err := s.connectable(sb, n); err != nil {
		return Endpoint{}, err
	}
	before := sb.gateway()
	e, err := s.attach(n, sb.ns, c, sb.interfaceName(), false)
	if err != nil {
		return Endpoint{}, fmt.Errorf("attach to network %s: %w", n.Name, err)
	}
	undo.add(func() error { defer s.release(n, e); return bridge.Detach(s.nl, e.HostLink) })
	e = describe(e, sb, c)
	var was string
	if before != nil {
		was = before.EndpointID
	}
	s.add(sb, e)
	undo.add(func() error { s.drop(sb, n.ID); return s.reroute(sb, e.EndpointID) })
	s.announce(sb, n)
	undo.add(func() error { n.zone.Remove(sb.ID); return nil })
	if err := s.reroute(sb, was); err != nil {
		return Endpoint{}, err
	}
	if err := s.resolve(sb); err != nil {
		return Endpoint{}, err
	}
	return e, s.save(sb)
}

func (s *Service) connectable(sb *sandbox, n *network) error {
	switch {
	case sb.left:
		return errdefs.New(errdefs.NotFound, "sandbox %s has left its networks", sb.ID)
	case sb.endpoint(n.ID) != nil:
		return errdefs.New(errdefs.Forbidden, "endpoint with name %s already exists in network %s", sb.Name, n.Name)
	case sb.ns == nil || n.Driver == Host:
		return errdefs.New(errdefs.Forbidden, "container cannot be disconnected from host network or connected to host network")
	case n.device == nil || slices.ContainsFunc(sb.Endpoints, func(e Endpoint) bool { return e.Interface == "" }):
		return errdefs.New(errdefs.Forbidden, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

// Disconnect takes a running sandbox off a network. With force it succeeds for one that is gone.
func (s *Service) Disconnect(ctx context.Context, sandboxID, networkRef string, force bool) error {
	s.mu.Lock()
	n, err := s.find(networkRef)
	sb := s.sandboxes[sandboxID]
	s.mu.Unlock()
	if err != nil {
		return err
	}
	notConnected := errdefs.New(errdefs.Forbidden, "container %s is not connected to network %s", sandboxID, n.Name)
	if sb == nil {
		if force {
			return nil
		}
		return notConnected
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	e := sb.endpoint(n.ID)
	switch {
	case e == nil && force:
		return nil
	case e == nil:
		return notConnected
	case n.Driver == Host:
		return errdefs.New(errdefs.Forbidden, "container cannot be disconnected from host network or connected to host network")
	}
	gone := *e
	gateway := ""
	if g := sb.gateway(); g != nil {
		gateway = g.EndpointID
	}
	n.zone.Remove(sb.ID)
	s.drop(sb, n.ID)
	if gone.HostLink != "" {
		err = bridge.Detach(s.nl, gone.HostLink)
	}
	s.release(n, gone)
	s.exit([]*network{n})
	return errors.Join(err, s.reroute(sb, gateway), s.resolve(sb), s.save(sb))
}

// drop takes an endpoint off the sandbox's list.
func (s *Service) drop(sb *sandbox, networkID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb.Endpoints = slices.DeleteFunc(slices.Clone(sb.Endpoints), func(e Endpoint) bool { return e.NetworkID == networkID })
}

// reroute moves default route and published ports when another endpoint than before, an endpoint's ID, is to have them.
func (s *Service) reroute(sb *sandbox, before string) error {
	now := ""
	if g := sb.gateway(); g != nil {
		now = g.EndpointID
	}
	if now == before {
		return nil
	}
	if err := s.route(sb); err != nil {
		return err
	}
	if len(sb.Ports) == 0 {
		return nil
	}
	// What was chosen freely at first stays.
	for i, p := range sb.Open {
		for j := range sb.Ports {
			want := &sb.Ports[j]
			if want.HostPort == 0 && want.ContainerPort == p.ContainerPort && (want.Proto == p.Proto || want.Proto == "" && p.Proto == "tcp") &&
				!slices.ContainsFunc(sb.Open[:i], func(o openPort) bool {
					return o.Proto == p.Proto && o.HostPort == p.HostPort && o.HostAddr == p.HostAddr
				}) {
				want.HostPort = p.HostPort
				break
			}
		}
	}
	var undo undoStack
	err := s.unpublish(sb)
	return errors.Join(err, s.publish(sb, &undo))
}

// Rename makes the sandbox resolve by a new name.
func (s *Service) Rename(ctx context.Context, sandboxID, name string) error {
	s.mu.Lock()
	sb := s.sandboxes[sandboxID]
	s.mu.Unlock()
	if sb == nil {
		return nil // names of sandboxes that do not run are the caller's
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	s.mu.Lock()
	old := sb.Name
	sb.Name = name
	sb.Endpoints = slices.Clone(sb.Endpoints)
	for i := range sb.Endpoints {
		e := &sb.Endpoints[i]
		kept := slices.DeleteFunc(slices.Clone(e.DNSNames), func(n string) bool { return n == old })
		e.DNSNames = names(sb, kept)
	}
	nets := s.networksOf(sb)
	s.mu.Unlock()
	for _, n := range nets {
		s.announce(sb, n)
	}
	return s.save(sb)
}

// networksOf returns the networks that the sandbox is on; the caller holds Service.mu.
func (s *Service) networksOf(sb *sandbox) []*network {
	var nets []*network
	for _, e := range sb.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			nets = append(nets, n)
		}
	}
	return nets
}
