package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"gantry/db"
	"gantry/errdefs"
	"gantry/linux/netns"
	"gantry/network/bridge"
	"gantry/network/ipam"
)

// Join gives a sandbox its namespace with all its endpoints and published ports.
func (s *Service) Join(ctx context.Context, c SandboxConfig) (_ *Namespace, err error) {
	nets, err := s.enter(c)
	if err != nil {
		return nil, err
	}
	sb := &sandbox{sandboxRecord: sandboxRecord{
		ID: c.ID, Name: c.Name, Ports: slices.Clone(c.Ports), DNS: c.DNS, ExtraHosts: c.ExtraHosts,
	}}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	var undo undoStack
	undo.add(func() error { s.exit(nets); return nil })
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	s.mu.Lock()
	if s.sandboxes[c.ID] != nil {
		err = errdefs.New(errdefs.Conflict, "sandbox %s has joined its networks already", c.ID)
	} else {
		s.sandboxes[c.ID] = sb
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	undo.add(func() error { s.forget(sb); return nil })

	if nets[0].Driver == Host {
		sb.Endpoints = []Endpoint{{NetworkID: nets[0].ID, NetworkName: nets[0].Name, EndpointID: newID(), DriverOpts: c.Endpoints[0].DriverOpts}}
	} else if err := s.furnish(ctx, sb, nets, c.Endpoints, &undo); err != nil {
		return nil, err
	}
	if err := s.save(sb); err != nil {
		return nil, err
	}
	result := &Namespace{Endpoints: slices.Clone(sb.Endpoints)}
	if sb.ns != nil {
		if result.File, err = netns.Dup(sb.ns); err != nil {
			return nil, errors.Join(err, s.erase(sb.ID))
		}
	}
	for _, p := range sb.Open {
		result.Ports = append(result.Ports, p.Published)
	}
	if sb.resolver != nil {
		result.Resolver = resolverAddr()
	}
	for _, n := range nets {
		s.publishEvent("connect", n, sb.ID)
	}
	return result, nil
}

// furnish gives the sandbox a namespace and everything in it.
func (s *Service) furnish(ctx context.Context, sb *sandbox, nets []*network, configs []EndpointConfig, undo *undoStack) error {
	var first *network
	if nets[0].isDefault() && plain(configs[0]) {
		first = nets[0]
	}
	r, err := s.pool.take(first)
	if err != nil {
		return err
	}
	sb.ns = r.ns
	undo.add(func() error { sb.letGo(); return nil })
	for i, n := range nets {
		if n.device == nil {
			s.add(sb, Endpoint{NetworkID: n.ID, NetworkName: n.Name, EndpointID: newID()})
			continue
		}
		if i == 0 && r.endpoint != nil {
			undo.add(func() error { s.release(n, *r.endpoint); return nil })
			s.add(sb, describe(*r.endpoint, sb, configs[0]))
		} else {
			e, err := s.attach(n, sb.ns, configs[i], sb.interfaceName(), len(nets) == 1)
			if err != nil {
				return fmt.Errorf("attach to network %s: %w", n.Name, err)
			}
			undo.add(func() error { s.release(n, e); return nil })
			s.add(sb, describe(e, sb, configs[i]))
		}
		s.announce(sb, n)
		undo.add(func() error { n.zone.Remove(sb.ID); return nil })
	}
	if len(nets) > 1 {
		if err := s.route(sb); err != nil {
			return err
		}
	}
	if err := s.publish(sb, undo); err != nil {
		return err
	}
	return s.resolve(sb)
}

// plain reports whether a ready namespace will do: nothing about its device was asked for.
func plain(c EndpointConfig) bool {
	return !c.IPv4.IsValid() && !c.IPv6.IsValid() && c.MAC == ""
}

// enter finds the networks, checks what is asked of each and counts an endpoint on each, so that none is removed.
func (s *Service) enter(c SandboxConfig) ([]*network, error) {
	if c.ID == "" || len(c.Endpoints) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "a sandbox needs an ID and at least one network")
	}
	for _, p := range c.Ports {
		if err := p.validate(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var nets []*network
	for _, e := range c.Endpoints {
		n, err := s.find(e.Network)
		if err != nil {
			return nil, err
		}
		if len(c.Endpoints) > 1 && n.device == nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "container cannot be connected to network %s and to others: it stands alone", n.Name)
		}
		if slices.Contains(nets, n) {
			return nil, errdefs.New(errdefs.Forbidden, "endpoint with name %s already exists in network %s", c.Name, n.Name)
		}
		if err := n.admit(e); err != nil {
			return nil, err
		}
		nets = append(nets, n)
	}
	for _, n := range nets {
		n.users++
	}
	return nets, nil
}

