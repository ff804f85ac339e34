package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gantry/db"
	"gantry/errdefs"
	"gantry/network/ipam"
)

// find returns a network by name, ID or unique prefix of an ID; the caller holds mu.
func (s *Service) find(ref string) (*network, error) {
	if n := s.networks[ref]; n != nil {
		return n, nil
	}
	var found *network
	for _, n := range s.networks {
		if n.Name == ref {
			return n, nil
		}
	}
	if ref == "default" { // Docker's word in HostConfig.NetworkMode
		return s.find(Bridge)
	}
	for id, n := range s.networks {
		if ref != "" && strings.HasPrefix(id, ref) {
			if found != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "network %s is ambiguous (%d matches found based on ID prefix)", ref, 2)
			}
			found = n
		}
	}
	if found == nil {
		return nil, errdefs.New(errdefs.NotFound, "network %s not found", ref)
	}
	return found, nil
}

// Get finds a network by name, ID or unique prefix of an ID.
func (s *Service) Get(ctx context.Context, ref string) (*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return n.clone(), nil
}

// List returns all networks, by name.
func (s *Service) List(ctx context.Context) ([]*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Network
	for _, n := range s.networks {
		all = append(all, n.clone())
	}
	slices.SortFunc(all, func(a, b *Network) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Create makes a network.
func (s *Service) Create(ctx context.Context, c CreateConfig) (_ *Network, err error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	r, err := s.plan(c)
	if err != nil {
		return nil, err
	}
	// The record comes first: whatever is cut off afterwards is completed by the next Open.
	if err := s.o.DB.Update(func(tx *db.Tx) error { return networks.Put(tx, r.ID, r) }); err != nil {
		return nil, fmt.Errorf("create network %s: %w", r.Name, err)
	}
	n, err := s.materialize(r)
	if err == nil && s.fw != nil {
		err = s.fw.SetNetwork(n.rules())
	}
	if err != nil {
		if n.device != nil {
			err = errors.Join(err, n.device.Remove(s.nl))
		}
		return nil, errors.Join(fmt.Errorf("create network %s: %w", r.Name, err), s.deleteRecord(r.ID))
	}
	s.mu.Lock()
	s.networks[n.ID] = n
	s.mu.Unlock()
	s.publishEvent("create", n, "")
	return n.clone(), ctx.Err()
}

func (s *Service) deleteRecord(id string) error {
	return s.o.DB.Update(func(tx *db.Tx) error { return networks.Delete(tx, id) })
}

// plan checks the request and completes it: an ID, a device's name, subnets, gateways.
func (s *Service) plan(c CreateConfig) (record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := record{Network: Network{
		ID: newID(), Name: c.Name, Driver: c.Driver, Created: time.Now().UTC(), Scope: "local",
		EnableIPv4: c.EnableIPv4 == nil || *c.EnableIPv4, EnableIPv6: c.EnableIPv6 != nil && *c.EnableIPv6,
		Internal: c.Internal, Attachable: c.Attachable, Options: maps.Clone(c.Options), Labels: maps.Clone(c.Labels),
		IPAM: IPAM{Driver: c.IPAM.Driver, Options: maps.Clone(c.IPAM.Options)},
	}}
	if r.Driver == "" {
		r.Driver = Bridge
	}
	if r.IPAM.Driver == "" {
		r.IPAM.Driver = "default"
	}
	if err := s.acceptable(r, c); err != nil {
		return r, err
	}
	o, err := parseOptions(r.Options, s.o)
	if err != nil {
		return r, err
	}
	if r.Device = o.device; r.Device == "" {
		r.Device = "br-" + r.ID[:12]
	}
	for _, n := range s.networks {
		if n.Device == r.Device {
			return r, errdefs.New(errdefs.Forbidden, "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name", r.ID, r.Device, n.ID, n.Device)
		}
	}
	return r, s.subnets(&r, c.IPAM.Config)
}

// acceptable refuses what does not concern addresses.
func (s *Service) acceptable(r record, c CreateConfig) error {
	switch {
	case strings.TrimSpace(r.Name) == "":
		return errdefs.New(errdefs.InvalidParameter, "invalid network name %q: name is empty", r.Name)
	case strings.ContainsAny(r.Name, "/:\x00\n"):
		return errdefs.New(errdefs.InvalidParameter, "invalid network name %q: slashes, colons and line ends are not allowed", r.Name)
	case r.Name == Bridge || r.Name == Host || r.Name == None || r.Name == "default":
		return errdefs.New(errdefs.Forbidden, "operation is not permitted on predefined %s network", r.Name)
	case c.Ingress:
		return errdefs.New(errdefs.NotImplemented, "ingress networks belong to swarm mode, which Gantry does not have")
	case !r.EnableIPv4 && !r.EnableIPv6:
		return errdefs.New(errdefs.InvalidParameter, "IPv4 or IPv6 must be enabled")
	case r.IPAM.Driver != "default":
		return errdefs.New(errdefs.NotFound, "could not find IPAM driver %s: plugin %q not found", r.IPAM.Driver, r.IPAM.Driver)
	}
	switch r.Driver {
	case Bridge:
	case Host, driverNull:
		return errdefs.New(errdefs.Forbidden, "only one instance of %q network is allowed", r.Driver)
	case "macvlan", "ipvlan", "overlay":
		return errdefs.New(errdefs.NotImplemented, "network driver %s is not there yet: use the bridge driver", r.Driver)
	default:
		return errdefs.New(errdefs.NotFound, "could not find plugin %s in v1 plugin registry: plugin %q not found", r.Driver, r.Driver)
	}
	for _, n := range s.networks {
		if n.Name == r.Name {
			return errdefs.New(errdefs.Conflict, "network with name %s already exists", r.Name)
		}
	}
	return nil
}

// subnets completes the address plan; the caller holds mu.
func (s *Service) subnets(r *record, configs []IPAMConfig) error {
	seen := map[bool]bool{} // by "is IPv4"
	for _, c := range configs {
		if !c.Subnet.IsValid() {
			if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.Aux) > 0 {
				return errdefs.New(errdefs.InvalidParameter, "invalid network config:\na gateway, ip-range or auxiliary address needs a subnet")
			}
			continue
		}
		if err := checkConfig(c); err != nil {
			return err
		}
		four := c.Subnet.Addr().Is4()
		if four && !r.EnableIPv4 || !four && !r.EnableIPv6 {
			continue // as Docker: a subnet of a family that is off is left out
		}
		if seen[four] {
			return errdefs.New(errdefs.InvalidParameter, "bridge driver doesn't support multiple subnets")
		}
		seen[four] = true
		if err := s.overlap(c.Subnet, r.ID); err != nil {
			return err
		}
		c.Aux = maps.Clone(c.Aux)
		r.IPAM.Config = append(r.IPAM.Config, c)
	}
	r.Auto = len(r.IPAM.Config) == 0
	if r.EnableIPv4 && !seen[true] {
		used, err := s.used(r.Device)
		if err != nil {
			return err
		}
		subnet, err := ipam.Free(s.o.DefaultPools, used)
		if err != nil {
			return err
		}
		r.IPAM.Config = append(r.IPAM.Config, IPAMConfig{Subnet: subnet})
	}
	if r.EnableIPv6 && !seen[false] {
		r.IPAM.Config = append(r.IPAM.Config, IPAMConfig{Subnet: local6(r.ID)})
	}
	for i := range r.IPAM.Config {
		c := &r.IPAM.Config[i]
		if !c.Gateway.IsValid() {
			gateway, err := firstFree(*c)
			if err != nil {
				return err
			}
			c.Gateway = gateway
		}
	}
	return nil
}

func checkConfig(c IPAMConfig) error {
	var problems []string
	if masked := c.Subnet.Masked(); masked != c.Subnet {
		problems = append(problems, fmt.Sprintf("invalid subnet %s: it should be %s", c.Subnet, masked))
	}
	if c.Subnet.Bits() > c.Subnet.Addr().BitLen()-2 {
		problems = append(problems, fmt.Sprintf("invalid subnet %s: it has no room for a gateway and a container", c.Subnet))
	}
	if c.IPRange.IsValid() {
		switch masked := c.IPRange.Masked(); {
		case masked != c.IPRange:
			problems = append(problems, fmt.Sprintf("invalid ip-range %s: it should be %s", c.IPRange, masked))
		case c.IPRange.Addr().Is4() == c.Subnet.Addr().Is4() && c.IPRange.Bits() < c.Subnet.Bits():
			problems = append(problems, fmt.Sprintf("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", c.IPRange, c.Subnet))
		case !c.Subnet.Contains(c.IPRange.Addr()):
			problems = append(problems, fmt.Sprintf("invalid ip-range %s: parent subnet %s doesn't contain ip-range", c.IPRange, c.Subnet))
		}
	}
	if c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway) {
		problems = append(problems, fmt.Sprintf("invalid gateway %s: parent subnet %s doesn't contain this address", c.Gateway, c.Subnet))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Aux)) {
		if !c.Subnet.Contains(c.Aux[name]) {
			problems = append(problems, fmt.Sprintf("invalid auxiliary address %s: parent subnet %s doesn't contain this address", c.Aux[name], c.Subnet))
		}
	}
	if len(problems) > 0 {
		return errdefs.New(errdefs.InvalidParameter, "invalid network config:\n%s", strings.Join(problems, "\n"))
	}
	return nil
}

// firstFree returns the subnet's first address that is no auxiliary one.
func firstFree(c IPAMConfig) (netip.Addr, error) {
	r := ipam.NewRange(c.Subnet, netip.Prefix{})
	for _, a := range c.Aux {
		_ = r.Reserve(a) // twice is once
	}
	return r.Allocate()
}

// local6 makes a unique local subnet (RFC 4193) from a random ID.
func local6(id string) netip.Prefix {
	b := [16]byte{0: 0xfd}
	for i := range 5 {
		_, _ = fmt.Sscanf(id[2*i:2*i+2], "%02x", &b[i+1]) // hex digits
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// Remove removes a network without endpoints.
func (s *Service) Remove(ctx context.Context, ref string) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	s.mu.Lock()
	n, err := s.find(ref)
	switch {
	case err != nil:
	case n.predefined():
		err = errdefs.New(errdefs.Forbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	case n.users > 0:
		err = errdefs.New(errdefs.Forbidden, "error while removing network: network %s has active endpoints%s", n.Name, s.who(n))
	default:
		delete(s.networks, n.ID) // nobody can join any more
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.dismantle(n); err != nil {
		s.mu.Lock()
		s.networks[n.ID] = n
		s.mu.Unlock()
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	s.publishEvent("destroy", n, "")
	return ctx.Err()
}

func (s *Service) dismantle(n *network) error {
	if n.device != nil {
		if err := n.device.Remove(s.nl); err != nil {
			return err
		}
	}
	if s.fw != nil {
		if err := s.fw.RemoveNetwork(n.Device); err != nil {
			return err
		}
	}
	return s.deleteRecord(n.ID)
}

// who lists the sandboxes on a network, in Docker's form; the caller holds mu.
func (s *Service) who(n *network) string {
	var all []string
	for _, sb := range s.sandboxes {
		if sb.endpoint(n.ID) != nil {
			all = append(all, fmt.Sprintf("name:%q id:%q", sb.Name, short(sb.ID)))
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return " (" + strings.Join(all, ", ") + ")"
}

// RehearsePrune returns the names of the networks that Prune would remove. It removes nothing.
func (s *Service) RehearsePrune(match func(*Network) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, n := range s.networks {
		if !n.predefined() && n.users == 0 && match(&n.Network) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Prune removes the user's networks that have no endpoints and for which match (nil: any) holds; it returns their names.
func (s *Service) Prune(ctx context.Context, match func(*Network) bool) ([]string, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	var errs []error
	for _, n := range all {
		if n.Name == Bridge || n.Name == Host || n.Name == None || match != nil && !match(n) {
			continue
		}
		switch err := s.Remove(ctx, n.ID); {
		case errdefs.Is(err, errdefs.Forbidden), errdefs.Is(err, errdefs.NotFound): // in use, or gone
		case err != nil:
			errs = append(errs, err)
		default:
			names = append(names, n.Name)
		}
	}
	return names, errors.Join(errs...)
}