func (s *Service) exit(nets []*network) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nets {
		n.users--
	}
}

// forget takes the sandbox out of the list.
func (s *Service) forget(sb *sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb.left = true
	delete(s.sandboxes, sb.ID)
}

// add appends an endpoint.
func (s *Service) add(sb *sandbox, e Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb.Endpoints = append(sb.Endpoints, e)
}

// admit checks what is asked of an endpoint before anything is done.
func (n *network) admit(c EndpointConfig) error {
	if n.Driver == Bridge && n.device == nil {
		return errdefs.New(errdefs.Unavailable, "network %s could not be set up when the daemon started: see its log", n.Name)
	}
	if c.MAC != "" {
		if mac, err := net.ParseMAC(c.MAC); err != nil || len(mac) != 6 {
			return errdefs.New(errdefs.InvalidParameter, "invalid MAC address: %s", c.MAC)
		}
	}
	if n.predefined() && len(c.Aliases) > 0 {
		return errdefs.New(errdefs.InvalidParameter, "network-scoped aliases are only supported for user-defined networks")
	}
	for _, a := range []netip.Addr{c.IPv4, c.IPv6} {
		if !a.IsValid() {
			continue
		}
		if n.predefined() {
			return errdefs.New(errdefs.InvalidParameter, "user specified IP address is supported on user defined networks only")
		}
		if n.Auto {
			return errdefs.New(errdefs.InvalidParameter, "user specified IP address is supported only when connecting to networks with user configured subnets")
		}
		if addrs := n.addresses(a); addrs == nil || !addrs.Subnet().Contains(a) {
			return errdefs.New(errdefs.InvalidParameter, "no configured subnet contains IP address %s", a)
		}
	}
	return nil
}

// attach gives the namespace a device on the network.
func (s *Service) attach(n *network, ns *os.File, c EndpointConfig, iface string, route bool) (_ Endpoint, err error) {
	id := newID()
	e := Endpoint{
		NetworkID: n.ID, NetworkName: n.Name, EndpointID: id, Interface: iface, HostLink: "veth" + id[:7],
		Gateway: n.gateway4, Gateway6: n.gateway6, Static4: c.IPv4, Static6: c.IPv6, StaticMAC: c.MAC,
	}
	s.mu.Lock()
	s.links[e.HostLink] = struct{}{}
	s.mu.Unlock()
	defer func() {
		if err != nil {
			s.release(n, e)
		}
	}()
	if e.IPv4, err = n.allocate(c.IPv4, false); err != nil {
		return e, err
	}
	if e.IPv6, err = n.allocate(c.IPv6, true); err != nil {
		return e, err
	}
	p := bridge.Port{HostLink: e.HostLink, Interface: iface, IPv4: e.IPv4, IPv6: e.IPv6}
	switch {
	case c.MAC != "":
		if p.MAC, err = net.ParseMAC(c.MAC); err != nil {
			return e, errdefs.New(errdefs.InvalidParameter, "invalid MAC address: %s", c.MAC)
		}
	case e.IPv4.IsValid():
		p.MAC = bridge.MAC(e.IPv4.Addr())
	default:
		p.MAC = bridge.MAC6(e.IPv6.Addr())
	}
	e.MAC = p.MAC.String()
	if route {
		p.Gateway, p.Gateway6 = e.Gateway, e.Gateway6
	}
	return e, n.device.Attach(s.nl, ns, p)
}

// allocate takes the address asked for, or any; zero where the network does not have the family.
func (n *network) allocate(want netip.Addr, six bool) (netip.Prefix, error) {
	addrs := n.v4
	if six {
		addrs = n.v6
	}
	if addrs == nil {
		return netip.Prefix{}, nil
	}
	a := want
	var err error
	if a.IsValid() {
		err = addrs.Reserve(a)
	} else {
		a, err = addrs.Allocate()
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, addrs.Subnet().Bits()), nil
}

// release frees an endpoint's addresses. Its device goes with the namespace.
func (s *Service) release(n *network, e Endpoint) {
	if n.v4 != nil && e.IPv4.IsValid() {
		n.v4.Release(e.IPv4.Addr())
	}
	if n.v6 != nil && e.IPv6.IsValid() {
		n.v6.Release(e.IPv6.Addr())
	}
	s.mu.Lock()
	delete(s.links, e.HostLink)
	s.mu.Unlock()
}

// describe adds to an endpoint what was asked for and the names by which it is found.
func describe(e Endpoint, sb *sandbox, c EndpointConfig) Endpoint {
	e.Aliases, e.Links, e.DriverOpts, e.GatewayPriority = c.Aliases, c.Links, c.DriverOpts, c.GatewayPriority
	e.DNSNames = names(sb, c.Aliases, c.DNSNames)
	return e
}

func names(sb *sandbox, more ...[]string) []string {
	all := []string{sb.Name, short(sb.ID)}
	for _, m := range more {
		all = append(all, m...)
	}
	var unique []string
	for _, n := range all {
		if n != "" && !slices.Contains(unique, n) {
			unique = append(unique, n)
		}
	}
	return unique
}

func short(id string) string { return id[:min(12, len(id))] }

// announce makes the endpoint's names resolve on its network, and its links for itself.
func (s *Service) announce(sb *sandbox, n *network) {
	if e := sb.endpoint(n.ID); e != nil && !n.predefined() {
		n.zone.Add(sb.ID, e.DNSNames, e.IPv4.Addr(), e.IPv6.Addr())
	}
}

// route gives the default route to the endpoint that should have it.
func (s *Service) route(sb *sandbox) error {
	e := sb.gateway()
	if e == nil {
		return bridge.Route(sb.ns, "")
	}
	return bridge.Route(sb.ns, e.Interface, e.Gateway, e.Gateway6)
}

// save writes the sandbox's record; the caller holds its mu.
func (s *Service) save(sb *sandbox) error {
	return s.o.DB.Update(func(tx *db.Tx) error { return sandboxes.Put(tx, sb.ID, sb.sandboxRecord) })
}

// erase deletes the sandbox's record.
func (s *Service) erase(id string) error {
	return s.o.DB.Update(func(tx *db.Tx) error { return sandboxes.Delete(tx, id) })
}

// Leave takes everything back that Join and Connect gave. It is idempotent.
func (s *Service) Leave(ctx context.Context, sandboxID string) error {
	s.mu.Lock()
	sb := s.sandboxes[sandboxID]
	s.mu.Unlock()
	if sb == nil {
		return nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.left {
		return nil
	}
	return s.leave(sb)
}

// leave takes a sandbox off all networks; the caller holds its mu. Devices are not deleted but go with the namespace,
// which ends when its last process and descriptor do.
func (s *Service) leave(sb *sandbox) error {
	var err error
	if s.fw != nil {
		err = s.fw.Unpublish(sb.rules())
	}
	sb.letGo()
	s.mu.Lock()
	var nets []*network
	for _, e := range sb.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			nets = append(nets, n)
		}
	}
	s.mu.Unlock()
	err = errors.Join(err, s.erase(sb.ID))
	for _, n := range nets {
		n.zone.Remove(sb.ID)
		s.release(n, *sb.endpoint(n.ID))
		s.publishEvent("disconnect", n, sb.ID)
	}
	s.forget(sb)
	s.exit(nets)
	return err
}

// addresses returns the range of the address's family; nil when the network does not have it.
func (n *network) addresses(a netip.Addr) *ipam.Range {
	if a.Is4() {
		return n.v4
	}
	return n.v6
}
